"""A sample's label as codes: at each voxel a channel, or a set of channels of which one is right.

In: class ids uint8 (X, Y, Z), what the sample annotates, and the annotations of its tumors. Out: codes uint8 of the
same shape, as `training.supervision.targets` reads them. Pure; voxels are never moved, so codes move with the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.annotations.records import Box6, SampleAnnotation, TumorAnnotation
from pipeline.case import UInt8Array
from pipeline.errors import InputError
from pipeline.grid import Slices3, index3
from pipeline.organs import BACKGROUND, is_tumor, organ_id, tumor_id
from pipeline.train_config import LabelKind, SupervisionConfig
from training.network import ClassTable
from training.supervision.ellipsoid import ball, of_circle, of_recist

Ids = frozenset[int]
Mask = npt.NDArray[np.bool_]
_NONE = 255  # the code of a class id that no class has


@dataclass(frozen=True)
class CodeBook:
    """The codes of a training: k < C for channel k, C + s for any channel of set s."""

    classes: ClassTable
    annotated: tuple[Ids, ...]  # each selection of class ids that samples annotate

    def __post_init__(self) -> None:
        if len(self.classes) + len(self._members) > _NONE:
            raise InputError(
                f"{len(self.classes)} classes annotated in {len(self.annotated)} different selections take more than "
                f"{_NONE} codes: train on datasets that annotate the same organs, or use supervision.partial background"
            )

    @cached_property
    def _members(self) -> tuple[Ids, ...]:
        """The class ids of each set."""
        unknown = (self._unknown(annotated) for annotated in self.annotated)
        pairs = (frozenset((number - 1, number)) for number in self.classes.tumors.values())
        return tuple(dict.fromkeys((*(ids for ids in unknown if len(ids) > 1), *pairs)))

    def _unknown(self, annotated: Ids) -> Ids:
        """What a voxel may be whose sample calls it background: that, or what the sample does not annotate."""
        return frozenset(self.classes.ids) - annotated | {BACKGROUND}

    @property
    def sets(self) -> Tensor:
        """(S, C) bool: the channels of each set."""
        return torch.tensor([[number in ids for number in self.classes.ids] for ids in self._members], dtype=torch.bool)

    @cached_property
    def shown(self) -> Tensor:
        """(256,) uint8: the class that a code shows, of a set that of its organ or background."""
        ids = [*self.classes.ids, *(min(ids) for ids in self._members)]
        return torch.tensor(ids + [BACKGROUND] * (256 - len(ids)), dtype=torch.uint8)

    @property
    def tumors(self) -> tuple[int, ...]:
        """The codes of voxels that are tumor for sure."""
        return tuple(self.channel(number) for number in self.classes.tumors.values())

    def channel(self, class_id: int) -> int:
        """The code of a class."""
        return self.classes.ids.index(class_id)

    def any_of(self, ids: Iterable[int]) -> int:
        """The code of a set of class ids, or of a single one."""
        wanted = frozenset(ids)
        if len(wanted) == 1:
            return self.channel(min(wanted))
        return len(self.classes) + self._members.index(wanted)

    def table(self, annotated: Ids) -> UInt8Array:
        """(256,) the code of each class id in samples that annotate this selection."""
        table = np.full(256, _NONE, np.uint8)
        for number in self.classes.ids:
            if number == BACKGROUND or number not in annotated:
                possible = self._unknown(annotated)
            elif number + 1 in self.classes.ids and not is_tumor(number) and number + 1 not in annotated:
                possible = frozenset((number, number + 1))  # nobody looked for tumors in this organ
            else:
                possible = frozenset((number,))
            table[number] = self.any_of(possible)
        return table


def encode_masks(label: UInt8Array, table: UInt8Array, where: str) -> UInt8Array:
    """Codes of a label by the table of what its sample annotates; InputError, with `where`, for an unknown class."""
    codes: UInt8Array = table[label]
    if (codes == _NONE).any():
        found = sorted(set(np.unique(label).tolist()) - set(np.flatnonzero(table != _NONE).tolist()))
        raise InputError(
            f"{where}: a label holds the class ids {found}, which dataset.json does not list. `phantumor verify` finds "
            "broken shards"
        )
    return codes


@dataclass(frozen=True)
class WeakCodes:
    """Puts weak labels in place of tumor masks. Organs stay as they are given, and with them where tumors may be."""

    book: CodeBook
    kind: LabelKind
    settings: SupervisionConfig

    def paint(self, codes: UInt8Array, label: UInt8Array, annotation: SampleAnnotation, spacing_mm: float) -> None:
        """Change the codes, in place, of all organs whose tumors the sample annotates.

        An organ without tumor is organ for sure with every kind: a reader who marks tumors marks all of them.
        """
        for organ, has_tumor in annotation.tags.items():
            number, tumor = organ_id(organ), tumor_id(organ)
            inside = (label == number) | (label == tumor)
            codes[inside] = self.book.channel(number)
            if has_tumor:
                maybe = self.book.any_of((number, tumor))
                for region, mask, code in self._marks(annotation, number, maybe, label.shape, spacing_mm):
                    codes[region][inside[region] & mask] = code

    def _marks(
        self, annotation: SampleAnnotation, organ: int, maybe: int, shape: tuple[int, ...], spacing_mm: float
    ) -> Iterator[Mark]:
        """What is written into the organ, in order."""
        tumors = [tumor for tumor in annotation.tumors if tumor.class_id == organ + 1]
        match self.kind:
            case "tag" | "report":
                yield _EVERYWHERE, _ALL, maybe
            case "box":
                for tumor in tumors:
                    yield _slices(tumor.box_vox), _ALL, maybe
            case "scribble":
                yield _EVERYWHERE, _ALL, maybe
                for number in (organ, organ + 1):
                    strokes = np.zeros(shape, bool)
                    strokes.reshape(-1)[annotation.scribbles.get(number, _NO_VOXELS)] = True
                    yield _EVERYWHERE, strokes, self.book.channel(number)
            case _:
                sure_and_maybe = [self._regions(tumor, shape, spacing_mm) for tumor in tumors]
                # Rings first: what is tumor for sure of one may lie in the ring of another.
                yield from ((*ring, maybe) for _, ring in sure_and_maybe)
                yield from ((*core, self.book.channel(organ + 1)) for core, _ in sure_and_maybe)

    def _regions(self, tumor: TumorAnnotation, shape: tuple[int, ...], spacing_mm: float) -> tuple[Region, Region]:
        """Where a tumor is for sure, and beyond what it is not."""
        settings, patch = self.settings, index3(shape)
        if self.kind == "point":
            core, reach = (ball(tumor, mm, spacing_mm) for mm in (settings.point_core_mm, settings.point_reach_mm))
            return core.within(1, patch), reach.within(1, patch)
        whole = (of_circle if self.kind == "circle" else of_recist)(tumor, spacing_mm)
        return whole.within(settings.recist_core, patch), whole.within(settings.recist_ring, patch)


Region = tuple[Slices3, Mask]
Mark = tuple[Slices3, Mask, int]  # a box of the patch, which of its voxels, and their code
_EVERYWHERE = (slice(None), slice(None), slice(None))
_ALL = np.ones((1, 1, 1), bool)
_NO_VOXELS = np.empty(0, np.int32)


def _slices(box: Box6) -> Slices3:
    x0, y0, z0, x1, y1, z1 = box
    return slice(x0, x1), slice(y0, y1), slice(z0, z1)
