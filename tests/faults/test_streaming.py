"""Faults under a stream: every error reaches the consumer, or is skipped and counted; nothing hangs or stays behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import reader, s3_client, shard_objects
from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import PhantumorError
from pipeline.object_cache import ObjectCache
from pipeline.shard import decode_sample
from pipeline.shard_objects import BrokenSampleError
from pipeline.train_config import NetworkConfig, TrainConfig
from tests.datasets import make_dataset, open_files_below
from tests.faulty_proxy import Fault, FaultyProxy, faulty_proxy, retry_at_once
from tests.s3_server import ROOT, S3Server
from training.checkpoint import read_checkpoint
from training.stream import ShardStream
from training.train import train

SAMPLES, SHAPE = 20, (8, 9, 10)  # 4 in each of 5 shards
BATCH = 5  # one more than a shard holds, so something is left of it when a shard is lost
Make = Callable[..., tuple[Dataset, ShardStream]]


@pytest.fixture(autouse=True)
def nothing_left_behind(no_hang: None, tmp_path: Path) -> Iterator[None]:
    """No thread that reads, no open file, no shared memory."""
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith(shard_objects.THREADS)] == []
    assert open_files_below(tmp_path) + open_files_below(Path("/dev/shm")) == []
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "/dev/shm/" in line]
    assert [line for line in mapped if not line.endswith("(deleted)")] == []  # libraries map nameless semaphores


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("pristine") / "dataset", SAMPLES, SHAPE)


@pytest.fixture
def make(request: pytest.FixtureRequest, pristine: Dataset, tmp_path: Path) -> Make:
    """Makes a dataset of the test's own, and a stream that reads it.

    As `files`, or `files by shard`; from an object store in `ranges`, as `whole` objects, or with a `cache`.
    """

    def made(way: str, **options: Any) -> tuple[Dataset, ShardStream]:
        place: str | Path = tmp_path / "dataset"
        if way.startswith("files"):
            shutil.copytree(pristine.path, place)
        else:
            place = request.getfixturevalue("s3_url")
            make_dataset(place, SAMPLES, SHAPE)
        cache = ObjectCache(tmp_path / "cache") if way == "cache" else None
        shuffle = "shard" if way in ("files by shard", "whole") else "full"
        given = {"split": "all", "epochs": 1, "threads": 3, "shuffle": shuffle, "cache": cache} | options
        return open_dataset(place), ShardStream(place, BATCH, **given)

    return made


def change(dataset: Dataset, shard: int, how: Callable[[bytes], bytes | None]) -> None:
    """Put other bytes in place of a shard's image object, or none."""
    store, key = dataset.object_key(shard, "image")
    data = how(store.read(key))
    if data is None:
        store.remove([key])
    elif store.folder is None:
        store.replace(key, data)
    else:
        (store.folder / key).write_bytes(data)  # the same file, as a disk that fails changes it


def flipped(data: bytes) -> bytes:
    """A byte of the second sample is another one."""
    second = int.from_bytes(data[12:16], "little") + 4
    at = second + 40
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def is_stored(wanted: Dataset, batch: dict[str, torch.Tensor]) -> bool:
    """Whether every sample of a batch is the one of its index."""
    return all(
        np.array_equal(batch["image"][k, 0].numpy(), wanted.sample(index).image)
        and np.array_equal(batch["label"][k, 0].numpy(), wanted.sample(index).label)
        for k, index in enumerate(batch["index"].tolist())
    )


def read(stream: ShardStream, wanted: Dataset) -> list[int]:
    """The indices of all samples, each of which is looked at."""
    seen: list[int] = []
    for batch in stream:
        assert is_stored(wanted, batch)
        seen += batch["index"].tolist()
    return seen


# -- threads that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["files by shard", "ranges", "cache"])
def test_a_reading_thread_that_raises(make: Make, pristine: Dataset, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    (_, stream), calls = make(way), iter(range(10_000))

    def fail(*given: Any) -> None:
        if next(calls) == 17:
            raise MemoryError("no room")
        decode_sample(*given)

    monkeypatch.setattr(reader, "decode_sample", fail)
    with pytest.raises(MemoryError, match="no room"):
        read(stream, pristine)
    position = stream.position
    assert position < 15
    assert len(read(stream, pristine)) == SAMPLES - position  # it goes on where it failed


# -- shards that break ------------------------------------------------------------------------------------------------

DAMAGES: dict[str, tuple[Callable[[bytes], bytes | None], int]] = {  # and how many samples are lost
    "cut": (lambda data: data[: int.from_bytes(data[12:16], "little") + 4], 3),
    "flipped": (flipped, 1),
    "removed": (lambda data: None, 4),
}


@pytest.mark.parametrize("way", ["files", "ranges", "whole", "cache"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_shard_is_skipped_and_counted(make: Make, pristine: Dataset, way: str, damage: str) -> None:
    own, stream = make(way, on_broken="skip")
    how, lost = DAMAGES[damage]
    if damage == "cut" and way in ("whole", "cache"):
        lost = 4  # its size tells that it is not the object that was written
    change(own, 3, how)
    with pytest.warns(UserWarning, match="broken shard 000003.*--repair") as said:
        seen = read(stream, pristine)
    assert len(said) == 1
    assert len(set(seen)) == len(seen) == SAMPLES - lost
    assert set(range(SAMPLES)) - set(seen) <= {12, 13, 14, 15}
    assert stream.skipped == lost


def test_a_batch_that_is_broken_altogether_is_passed_over(make: Make, pristine: Dataset) -> None:
    own, _ = make("files")
    change(own, 1, DAMAGES["removed"][0])
    with (
        ShardStream(own, 2, split="all", epochs=1, shuffle=False, on_broken="skip") as stream,
        pytest.warns(UserWarning, match="broken shard 000001"),
    ):
        assert read(stream, pristine) == [index for index in range(SAMPLES) if index // 4 != 1]
    assert stream.skipped == 4


def break_in_mid_epoch(own: Dataset, stream: ShardStream, damage: str, wanted: Dataset, seen: list[int]) -> None:
    """Read while shard 4 breaks; what was delivered is in `seen`, also after an error."""
    for batch in stream:
        if not seen:
            change(own, 4, DAMAGES[damage][0])
        assert is_stored(wanted, batch)
        seen += batch["index"].tolist()


@pytest.mark.parametrize("way", ["files", "ranges"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_shard_that_breaks_in_mid_epoch_is_one_error(make: Make, pristine: Dataset, way: str, damage: str) -> None:
    own, stream = make(way, shuffle=False, prefetch=1)
    seen: list[int] = []
    with pytest.raises(BrokenSampleError, match=r"broken shard 000004: .*image/c/0/0/0/0: .*--repair"):
        break_in_mid_epoch(own, stream, damage, pristine, seen)
    assert seen == list(range(15))


@pytest.mark.parametrize("way", ["files", "ranges"])
def test_a_flipped_byte_goes_unnoticed_without_checksums(make: Make, pristine: Dataset, way: str) -> None:
    """Nobody looks, so whoever switches them off knows what the disk is worth."""
    own, stream = make(way, checksums=False, shuffle=False)
    change(own, 3, flipped)
    wrong = [batch["index"].tolist() for batch in stream if not is_stored(pristine, batch)]
    assert wrong == [[10, 11, 12, 13, 14]]


# -- an object store that fails ---------------------------------------------------------------------------------------


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Between clients and the object store, whose clients neither wait nor pause for long."""
    retry_at_once(monkeypatch)
    monkeypatch.setattr(s3_client, "_LIMIT_S", 1.0)
    with faulty_proxy(s3.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


@pytest.mark.parametrize("way", ["ranges", "whole", "cache"])
def test_failed_requests_are_made_again(make: Make, pristine: Dataset, proxy: FaultyProxy, way: str) -> None:
    _, stream = make(way)
    faults: list[Fault] = [500, "pass", "drop", 503, "pass", 500, "hang", "pass", "drop"]
    proxy.script("GET", "shards/", *faults)
    assert sorted(read(stream, pristine)) == list(range(SAMPLES))
    assert proxy.used_up


@pytest.mark.parametrize("on_broken", ["raise", "skip"])
@pytest.mark.parametrize("way", ["ranges", "whole", "cache"])
def test_an_object_store_that_stays_away_is_one_error(
    make: Make, pristine: Dataset, proxy: FaultyProxy, way: str, on_broken: str
) -> None:
    _, stream = make(way, on_broken=on_broken)
    proxy.script("GET", "shards/", *[403] * 10_000)
    with pytest.raises(
        PhantumorError, match=r"shard 0000\d\d cannot be read: s3://.*access denied.*itself may be whole"
    ):
        read(stream, pristine)
    assert stream.position == 0
    proxy.faults.clear()
    assert sorted(read(stream, pristine)) == list(range(SAMPLES))


# -- a process that is killed -----------------------------------------------------------------------------------------

SHORT = TrainConfig(
    steps=6,
    warmup_steps=2,
    log_every=1,
    validate_every=6,
    validate_samples=2,
    checkpoint_every=2,
    network=NetworkConfig(channels=(4, 8), strides=(2,)),
    device="cpu",
)


def test_a_training_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """kill -9, so nothing in the process can clean up; in the middle of an epoch and between two checkpoints."""
    data = make_dataset(tmp_path / "data", 20, (8, 8, 8))
    code = f"""
import os, signal
from pathlib import Path
import torch
from pipeline.train_config import TrainConfig
from training.train import train

torch.set_num_threads(1)

def log(line):
    if "step 5/6" in line:
        os.kill(os.getpid(), signal.SIGKILL)

config = TrainConfig.model_validate_json({SHORT.model_dump_json()!r})
train({data.path!r}, Path({str(tmp_path / "run")!r}), config, log=log)
"""
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert process.returncode == -signal.SIGKILL
    torch.set_num_threads(1)
    assert read_checkpoint(tmp_path / "run" / "last.pt").meta.step == 4
    train(data, tmp_path / "run", SHORT, resume=True, log=lambda _: None)
    train(data, tmp_path / "straight", SHORT, log=lambda _: None)
    resumed, straight = (read_checkpoint(tmp_path / name / "last.pt") for name in ("run", "straight"))
    assert resumed.stream == straight.stream
    assert resumed.model.keys() == straight.model.keys()
    assert all(torch.equal(resumed.model[name], straight.model[name]) for name in straight.model)
