"""Which tumor voxels of a label belong to which tumor of its manifest row. Pure.

Tumors never touch (see `pipeline.synthesis.location.GAP_VOXELS`), so every 26-connected piece of a tumor class is of
one tumor; a tumor that an organ's surface cuts may be of several pieces.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cc3d
import numpy as np
import numpy.typing as npt

from pipeline.components import connected_components
from pipeline.errors import InputError
from pipeline.grid import Index3, Slices3, bounding_box, index3, slices3
from pipeline.organs import tumor_id

_MOST_DOUBTFUL = 12  # pieces that all ways to share them out are tried for; of more, each goes to the nearest tumor


@dataclass(frozen=True)
class TumorMask:
    """A tumor of a manifest row and its voxels: `mask` (X, Y, Z) in the tight `box` of the patch."""

    facts: Mapping[str, Any]
    box: Slices3
    mask: npt.NDArray[np.bool_]

    @property
    def low(self) -> Index3:
        """The first voxel of the box."""
        return index3(s.start for s in self.box)


def tumor_masks(label: npt.NDArray[np.uint8], row: Mapping[str, Any]) -> list[TumorMask]:
    """The tumors of a manifest row, in its order, with their voxels in `label` (X, Y, Z).

    InputError when the label holds other tumor voxels than the row says.
    """
    found: dict[int, TumorMask] = {}
    for organ in dict.fromkeys(tumor["organ"] for tumor in row["tumors"]):
        facts = [tumor for tumor in row["tumors"] if tumor["organ"] == organ]
        found |= {mask.facts["instance"]: mask for mask in _of_organ(label, tumor_id(organ), facts, row)}
    _check_count(label, row, sum(int(np.count_nonzero(tumor.mask)) for tumor in found.values()))
    return [found[tumor["instance"]] for tumor in row["tumors"]]


def _check_count(label: npt.NDArray[np.uint8], row: Mapping[str, Any], given: int) -> None:
    """InputError when tumor voxels lie outside all tumors."""
    held = int(np.count_nonzero((label > 0) & (label % 2 == 0)))
    if held != given:
        raise _other_label(row, f"{held} tumor voxels, of which {given} lie in tumors of the row")


def _other_label(row: Mapping[str, Any], what: str) -> InputError:
    return InputError(
        f"sample {row['sample_id']}: the label is not that of its manifest row: {what}. `phantumor verify` finds what "
        "is broken in a dataset"
    )


def _of_organ(
    label: npt.NDArray[np.uint8], class_id: int, facts: Sequence[Mapping[str, Any]], row: Mapping[str, Any]
) -> list[TumorMask]:
    boxes = np.array([tumor["bbox_vox"] for tumor in facts])
    low, high = boxes[:, :3].min(axis=0), boxes[:, 3:].max(axis=0)
    around = label[slices3(low.tolist(), high.tolist())] == class_id
    masks = [around] if len(facts) == 1 else _shared_out(around, low, facts, row)
    return [_checked(mask, low, tumor, row) for mask, tumor in zip(masks, facts, strict=True)]


def _checked(
    mask: npt.NDArray[np.bool_], corner: npt.NDArray[np.int64], tumor: Mapping[str, Any], row: Mapping[str, Any]
) -> TumorMask:
    """The mask in its tight box; InputError unless box and volume are those of the row."""
    if not mask.any():
        raise _other_label(row, f"no voxel of tumor {tumor['instance']}")
    low, high = bounding_box(mask)
    own = mask[slices3(low, high)]
    box = slices3((low + corner).tolist(), (high + corner).tolist())
    volume = int(np.count_nonzero(own)) * row["spacing_mm"] ** 3
    at = [*(s.start for s in box), *(s.stop for s in box)]
    if at != list(tumor["bbox_vox"]) or not math.isclose(volume, tumor["volume_mm3"], rel_tol=1e-9):
        said = f"{tumor['volume_mm3']:g} mm3 in the box {list(tumor['bbox_vox'])}"
        raise _other_label(row, f"tumor {tumor['instance']} has {volume:g} mm3 in the box {at}, the row says {said}")
    return TumorMask(tumor, box, own)


# ---- several tumors of one organ ----


@dataclass(frozen=True)
class _Piece:
    """A connected piece of a tumor class, and the tumors whose boxes hold it, the nearest first."""

    number: int
    voxels: int
    of: tuple[int, ...]


def _shared_out(
    around: npt.NDArray[np.bool_],
    corner: npt.NDArray[np.int64],
    facts: Sequence[Mapping[str, Any]],
    row: Mapping[str, Any],
) -> list[npt.NDArray[np.bool_]]:
    """One mask for each tumor, by boxes first, then by volumes."""
    numbers = connected_components(around, 26)
    left = [round(tumor["volume_mm3"] / row["spacing_mm"] ** 3) for tumor in facts]
    owner = np.full(int(numbers.max()) + 1, -1)
    doubtful: list[_Piece] = []
    for piece in _pieces(numbers, np.array([tumor["bbox_vox"] for tumor in facts]) - np.tile(corner, 2)):
        if not piece.of:
            raise _other_label(row, f"{piece.voxels} tumor voxels in a place where the row has no tumor")
        if len(piece.of) == 1 or left[piece.of[0]] == piece.voxels:
            owner[piece.number] = piece.of[0]
            left[piece.of[0]] -= piece.voxels
        else:
            doubtful.append(piece)
    doubtful.sort(key=lambda piece: -piece.voxels)
    for piece, k in zip(doubtful, _owners(doubtful, left), strict=True):
        owner[piece.number] = k
    owners = owner[numbers]
    return [owners == k for k in range(len(facts))]


def _pieces(numbers: npt.NDArray[Any], boxes: npt.NDArray[np.int64]) -> Iterator[_Piece]:
    """The pieces of a numbered mask (0: none), given the boxes of the tumors, (n, 6)."""
    found = cc3d.statistics(numbers)
    middles, sizes = (boxes[:, :3] + boxes[:, 3:]) / 2, boxes[:, 3:] - boxes[:, :3]
    for number, (voxels, box, center) in enumerate(
        zip(found["voxel_counts"], found["bounding_boxes"], found["centroids"], strict=True)
    ):
        if number == 0 or box is None:
            continue
        low, high = [s.start for s in box], [s.stop for s in box]
        held = np.flatnonzero((boxes[:, :3] <= low).all(axis=1) & (boxes[:, 3:] >= high).all(axis=1))
        away = (((center + 0.5 - middles[held]) / sizes[held]) ** 2).sum(axis=1)
        yield _Piece(number, int(voxels), tuple(held[np.argsort(away, kind="stable")].tolist()))


def _owners(pieces: Sequence[_Piece], left: Sequence[int]) -> list[int]:
    """The tumor of each piece, so that every tumor gets as many voxels as it has left; near ones are tried first."""
    if len(pieces) > _MOST_DOUBTFUL:
        return [piece.of[0] for piece in pieces]
    for choice in itertools.product(*(piece.of for piece in pieces)):
        given = [0] * len(left)
        for piece, k in zip(pieces, choice, strict=True):
            given[k] += piece.voxels
        if given == list(left):
            return list(choice)
    return [piece.of[0] for piece in pieces]
