"""What disks and people do to a finished dataset: `verify` finds it, `--repair` makes the same bytes again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.manifest import part_name
from tests.damage import cut, flip, shard_object
from tests.faults.lab import CONFIG, Lab


def _whole(out: Path) -> Path:
    return out / "manifest.parquet"


def _part(out: Path) -> Path:
    return out / part_name(5)


def _metadata(out: Path) -> Path:
    return next((out / "shards").glob("000005-*")) / "zarr.json"


TARGETS = {"data": lambda out: shard_object(out, 5), "zarr.json": _metadata, "part": _part, "manifest": _whole}


def _flip_inside(file: Path) -> None:
    """Not in the statistics and the footer of a Parquet file: they have no checksum, and nobody goes by them."""
    data = file.read_bytes()
    page = data.find(b"\x28\xb5\x2f\xfd", len(data) // 8)  # zstd
    flip(file, page + 10 if file.suffix == ".parquet" else len(data) // 2)


HARM = {
    "flipped": _flip_inside,
    "cut": lambda file: cut(file, 7),
    "missing": lambda file: file.unlink(),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("target", TARGETS)
def test_it_is_found_and_mended(lab: Lab, out: Path, target: str, harm: str) -> None:
    shutil.copytree(lab.reference(CONFIG), out)
    HARM[harm](TARGETS[target](out))
    found = lab.start("verify", out)
    needless = (target, harm) == ("manifest", "missing")  # readers take the parts, of which it is made
    assert found.wait() == (0 if needless else 1), found.said()
    mended = lab.start("verify", out, "--repair")
    if (target, harm) == ("part", "missing"):  # then the shard is not committed
        lab.resume(out)
    assert mended.wait() == 0, mended.said()
    lab.assert_recovered(out)
