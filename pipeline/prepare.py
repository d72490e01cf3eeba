"""The verb `prepare`: CTs with organ masks into a bank, healthy ones or such with annotated tumors.

One case after the other, each committed when it is whole: run again after an interruption, what is there is skipped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.bank import Bank, BankWriter, create_or_open_bank, open_bank
from pipeline.bank_format import CaseRecord
from pipeline.case import Case, build_case
from pipeline.errors import InputError
from pipeline.intake import read_case, source_digests, tumor_classes
from pipeline.organs import CLASS_NAMES, LabelMap, label_map, tumor_id
from pipeline.patients import note_on_patients
from pipeline.progress import duration
from pipeline.sources import CaseSource, Found, check_ids, find_cases
from pipeline.store import Location

SPLIT_CHOICES = ("auto", "train", "val", "test")
PREPARE_VERSION = 1  # raised when the same files give other arrays, so that old cases are not taken for new ones


def prepare(
    sources: Sequence[Path],
    out: Location,
    *,
    image: Path | None = None,
    mask: Path | None = None,
    labels: str | None = None,
    spacing_mm: float = 1.0,
    split: str = "auto",
    allow_tumors: bool = False,
    annotated: bool = False,
    allow_implausible: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> Bank:
    """Add the cases of all `sources`, and of `image` with `mask`, to the bank `out`; the bank, opened for reading.

    `labels` is the text of `--labels`. `split`: `auto` takes the splits of a datalist, else spreads new cases over
    the splits (`bank.next_split`); `train`, `val` or `test` sets the split of this call's cases.
    `annotated`: the masks show all tumors of the patients; the cases keep them, and none are put in.
    The first case that fails raises InputError (its files) or PhantumorError (the disk); those before it stay.
    """
    if split not in SPLIT_CHOICES:
        raise InputError(f"--split {split}: choose from {', '.join(SPLIT_CHOICES)}")
    if annotated and allow_tumors:
        raise InputError(
            "--annotated and --allow-tumors: choose one; the first keeps a case's own tumors and adds none, the second "
            "puts synthetic tumors beside them"
        )
    classes = label_map(labels) if labels else None
    found = _find_all(sources, image, mask, classes)
    for note in found.notes:
        progress(f"note: {note}")
    job = _Job(classes, spacing_mm, split, allow_tumors, annotated, allow_implausible)
    with create_or_open_bank(out, spacing_mm) as bank:
        _add_all(bank, found.cases, job, progress)
        splits = {case_id: record.split for case_id, record in bank.records.items()}
        if split == "auto" and (spread := note_on_patients(found.cases, splits)):
            progress(f"note: {spread}")
    return open_bank(out)


@dataclass(frozen=True)
class _Job:
    """The settings of one call."""

    labels: LabelMap | None
    spacing_mm: float
    split: str
    allow_tumors: bool
    annotated: bool
    allow_implausible: bool

    def split_of(self, source: CaseSource) -> str | None:
        """The split that was asked for; None to derive it."""
        return source.split if self.split == "auto" else self.split

    def recipe(self, source: CaseSource, digests: Mapping[str, str]) -> str:
        """Digest of all that decides a case's arrays."""
        classes = sorted(self.labels.classes.items()) if self.labels else sorted(source.masks.values())
        content: list[object] = [PREPARE_VERSION, self.spacing_mm, classes, sorted(digests.items()), self.allow_tumors]
        if self.annotated:
            content.append("annotated")
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def build(self, source: CaseSource, digests: Mapping[str, str], split: str) -> Case:
        annotated = tumor_classes(source, self.labels) if self.annotated else ()
        ct, organs, affine = read_case(source, self.labels, self.spacing_mm, self.allow_tumors or self.annotated)
        return build_case(
            source.case_id,
            ct,
            organs,
            affine,
            self.spacing_mm,
            split=split,
            sources=digests,
            annotated=annotated,
            allow_implausible=self.allow_implausible,
        )


def _find_all(sources: Sequence[Path], image: Path | None, mask: Path | None, labels: LabelMap | None) -> Found:
    parts = [find_cases(Path(source), None, None, labels) for source in sources]
    if image is not None or mask is not None:
        parts.append(find_cases(None, image, mask, labels))
    if not parts:
        raise InputError("nothing to prepare: give a SOURCE, or --image FILE --mask FILE")
    cases = tuple(case for part in parts for case in part.cases)
    check_ids(cases)
    return Found(cases, tuple(note for part in parts for note in part.notes))


def _add_all(bank: BankWriter, cases: Sequence[CaseSource], job: _Job, progress: Callable[[str], None]) -> None:
    started, made = time.monotonic(), 0
    for number, source in enumerate(cases, 1):
        at = f"{number}/{len(cases)} {source.case_id}"
        digests = source_digests(source)
        recipe = job.recipe(source, digests)
        split = job.split_of(source)
        if source.case_id in bank.records:
            _check_same(bank.records[source.case_id], recipe, bank.path)
            if split:
                bank.set_split(source.case_id, split)
            progress(f"{at}: already in the bank")
            continue
        case = job.build(source, digests, split or bank.next_split())
        record = bank.add_case(case, recipe=recipe)
        made += 1
        left = (time.monotonic() - started) / made * (len(cases) - number)
        progress(f"{at}: {describe(record, case)}" + (f"; {duration(left)} left" if number < len(cases) else ""))


def _check_same(record: CaseRecord, recipe: str, bank: Path) -> None:
    if record.recipe != recipe:
        raise InputError(
            f"{bank}: holds a case {record.case_id!r} that was made from other files or settings; "
            "rename the new case, or prepare into another bank"
        )


def describe(record: CaseRecord, case: Case) -> str:
    """One line on a case: size, phase, split, what each tumor organ looks like, and how many lesions are annotated."""
    organs = ", ".join(
        f"{organ} {record.stats[organ].volume_ml:.0f} ml {record.stats[organ].mean_hu:.0f} HU"
        for organ in record.usable_organs
    )
    found = {tumor_id(organ): int(lesions[-1, 1]) + 1 for organ, lesions in case.lesions.items()}
    tumors = "".join(f"; annotated: {CLASS_NAMES[i]}, {_lesions(found.get(i, 0))}" for i in record.annotated)
    return f"{'x'.join(map(str, record.shape))} voxels, {record.phase}, {record.split}; {organs}{tumors}"


def _lesions(count: int) -> str:
    return "no lesion" if not count else f"{count} lesion{'s' if count > 1 else ''}"
