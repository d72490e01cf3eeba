"""Making a dataset: plan, choose an executor, run what remains, write the whole manifest at the end.

Running it again with the same settings resumes: committed shards are kept, the others are made. With more samples the
dataset grows. With `part`, only every n-th shard is this run's, for array jobs of a scheduler.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from pipeline.bank import Bank, open_bank
from pipeline.catalog import compact
from pipeline.config import GenerateConfig
from pipeline.description import INFO, DatasetInfo, dataset_classes, recipe_digest
from pipeline.files import writing_to
from pipeline.manifest import WHOLE, commit_times, committed_shards, open_whole
from pipeline.spec import check_bank
from pipeline.store import Location, Store, open_store, relative_place
from pipeline.versions import software
from workers.attempt import ShardJob
from workers.estimate import check_room, estimate_cost
from workers.execution import ALONE, How, check_all_made, run_jobs, without_quarantine
from workers.failure import RESUME
from workers.garbage import remove_garbage
from workers.growth import begin, planned
from workers.ledger import RunFacts
from workers.notes import notes
from workers.plan import WHOLE_PLAN, Plan, Slice
from workers.shard_task import choose_device

GARBAGE_MINUTES = 60.0  # what rested for so long belongs to no attempt: a shard takes minutes at most


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    samples: int
    made: int
    seconds: float
    complete: bool

    def to_json(self) -> dict[str, float]:
        """For `--json`."""
        return asdict(self)


def generate(
    bank_place: Location,
    out: Location,
    config: GenerateConfig,
    *,
    how: How = ALONE,
    device: str = "auto",
    part: Slice = WHOLE_PLAN,
    dry_run: bool = False,
    log: Callable[[str], None] = print,
) -> Summary:
    """Generate, resume or grow the dataset `out` from a bank."""
    started = time.monotonic()
    bank, store = open_bank(bank_place), open_store(out)
    if how.ray is None:
        choose_device(device)  # there, or an InputError; the nodes of a cluster have devices of their own
    check_bank(bank, config)
    for note in notes(bank, config):
        log(note)
    info = planned(store, new_info(store, bank, config))
    plan = info.plan
    mine = part.of_shards(range(plan.shards))
    missing = sorted(set(mine) - set(committed_shards(store)))
    shards = without_quarantine(store, missing, how, log)
    made, begun = 0, False
    if shards:
        with contextlib.closing(how.executor(len(shards))) as executor:  # before anything is written
            if not dry_run and store.exists(INFO):
                remove_garbage(store, GARBAGE_MINUTES)  # of killed runs, which could keep a full disk full
            check_room(estimate_cost(bank, config, plan.samples_in(shards)), store, executor.slots(), log)
            if dry_run:
                return Summary(config.samples, 0, time.monotonic() - started, False)
            begin(store, info)
            begun = True
            if len(shards) < len(mine):
                log(f"resuming: {len(mine) - len(missing)} of {len(mine)} shards are there")
            jobs = [job_for(store, bank, info, shard, device) for shard in shards]
            facts = RunFacts(info.config_digest, bank.place, how.name())
            total = plan.samples_in(mine)
            samples = (total, total - plan.samples_in(missing))
            made = run_jobs(store, jobs, executor, facts, samples, log).made_samples
    if dry_run:
        return Summary(config.samples, 0, time.monotonic() - started, not missing)
    if not begun:
        begin(store, info)
    complete = finish(store, plan, anew=bool(made))
    check_all_made(store, missing)
    return Summary(config.samples, made, time.monotonic() - started, complete)


def finish(store: Store, plan: Plan, *, anew: bool) -> bool:
    """Write the whole manifest once every shard is committed, `anew` also where there is one; whether all are."""
    before = commit_times(store)
    planned = range(plan.shards)
    if not before.keys() >= set(planned):
        return False
    with writing_to(store.url, RESUME):
        if anew or not store.exists(WHOLE) or set(open_whole(store).parts()) != set(planned):
            compact(store, planned)
            while (now := commit_times(store)) != before:  # repaired meanwhile, or grown: readers find the rest
                before = now
                compact(store, planned)
    return True


def new_info(store: Store, bank: Bank, config: GenerateConfig) -> DatasetInfo:
    """The description of a dataset that is made in one go."""
    return DatasetInfo(
        config=config,
        config_digest=recipe_digest(config),
        bank=relative_place(open_store(bank.place), store),
        bank_fingerprint=bank.fingerprint,
        spacing_mm=bank.spacing_mm,
        classes=dataset_classes(config.organs),
        shards=Plan(config.samples, config.shard_samples).shards,
        software=software(),
    )


def job_for(store: Store, bank: Bank, info: DatasetInfo, shard: int, device: str = "auto", run: str = "") -> ShardJob:
    """The task of one shard."""
    place = store.url if store.folder is None else str(store.folder.resolve())
    return ShardJob(place, bank.place, bank.fingerprint, info.config, shard, device, info.grown, run)
