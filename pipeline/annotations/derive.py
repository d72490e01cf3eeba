"""All annotations of one sample from its label and manifest row. Pure: the same bytes wherever it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.annotations.findings import Finding, TumorFacts, findings_of
from pipeline.annotations.instances import TumorMask, tumor_masks
from pipeline.annotations.records import SampleAnnotation, TumorAnnotation
from pipeline.annotations.regions import OrganRegions, case_regions
from pipeline.annotations.scribbles import draw_scribbles
from pipeline.annotations.settings import AnnotationSettings
from pipeline.annotations.shapes import annotate_tumor
from pipeline.annotations.wording import write_report
from pipeline.errors import InputError
from pipeline.grid import index3
from pipeline.organs import tumor_id

if TYPE_CHECKING:
    from pipeline.case import Case

_BOXES, _SCRIBBLES, _WORDS = range(3)  # streams of random numbers, so that no kind of label changes another


@dataclass(frozen=True)
class WholeCase:
    """What a report needs of a bank case beyond a patch of it."""

    phase: str
    regions: Mapping[str, OrganRegions]  # by organ that takes tumors

    @classmethod
    def of(cls, case: Case) -> WholeCase:
        """Measured once for all samples of a case: an organ has up to some million voxels."""
        return cls(case.phase, {organ: case_regions(case, organ) for organ in case.voxels})


def annotate_sample(
    label: npt.NDArray[np.uint8],
    row: Mapping[str, Any],
    settings: AnnotationSettings,
    case: WholeCase | None = None,
    scribbles: bool = True,
) -> SampleAnnotation:
    """What a reader would have drawn and written of a sample; `label`: class ids (X, Y, Z), `row`: of the manifest.

    With `case`, of the bank case that the sample shows, the report names the phase and the part of the organ that a
    tumor lies in. Without `scribbles`, which take most of the time, everything else is the same.
    InputError when the label is not that of the row.
    """
    _check_shape(label, row)
    masks = tumor_masks(label, row)
    boxes, strokes, words = (_stream(settings, row, number) for number in (_BOXES, _SCRIBBLES, _WORDS))
    shape, spacing_mm = index3(label.shape), float(row["spacing_mm"])
    tumors = tuple(annotate_tumor(mask, shape, spacing_mm, settings.box_jitter_mm, boxes) for mask in masks)
    tags, classes = _tags(row), row["annotated_classes"] if scribbles else ()
    findings = _findings(masks, tumors, row, case)
    return SampleAnnotation(
        index=int(row["index"]),
        sample_id=row["sample_id"],
        tags=tags,
        tumors=tumors,
        scribbles=draw_scribbles(label, masks, classes, spacing_mm, settings, strokes),
        findings=findings,
        report=write_report(findings, list(tags), words),
    )


def _check_shape(label: npt.NDArray[np.uint8], row: Mapping[str, Any]) -> None:
    if list(label.shape) != list(row["shape_vox"]):
        raise InputError(
            f"sample {row['sample_id']}: a label of shape {label.shape} and a manifest row of shape "
            f"{tuple(row['shape_vox'])} are not of one sample; give each label with its own row"
        )


def _stream(settings: AnnotationSettings, row: Mapping[str, Any], number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((settings.seed, row["index"], number))))


def _tags(row: Mapping[str, Any]) -> dict[str, bool]:
    """By organ that the sample shows and whose tumors it annotates."""
    with_tumor = {tumor["organ"] for tumor in row["tumors"]}
    return {organ: organ in with_tumor for organ in row["organs"] if tumor_id(organ) in row["annotated_classes"]}


def _findings(
    masks: Sequence[TumorMask], tumors: Sequence[TumorAnnotation], row: Mapping[str, Any], case: WholeCase | None
) -> tuple[Finding, ...]:
    edges = {tumor["instance"]: tumor["edge_mm"] for tumor in json.loads(row["spec"]).get("tumors", ())}
    facts = [
        TumorFacts(
            organ=tumor.organ,
            diameters_mm=(tumor.long_mm, tumor.short_mm, tumor.height_mm),
            region=None if case is None else _region(mask, row, case),
            contrast_hu=mask.facts["contrast_hu"],
            edge_mm=edges.get(tumor.instance),
        )
        for mask, tumor in zip(masks, tumors, strict=True)
    ]
    return findings_of(facts, None if case is None else case.phase)


def _region(tumor: TumorMask, row: Mapping[str, Any], case: WholeCase) -> str | None:
    """Where in the whole organ the tumor's centroid lies; None where the scan cuts the organ off."""
    regions = case.regions.get(tumor.facts["organ"])
    center = np.argwhere(tumor.mask).mean(axis=0) + tumor.low + row["origin_vox"]
    return None if regions is None else regions.at(center.tolist())
