"""Whether a view is whole: its own rows against those of its sources, and every byte of the shards that they lie in."""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import pyarrow as pa

from pipeline.catalog import Dataset, Home, open_dataset
from pipeline.description import INFO
from pipeline.errors import InputError
from pipeline.manifest import WHOLE, part_name
from pipeline.progress import Progress
from pipeline.store import Store
from pipeline.threads import in_threads
from pipeline.views import renumbered
from workers.checks import examine, threads_for
from workers.findings import Finding, few
from workers.shard_files import Healthy
from workers.whole import Said, Whole, open_if_sound, row_differences

_Patches = Mapping[str, Healthy | None]  # by the place of a source


class ViewCheck:
    """The check of one view, which changes nothing."""

    def __init__(self, view: Store, samples: int) -> None:
        self._view, self._samples = view, samples

    @cached_property
    def whole(self) -> Whole | Finding:
        """Its manifest, or what is wrong with it."""
        return open_if_sound(self._view, self._samples, "none")

    @cached_property
    def homes(self) -> tuple[Home, ...] | Finding:
        """Its sources, or what is wrong with them."""
        try:
            dataset: Dataset = open_dataset(self._view)
        except InputError as error:
            return Finding(None, " ".join(str(error).split()), INFO, "none")
        return dataset.homes

    def findings(self, patches: _Patches) -> Iterator[Finding]:
        """Everything that is wrong with the view and with the shards it uses."""
        for part in (self.whole, self.homes):
            if isinstance(part, Finding):
                yield part
                return
        whole, homes = self.whole, self.homes
        assert not isinstance(whole, Finding)
        assert not isinstance(homes, Finding)
        progress = Progress(whole.rows, "samples checked")
        results = in_threads(
            lambda one: _check_shard(homes, patches, *one),
            whole.said(whole.shards),
            threads_for(self._view, [h.info for h in homes]),
        )
        for findings, rows in results:
            yield from few(findings)
            progress.advance(rows)
        if whole.fault is not None:
            yield whole.fault


def home_of(homes: Sequence[Home], shard: int) -> Home | None:
    """The source that a shard of a view lies in; None where there is none."""
    found = [home for home in homes if home.first_shard <= shard]
    home = found[-1] if found else None
    return home if home and shard - home.first_shard < home.info.plan.shards and not home.info.sources else None


def _check_shard(homes: Sequence[Home], patches: _Patches, shard: int, said: Said | None) -> tuple[list[Finding], int]:
    """What is wrong with a shard that a view uses, and with the view's rows of it; how many rows."""
    if said is None:  # the manifest became unreadable, which is told once
        return [], 0
    home = home_of(homes, shard)
    if home is None:
        return [Finding(shard, "no source has such a shard", WHOLE, "none")], said.rows
    url, own = home.store.url, shard - home.first_shard
    found = examine(home.store, home.info, own, patches.get(url))
    findings = [dataclasses.replace(finding, remedy="none", place=url) for finding in found.findings]
    if found.part is None or found.rows is None:
        return findings, said.rows
    where = f"{url}/{part_name(own)}"
    wrong = _view_differences(said, home, found.rows, where)
    if said.part != dataclasses.replace(found.part, shard=shard):
        wrong.insert(0, f"not the provenance in {where}: the shard was made again since; make the view again")
    return findings + [Finding(shard, what, WHOLE, "none") for what in wrong], said.rows


def _view_differences(said: Said, home: Home, rows: pa.Table, where: str) -> list[str]:
    """Rows of a view that are not those of its source, renumbered."""
    numbers = said.table["row"].to_pylist()
    if said.rows != len(numbers) or len(set(numbers)) != len(numbers) or not set(numbers) <= set(range(rows.num_rows)):
        return [f"{said.rows} rows of this shard, of which some are not among the {rows.num_rows} in {where}"]
    as_in_view = renumbered(rows.take(numbers), home.first_index, home.first_shard)
    return row_differences(said.table, as_in_view, where)


def by_home(homes: Sequence[Home], indices: Sequence[int]) -> list[tuple[Home, list[int]]]:
    """Samples of a view, ascending, as indices of the sources that they lie in."""
    starts = [home.first_index for home in homes]
    found: dict[int, list[int]] = {}
    for index in indices:
        number = max(0, bisect_right(starts, index) - 1)
        found.setdefault(number, []).append(index - starts[number])
    return [(homes[number], own) for number, own in found.items()]
