"""The leak check: does anything but the picture tell real cases from synthetic ones?

In: the folder of a study as it will be served, and the truth. Out: findings, each with how it was tested. What can be
made equal must be equal in all cases; what is drawn must be ordered no better than by chance.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from scipy import stats

from pipeline.grid import bounding_box
from pipeline.study.design import CASES, MASKS, Truth
from pipeline.study.lesions import LESION

LEAST_P = 0.05  # a drawn order or place that separates the classes with a smaller p has to be drawn again
_HEADER_BYTES = 352


@dataclass(frozen=True)
class Finding:
    """One thing that was tested; `detail` is what was found."""

    name: str
    how: str
    passed: bool
    detail: str

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "how": self.how, "passed": self.passed, "detail": self.detail}


@dataclass(frozen=True)
class _File:
    """A case file as an outsider meets it."""

    name: str
    content: bytes
    size: int
    modified_ns: int
    mode: int

    @property
    def values(self) -> Any:
        return np.asarray(nib.Nifti1Image.from_stream(io.BytesIO(self.content)).dataobj)


_EQUAL: tuple[tuple[str, str, Callable[[_File], Any]], ...] = (
    ("header", "the 352 bytes before the voxels are the same in every file", lambda f: f.content[:_HEADER_BYTES]),
    ("shape", "the same in every file", lambda f: f.values.shape),
    ("dtype", "the same in every file", lambda f: str(f.values.dtype)),
    (
        "value range",
        "smallest and largest HU are the same in every file: all are clipped to a range that each fills",
        lambda f: (int(f.values.min()), int(f.values.max())),
    ),
    (
        "file size",
        "the same in every file, on disk and over the wire: nothing is compressed, so the size of compressed data, "
        "which would tell smooth from grainy, exists nowhere",
        lambda f: (f.size, len(f.content)),
    ),
    ("modification time", "the same in every file, and never sent", lambda f: f.modified_ns),
    ("file mode", "the same in every file", lambda f: f.mode),
    ("file name", "a number and .nii, of one length", lambda f: (len(f.name), f.name[-4:], f.name[:-4].isdigit())),
)


def leaks(folder: Path, truth: Mapping[str, Truth]) -> list[Finding]:
    """All findings for the cases of a study."""
    files = [_file(folder / CASES / f"{number}.nii") for number in sorted(truth)]
    synthetic = [truth[file.name[:-4]] == "synthetic" for file in files]
    findings = [_equal(name, how, [of(file) for file in files]) for name, how, of in _EQUAL]
    places = [_place(folder / MASKS / f"{number}.npy") for number in sorted(truth)]
    return [
        *findings,
        _same_places(places, synthetic),
        separation("case number, and with it URL and order", "drawn at random", list(range(len(files))), synthetic),
    ]


def separation(name: str, what: str, values: Sequence[float], synthetic: Sequence[bool]) -> Finding:
    """Whether a number separates the classes better than chance: Mann-Whitney test, two-sided, exact without ties."""
    sides = [[v for v, s in zip(values, synthetic, strict=True) if s is side] for side in (False, True)]
    how = f"{what}; Mann-Whitney test of real against synthetic, p of at least {LEAST_P:g}"
    if not all(sides) or len(set(values)) == 1:
        return Finding(name, how, True, "the same in all cases")
    result = stats.mannwhitneyu(sides[1], sides[0])
    area = float(result.statistic) / (len(sides[0]) * len(sides[1]))
    return Finding(name, how, float(result.pvalue) >= LEAST_P, f"AUC {area:.2f}, p {float(result.pvalue):.2f}")


def _equal(name: str, how: str, values: Sequence[Any]) -> Finding:
    kinds = len(set(values))
    shown = f"{len(values)} files, all alike" if kinds == 1 else f"{kinds} different values in {len(values)} files"
    return Finding(name, how, kinds == 1, shown)


def _same_places(places: Sequence[tuple[int, ...]], synthetic: Sequence[bool]) -> Finding:
    how = "real and synthetic lesions lie at the same voxels of their crops, each pair at the same one"
    sides = [sorted(place for place, s in zip(places, synthetic, strict=True) if s is side) for side in (False, True)]
    alike = sides[0] == sides[1]
    return Finding("place of the lesion", how, alike, f"{len(set(places))} places, {'' if alike else 'not '}alike")


def _place(mask: Path) -> tuple[int, ...]:
    low, high = bounding_box(np.load(mask) == LESION)
    return tuple((a + b) // 2 for a, b in zip(low, high, strict=True))


def _file(path: Path) -> _File:
    about = path.stat()
    return _File(path.name, path.read_bytes(), about.st_size, about.st_mtime_ns, about.st_mode)
