"""Where it fails: the largest missed and false tumors, and pictures of the worst samples. Out: sections, or None."""

from __future__ import annotations

from collections.abc import Sequence

from training.records import LesionRecord
from training.report.cells import class_title
from training.report.content import Picture, Section, Table

LISTED_LESIONS = 10


def failures(lesions: Sequence[LesionRecord]) -> Section | None:
    """The largest missed and the largest false tumors, to look them up."""
    tables = []
    for source, title in (("truth", "Largest missed tumors"), ("prediction", "Largest false tumors")):
        wrong = [lesion for lesion in lesions if lesion.source == source and not lesion.matched]
        wrong.sort(key=lambda lesion: (-lesion.volume_mm3, lesion.case_id, lesion.lesion_id))
        if wrong:
            shown = wrong[:LISTED_LESIONS]
            tables.append(_lesion_table(shown, f"{title} ({len(shown)} of {len(wrong)})"))
    return (
        Section("Where it fails", "The tumors to look up first; the complete list is in lesions.parquet.", tables)
        if tables
        else None
    )


def _lesion_table(lesions: Sequence[LesionRecord], title: str) -> Table:
    header = ("Sample", "Class", "Diameter (mm)", "Volume (ml)", "Center (voxel X, Y, Z)")
    rows = [
        (
            lesion.case_id,
            class_title(lesion.class_name),
            f"{lesion.diameter_mm:.1f}",
            f"{lesion.volume_mm3 / 1000:.3f}",
            f"{lesion.centroid_x_vox:.0f}, {lesion.centroid_y_vox:.0f}, {lesion.centroid_z_vox:.0f}",
        )
        for lesion in lesions
    ]
    return Table(header, rows, title, folded=True)


def worst_cases(pictures: Sequence[Picture]) -> Section | None:
    """CT, truth and prediction of the samples that came out worst."""
    if not pictures:
        return None
    return Section(
        "Worst cases",
        "CT, truth and prediction in the axial slice where they differ most. First the lowest tumor Dice and the "
        "healthy samples with most false tumor; then, to compare with, an average outline and the best one.",
        list(pictures),
    )
