"""`phantumor verify`: what is wrong with a dataset, and on request what is remade and what is removed."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.catalog import DatasetInfo, read_info
from pipeline.errors import InputError
from pipeline.manifest import committed_shards
from pipeline.progress import size
from workers.checks import check_dataset, plan_of
from workers.findings import Finding
from workers.garbage import Garbage, remove_garbage

if TYPE_CHECKING:  # they load torch, which checking alone does without
    from pipeline.bank import Bank
    from workers.repair import Repair


@dataclass(frozen=True)
class Report:
    """What was found and what was done about it. `left` is what is still wrong at the end."""

    path: Path
    shards: int
    planned_shards: int
    samples: int
    replayed: int
    findings: Sequence[Finding]
    repairs: Sequence[Repair]
    left: Sequence[Finding]
    removed: Sequence[Garbage]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong now."""
        return not self.left

    @property
    def freed_bytes(self) -> int:
        """Size of the leftovers that were removed."""
        return sum(garbage.bytes for garbage in self.removed)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        lists = {name: [one.to_json() for one in getattr(self, name)] for name in _LISTS}
        return {
            "path": str(self.path),
            "ok": self.ok,
            "shards": {"committed": self.shards, "planned": self.planned_shards},
            "samples": self.samples,
            "replayed": self.replayed,
            **lists,
            "freed_bytes": self.freed_bytes,
            "seconds": self.seconds,
        }

    def lines(self) -> list[str]:
        """For people: a line for each thing that was found, made again, found after that, or removed."""
        late = [finding for finding in self.left if finding not in self.findings]
        lines = [f.line() for f in self.findings] + [r.line() for r in self.repairs] + [f.line() for f in late]
        lines += [garbage.line() for garbage in self.removed]
        if self.removed:
            lines.append(f"removed {len(self.removed)} leftovers, {size(self.freed_bytes)} freed")
        return lines

    def summary(self) -> str:
        """The last line."""
        looked = f"{self.path}: {self.samples} samples in {self.shards} of {self.planned_shards} shards checked"
        if self.replayed:
            looked += f", {self.replayed} replayed"
        if not self.findings:
            return f"{looked}: all is well"
        found = f"{looked}: {_count(self.findings)}"
        if self.ok:
            return f"{found}, repaired: all is well now"
        if self.repairs:
            return f"{found}, {_count(self.left)} left after the repair"
        mends = all(finding.remedy != "none" for finding in self.left)
        return found + (f". `phantumor verify {shlex.quote(str(self.path))} --repair` mends it" if mends else "")


_LISTS = ("findings", "repairs", "left", "removed")


def _count(findings: Sequence[Finding]) -> str:
    return f"{len(findings)} finding{'s' if len(findings) != 1 else ''}"


def verify(
    path: Path,
    *,
    replay: float | None = None,
    repair: bool = False,
    gc: bool = False,
    gc_age_minutes: float = 60.0,
) -> Report:
    """Check every committed shard of a dataset; on request replay a share of its samples, repair, remove leftovers.

    `replay` is a share in (0, 1]. What is broken is reported, not raised. InputError for arguments out of range, where
    there is no dataset, and when a replay is asked for and the bank is not there.
    """
    _check_arguments(replay, gc_age_minutes)
    started, info = time.monotonic(), read_info(path)
    bank = _bank(path, info) if replay is not None else None
    committed = committed_shards(path)
    findings: list[Finding] = []
    repairs: list[Repair] = []
    removed: list[Garbage] = []
    left, replayed = findings, 0
    with _telling(findings, repair):
        findings.extend(check_dataset(path, info))
        if bank is not None and replay is not None:
            replayed = _replay(path, info, bank, committed, replay, findings)
        if repair:
            repairs, left = _repair(path, info, findings)
        if gc:
            removed = remove_garbage(path, gc_age_minutes)
    return Report(
        path=path,
        shards=len(committed),
        planned_shards=info.shards,
        samples=plan_of(info).samples_in(committed),
        replayed=replayed,
        findings=findings,
        repairs=repairs,
        left=left,
        removed=removed,
        seconds=time.monotonic() - started,
    )


def _check_arguments(replay: float | None, gc_age_minutes: float) -> None:
    if replay is not None and not 0 < replay <= 1:
        raise InputError(f"--replay {replay:g}: give a share of the samples, more than 0 and at most 1")
    if not gc_age_minutes >= 0:
        raise InputError(f"--gc-age-minutes {gc_age_minutes:g}: must be 0 or more")


@contextlib.contextmanager
def _telling(findings: Sequence[Finding], repair: bool) -> Iterator[None]:
    """Ctrl-C keeps what was found so far."""
    try:
        yield
    except KeyboardInterrupt as stop:
        lines = [f"stopped with {_count(findings)} so far", *(finding.line() for finding in findings)]
        if repair:
            lines.append("the dataset's `phantumor generate` command makes a shard whose repair was cut off")
        raise KeyboardInterrupt("\n".join(lines)) from stop


def _bank(path: Path, info: DatasetInfo) -> Bank:
    from workers.repair import bank_of

    return bank_of(path, info)


def _replay(
    path: Path, info: DatasetInfo, bank: Bank, committed: Sequence[int], share: float, findings: list[Finding]
) -> int:
    """Replay samples of the shards that passed, add what is found; how many were replayed."""
    from workers.replay import choose, replay

    broken = {finding.shard for finding in findings if finding.remedy != "compact"}
    indices = choose(info, [shard for shard in committed if shard not in broken], share)
    findings.extend(replay(path, info, bank, indices))
    return len(indices)


def _repair(path: Path, info: DatasetInfo, findings: Sequence[Finding]) -> tuple[list[Repair], list[Finding]]:
    from workers.repair import repair

    return repair(path, info, findings)
