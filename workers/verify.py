"""`phantumor verify`: what is wrong with a dataset, and on request what is remade and what is removed."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.catalog import Home, bank_of
from pipeline.description import DatasetInfo, read_info
from pipeline.errors import InputError
from pipeline.manifest import committed_shards
from pipeline.progress import duration, size
from pipeline.store import Location, Store, open_store
from workers.checks import check_dataset
from workers.findings import Finding
from workers.garbage import Garbage, Swept, sweep
from workers.shard_files import Healthy
from workers.view_checks import ViewCheck, by_home

if TYPE_CHECKING:  # they load torch, which checking alone does without
    from workers.repair import Repair

_Chosen = Sequence[tuple[Home, Sequence[int]]]


@dataclass(frozen=True)
class Report:
    """What was found and what was done about it. `left` is what is still wrong at the end."""

    path: str
    shards: int
    planned_shards: int
    samples: int
    replayed: int
    findings: Sequence[Finding]
    repairs: Sequence[Repair]
    left: Sequence[Finding]
    swept: Swept
    notes: Sequence[str]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong now."""
        return not self.left

    @property
    def removed(self) -> Sequence[Garbage]:
        """Leftovers that were removed."""
        return self.swept.removed

    @property
    def freed_bytes(self) -> int:
        """Size of the leftovers that were removed."""
        return sum(garbage.bytes for garbage in self.removed)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        lists = {name: [one.to_json() for one in getattr(self, name)] for name in _LISTS}
        return {
            "path": self.path,
            "ok": self.ok,
            "shards": {"committed": self.shards, "planned": self.planned_shards},
            "samples": self.samples,
            "replayed": self.replayed,
            **lists,
            "notes": list(self.notes),
            "freed_bytes": self.freed_bytes,
            "left_young": {"count": self.swept.young, "seconds": self.swept.seconds},
            "seconds": self.seconds,
        }

    def lines(self) -> list[str]:
        """For people: a line for each thing that was found, made again, found after that, or removed."""
        late = [finding for finding in self.left if finding not in self.findings]
        lines = [f.line() for f in self.findings] + [r.line() for r in self.repairs] + [f.line() for f in late]
        lines += [garbage.line() for garbage in self.removed]
        if self.removed:
            lines.append(f"removed {len(self.removed)} leftovers, {size(self.freed_bytes)} freed")
        if self.swept.young:
            lines.append(
                f"left alone {self.swept.young} leftovers that are too young, somebody may be at work on them: --gc "
                f"removes them in {duration(self.swept.seconds)}; where nobody is, --gc-age-minutes 0 does now"
            )
        return lines + [f"note: {note}" for note in self.notes]

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
        return found + self._advice()

    def _advice(self) -> str:
        places = sorted({finding.place for finding in self.left if finding.place})
        if places:
            commands = ", ".join(f"`phantumor verify {shlex.quote(place)} --repair`" for place in places)
            return f". {commands} may mend it, then make the view again"
        mends = all(finding.remedy != "none" for finding in self.left)
        return f". `phantumor verify {shlex.quote(self.path)} --repair` mends it" if mends else ""


_LISTS = ("findings", "repairs", "left", "removed")


def _count(findings: Sequence[Finding]) -> str:
    return f"{len(findings)} finding{'s' if len(findings) != 1 else ''}"


def verify(
    place: Location,
    *,
    replay: float | None = None,
    repair: bool = False,
    gc: bool = False,
    gc_age_minutes: float = 60.0,
) -> Report:
    """Check every committed shard of a dataset; on request replay a share of its samples, repair, remove leftovers.

    Of a view, its rows and every shard they lie in are checked. `replay` is a share in (0, 1]. What is broken is
    reported, not raised. InputError for arguments out of range, where there is no dataset, when a replay is asked for
    and the bank is not there, and when a view shall be repaired.
    """
    _check_arguments(replay, gc_age_minutes)
    started, store = time.monotonic(), open_store(place)
    info = read_info(store)
    if repair and info.sources:
        raise InputError(_no_repair(store, ViewCheck(store, info.config.samples)))
    subject = _View(store, info) if info.sources else _Own(store, info)
    if replay is not None:
        subject.require_banks()
    findings: list[Finding] = []
    repairs: list[Repair] = []
    swept = Swept([])
    left, replayed = findings, 0
    with _telling(findings, repair):
        findings.extend(subject.findings())
        if replay is not None:
            replayed = _replay(subject.choose(replay, findings), findings, bool(info.sources))
        if repair:
            repairs, left = _repair(store, info, findings, subject.healthy(Home(store, info)))
        if gc:
            swept = sweep(store, gc_age_minutes)
    shards, samples = subject.extent()
    return Report(
        path=store.url,
        shards=shards,
        planned_shards=info.shards,
        samples=samples,
        replayed=replayed,
        findings=findings,
        repairs=repairs,
        left=left,
        swept=swept,
        notes=subject.notes(replayed),
        seconds=time.monotonic() - started,
    )


def _check_arguments(replay: float | None, gc_age_minutes: float) -> None:
    if replay is not None and not 0 < replay <= 1:
        raise InputError(f"--replay {replay:g}: give a share of the samples, more than 0 and at most 1")
    if not gc_age_minutes >= 0:
        raise InputError(f"--gc-age-minutes {gc_age_minutes:g}: must be 0 or more")


def _no_repair(store: Store, check: ViewCheck) -> str:
    homes = () if isinstance(check.homes, Finding) else check.homes
    commands = ", ".join(f"`phantumor verify {shlex.quote(home.store.url)} --repair`" for home in homes)
    return f"{store.url} is a view, its samples lie in other datasets: {commands or 'repair those'}, then make it again"


class _Subject:
    """What is checked, and the healthy patches that its differences need."""

    def __init__(self, store: Store, info: DatasetInfo) -> None:
        self.store, self.info = store, info
        self._healthy: dict[str, Healthy | None] = {}
        self._told: dict[str, str] = {}

    def healthy(self, home: Home) -> Healthy | None:
        """Healthy patches of a `delta` dataset, whose bank is opened once; None without it, which is noted."""
        url, kind = home.store.url, home.info.config.store
        if url not in self._healthy:
            self._healthy[url] = None
            if kind == "delta":
                try:
                    self._healthy[url] = Healthy(bank_of(home.store, home.info), home.info.config.organs)
                except InputError as error:
                    self._told[url] = f"pixels were not compared, only what is stored of them: {error}"
            if kind == "recipe":
                self._told[url] = f"{url} holds no pixels; --replay makes samples again and compares"
        return self._healthy[url]

    def notes(self, replayed: int) -> list[str]:
        """What was not looked at."""
        return [] if replayed else list(self._told.values())


class _Own(_Subject):
    """A dataset with shards of its own."""

    def __init__(self, store: Store, info: DatasetInfo) -> None:
        super().__init__(store, info)
        self._home = Home(store, info)
        self._committed = committed_shards(store)

    def require_banks(self) -> None:
        """InputError when the bank for a replay is not there."""
        self._home.bank  # noqa: B018 (opens it)

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong."""
        yield from check_dataset(self.store, self.info, self.healthy(self._home))

    def choose(self, share: float, findings: Collection[Finding]) -> _Chosen:
        """Samples of whole shards to replay."""
        from workers.replay import choose, indices_of

        broken = {finding.shard for finding in findings if finding.remedy != "compact"}
        plan = self.info.plan
        sound = [shard for shard in self._committed if shard not in broken and shard < plan.shards]
        return [(self._home, choose(self.info.seed, indices_of(plan, sound), share))]

    def extent(self) -> tuple[int, int]:
        """Shards and samples that were checked."""
        plan = self.info.plan
        return len(self._committed), plan.samples_in(shard for shard in self._committed if shard < plan.shards)


class _View(_Subject):
    """A view: rows of its own, samples in other datasets."""

    def __init__(self, store: Store, info: DatasetInfo) -> None:
        super().__init__(store, info)
        self._check = ViewCheck(store, info.config.samples)

    @property
    def _homes(self) -> Sequence[Home]:
        return () if isinstance(self._check.homes, Finding) else self._check.homes

    def require_banks(self) -> None:
        """InputError when the bank of a source is not there."""
        for home in self._homes:
            home.bank  # noqa: B018 (opens it)

    def findings(self) -> Iterator[Finding]:
        """Everything that is wrong with the view and the shards that it uses."""
        yield from self._check.findings({home.store.url: self.healthy(home) for home in self._homes})

    def choose(self, share: float, findings: Collection[Finding]) -> _Chosen:
        """Samples of whole shards to replay; none where the view's own rows are in doubt."""
        from workers.replay import choose

        whole = self._check.whole
        if isinstance(whole, Finding) or any(not finding.place for finding in findings):
            return []
        broken = {(finding.place, finding.shard) for finding in findings}
        chosen = by_home(self._homes, choose(self.info.seed, whole.indices(), share))
        return [
            (home, [i for i in own if (home.store.url, home.info.plan.shard_of(i)) not in broken])
            for home, own in chosen
        ]

    def extent(self) -> tuple[int, int]:
        """Shards and samples that were checked."""
        whole = self._check.whole
        return (0, 0) if isinstance(whole, Finding) else (len(whole.shards), whole.rows)


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


def _replay(chosen: _Chosen, findings: list[Finding], view: bool) -> int:
    """Replay samples, add what is found; how many were replayed."""
    from workers.replay import replay

    for home, found in replay(chosen):
        findings.append(dataclasses.replace(found, remedy="none", place=home.store.url) if view else found)
    return sum(len(indices) for _, indices in chosen)


def _repair(
    store: Store, info: DatasetInfo, findings: Sequence[Finding], healthy: Healthy | None
) -> tuple[list[Repair], list[Finding]]:
    from workers.repair import repair

    return repair(store, info, findings, healthy)
