"""Arrays as NIfTI bytes for a viewer or a download."""

from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import numpy.typing as npt

_GZIP_LEVEL = 4


def nifti_bytes(data: npt.NDArray[Any], affine: npt.NDArray[np.float64], *, compress: bool = False) -> bytes:
    """A NIfTI-1 file of `data` (X, Y, Z) with the affine (4, 4) to RAS mm; the same array gives the same bytes."""
    import nibabel as nib  # the first page needs no images

    image = nib.Nifti1Image(data, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    content: bytes = image.to_bytes()
    return gzip.compress(content, _GZIP_LEVEL, mtime=0) if compress else content


def dense_labels(label: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], list[int]]:
    """Class ids as 0, 1, 2, ... without gaps, (X, Y, Z), and which class each number is.

    Viewers draw what lies beyond the end of a color table in its last color.
    """
    present = np.unique(label)
    classes = [0, *(int(number) for number in present if number)]
    table = np.zeros(256, np.uint8)
    table[classes] = np.arange(len(classes), dtype=np.uint8)
    dense: npt.NDArray[np.uint8] = table[label]
    return dense, classes
