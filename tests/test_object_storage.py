"""The whole way on an object store, as a user types it: copy a bank there, generate, look, export, train, evaluate."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.bank import open_bank
from pipeline.catalog import Dataset, open_dataset
from pipeline.cli import main
from pipeline.config import GenerateConfig
from pipeline.description import read_info
from pipeline.manifest import Part, committed_shards, part_name, shard_name
from pipeline.store import Store, open_store
from tests.cases import make_bank
from tests.command import run
from tests.faulty_proxy import FaultyProxy, faulty_proxy, retry_at_once
from tests.s3_server import ROOT, S3Server
from training.stream import ShardStream
from workers import attempt as attempts
from workers.attempt import ShardJob
from workers.generate import job_for, new_info
from workers.growth import begin
from workers.shard_task import make_shard

torch.set_num_threads(1)
SAMPLES, SHARDS = 22, 6
CONFIG = GenerateConfig(samples=SAMPLES, patch_shape=(24, 24, 16), shard_samples=4, seed=3)
SETTINGS = ("--samples", "22", "--patch-shape", "24", "24", "16", "--shard-samples", "4", "--seed", "3")


@dataclass(frozen=True)
class Home:
    """The same bank and dataset on a disk and in an object store; nobody writes to them."""

    folder: Path
    url: str

    @property
    def reference(self) -> Dataset:
        return open_dataset(self.folder / "data")


@pytest.fixture(scope="module")
def home(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder, url = tmp_path_factory.mktemp("home"), s3.new_url()
    make_bank(folder / "bank")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHANTUMOR_CACHE", str(folder / "cache"))
        for words in (
            ("copy", folder / "bank", f"{url}/bank"),
            ("generate", "--bank", folder / "bank", "--out", folder / "data", *SETTINGS),
            ("generate", "--bank", f"{url}/bank", "--out", f"{url}/data", *SETTINGS),
        ):
            assert main([str(word) for word in words]) == 0
        yield Home(folder, url)


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Between the object store and clients of places that were not opened yet."""
    retry_at_once(monkeypatch)
    with faulty_proxy(s3.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


def assert_same(dataset: Dataset, reference: Dataset, orphans: int = 0) -> None:
    """Identical manifest rows, identical bytes of every image and label, and nothing beside them."""
    assert dataset.complete
    assert dataset.manifest.equals(reference.manifest)
    for shard in reference.parts:
        for name in ("image", "label"):
            a, b = (store.read(key) for store, key in (d.object_key(shard, name) for d in (dataset, reference)))
            assert a == b
    assert len(dataset.store.groups("shards")) == SHARDS + orphans


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", *map(str, words)]


def begun(url: str, home: Home) -> tuple[Store, list[ShardJob]]:
    """A dataset in which nothing is made yet, and what is to be made."""
    store, bank = open_store(url), open_bank(f"{home.url}/bank")
    info = new_info(store, bank, CONFIG)
    begin(store, info)
    return store, [job_for(store, bank, info, shard) for shard in range(SHARDS)]


# ---- generating ----


def test_the_same_bytes_as_on_a_disk(home: Home) -> None:
    dataset = open_dataset(f"{home.url}/data")
    assert_same(dataset, home.reference)
    assert dataset.info.bank == f"{home.url}/bank"
    image, label, row = dataset.sample(7)
    wanted = home.reference.sample(7)
    np.testing.assert_array_equal(image, wanted.image)
    np.testing.assert_array_equal(label, wanted.label)
    assert row == wanted.row
    np.testing.assert_array_equal(dataset.healthy(7), home.reference.healthy(7))


def test_the_verbs_say_the_same_as_of_a_disk(home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "status", f"{home.url}/data", "--json")
    assert (code, json.loads(out)["complete"], json.loads(out)["path"]) == (0, True, f"{home.url}/data")
    told = {}
    for place in (home.folder, home.url):
        code, out, _ = run(capsys, "inspect", f"{place}/data", "--where", "n_tumors > 0", "--json")
        told[place] = out.replace(str(place), "PLACE")
        assert code == 0
    assert told[home.folder] == told[home.url]
    code, out, error = run(capsys, "verify", f"{home.url}/data", "--replay", 0.2)
    assert code == 0, error
    for place, name in ((home.folder, "disk"), (home.url, "store")):
        assert (
            run(capsys, "export", f"{place}/data", "--format", "nifti", "--out", tmp_path / name, "--limit", 2)[0] == 0
        )
    files = [p.relative_to(tmp_path / "disk") for p in (tmp_path / "disk").rglob("*.nii.gz")]
    assert len(files) >= 4
    for file in files:
        assert (tmp_path / "store" / file).read_bytes() == (tmp_path / "disk" / file).read_bytes()


def test_a_killed_run_is_resumed(
    home: Home, proxy: FaultyProxy, s3_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("generate", "--bank", f"{home.url}/bank", "--out", s3_url, *SETTINGS)
    proxy.script("PUT", part_name(3), "hang")  # all data of shard 3 are there, but it is not committed
    process = subprocess.Popen(command(*words), cwd=ROOT, stderr=subprocess.DEVNULL)
    assert proxy.held.wait(120)
    process.send_signal(signal.SIGKILL)
    process.wait()
    store = open_store(s3_url)
    assert committed_shards(store) == [0, 1, 2]
    code, out, _ = run(capsys, "status", s3_url)
    assert code == 0
    assert "12 of 22 samples" in out
    assert run(capsys, *words)[0] == 0
    assert_same(open_dataset(s3_url), home.reference, orphans=1)
    assert run(capsys, "verify", s3_url, "--gc", "--gc-age-minutes", 0)[0] == 0
    assert_same(open_dataset(s3_url), home.reference)
    assert list(store.entries("running")) == []


def test_two_runs_at_once_make_one_dataset(
    home: Home, proxy: FaultyProxy, s3_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("generate", "--bank", f"{home.url}/bank", "--out", s3_url, *SETTINGS)
    proxy.script("PUT", part_name(1), "wait")
    slow = subprocess.Popen(command(*words), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert proxy.held.wait(120)  # one shard is committed, another one is about to be
    code, _, error = run(capsys, *words)
    proxy.let_go.set()
    _, other_error = slow.communicate(timeout=120)
    assert (code, slow.returncode) == (0, 0), (error, other_error)
    assert_same(open_dataset(s3_url), home.reference)
    assert list(open_store(s3_url).entries("running")) == []


def test_a_zombie_that_wakes_up_too_late_takes_its_files_away(
    home: Home, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, jobs = begun(s3_url, home)
    commit = attempts.commit_part

    def sleep_until_another_has_committed(dataset: Store, part: Part, *rest: object) -> bool:
        monkeypatch.setattr(attempts, "commit_part", commit)
        assert len(store.groups("shards")) == 1
        assert make_shard(jobs[2]).status == "committed"
        assert len(store.groups("shards")) == 2
        return bool(commit(dataset, part, *rest))  # type: ignore[arg-type]

    monkeypatch.setattr(attempts, "commit_part", sleep_until_another_has_committed)
    assert make_shard(jobs[2]).status == "lost"
    held = open_dataset(s3_url)
    assert store.groups("shards") == [shard_name(2, held.parts[2].attempt).removeprefix("shards/")]
    assert held.manifest.equals(home.reference.manifest.filter(home.reference.manifest["shard"].to_numpy() == 2))
    assert make_shard(jobs[2]).status == "already"


@pytest.mark.parametrize("fault", ["lose", 503, "drop"])
def test_a_commit_whose_answer_is_lost_happened_once(
    home: Home, proxy: FaultyProxy, s3_url: str, fault: int | str
) -> None:
    store, jobs = begun(s3_url, home)
    proxy.script("PUT", part_name(1), fault)
    assert make_shard(jobs[1]).status == "committed"
    assert proxy.used_up
    assert committed_shards(store) == [1]
    assert len(store.groups("shards")) == 1
    assert make_shard(jobs[1]).status == "already"


def test_a_run_survives_faults_of_every_kind(
    home: Home, proxy: FaultyProxy, s3_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for method in ("GET", "HEAD", "PUT", "POST"):
        for fault in (503, "drop", "lose", 500):
            proxy.script(method, "data-", *["pass", "pass", fault])
    proxy.script("GET", "data-", "pass", "cut")
    out = f"{s3_url}/data-"
    code, _, error = run(capsys, "generate", "--bank", f"{home.url}/bank", "--out", out, *SETTINGS)
    assert code == 0, error
    assert_same(open_dataset(out), home.reference)


# ---- consuming ----


def batches(place: str | Path, **settings: object) -> list[dict[str, torch.Tensor]]:
    with ShardStream(place, batch_size=4, split="all", seed=11, epochs=2, **settings) as stream:  # type: ignore[arg-type]
        return [{name: tensor.clone() for name, tensor in batch.items()} for batch in stream]


@pytest.mark.parametrize("settings", [{"threads": 4}, {"window": (-175, 250), "threads": 1}], ids=["hu", "window"])
def test_a_stream_gives_the_same_batches_as_from_a_disk(home: Home, settings: dict[str, object]) -> None:
    wanted, found = batches(home.folder / "data", **settings), batches(f"{home.url}/data", **settings)
    assert len(found) == len(wanted) == 11
    for a, b in zip(found, wanted, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in ("image", "label", "index"))


def test_threads_read_at_the_same_time_and_each_array_once(home: Home, proxy: FaultyProxy) -> None:
    proxy.latency_s = 0.01
    with ShardStream(f"{home.url}/data", batch_size=8, split="all", epochs=1, threads=8, shuffle=False) as stream:
        proxy.requests.clear()
        assert sum(len(batch["index"]) for batch in stream) == SAMPLES
    assert proxy.most_at_once >= 4
    assert proxy.count("GET", "/image/c/") == proxy.count("GET", "/label/c/") == len(proxy.requests) / 2 == SAMPLES


def test_train_and_evaluate_read_from_an_object_store(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = tmp_path / "tiny.yaml"
    tiny.write_text(
        "{steps: 3, warmup_steps: 1, log_every: 1, validate_every: 3, validate_samples: 1, checkpoint_every: 3, "
        "crop_shape: [16, 16, 16], network: {channels: [4, 8], strides: [2]}, device: cpu}"
    )
    losses = {}
    for place in (home.folder, home.url):
        out = tmp_path / f"run-{len(losses)}"
        code, _, error = run(capsys, "train", "--config", tiny, "--data", f"{place}/data", "--out", out)
        assert code == 0, error
        records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses[place] = [record["loss"] for record in records if "loss" in record]
    assert losses[home.folder] == losses[home.url]
    code, _, error = run(
        capsys,
        "evaluate",
        "--run",
        out,
        "--data",
        f"{home.url}/data",
        "--split",
        "all",
        "--limit",
        2,
        "--out",
        tmp_path / "report",
    )
    assert code == 0, error
    assert (tmp_path / "report" / "report.html").exists()


def test_a_dataset_is_copied_back_and_used_without_the_object_store(
    home: Home, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bank", "data"):
        assert run(capsys, "copy", f"{home.url}/{name}", tmp_path / name)[0] == 0
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    dataset = open_dataset(tmp_path / "data")
    assert_same(dataset, home.reference)
    assert read_info(dataset.store).bank == "../bank"
    np.testing.assert_array_equal(dataset.healthy(3), home.reference.healthy(3))
