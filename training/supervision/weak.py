"""The losses of what is known of a whole sample: boxes, tags and reports. Finest level only.

Each is a mean over the facts of a sample, then over all samples, those without a fact counting 0; so two halves of a
batch average to the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.train_config import SupervisionConfig
from training.supervision.balls import ball_loss, find_tumors
from training.supervision.barrier import barrier_t
from training.supervision.boxes import box_loss
from training.supervision.heads import Heads
from training.supervision.pooling import absent_loss, present_loss
from training.supervision.reports import ellipsoid_mm3, volume_loss
from training.supervision.sets import CodeTable
from training.supervision.targets import Targets


def weak_loss(heads: Heads, targets: Targets, table: CodeTable, config: SupervisionConfig, done: float) -> Tensor:
    """The weighted sum of the terms that the targets have facts for; `done` is the share of the training so far."""
    loss = heads.p.new_zeros(())
    if any(targets.boxes) and config.box_weight > 0:
        loss = loss + config.box_weight * boxes_loss(heads, targets, table, config, done)
    if (targets.tags is not None or any(targets.reports)) and config.tag_weight > 0:
        loss = loss + config.tag_weight * tags_loss(heads, targets, table, config)
    if any(targets.reports) and config.report_volume_weight > 0:
        loss = loss + config.report_volume_weight * volumes_loss(heads, targets, table)
    if any(targets.reports) and config.report_ball_weight > 0:
        loss = loss + config.report_ball_weight * balls_loss(heads, targets, table)
    return loss


def boxes_loss(heads: Heads, targets: Targets, table: CodeTable, config: SupervisionConfig, done: float) -> Tensor:
    """Tightness and size of all boxes."""
    t = barrier_t(config, done)
    samples = []
    for sample, boxes in enumerate(targets.boxes):
        terms = []
        for box in boxes:
            crop = tuple(slice(low, high) for low, high in zip(box.low, box.high, strict=True))
            may_be = table.may_be(box.channel, targets.codes[sample, 0][crop])
            terms.append(box_loss(heads.p[sample, box.channel][crop].where(may_be, 0.0), t, config))
        samples.append(terms)
    return _mean(samples, heads.p)


def tags_loss(heads: Heads, targets: Targets, table: CodeTable, config: SupervisionConfig) -> Tensor:
    """Binary cross-entropy of all tags whose organ is there; tumors that a report names without size count as one."""
    samples = []
    for sample, tags in enumerate(_tags(targets)):
        terms = []
        for channel, present in tags.items():
            organ = table.may_be(channel, targets.codes[sample, 0])
            if bool(organ.any()):
                terms.append(
                    present_loss(heads.log_p(sample, channel)[organ], config.tag_voxels, config.tag_decay)
                    if present
                    else absent_loss(heads.log_rest(sample, channel, organ))
                )
        samples.append(terms)
    return _mean(samples, heads.p)


def volumes_loss(heads: Heads, targets: Targets, table: CodeTable) -> Tensor:
    """The volume loss of each organ's tumors."""
    voxel_mm3 = targets.spacing_mm**3
    samples = []
    for sample in range(len(targets.codes)):
        terms = []
        for told, organ in _measured(targets, sample, table):
            predicted = heads.p[sample, told.channel].where(organ, 0.0).sum() * voxel_mm3
            reported = sum(ellipsoid_mm3(diameters) for diameters in told.diameters_mm)
            terms.append(volume_loss(predicted, reported, at_least=not told.complete))
        samples.append(terms)
    return _mean(samples, heads.p)


def balls_loss(heads: Heads, targets: Targets, table: CodeTable) -> Tensor:
    """The ball loss of each organ's tumors; where some are not measured, the rest of the organ may hold them."""
    samples = []
    for sample in range(len(targets.codes)):
        terms = []
        for told, organ in _measured(targets, sample, table):
            log_p = heads.log_p(sample, told.channel)
            found = find_tumors(log_p, organ, told.diameters_mm, targets.spacing_mm)
            background = found.background & told.complete
            terms.append(ball_loss(log_p[found.foreground], heads.log_rest(sample, told.channel, background)))
        samples.append(terms)
    return _mean(samples, heads.p)


@dataclass(frozen=True)
class _Told:
    """What a report tells of one organ's tumors."""

    channel: int
    diameters_mm: tuple[tuple[float, ...], ...]  # of those that were measured
    complete: bool  # whether all were


def _told(targets: Targets, sample: int) -> list[_Told]:
    """What a sample's report tells of the tumors of each organ."""
    report = (targets.reports[sample] if targets.reports else None) or ()
    channels = dict.fromkeys(tumor.channel for tumor in report)
    tumors = {channel: [t.diameters_mm for t in report if t.channel == channel] for channel in channels}
    return [_Told(channel, tuple(filter(None, of)), complete=all(of)) for channel, of in tumors.items()]


def _measured(targets: Targets, sample: int, table: CodeTable) -> Iterator[tuple[_Told, Tensor]]:
    """What is told of each organ that is there and has a measured tumor, and its voxels (X, Y, Z) bool."""
    for told in _told(targets, sample):
        organ = table.may_be(told.channel, targets.codes[sample, 0])
        if told.diameters_mm and bool(organ.any()):
            yield told, organ


def _tags(targets: Targets) -> list[dict[int, bool]]:
    """Of each sample, whether tumors of a channel are present, where that is all that is known of them."""
    rows = [[]] * len(targets.codes) if targets.tags is None else targets.tags.tolist()
    tags = [{channel: tag == 1 for channel, tag in enumerate(row) if tag >= 0} for row in rows]
    for sample, row in enumerate(tags):
        row |= {told.channel: True for told in _told(targets, sample) if not told.diameters_mm}
    return tags


def _mean(samples: Sequence[Sequence[Tensor]], like: Tensor) -> Tensor:
    """Mean over the terms of each sample, then over samples."""
    means = [torch.stack(list(terms)).mean() if terms else like.new_zeros(()) for terms in samples]
    return torch.stack(means).mean()
