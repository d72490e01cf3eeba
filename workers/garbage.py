"""What killed processes leave in a dataset: attempts at shards that nothing names, and files that were written aside.

A running `phantumor generate` has such things too, young ones; so only what has rested for a while is garbage.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import stat
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.files import writing_to
from pipeline.manifest import part_name, read_part, read_whole_manifest, shard_name
from pipeline.progress import size

_ATTEMPT = re.compile(r"(\d{6,})-([0-9a-f]{8,32})\.zarr")


@dataclass(frozen=True)
class Garbage:
    """A leftover; its path is relative to the dataset."""

    file: str
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def line(self) -> str:
        """For people."""
        return f"removed {self.file} ({size(self.bytes)})"


def remove_garbage(folder: Path, age_minutes: float) -> list[Garbage]:
    """Remove attempts that no manifest names, and temporary files, of which nothing changed for `age_minutes`."""
    oldest = time.time() - 60 * age_minutes
    removed = []
    with writing_to(folder, "The same command removes the rest"):
        for path in _leftovers(folder):
            with contextlib.suppress(FileNotFoundError):  # the process that wrote it lives, and took it away itself
                size, changed = _weigh(path)
                if changed <= oldest:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    removed.append(Garbage(path.relative_to(folder).as_posix(), size))
    return removed


def _leftovers(folder: Path) -> list[Path]:
    # Attempts are listed before any part is read: one that is committed in between is seen to be named.
    attempts = sorted((folder / "shards").glob("*.zarr"))
    named = _named_by_whole(folder)
    asides = [path for place in (folder, folder / "manifest") for path in sorted(place.glob(".*.tmp"))]
    orphans = [path for path in attempts if path.is_dir() and _is_orphan(folder, path, named)]
    return orphans + [path for path in asides if path.is_file() and not path.is_symlink()]


def _named_by_whole(folder: Path) -> set[tuple[int, str]]:
    """Readers follow `manifest.parquet` where there is one, so what it names stays."""
    file = folder / "manifest.parquet"
    try:
        parts = read_whole_manifest(file)[0] if file.exists() else {}
    except InputError:  # nobody can follow a broken one
        return set()
    return {(part.shard, part.attempt) for part in parts.values()}


def _is_orphan(folder: Path, path: Path, named: set[tuple[int, str]]) -> bool:
    """Whether a folder is an attempt that lost or was never finished. When in doubt it is not."""
    match = _ATTEMPT.fullmatch(path.name)
    if match is None or path.is_symlink():
        return False
    shard, attempt = int(match[1]), match[2]
    if (shard, attempt) in named:
        return False
    if not (folder / part_name(shard)).exists():
        return True
    try:
        part, _ = read_part(folder, shard)
    except InputError:  # it may name this one
        return False
    return part.attempt != attempt and (folder / shard_name(shard, part.attempt)).is_dir()


def _weigh(path: Path) -> tuple[int, float]:
    """Bytes of a file, or of all files in a folder, and the newest modification time."""
    stats = [path.lstat(), *(inside.lstat() for inside in path.rglob("*"))]
    return sum(s.st_size for s in stats if not stat.S_ISDIR(s.st_mode)), max(s.st_mtime for s in stats)
