"""What can be wrong with a dataset, and what could be done about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

# The shard, only its Zarr metadata, the whole manifest, nothing that we could do.
Remedy = Literal["remake", "metadata", "compact", "none"]
_LISTED = 8  # findings of a shard; a million of them would tell no more and fill the memory


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `shard` is None where it concerns the dataset.

    `file` is relative to the dataset, or to `place`, which is the source of a view that it was found in.
    """

    shard: int | None
    what: str
    file: str
    remedy: Remedy = "remake"
    place: str = ""

    @property
    def where(self) -> str:
        """The file as people look for it."""
        return f"{self.place}/{self.file}" if self.place else self.file

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"shard": self.shard, "what": self.what, "file": self.where}

    def line(self) -> str:
        """For people."""
        return f"{'dataset' if self.shard is None else f'shard {self.shard}'}: {self.where}: {self.what}"


def unreadable(shard: int | None, file: str, error: Exception, remedy: Remedy = "remake") -> Finding:
    """The finding for a file that is missing, damaged, or out of reach just now (then the file itself may be whole)."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, FileNotFoundError | NotADirectoryError):
        return Finding(shard, "is missing", file, remedy)
    if out_of_reach(error):
        reason = getattr(cause, "strerror", None) or cause
        what = f"cannot be read: {reason}. It may be whole: try again, or mend the disk or the permissions"
        return Finding(shard, what, file, "none")
    reason = str(cause) if isinstance(cause, OSError | ValueError) else str(error).rpartition(f"{file}: ")[2]
    return Finding(shard, f"is damaged: {' '.join(reason.split())}", file, remedy)


def out_of_reach(error: Exception) -> bool:
    """Whether a file may be whole though it could not be read: the system refused, with a number for the reason."""
    cause = error if isinstance(error, OSError) else error.__cause__
    missing = isinstance(cause, FileNotFoundError | NotADirectoryError)
    return isinstance(cause, OSError) and cause.errno is not None and not missing


def few(findings: Sequence[Finding]) -> list[Finding]:
    """The first of many findings of a shard, and how many more there are."""
    listed, more = list(findings[:_LISTED]), len(findings) - _LISTED
    if more > 0:
        last = findings[-1]
        listed.append(
            Finding(last.shard, f"and {more} more findings of this shard", last.file, last.remedy, last.place)
        )
    return listed
