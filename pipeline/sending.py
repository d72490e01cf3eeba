"""Objects on their way from one store to another: checked against what is known of them, counted, in threads."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from pipeline.errors import InputError, PhantumorError
from pipeline.progress import Progress, size
from pipeline.store import Store
from pipeline.threads import THREADS

RESUME = "What was copied is whole; the same command goes on from there"
_MEMORY = 1 << 30  # bytes of the objects that are in hand at one time; each is held up to three times
_MEGABYTE = 1_000_000
ELSEWHERE = "copy to another place"


@dataclass(frozen=True)
class Copied:
    """What a copy did. `units` are cases of a bank or shards of a dataset; `note` is what is left to do."""

    kind: str
    units: int
    copied: int
    bytes: int
    seconds: float = 0.0
    bank: str | None = None  # where the copy of a dataset looks for its bank
    note: str = ""

    def to_json(self) -> Mapping[str, object]:
        """For `--json`."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        what = "cases" if self.kind == "bank" else "shards"
        rate = f" at {size(self.bytes / self.seconds)}/s" if self.bytes and self.seconds else ""
        lines = [f"{self.copied} of {self.units} {what} copied, {size(self.bytes)}{rate}; the others were there"]
        if self.bank is not None:
            lines.append(f"its bank: {self.bank}")
        return [*lines, self.note] if self.note else lines


def check_free(there: Store) -> None:
    """InputError when something lies where a copy shall be."""
    if not there.is_free():
        raise InputError(f"{there.url}: something else lies there; copy to an empty or a new place")


@dataclass(frozen=True)
class Parcel:
    """An object to copy: its bytes, and their digest where it is known."""

    key: str
    size: int
    sha256: str | None = None


class Sender:
    """Copies objects between two stores, showing progress."""

    def __init__(self, here: Store, there: Store, parcels: Iterable[Parcel]) -> None:
        """`parcels` are all that will be sent; PhantumorError when there is no room for them."""
        self._here, self._there = here, there
        sizes = [parcel.size for parcel in parcels]
        self.bytes = sum(sizes)
        self.threads = max(1, min(THREADS, _MEMORY // (3 * max(1, *sizes, 1))))
        free = there.free_bytes()
        if free is not None and free < self.bytes:
            raise PhantumorError(f"{there.url}: {size(self.bytes)} to copy, its disk has {size(free)} free. {RESUME}")
        self._progress = Progress(self.bytes // _MEGABYTE, "MB")
        self._sent = 0
        self._lock = threading.Lock()

    def send(self, parcel: Parcel) -> None:
        """Copy an object whole, in one step; InputError when it is missing or is not what it should be."""
        data = self.fetch(parcel.key)
        if parcel.sha256 is not None and hashlib.sha256(data).hexdigest() != parcel.sha256:
            raise InputError(f"{self._here.url}/{parcel.key}: not the bytes that were written: damaged. {_MEND}")
        self._there.replace(parcel.key, data)
        with self._lock:
            before, self._sent = self._sent, self._sent + len(data)
            whole = self._sent // _MEGABYTE - before // _MEGABYTE
            if whole:
                self._progress.advance(whole)

    def fetch(self, key: str) -> bytes:
        """Read an object of the source, whose failures are not the destination's."""
        try:
            return self._here.read(key)
        except FileNotFoundError as error:
            raise InputError(f"{self._here.url}/{key}: missing. {_MEND}") from error
        except OSError as error:
            raise PhantumorError(
                f"{self._here.url}/{key}: cannot be read: {error.strerror or error}. {RESUME}"
            ) from error

    def end(self) -> None:
        """Leave the progress line behind."""
        self._progress.end()


_MEND = "Mend the source (a dataset: `phantumor verify --repair`; a bank: prepare the case again), then copy again"
