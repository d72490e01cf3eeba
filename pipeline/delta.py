"""The `delta` kind: what a sample adds to the healthy patch. `sample = healthy + delta`, in the arrays' own arithmetic.

A difference is nearly all zeros, so it takes a few kB. It is worth that only while a sample's change is confined to
boxes around what its spec puts there, which is checked: a generator that touched every voxel would make deltas as large
as samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, reduce
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.case import AIR_HU
from pipeline.errors import InputError
from pipeline.grid import Index3, Slices3, crop, overlap
from pipeline.organs import organ_id, tumor_id

# Planes that are worked on together: what is in between stays in the processor's cache (0.45 against 1.7 ms at 96^3).
_CACHED_BYTES = 1 << 16


class Tissue(Protocol):
    """What is asked of a case: a `Case` will do."""

    @property
    def ct(self) -> npt.NDArray[np.int16]:
        """HU (X, Y, Z)."""

    @property
    def organs(self) -> npt.NDArray[np.uint8]:
        """Class ids (X, Y, Z)."""


def healthy_image(case: Tissue, origin: Index3, shape: Index3) -> npt.NDArray[np.int16]:
    """The patch of the case as it is, int16 HU (X, Y, Z), air beyond the case."""
    return crop(case.ct, origin, shape, AIR_HU)


def healthy_label(case: Tissue, origin: Index3, shape: Index3, organs: Sequence[str]) -> npt.NDArray[np.uint8]:
    """The class ids of these organs (and of tumors that the case has annotated), uint8 (X, Y, Z)."""
    return _of_organs(organs, crop(case.organs, origin, shape, 0))


def no_twin(where: str, case_ids: Iterable[str]) -> InputError:
    """What to raise where the healthy twins of samples of annotated cases are asked for."""
    named = sorted(case_ids)
    more = ", ..." if len(named) > 4 else ""
    return InputError(
        f"{where}: samples of annotated cases ({', '.join(named[:4])}{more}) have no healthy twin: what the patient's "
        "own tumors replaced is not known; ask for twins of synthetic samples only, as with "
        f"where=\"case_id != '{named[0]}'\""
    )


def _of_organs(organs: Sequence[str], ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The ids (X, Y, Z) with everything but these organs and their tumors as background.

    By comparisons: looking each voxel up in a table takes several times as long.
    """
    # Below `first` uint8 wraps around to large numbers.
    near = [(ids - np.uint8(first)) <= np.uint8(last - first) for first, last in _class_runs(tuple(organs))]
    return ids * reduce(np.logical_or, near).view(np.uint8) if near else np.zeros_like(ids)


@lru_cache(maxsize=16)
def _class_runs(organs: tuple[str, ...]) -> list[tuple[int, int]]:
    """The class ids of organs and their tumors as runs (first, last) of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for number in sorted({number for organ in organs for number in (organ_id(organ), tumor_id(organ))}):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return runs


def delta_of(
    case: Tissue,
    origin: Index3,
    organs: Sequence[str],
    arrays: dict[str, npt.NDArray[Any]],
    confined_to: Iterable[Slices3],
    where: str,
) -> dict[str, npt.NDArray[Any]]:
    """`image` and `label` minus the healthy ones; InputError when they differ outside the boxes `confined_to`."""
    shape: Index3 = arrays["image"].shape
    deltas = {
        "image": np.subtract(arrays["image"], healthy_image(case, origin, shape)),
        "label": np.subtract(arrays["label"], healthy_label(case, origin, shape, organs)),
    }
    outside = np.ones(shape, bool)
    for box in confined_to:
        outside[box] = False
    for name, delta in deltas.items():
        count = int(np.count_nonzero((delta != 0) & outside))
        if count:
            raise InputError(
                f"{where}: {count} voxels of its {name} differ from the healthy case outside the boxes around its "
                "tumors, so its change is not confined and `store: delta` cannot keep it; use `--store full`"
            )
    return deltas


def add_healthy(
    case: Tissue, origin: Index3, organs: Sequence[str], image: npt.NDArray[np.int16], label: npt.NDArray[np.uint8]
) -> None:
    """Turn a difference into the sample, in place."""
    of_case, of_patch = overlap(origin, image.shape, case.ct.shape)
    if image[of_patch].size < image.size:
        inside = image[of_patch].copy()
        image += AIR_HU
        image[of_patch] = inside
    for healthy, made in _planes(case.ct[of_case], image[of_patch]):
        made += healthy
    for ids, shown in _planes(case.organs[of_case], label[of_patch]):
        shown += _of_organs(organs, ids)


def _planes(healthy: npt.NDArray[Any], made: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Some planes of both at a time, those of the healthy part copied together.

    A patch of a case lies in its memory in short rows, each of which costs NumPy as much as a hundred voxels: copying
    has the least of that cost, and is done once.
    """
    planes = max(1, _CACHED_BYTES // max(1, healthy[:1].nbytes))
    for x in range(0, len(healthy), planes):
        yield np.ascontiguousarray(healthy[x : x + planes]), made[x : x + planes]
