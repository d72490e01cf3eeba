"""`phantumor annotate`: derive the annotations of a dataset and keep them beside its manifest.

Only samples that have none yet are read. What was derived stays when the work is stopped; the same command goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.annotations.derive import WholeCase, annotate_sample
from pipeline.annotations.rows import SCHEMA, row_of
from pipeline.annotations.settings import AnnotationSettings
from pipeline.annotations.summary import AnnotationSummary
from pipeline.annotations.table import (
    ANNOTATIONS,
    GROUP_ROWS,
    Annotations,
    Origin,
    has_annotations,
    read_annotations,
    samples_of,
    stored_annotations,
    write_annotations,
)
from pipeline.bank import Bank, open_bank
from pipeline.catalog import Dataset, Home, open_dataset
from pipeline.errors import InputError, PhantumorError
from pipeline.files import writing_to
from pipeline.grid import index3
from pipeline.progress import Progress
from pipeline.reader import SampleReader, column_names, located
from pipeline.settings import differences
from pipeline.store import Location
from pipeline.threads import in_threads

CaseOf = Callable[[Mapping[str, Any]], WholeCase]  # of a manifest row
_OPEN_CASES = 100


def annotate(
    place: Location,
    settings: AnnotationSettings | None = None,
    *,
    bank: Location | None = None,
    anew: bool = False,
    log: Callable[[str], None] = print,
) -> AnnotationSummary:
    """Derive the annotations that a dataset or a view lacks.

    `settings`: default those of the annotations that are there; others are an InputError, unless `anew`, which derives
    all of them again. `bank`: where the dataset's bank lies now, if it was moved.
    """
    dataset = open_dataset(place)
    old = stored_annotations(dataset) if has_annotations(dataset) and not anew else None
    cases = _cases(dataset, bank, log) if old is None or old.origin.with_cases else None
    origin = Origin(
        settings=settings or (old.settings if old else AnnotationSettings()),
        config_digest=dataset.info.config_digest,
        bank_fingerprint=dataset.info.bank_fingerprint,
        with_cases=cases is not None,
    )
    if old is not None:
        _check_alike(old, origin)
    missing = np.ones(dataset.rows, bool) if old is None else samples_of(dataset).missing_in(old.samples)
    if missing.any() or old is None:
        _write(dataset, origin, old, missing, cases)
    return _summary(dataset, int(missing.sum()))


def _check_alike(old: Annotations, origin: Origin) -> None:
    """InputError when rows that are added would not be like those that are there."""
    changed = differences(old.settings.model_dump(), origin.settings.model_dump())
    if changed:
        raise InputError(
            f"{old.where}: derived with other settings: {'; '.join(changed)}. Leave them out to add what is missing, "
            "or derive all of it again with --anew"
        )
    if old.origin.with_cases and not origin.with_cases:
        raise InputError(
            f"{old.where}: its reports name regions, for which the dataset's bank is needed, but that is not found; "
            "say where it is with --bank, or derive all of it again with --anew, without regions"
        )


def _summary(dataset: Dataset, made: int) -> AnnotationSummary:
    annotations = read_annotations(dataset)
    counts = dataset.columns(["index", "n_tumors"])
    first = counts.sort_by([("n_tumors", "descending"), ("index", "ascending")])["index"][:1].to_pylist()
    return AnnotationSummary(
        dataset=dataset.path,
        samples=dataset.rows,
        made=made,
        tumors=pc.sum(counts["n_tumors"]).as_py() or 0,
        settings=annotations.settings,
        with_cases=annotations.origin.with_cases,
        example=annotations.of(first[0]) if first else None,
    )


# ---- cases ----


def _cases(dataset: Dataset, bank: Location | None, log: Callable[[str], None]) -> CaseOf | None:
    """The bank cases of samples; None, with a note, where a bank is not found."""
    banks = _banks(dataset, bank)
    if any(found is None for found in banks):
        log(
            f"note: the bank of {dataset.path} is not found, so reports name neither the part of an organ nor the "
            "phase; --bank says where it is"
        )
        return None
    by_home = {home.first_shard: found for home, found in zip(dataset.homes, banks, strict=True) if found}

    @lru_cache(_OPEN_CASES)
    def case(first_shard: int, case_id: str) -> WholeCase:
        return WholeCase.of(by_home[first_shard].load(case_id))

    return lambda row: case(dataset.home(row["shard"]).first_shard, row["case_id"])


def _banks(dataset: Dataset, place: Location | None) -> list[Bank | None]:
    """The bank of each home; InputError when the one at `place` is of none."""
    if place is None:
        return [_found_bank(home) for home in dataset.homes]
    given = open_bank(place)
    fits = [home.info.bank_fingerprint == given.fingerprint for home in dataset.homes]
    if not any(fits):
        raise InputError(
            f"--bank {place}: not the bank that {dataset.path} was made from: fingerprint {given.fingerprint[:12]}, "
            f"not {dataset.info.bank_fingerprint[:12]}"
        )
    return [given if fit else _found_bank(home) for home, fit in zip(dataset.homes, fits, strict=True)]


def _found_bank(home: Home) -> Bank | None:
    try:
        return home.bank
    except (PhantumorError, OSError):
        return None


# ---- rows ----


def _write(
    dataset: Dataset,
    origin: Origin,
    old: Annotations | None,
    missing: npt.NDArray[np.bool_],
    cases: CaseOf | None,
) -> None:
    work = _Deriving(dataset, origin.settings, cases, missing)
    try:
        with writing_to(f"{dataset.path}/{ANNOTATIONS}", "Mend that, and run `phantumor annotate` again"):
            write_annotations(dataset.store, origin, work.tables(old))
    finally:
        work.close()
    if work.stopped_by is not None:
        raise work.stopped_by


class _Deriving:
    """Goes through the samples of a dataset by index, and derives the annotations of those that are missing."""

    def __init__(
        self,
        dataset: Dataset,
        settings: AnnotationSettings,
        cases: CaseOf | None,
        missing: npt.NDArray[np.bool_],
    ) -> None:
        self._dataset, self._settings, self._cases, self._missing = dataset, settings, cases, missing
        self._reader = SampleReader(dataset, located(dataset, dataset.columns(column_names(dataset))))
        self._progress = Progress(int(missing.sum()), "samples annotated")
        self._made = 0
        self.stopped_by: BaseException | None = None

    def close(self) -> None:
        """Close what is read, end the line of progress."""
        self._reader.close()
        self._progress.end()

    def tables(self, old: Annotations | None) -> Iterator[pa.Table]:
        """The rows of the new file: those of the old one, and of the samples that are missing in it.

        When something stops the work, what is made by then is kept, and all that was there.
        """
        first = 0
        for rows in self._row_groups():
            lacking = self._missing[first : first + rows.num_rows]
            held = rows.filter(pa.array(~lacking))["index"].to_pylist()
            kept = old.rows(held) if old is not None else SCHEMA.empty_table()
            made = self._derived(rows, first, lacking) if lacking.any() and self.stopped_by is None else []
            both = pa.concat_tables([kept, pa.Table.from_pylist(made, schema=SCHEMA)])
            yield both.sort_by("index").combine_chunks()
            first += rows.num_rows

    def _row_groups(self) -> Iterator[pa.Table]:
        for batch in self._dataset.batches():
            for start in range(0, batch.num_rows, GROUP_ROWS):
                yield batch.slice(start, GROUP_ROWS)

    def _derived(self, rows: pa.Table, first: int, lacking: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
        work = [(first + int(k), rows.slice(int(k), 1).to_pylist()[0]) for k in np.flatnonzero(lacking)]
        try:
            made = list(in_threads(lambda one: self._annotated(*one), work))
        except (KeyboardInterrupt, PhantumorError) as error:
            if not self._made:
                raise
            self.stopped_by = error
            return []
        self._made += len(made)
        self._progress.advance(len(made))
        return made

    def _annotated(self, position: int, row: dict[str, Any]) -> dict[str, Any]:
        shape = self._dataset.checked_shape(row["shard"], index3(row["shape_vox"]))
        image, label = np.empty(shape, np.int16), np.empty(shape, np.uint8)
        self._reader.read(position, image, label)
        case = self._cases(row) if self._cases is not None else None
        return row_of(annotate_sample(label, row, self._settings, case), row["label_crc32c"])
