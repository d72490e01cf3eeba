"""The labels of a training: what the threads that read make of class ids, and what a batch is trained towards.

`Masks` leaves labels as they are; `CodedLabels` puts codes of `training.supervision.encode` in their place.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.grid import index3
from pipeline.train_config import AugmentConfig, LabelKind, SupervisionConfig
from training.augmentation.draws import draw
from training.network import ClassTable
from training.reader import Relabel
from training.supervision.annotated import Annotated
from training.supervision.encode import CodeBook, WeakCodes, encode_masks
from training.supervision.facts import Facts, facts_of, moved, tag_table
from training.supervision.kinds import FIXED
from training.supervision.source import AnnotationSource
from training.supervision.targets import Targets

_FACTS_KEPT = 1 << 16  # of samples that were read; many times what is read ahead


class Masks:
    """Every class that there is, annotated in every sample."""

    relabel: Relabel | None = None
    shown: Tensor | None = None  # the class that each value of a label shows, where values are no class ids

    def __init__(self, classes: ClassTable, spacing_mm: float) -> None:
        self.classes, self.spacing_mm = classes, spacing_mm
        self._sets = torch.zeros((0, len(classes)), dtype=torch.bool)

    @property
    def tumors(self) -> tuple[int, ...]:
        """The values of a label that are tumor for sure."""
        return tuple(self.classes.tumors.values())

    def targets(self, label: Tensor, batch: dict[str, Tensor], positions: npt.NDArray[np.int64]) -> Targets:
        """What the samples of a batch, which have these places in the global order, are trained towards.

        `label` uint8 (B, 1, X, Y, Z) is that of the batch, cropped and augmented.
        """
        return Targets(self.classes.to_channels(label), self._sets, spacing_mm=self.spacing_mm)


@dataclass(frozen=True)
class Origin:
    """One source of the stream: what its samples annotate, and how their tumors are seen."""

    place: str
    annotated: Annotated
    kind: LabelKind = "mask"
    annotations: AnnotationSource | None = None  # of a kind that is no mask


class CodedLabels(Masks):
    """Labels that say less than a mask, in some of the sources."""

    def __init__(
        self,
        origins: Sequence[Origin],
        classes: ClassTable,
        spacing_mm: float,
        supervision: SupervisionConfig,
        augment: AugmentConfig,
        seed: int,
    ) -> None:
        super().__init__(classes, spacing_mm)
        self._origins, self._augment, self._seed = origins, augment, seed
        everything = frozenset(classes.ids)
        found = dict.fromkeys(ids for origin in origins for ids in origin.annotated.selections)
        # As background: a sample is taken for one that annotates all classes.
        taken_for = {ids: ids if supervision.partial == "marginal" else everything for ids in found}
        self._book = CodeBook(classes, tuple(dict.fromkeys(taken_for.values())))
        self._tables = {ids: self._book.table(as_ids) for ids, as_ids in taken_for.items()}
        self._weak = [WeakCodes(self._book, origin.kind, supervision) for origin in origins]
        self._sets, self.shown, self.relabel = self._book.sets, self._book.shown, self._encode
        self._facts, self._lock = OrderedDict[tuple[int, int], Facts](), Lock()

    @property
    def tumors(self) -> tuple[int, ...]:
        """The codes that are tumor for sure."""
        return self._book.tumors

    def _encode(self, source: int, index: int, label: npt.NDArray[np.uint8]) -> None:
        """Put codes in place of the class ids of a label; in a thread that reads."""
        origin = self._origins[source]
        table = self._tables[origin.annotated.selection(index)]
        codes = encode_masks(label, table, f"{origin.place}: sample {index}")
        if origin.annotations is not None:
            annotation = origin.annotations.of(index, label)
            self._weak[source].paint(codes, label, annotation, self.spacing_mm)
            if origin.kind in FIXED:
                self._remember(source, index, facts_of(annotation, origin.kind, self.classes))
        label[...] = codes

    def _remember(self, source: int, index: int, facts: Facts) -> None:
        with self._lock:
            self._facts[source, index] = facts
            self._facts.move_to_end((source, index))
            while len(self._facts) > _FACTS_KEPT:
                self._facts.popitem(last=False)

    def targets(self, label: Tensor, batch: dict[str, Tensor], positions: npt.NDArray[np.int64]) -> Targets:
        """As of masks. Boxes are where the sample's flips have put them."""
        indices = batch["index"].tolist()
        sources = batch["source"].tolist() if "source" in batch else [0] * len(indices)
        with self._lock:
            facts = [
                self._facts[source, index] if self._origins[source].kind in FIXED else Facts()
                for source, index in zip(sources, indices, strict=True)
            ]
        shape = index3(label.shape[2:])
        boxes = tuple(
            moved(sample.boxes, self._flips(int(position)), shape) if sample.boxes else ()
            for sample, position in zip(facts, positions, strict=True)
        )
        reports = tuple(sample.report for sample in facts)
        return Targets(
            label.long(),
            self._sets,
            boxes if any(boxes) else (),
            tag_table(facts, len(self.classes)),
            () if all(report is None for report in reports) else reports,
            spacing_mm=self.spacing_mm,
        )

    def _flips(self, position: int) -> tuple[int, ...]:
        return draw(self._augment, self._seed, position)[0].flipped
