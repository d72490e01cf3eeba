"""What weak labels say of whole samples: boxes, tags, reports, from annotations to the targets of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.annotations.findings import UNCOUNTED, Finding
from pipeline.annotations.records import SampleAnnotation
from pipeline.grid import Index3, index3
from pipeline.organs import tumor_id
from pipeline.train_config import LabelKind
from training.network import ClassTable
from training.supervision.targets import Box, ReportedTumor

_NOTHING_SAID = -1


class Facts(NamedTuple):
    """Of one sample, before flips."""

    boxes: tuple[Box, ...] = ()
    tags: tuple[tuple[int, bool], ...] = ()  # channel of a tumor, and whether there is one
    report: tuple[ReportedTumor, ...] | None = None


def facts_of(annotation: SampleAnnotation, kind: LabelKind, classes: ClassTable) -> Facts:
    """What an annotation says as a label of this kind, beside its codes."""

    def channel(organ: str) -> int:
        return classes.ids.index(tumor_id(organ))

    if kind == "box":
        boxes = (
            Box(channel(t.organ), index3(t.box_vox[:3]), index3(t.box_vox[3:]))
            for t in annotation.tumors
            if annotation.tags.get(t.organ)
        )
        return Facts(boxes=tuple(boxes))
    if kind == "tag":
        return Facts(tags=tuple((channel(organ), present) for organ, present in annotation.tags.items()))
    if kind == "report":
        told = [(f, channel(f.organ)) for f in annotation.findings if annotation.tags.get(f.organ)]
        return Facts(report=tuple(tumor for finding, number in told for tumor in _tumors(finding, number)))
    return Facts()


def _tumors(finding: Finding, channel: int) -> list[ReportedTumor]:
    """Its lesions. Of several the largest has the diameters; of an unknown number there are two or more."""
    others = 1 if finding.count == UNCOUNTED else finding.count - 1
    return [ReportedTumor(channel, finding.diameters_mm), *[ReportedTumor(channel, ())] * others]


def moved(boxes: Sequence[Box], flipped: Sequence[int], shape: Index3) -> tuple[Box, ...]:
    """The boxes of a patch (X, Y, Z) that is flipped along these axes."""

    def mirrored(box: Box) -> Box:
        ends = [
            (n - high, n - low) if axis in flipped else (low, high)
            for axis, (low, high, n) in enumerate(zip(box.low, box.high, shape, strict=True))
        ]
        return Box(box.channel, index3(low for low, _ in ends), index3(high for _, high in ends))

    return tuple(mirrored(box) for box in boxes)


def tag_table(facts: Sequence[Facts], channels: int) -> Tensor | None:
    """(B, C) int8 as `Targets` has it; None where no sample has a tag."""
    if not any(sample.tags for sample in facts):
        return None
    table = torch.full((len(facts), channels), _NOTHING_SAID, dtype=torch.int8)
    for row, sample in zip(table, facts, strict=True):
        for channel, present in sample.tags:
            row[channel] = int(present)
    return table
