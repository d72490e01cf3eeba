"""Making a dataset: plan, choose an executor, run what remains, write the whole manifest at the end.

Running it again with the same settings resumes: committed shards are kept, the others are made. With more samples the
dataset grows. With `part`, only every n-th shard is this run's, for array jobs of a scheduler.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.bank import Bank, open_bank
from pipeline.config import GenerateConfig
from pipeline.description import INFO, DatasetInfo, dataset_classes, recipe_digest
from pipeline.manifest import committed_shards
from pipeline.spec import check_bank
from pipeline.store import Location, Store, open_store, relative_place
from pipeline.versions import software
from workers.attempt import ShardJob
from workers.compaction import finish
from workers.estimate import check_room, crowding_here, estimate_cost
from workers.execution import ALONE, How, check_all_made, run_jobs, without_quarantine
from workers.garbage import remove_garbage
from workers.growth import begin, planned
from workers.ledger import RunFacts
from workers.notes import notes
from workers.plan import WHOLE_PLAN, Plan, Slice
from workers.shard_task import choose_device
from workers.watch import watched

GARBAGE_MINUTES = 60.0  # what rested for so long belongs to no attempt: a shard takes minutes at most


@dataclass(frozen=True)
class Summary:
    """What a run did. `committed` counts the samples that the dataset has now, whoever made them.

    `estimate` tells what the run was to make: samples, bytes, hours, workers, free_bytes; None when all was there.
    """

    samples: int
    made: int
    seconds: float
    complete: bool
    committed: int = 0
    estimate: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def line(self, out: Location, part: Slice = WHOLE_PLAN) -> str:
        """For people."""
        if part == WHOLE_PLAN:
            return f"{out}: {self.samples} samples, {self.made} made in this run"
        rest = "it is complete" if self.complete else "the rest is for the other slices"
        return (
            f"{out}: slice {part.number}/{part.of} made {self.made} samples in this run; the dataset has "
            f"{self.committed} of {self.samples}, {rest}"
        )


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
    store = open_store(out)
    with watched([store, open_store(bank_place)], log):
        return _generate(open_bank(bank_place), store, config, how, device, part, dry_run, log)


def _generate(
    bank: Bank,
    store: Store,
    config: GenerateConfig,
    how: How,
    device: str,
    part: Slice,
    dry_run: bool,
    log: Callable[[str], None],
) -> Summary:
    started = time.monotonic()
    if how.ray is None:
        choose_device(device)  # there, or an InputError; the nodes of a cluster have devices of their own
    check_bank(bank, config)
    for note in notes(bank, config):
        log(note)
    info = planned(store, new_info(store, bank, config))
    plan = info.plan
    mine = part.of_shards(range(plan.shards))
    committed = committed_shards(store)
    there = plan.samples_in(shard for shard in committed if shard < plan.shards)
    missing = sorted(set(mine) - set(committed))
    shards = without_quarantine(store, missing, how, log)
    made, begun, estimate = 0, False, None
    if shards:
        with contextlib.closing(how.executor(len(shards))) as executor:  # before anything is written
            if not dry_run and store.exists(INFO):
                remove_garbage(store, GARBAGE_MINUTES)  # of killed runs, which could keep a full disk full
            workers = min(executor.slots(), len(shards))
            crowding = crowding_here(workers) if how.ray is None else 1.0
            cost = estimate_cost(bank, config, plan.samples_in(shards))
            estimate = check_room(cost, store, workers, log, crowding)
            if dry_run:
                return Summary(config.samples, 0, time.monotonic() - started, False, there, estimate)
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
        return Summary(config.samples, 0, time.monotonic() - started, there == config.samples, there)
    if not begun:
        begin(store, info)
    complete = finish(store, plan, anew=bool(made))
    check_all_made(store, missing)
    there = config.samples if complete else plan.samples_in(s for s in committed_shards(store) if s < plan.shards)
    return Summary(config.samples, made, time.monotonic() - started, complete, there, estimate)


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
