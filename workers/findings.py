"""What can be wrong with a dataset, and what could be done about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

INFO, WHOLE = "dataset.json", "manifest.parquet"
Remedy = Literal["remake", "compact", "none"]  # the shard, the whole manifest, nothing that we could do


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `shard` is None where it concerns the dataset, `file` is relative to the dataset."""

    shard: int | None
    what: str
    file: str
    remedy: Remedy = "remake"

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"shard": self.shard, "what": self.what, "file": self.file}

    def line(self) -> str:
        """For people."""
        return f"{'dataset' if self.shard is None else f'shard {self.shard}'}: {self.file}: {self.what}"


def unreadable(shard: int | None, file: str, error: Exception, remedy: Remedy = "remake") -> Finding:
    """The finding for a file that is missing, damaged, or out of reach just now (then the file itself may be whole)."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, FileNotFoundError | NotADirectoryError):
        return Finding(shard, "is missing", file, remedy)
    if isinstance(cause, OSError) and cause.errno is not None:
        what = f"cannot be read: {cause.strerror or cause}. It may be whole: mend the disk or the permissions"
        return Finding(shard, what, file, "none")
    reason = str(cause) if isinstance(cause, OSError | ValueError) else str(error).rpartition(f"{file}: ")[2]
    return Finding(shard, f"is damaged: {' '.join(reason.split())}", file, remedy)
