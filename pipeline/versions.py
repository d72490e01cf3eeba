"""Which software made a result. Asks the installed packages' metadata, imports none of them."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

from pipeline import __version__

_RECORDED = (
    "numpy",
    "torch",
    "scipy",
    "zarr",
    "numcodecs",
    "pyarrow",
    "edt",
    "connected-components-3d",
    "monai",
    "ray",
)


def software() -> dict[str, str]:
    """Versions of phantumor, Python and the packages that shape a result."""
    return dict(_software())


@cache
def _software() -> dict[str, str]:
    found = {"phantumor": __version__, "python": platform.python_version()}
    for name in _RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
