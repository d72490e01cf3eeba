"""The names of the engines: those of the files in `pipeline/synthesis/engines/`. Loads none of them, nor torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

_FOLDER = Path(__file__).parent / "synthesis" / "engines"
_NO_ENGINE = "registry"  # nor are files whose names begin with an underscore
_BY_KIND = "wall"  # of kinds that grow along a wall, and of no others: not for the user to choose


def engine_names() -> tuple[str, ...]:
    """All engines."""
    names = (path.stem for path in _FOLDER.glob("*.py"))
    return tuple(sorted(name for name in names if not name.startswith("_") and name != _NO_ENGINE))


def solid_engines() -> tuple[str, ...]:
    """The engines of solid tumors, which a user may choose from."""
    return tuple(name for name in engine_names() if name != _BY_KIND)


if TYPE_CHECKING:
    EngineName = str
else:  # so that settings and flags refuse any other name and list these
    EngineName = Literal[solid_engines()]
