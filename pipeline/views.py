"""Views: datasets without pixels of their own, `phantumor select` and `phantumor merge`.

In: datasets or views. Out: a folder (or prefix) with `dataset.json` and `manifest.parquet`, whose rows name samples
that lie where they lay. A view of a view names the sources of that one. It holds what was committed when it was made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.catalog import Dataset, Home, open_dataset
from pipeline.description import DatasetInfo, Source, create_info, dataset_classes, recipe_digest
from pipeline.errors import InputError
from pipeline.files import ASIDE, writing_to
from pipeline.manifest import SCHEMA, WHOLE, Parts, open_whole, sample_id
from pipeline.store import Location, Store, open_store, relative_place, store_at
from pipeline.versions import software
from pipeline.where import Positions, chosen
from pipeline.whole_manifest import write_rows

_ALIKE: dict[str, Callable[[DatasetInfo], str]] = {
    "spacing": lambda info: f"{info.spacing_mm:g} mm",
    "patch shape": lambda info: "full" if info.config.whole_cases else "x".join(map(str, info.config.patch_shape)),
    "store": lambda info: info.config.store,
}


@dataclass(frozen=True)
class ViewSummary:
    """What a view holds."""

    out: str
    samples: int
    shards: int
    sources: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def line(self) -> str:
        """For people."""
        shards = "1 shard" if self.shards == 1 else f"{self.shards} shards"
        return f"{self.out}: {self.samples} samples in {shards} of {', '.join(self.sources)}"


@dataclass(frozen=True)
class _Taken:
    """Rows of a dataset, and how far their numbers move in the view."""

    dataset: Dataset
    positions: Positions
    first_index: int = 0
    first_shard: int = 0

    @cached_property
    def shards(self) -> Positions:
        """The shards that the rows lie in, as the dataset numbers them."""
        found: Positions = np.unique(self.column("shard"))
        return found

    def column(self, name: str) -> Any:
        """Values of the rows taken."""
        return self.dataset.columns([name])[name].to_numpy()[self.positions]

    def home_numbers(self, shards: Positions) -> Positions:
        """Which of the dataset's homes each of these shards lies in."""
        self.dataset.home(int(self.shards[0]))  # none lies before the first home
        return np.searchsorted([home.first_shard for home in self.dataset.homes], shards, side="right") - 1

    @cached_property
    def homes(self) -> tuple[Home, ...]:
        """The homes that the rows lie in."""
        return tuple(self.dataset.homes[k] for k in np.unique(self.home_numbers(self.shards)))

    def sources(self, view: Store) -> list[Source]:
        """Where the rows come from, in the numbers of the view."""
        return [
            Source(
                place=relative_place(home.store, view),
                config_digest=recipe_digest(home.info.config),
                bank_fingerprint=home.info.bank_fingerprint,
                first_index=home.first_index + self.first_index,
                first_shard=home.first_shard + self.first_shard,
            )
            for home in self.homes
        ]

    def parts(self) -> Parts:
        """Provenance of the shards."""
        return self.dataset.parts.only(self.shards, self.first_shard)

    def tables(self) -> Iterator[pa.Table]:
        """The rows as the view has them, some thousands at a time."""
        start = 0
        for rows in self.dataset.batches():
            first, last = np.searchsorted(self.positions, [start, start + rows.num_rows])
            if first < last:
                taken = rows.take(pa.array(self.positions[first:last] - start))
                yield renumbered(taken, self.first_index, self.first_shard)
            start += rows.num_rows


def renumbered(rows: pa.Table, first_index: int, first_shard: int) -> pa.Table:
    """Rows of a source as a view has them, whose samples and shards of it begin at these numbers."""
    if not first_index and not first_shard:
        return rows
    index = pc.add(rows["index"], first_index)
    names = [sample_id(k) for k in index.to_pylist()]
    changed = {"index": index, "sample_id": names, "shard": pc.add(rows["shard"], first_shard)}
    for name, values in changed.items():
        rows = rows.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), [values])
    return rows


def select(
    place: Location,
    out: Location,
    *,
    where: str | None = None,
    split: str = "all",
    limit: int | None = None,
) -> ViewSummary:
    """Make `out` a view of the samples of a split that meet `where`, of these the first `limit`; numbers stay."""
    view, dataset = _new(out), open_dataset(place)
    positions = chosen(dataset, where, split, limit)
    if not positions.size:
        raise InputError(f"{dataset.path}: no sample of split {split} meets {where!r}; a view needs one at least")
    return _write(view, [_Taken(dataset, positions)])


def merge(places: Sequence[Location], out: Location, log: Callable[[str], None] = print) -> ViewSummary:
    """Make `out` a view of all samples of several datasets, numbered on: the second one's behind the first one's.

    InputError when they differ in spacing, patch shape or store, or have samples in common.
    """
    if len(places) < 2:
        raise InputError("merge takes two datasets or more; `phantumor select` makes a view of one")
    view, datasets = _new(out), [open_dataset(place) for place in places]
    _check_alike(datasets)
    taken: list[_Taken] = []
    index = shard = 0
    for dataset in datasets:
        if not dataset.rows:
            raise InputError(f"{dataset.path}: no sample is committed yet, so there is nothing to merge")
        taken.append(_Taken(dataset, np.arange(dataset.rows), index, shard))
        index += int(taken[-1].column("index").max()) + 1  # the rows may come in any order
        shard += int(taken[-1].shards[-1]) + 1
    _check_apart(taken)
    for note in _notes(datasets):
        log(note)
    return _write(view, taken)


# -- what may be merged -----------------------------------------------------------------------------------------------


def _check_alike(datasets: Sequence[Dataset]) -> None:
    """InputError when the samples of two datasets cannot lie in one."""
    first = datasets[0]
    for other in datasets[1:]:
        for name, of in _ALIKE.items():
            a, b = of(first.info), of(other.info)
            if a != b:
                raise InputError(
                    f"{other.path} cannot be merged with {first.path}: its {name} is {b}, there it is {a}. Samples of "
                    "one dataset are alike: generate one of them again with the other's settings, or keep them apart"
                )


def _check_apart(taken: Sequence[_Taken]) -> None:
    """InputError when a sample comes twice: it would count twice, and what is learnt from it as well."""
    for number, one in enumerate(taken):
        for other in taken[:number]:
            common = _recipes_in_common(one, other) or int(np.isin(_pixels(one), _pixels(other)).sum())
            if common:
                raise InputError(
                    f"{one.dataset.path} and {other.dataset.path} have {common} samples in common, which would count "
                    "twice: leave one of them out, or merge parts of them that `phantumor select` has taken apart"
                )


def _recipes_in_common(one: _Taken, other: _Taken) -> int:
    """Samples of the same settings, bank and index."""
    return sum(
        int(np.intersect1d(a, b, assume_unique=True).size)
        for recipe, a in _indices_by_recipe(one).items()
        for same, b in _indices_by_recipe(other).items()
        if recipe == same
    )


def _indices_by_recipe(taken: _Taken) -> dict[tuple[str, str], Positions]:
    """Indices as the sources number them, by what they were made from."""
    index, of_home = taken.column("index"), taken.home_numbers(taken.column("shard"))
    found: dict[tuple[str, str], list[Positions]] = {}
    for number, home in enumerate(taken.dataset.homes):
        recipe = (recipe_digest(home.info.config), home.info.bank_fingerprint)
        found.setdefault(recipe, []).append(index[of_home == number] - home.first_index)
    return {recipe: np.concatenate(indices) for recipe, indices in found.items()}


def _pixels(taken: _Taken) -> Any:
    """What tells samples with tumors apart: both checksums. Healthy patches of one case may well be the same."""
    image, label = (taken.column(f"{name}_crc32c").astype(np.uint64) for name in ("image", "label"))
    return ((image << np.uint64(32)) | label)[taken.column("n_tumors") > 0]


def _notes(datasets: Sequence[Dataset]) -> Iterator[str]:
    """Cases that would be learnt from and measured on, and organs that only some of the samples label."""
    if len({tuple(sorted(dataset.info.classes)) for dataset in datasets}) > 1:
        yield (
            "note: the datasets label different organs; each sample labels those of its own dataset only (see "
            "annotated_classes), and in a training its background may be any of the others"
        )
    pairs = pa.concat_tables([dataset.columns(["case_id", "split"]) for dataset in datasets])
    splits = pairs.group_by(["case_id", "split"]).aggregate([])["case_id"].value_counts().to_pylist()
    several = sorted(entry["values"] for entry in splits if entry["counts"] > 1)
    if several:
        named = ", ".join(several[:5]) + (f" and {len(several) - 5} more" if len(several) > 5 else "")
        yield (
            f"note: the banks put {named} into different splits; where the name is that of one patient, training sees "
            "what validation measures"
        )


# -- writing ----------------------------------------------------------------------------------------------------------


def _new(out: Location) -> Store:
    """The store of a view to be; InputError when something lies there, but for the rows of a view that was cut off."""
    store = open_store(out)
    names = _names(store)
    if names and not (names == {WHOLE} and _is_manifest(store)):
        raise InputError(f"--out {store.url}: something lies there; a view needs a new or an empty folder")
    return store


def _names(store: Store) -> set[str]:
    """What lies in a place; two names stand for many."""
    folder = store.folder
    if folder is None:
        return {entry.key for entry in islice(store.entries(), 2)}
    if folder.exists() and not folder.is_dir():
        return {folder.name, "."}
    found = (path.name for path in folder.iterdir()) if folder.exists() else iter(())
    return set(islice((name for name in found if not ASIDE.fullmatch(name)), 2))


def _is_manifest(store: Store) -> bool:
    try:
        return open_whole(store, view=True).parts() is not None
    except InputError:
        return False


def _write(view: Store, taken: Sequence[_Taken]) -> ViewSummary:
    """Write the rows, then `dataset.json`: a folder without it is no dataset."""
    sources = [source for one in taken for source in one.sources(view)]
    parts = Parts.joined(one.parts() for one in taken)
    info = _info(view, taken, sources, len(parts))
    with writing_to(view.url, "Choose another --out, or mend the disk"):
        write_rows(view, (rows for one in taken for rows in one.tables()), lambda: parts)
        create_info(view, info)
    urls = tuple(home.store.url for home in open_dataset(view).homes)
    return ViewSummary(view.url, info.config.samples, info.shards, urls)


def _info(view: Store, taken: Sequence[_Taken], sources: Sequence[Source], shards: int) -> DatasetInfo:
    """`dataset.json` of a view: the settings of its first source, with the organs of all."""
    homes = [home for one in taken for home in one.homes]
    organs = tuple(dict.fromkeys(organ for home in homes for organ in home.info.config.organs))
    samples = sum(len(one.positions) for one in taken)
    config = homes[0].info.config.model_copy(update={"samples": samples, "organs": organs})
    fingerprints = list(dict.fromkeys(source.bank_fingerprint for source in sources))
    return DatasetInfo(
        config=config,
        config_digest=_digest(sources, taken),
        bank=_bank(view, homes[0]) if len(fingerprints) == 1 else "",
        bank_fingerprint=fingerprints[0] if len(fingerprints) == 1 else _sha256(fingerprints),
        spacing_mm=homes[0].info.spacing_mm,
        classes=dataset_classes(organs),
        shards=shards,
        sources=tuple(sources),
        software=software(),
    )


def _bank(view: Store, home: Home) -> str:
    """The place of a source's bank, as the view sees it."""
    return relative_place(store_at(home.info.bank, home.store), view)


def _digest(sources: Sequence[Source], taken: Sequence[_Taken]) -> str:
    """What tells one view from another: what its sources were made from, and which samples it takes of each."""
    indices = [hashlib.sha256(one.column("index").tobytes()).hexdigest() for one in taken]
    return _sha256([[s.config_digest, s.bank_fingerprint, s.first_index] for s in sources] + [indices])


def _sha256(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, separators=(",", ":")).encode()).hexdigest()
