"""A disk that is really full: a small file system in memory, in a mount namespace of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.lab import CONFIG, Lab, settings_of
from tests.s3_server import ROOT

# What happens inside the namespace, where alone the small disk can be seen; in the end the dataset is copied out.
SCRIPT = """
set -u
mount -t tmpfs -o size=$FIRST tmpfs "$DISK" || exit 99
fill() { head -c "$1" /dev/zero > "$DISK/other"; }
if [ -n "$GARBAGE" ]; then
  mkdir -p "$DISK/data"
  cp -r "$BEGUN/." "$DISK/data"
  mkdir -p "$DISK/data/shards/000012-0123456789ab.zarr"
  head -c 100M /dev/zero > "$DISK/data/shards/000012-0123456789ab.zarr/zeros" 2> /dev/null
  touch -d '2 hours ago' "$DISK/data/shards/000012-0123456789ab.zarr/zeros" "$DISK/data/shards/000012-0123456789ab.zarr"
else
  "$@"; echo "first: $?"
  ls "$DISK/data/running" | wc -l | sed 's/^/records left: /'
  ls "$DISK/data/shards" | wc -l | sed 's/^/groups left: /'
  ls "$DISK/data/manifest" | wc -l | sed 's/^/shards made: /'
  mount -o remount,size=$THEN "$DISK"
fi
"$@"; echo "second: $?"
cp -r "$DISK/data" "$COPY"
"""


def on_a_small_disk(lab: Lab, out: Path, first: str, then: str, *words: object, begun: Path | None = None) -> str:
    """Generate on a disk of `first` bytes, again when it has `then`; or once, beside old left-overs. What was said."""
    disk = lab.folder / f"{out.name}-disk"
    disk.mkdir()
    command = [sys.executable, "-m", "pipeline.cli", "generate", "--bank", lab.bank, "--out", disk / "data"]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"]
        + [str(word) for word in (*command, *settings_of(CONFIG), *words)],
        env={**os.environ, "FIRST": first, "THEN": then, "DISK": str(disk), "COPY": str(out), "OMP_NUM_THREADS": "1"}
        | {"GARBAGE": "yes" if begun else "", "BEGUN": str(begun)},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode == 99 or "unshare" in done.stdout:
        pytest.skip(f"no small disk can be mounted here: {done.stdout.strip().splitlines()[-1]}")
    return done.stdout


@pytest.fixture(scope="session")
def small(lab: Lab) -> int:
    """Bytes that the dataset takes on such a disk, about: pages of 4 kB."""
    files = list(lab.reference(CONFIG).rglob("*"))
    return sum(-(-path.stat().st_size // 4096) * 4096 if path.is_file() else 0 for path in files)


@pytest.mark.parametrize(
    "words",
    [pytest.param((), id="serial"), pytest.param(("--workers", 2), id="processes", marks=pytest.mark.soak)],
)
def test_a_disk_that_fills_up_stops_the_run_and_space_lets_it_go_on(
    lab: Lab, out: Path, small: int, words: tuple[object]
) -> None:
    said = on_a_small_disk(lab, out, str(int(small * 0.7)), "50m", *words)
    assert "first: 1" in said, said
    [told] = [line for line in said.splitlines() if line.startswith("phantumor: ")]
    assert "No space left on device" in told
    assert "run the same command again" in told
    counted = {name: int(line.rpartition(" ")[2]) for line in said.splitlines() for name in _COUNTS if name in line}
    assert counted["records left"] == 0
    assert 0 < counted["shards made"] == counted["groups left"]  # those that were not committed made room
    assert "second: 0" in said
    lab.assert_recovered(out)


_COUNTS = ("records left", "groups left", "shards made")


def test_left_overs_do_not_keep_a_full_disk_full(lab: Lab, out: Path, small: int) -> None:
    begun = lab.folder / "begun"
    run = lab.generate(begun, "--slice", "1/2")
    assert run.wait() == 0, run.said()
    said = on_a_small_disk(lab, out, str(2 * small), "50m", begun=begun)
    assert "second: 0" in said, said
    lab.assert_recovered(out)
