"""What a user should know about a bank and the settings before a dataset is made from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from pipeline.bank import Bank
from pipeline.config import SPLITS, GenerateConfig


def notes(bank: Bank, config: GenerateConfig) -> Iterator[str]:
    """One line each."""
    for some in (_padding_notes, _split_notes, _missing_notes, _series_notes, _annotated_notes):
        yield from some(bank, config)


def _padding_notes(bank: Bank, config: GenerateConfig) -> list[str]:
    if config.whole_cases:
        return []
    padded = [r for r in bank.records if any(n < p for n, p in zip(r.shape, config.patch_shape, strict=True))]
    return [
        f"note: the patch {_x(config.patch_shape)} is larger than case {r.case_id} ({_x(r.shape)}): "
        "the rest is padded with air (-1000 HU)"
        for r in padded
    ]


def _series_notes(bank: Bank, config: GenerateConfig) -> list[str]:
    rest = config.samples % config.series.points
    return [f"note: the last series has {rest} of {config.series.points} time points"] if rest else []


def _annotated_notes(bank: Bank, config: GenerateConfig) -> list[str]:
    annotated = [record for record in bank.records if record.annotated]
    if not annotated:
        return []
    named = ", ".join(r.case_id for r in annotated[:4]) + (", ..." if len(annotated) > 4 else "")
    which = "all" if len(annotated) == len(bank.records) else f"{len(annotated)} of {len(bank.records)}"
    return [
        f"note: {which} cases are annotated ({named}): their samples show the patients' own tumors, nothing is put in"
    ]


def _missing_notes(bank: Bank, config: GenerateConfig) -> list[str]:
    """A trainer takes an organ without a mask for background."""
    notes = []
    for organ in config.organs:
        for split in SPLITS:
            if any(r.split == split for r in bank.records) and not any(
                r.split == split and organ in r.usable_organs for r in bank.records
            ):
                notes.append(f"note: no case of split {split} has a {organ} that takes tumors")
        without = [r.case_id for r in bank.records if organ not in r.stats]
        if without:
            notes.append(
                f"note: {len(without)} of {len(bank.records)} cases have no {organ} mask ({', '.join(without[:4])}"
                f"{', ...' if len(without) > 4 else ''}); in their samples it is background, see annotated_classes"
            )
    return notes


def _split_notes(bank: Bank, config: GenerateConfig) -> list[str]:
    """What a small bank means for training and evaluation."""
    usable = [record for record in bank.records if set(config.organs) & set(record.usable_organs)]
    splits = Counter(record.split for record in usable)
    notes = []
    if splits["train"] == 1:
        notes.append("note: one case is in split train: the network will have seen one patient")
    missing = [split for split in ("val", "test") if not splits[split]]
    if missing:
        notes.append(f"note: no case is in split {' or '.join(missing)}: add cases to the bank to evaluate on others")
    return notes


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
