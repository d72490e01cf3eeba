"""`phantumor convert`: the samples of a dataset, kept in another way. Same rows, same pixels, bytes as generated anew.

Shard by shard, so it resumes and runs in parallel as making a dataset does. A source that is still being made gives
what it has committed; run again, the conversion goes on with the rest.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch

from pipeline.bank import Bank
from pipeline.catalog import Dataset, Home, bank_of
from pipeline.config import GenerateConfig
from pipeline.description import INFO, DatasetInfo, check_same, info_bytes, read_info, recipe_digest
from pipeline.errors import InputError
from pipeline.manifest import Part, committed_shards, open_part
from pipeline.parts import Parts
from pipeline.reader import SampleReader, located
from pipeline.shard import DTYPES, array_crc32c, encode_sample
from pipeline.spec import SampleSpec
from pipeline.store import Location, Store, absolute, open_store, relative_place
from workers.attempt import Attempt, ShardJob, ShardReport, attempt_at, is_made, opened_bank, opened_store
from workers.compaction import finish
from workers.estimate import ROW_BYTES, check_room, crowding_here, probed
from workers.execution import ALONE, How, check_all_made, run_jobs, without_quarantine
from workers.generate import Summary
from workers.growth import begin
from workers.kept import Arrays, kept_arrays
from workers.ledger import RunFacts
from workers.stages import Clock, ShardSink
from workers.watch import watched

Kind = Literal["full", "delta", "recipe"]


@dataclass(frozen=True)
class ConvertJob(ShardJob):
    """A shard to be kept in another way; `config` is that of the new dataset."""

    source: str = ""


# ---- one shard ----


def convert_shard(job: ShardJob) -> ShardReport:
    """Read one committed shard of the source and commit it to the new dataset, unless it is there. Stateless.

    InputError when the source is damaged, or when its samples cannot be kept in the way asked for.
    """
    made = is_made(job)
    if made is not None:
        return made
    torch.set_num_threads(1)  # one core a worker, as where shards are made
    with attempt_at(job) as attempt:
        rows, part = _write(attempt, _SourceShard(job))
        attempt.commit(part, rows)
    return attempt.report(part)


class _SourceShard:
    """A committed shard of the source: its rows, and its samples with every pixel checked."""

    def __init__(self, job: ShardJob) -> None:
        if not isinstance(job, ConvertJob):
            raise TypeError(f"{type(job).__name__} tells no source to convert from")
        self._config = job.config
        self._home = _home_of(job)
        store = self._home.store
        file = open_part(store, job.shard)
        self.part = file.part()
        table = file.columns()
        self.rows: list[dict[str, Any]] = table.to_pylist()
        if table["index"].to_pylist() != list(job.samples):
            raise InputError(f"{self._broken(job.shard)} its part file does not hold the rows of its samples")
        self._dataset = Dataset(store, self._home.info, (self._home,), [file], Parts.of([self.part]))
        self._located = located(self._dataset, table)
        self._reader = SampleReader(self._dataset, self._located)

    def _broken(self, shard: int) -> str:
        url = self._home.store.url
        return f"{url}: shard {shard:06d}: `phantumor verify {url} --repair` makes it again, then run this again:"

    def read(self, k: int) -> Arrays:
        """Image and label of the k-th sample, new arrays; InputError when they are not those of its row."""
        row = self.rows[k]
        arrays: Arrays = {name: np.empty(row["shape_vox"], dtype) for name, dtype in DTYPES.items()}
        self._reader.read(k, arrays["image"], arrays["label"])
        for name, array in arrays.items():
            if array_crc32c(array) != row[f"{name}_crc32c"]:
                what = f"the {name} of sample {row['index']} does not have the crc32c in the manifest"
                raise InputError(f"{self._broken(row['shard'])} {what}")
        return arrays

    def kept(self, k: int, arrays: Arrays) -> Arrays:
        """What the new dataset keeps of the k-th sample."""
        if self._config.store != "delta":
            return arrays
        spec = SampleSpec.model_validate_json(self.rows[k]["spec"])
        return kept_arrays(self._config, self._home.bank.load(spec.case_id), spec, arrays)

    def check_recipe(self) -> None:
        """InputError when this phantumor does not make the shard's first sample as it was made, to the last bit.

        A recipe is worth nothing where bank and software no longer give its sample.
        """
        info = self._home.info.model_copy(update={"config": self._config})
        dataset = replace(self._dataset, info=info, homes=(replace(self._home, info=info),))
        shape = self._located.shape_of(0)
        try:
            SampleReader(dataset, self._located).read(0, np.empty(shape, np.int16), np.empty(shape, np.uint8))
        except InputError as error:
            raise InputError(f"no recipe of this dataset can be kept, as samples made again differ: {error}") from error

    def close(self) -> None:
        self._reader.close()


def _home_of(job: ConvertJob) -> Home:
    """The source of a job; InputError when another dataset lies there now."""
    store = opened_store(job.source)
    info = read_info(store)
    if recipe_digest(_kept_as(info.config, job.config.store)) != recipe_digest(job.config):
        raise InputError(f"{store.url} was replaced while it was being converted; convert it into a new --out")
    opened_bank(job.bank, job.bank_fingerprint)
    return _home(job.source, info_bytes(info))


@lru_cache(maxsize=2)
def _home(place: str, document: bytes) -> Home:
    """Kept from shard to shard, with its bank."""
    return Home(opened_store(place), DatasetInfo.model_validate_json(document))


def _write(attempt: Attempt, source: _SourceShard) -> tuple[list[dict[str, Any]], Part]:
    clock, job = Clock(), attempt.job
    if job.config.store == "recipe":
        with clock.measure("synthesise"):
            source.check_recipe()
    with ShardSink(attempt.dataset, attempt.group, len(job.samples), job.config, clock) as sink:
        for k, row in enumerate(source.rows):
            with clock.measure("read"):
                arrays = source.read(k)
            sink.put(row, partial(source.kept, k, arrays))
        rows, files = sink.finish()
    source.close()
    part = Part(
        shard=job.shard,
        attempt=attempt.name,
        files=tuple(files),
        config_digest=recipe_digest(job.config),
        timings_s=clock.seconds(),
        host=socket.gethostname(),
        versions={**source.part.versions, "pid": str(os.getpid())},  # what made the pixels, which `verify` asks for
    )
    return rows, part


# ---- a dataset ----


def convert(
    place: Location, out: Location, kind: Kind, *, how: How = ALONE, log: Callable[[str], None] = print
) -> Summary:
    """Keep the samples of a dataset as `kind` in the dataset `out`, or resume that; follows a source that has grown.

    InputError for views, for a source that is of the kind already or is damaged, and where its bank is not there.
    PhantumorError when shards had to be given up.
    """
    source, target = open_store(place), open_store(out)
    with watched([target, source], log):
        return _convert(source, target, kind, how, log)


def _convert(source: Store, target: Store, kind: Kind, how: How, log: Callable[[str], None]) -> Summary:
    started = time.monotonic()
    info = read_info(source)
    _check_convertible(source, info, kind)
    bank = bank_of(source, info)
    new = _planned(target, _converted(info, kind, bank, target))
    plan, there = new.plan, committed_shards(source)
    if not there:
        raise InputError(f"{source.url} holds no committed shard yet; run its `phantumor generate` command first")
    missing = sorted(set(there) - set(committed_shards(target)))
    jobs = [_job(source, target, bank, new, shard) for shard in without_quarantine(target, missing, how, log)]
    made, estimate = 0, None
    if jobs:
        with contextlib.closing(how.executor(len(jobs), convert_shard)) as executor:  # before anything is written
            estimate = _check_cost(jobs, target, min(executor.slots(), len(jobs)), how, log)
            begin(target, new)
            facts = RunFacts(new.config_digest, bank.place, how.name())
            total = plan.samples_in(there)
            samples = (total, total - plan.samples_in(missing))
            made = run_jobs(target, jobs, executor, facts, samples, log).made_samples
    complete = finish(target, plan, anew=bool(made))
    check_all_made(target, missing)
    if len(there) < plan.shards:
        log(f"{source.url} holds {len(there)} of its {plan.shards} shards: when it holds more, run this again")
    held = plan.samples_in(shard for shard in committed_shards(target) if shard < plan.shards)
    return Summary(new.config.samples, made, time.monotonic() - started, complete, held, estimate)


def _check_convertible(source: Store, info: DatasetInfo, kind: Kind) -> None:
    if info.sources:
        places = ", ".join(one.place for one in info.sources)
        raise InputError(
            f"{source.url} is a view, it holds no samples of its own; convert the datasets that it was made from "
            f"({places}), then make the view again from those"
        )
    if info.config.store == kind:
        raise InputError(f"{source.url} is of the kind `store: {kind}` already; name another kind")


def _kept_as(config: GenerateConfig, kind: Kind) -> GenerateConfig:
    return config.model_copy(update={"store": kind})


def _converted(info: DatasetInfo, kind: Kind, bank: Bank, target: Store) -> DatasetInfo:
    """The description of the new dataset: what `generate --store KIND` would have written."""
    config = _kept_as(info.config, kind)
    place = relative_place(open_store(bank.place), target)
    return info.model_copy(update={"config": config, "config_digest": recipe_digest(config), "bank": place})


def _planned(target: Store, new: DatasetInfo) -> DatasetInfo:
    """The same, known to continue what lies there; writes nothing."""
    if not target.exists(INFO):
        return new
    old = read_info(target)
    if old.sources:
        raise InputError(f"{target.url} is a view of other datasets; convert into a folder of its own")
    samples = {"samples": new.config.samples}
    check_same(target, old.model_copy(update={"config": old.config.model_copy(update=samples)}), new)
    before, now = (*old.grown, old.config.samples), (*new.grown, new.config.samples)
    if now[: len(before)] != before:
        raise InputError(
            f"{target.url} grew in another way ({_steps(before)} samples) than what it is to be converted from "
            f"({_steps(now)}); convert into a new --out"
        )
    return new


def _steps(totals: tuple[int, ...]) -> str:
    return " -> ".join(map(str, totals))


def _job(source: Store, target: Store, bank: Bank, new: DatasetInfo, shard: int) -> ConvertJob:
    return ConvertJob(
        dataset=absolute(target),
        bank=bank.place,
        bank_fingerprint=bank.fingerprint,
        config=new.config,
        shard=shard,
        device="cpu",
        grown=new.grown,
        source=absolute(source),
    )


def _check_cost(
    jobs: list[ConvertJob], target: Store, workers: int, how: How, log: Callable[[str], None]
) -> dict[str, Any]:
    """Convert a few samples in memory, tell how much and how long; PhantumorError when the disk cannot hold it."""
    first = jobs[0]
    source = _SourceShard(first)

    def converted(k: int) -> int:
        kept = source.kept(k, source.read(k))
        if first.config.store == "recipe":
            return 2 * ROW_BYTES
        return 2 * ROW_BYTES + sum(len(c) for a in kept.values() for c in encode_sample(a, first.config.store))

    estimate = probed(converted, len(source.rows), sum(len(job.samples) for job in jobs))
    source.close()
    return check_room(estimate, target, workers, log, crowding_here(workers) if how.ray is None else 1.0)
