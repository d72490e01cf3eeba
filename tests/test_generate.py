"""Datasets: the same bytes however the work is split, interrupted or scheduled; clear refusals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.bank import Bank
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.errors import InputError, PhantumorError
from pipeline.settings import resolve
from tests.cases import make_bank
from workers.execution import How
from workers.generate import generate
from workers.local import ProcessExecutor

CONFIG = GenerateConfig(samples=22, patch_shape=(24, 24, 16), shard_samples=4, seed=3)


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("bank") / "bank")


@pytest.fixture(scope="module")
def reference(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("reference") / "data"
    generate(bank.path, out, CONFIG, log=quiet)
    return open_dataset(out)


def quiet(_: str) -> None:
    pass


def assert_same(dataset: Dataset, reference: Dataset) -> None:
    """Identical manifest rows and identical bytes of every image and label."""
    assert dataset.complete
    assert dataset.manifest.equals(reference.manifest)
    for shard in reference.parts:
        for name in ("image", "label"):
            a, b = (store.read(key) for store, key in (d.object_key(shard, name) for d in (dataset, reference)))
            assert a == b
    assert len(dataset.store.groups("shards")) == len(reference.parts)
    assert list(dataset.store.entries("running")) == []


def test_a_dataset_holds_what_was_asked_for(reference: Dataset) -> None:
    assert reference.manifest["index"].to_pylist() == list(range(22))
    assert sorted(reference.parts) == list(range(6))
    assert reference.info.classes == {"background": 0, "liver": 1, "liver_tumor": 2}
    assert reference.store.exists("manifest.parquet")
    healthy = reference.healthy(5)
    image, label, _ = reference.sample(5)
    assert ((healthy != image) <= (label > 0)).all()


def test_two_processes_give_the_same_bytes(bank: Bank, reference: Dataset, tmp_path: Path) -> None:
    generate(bank.path, tmp_path / "data", CONFIG, how=How(workers=2), log=quiet)
    assert_same(open_dataset(tmp_path / "data"), reference)


def test_ray_gives_the_same_bytes(bank: Bank, reference: Dataset, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "pipeline.cli", "generate", "--bank", str(bank.path), "--out", str(tmp_path / "data")),
        *("--samples", "22", "--patch-shape", "24", "24", "16", "--shard-samples", "4", "--seed", "3"),
        *("--ray", "local", "--workers", "2"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert_same(open_dataset(tmp_path / "data"), reference)


SLOW_RUN = """
import sys, time
import workers.generate, workers.shard_task as task
from pipeline.cli import main
draw = task.draw_sample
task.draw_sample = lambda *a: (time.sleep(0.05), draw(*a))[1]  # slow enough to be stopped on the way
sys.exit(main(["generate", "--bank", sys.argv[1], "--out", sys.argv[2], "--samples", "22", "--seed", "3",
               "--patch-shape", "24", "24", "16", "--shard-samples", "4"]))
"""


def stopped_run(bank: Bank, out: Path, stop: signal.Signals) -> tuple[int, str]:
    """Start a generation, stop it by a signal after two shards; its exit code and what it said."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_RUN, str(bank.path), str(out)], stderr=subprocess.PIPE, text=True
    )
    _wait_for(lambda: len(list((out / "manifest").glob("0*.parquet"))) >= 2, process)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    return process.returncode, said


def test_a_killed_run_resumes_to_the_same_bytes(bank: Bank, reference: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "data"
    stopped_run(bank, out, signal.SIGKILL)
    committed = len(list((out / "manifest").glob("0*.parquet")))
    assert 2 <= committed < 6
    assert not open_dataset(out).complete
    summary = generate(bank.path, out, CONFIG, log=quiet)
    assert summary.made == 22 - 4 * committed
    _remove_orphans(out)
    assert_same(open_dataset(out), reference)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_says_how_to_resume_and_leaves_nothing_half_written(
    bank: Bank, reference: Dataset, tmp_path: Path, stop: signal.Signals
) -> None:
    out = tmp_path / "data"
    code, said = stopped_run(bank, out, stop)
    assert code == 1
    assert "same command" in said
    assert "Traceback" not in said
    committed = len(list((out / "manifest").glob("0*.parquet")))
    assert len(list((out / "shards").iterdir())) == committed
    generate(bank.path, out, CONFIG, log=quiet)
    assert_same(open_dataset(out), reference)


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _remove_orphans(out: Path) -> None:
    import shutil

    dataset = open_dataset(out)
    kept = {f"{shard:06d}-{part.attempt}.zarr" for shard, part in dataset.parts.items()}
    for folder in (out / "shards").iterdir():
        if folder.name not in kept:
            shutil.rmtree(folder)
    for record in (out / "running").iterdir():
        record.unlink()


def test_a_killed_worker_is_replaced(
    bank: Bank, reference: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = tmp_path / "kill-once"
    killer.touch()
    monkeypatch.setenv("PHANTUMOR_TEST_KILL", str(killer))
    monkeypatch.setattr(How, "executor", lambda how, jobs: ProcessExecutor(2, die_once_then_make))
    generate(bank.path, tmp_path / "data", CONFIG, how=How(workers=2), log=quiet)
    assert not killer.exists()
    _remove_orphans(tmp_path / "data")
    assert_same(open_dataset(tmp_path / "data"), reference)


def die_once_then_make(job):  # type: ignore[no-untyped-def]
    """In a worker process: the first call ends the process as the out-of-memory killer would."""
    from workers.shard_task import make_shard

    try:
        Path(os.environ["PHANTUMOR_TEST_KILL"]).unlink()
    except FileNotFoundError:
        return make_shard(job)
    os.kill(os.getpid(), signal.SIGKILL)


def test_running_again_makes_nothing(bank: Bank, tmp_path: Path) -> None:
    small = CONFIG.model_copy(update={"samples": 5})
    assert generate(bank.path, tmp_path / "data", small, log=quiet).made == 5
    before = sorted(p.stat().st_mtime_ns for p in (tmp_path / "data" / "shards").rglob("*"))
    assert generate(bank.path, tmp_path / "data", small, log=quiet).made == 0
    assert sorted(p.stat().st_mtime_ns for p in (tmp_path / "data" / "shards").rglob("*")) == before


def test_a_removed_part_is_made_again(bank: Bank, reference: Dataset, tmp_path: Path) -> None:
    generate(bank.path, tmp_path / "data", CONFIG, log=quiet)
    (tmp_path / "data/manifest/000002.parquet").unlink()
    (tmp_path / "data/manifest.parquet").unlink()
    assert generate(bank.path, tmp_path / "data", CONFIG, log=quiet).made == 4
    _remove_orphans(tmp_path / "data")
    assert_same(open_dataset(tmp_path / "data"), reference)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 4}, ["config.seed: 3 -> 4"]),
        ({"samples": 21}, ["samples: 22 -> 21", "grow, not shrink"]),
        ({"store": "delta"}, ["config.store: full -> delta"]),
        ({"healthy_share": 0.5}, ["config.healthy_share"]),
        ({"tumors": {"liver": {"diameter_mm": [9, 20]}}}, ["config.tumors.liver.diameter_mm"]),
    ],
)
def test_another_config_is_refused_by_name(
    bank: Bank, reference: Dataset, change: dict[str, object], words: list[str]
) -> None:
    changed = resolve(GenerateConfig, None, {**CONFIG.model_dump(), **change})
    with pytest.raises(InputError) as error:
        generate(bank.path, reference.path, changed, log=quiet)
    assert all(word in str(error.value) for word in [*words, reference.path])


def test_another_bank_is_refused(reference: Dataset, tmp_path: Path) -> None:
    other = make_bank(tmp_path / "bank", cases=2)
    with pytest.raises(InputError, match=r"the bank is another one.*\(fingerprint \w{12} -> \w{12}"):
        generate(other.path, reference.path, CONFIG, log=quiet)


def test_a_folder_of_something_else_is_refused(bank: Bank, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not a dataset"):
        generate(bank.path, tmp_path, CONFIG, log=quiet)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_dry_run_writes_nothing(bank: Bank, tmp_path: Path) -> None:
    lines: list[str] = []
    generate(bank.path, tmp_path / "data", CONFIG, dry_run=True, log=lines.append)
    assert not (tmp_path / "data").exists()
    assert "22 samples to make" in lines[-1]


def test_too_small_a_disk_is_refused_before_anything_is_written(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 9_000, 1_000))
    with pytest.raises(PhantumorError, match=r"needs about .* 1.0 kB free"):
        generate(bank.path, tmp_path / "data", CONFIG, log=quiet)
    assert not (tmp_path / "data").exists()


def test_a_disk_that_fills_up_leaves_a_dataset_that_resumes(
    bank: Bank, reference: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import workers.attempt as attempts

    commit, calls = attempts.commit_part, []

    def full_at_the_third(*arguments: object) -> bool:
        calls.append(1)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return commit(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attempts, "commit_part", full_at_the_third)
    with pytest.raises(PhantumorError, match=r"No space left.*run the same command again"):
        generate(bank.path, tmp_path / "data", CONFIG, log=quiet)
    monkeypatch.setattr(attempts, "commit_part", commit)
    assert len(list((tmp_path / "data/shards").iterdir())) == 2
    generate(bank.path, tmp_path / "data", CONFIG, log=quiet)
    assert_same(open_dataset(tmp_path / "data"), reference)


def test_large_patches_are_noted(bank: Bank, tmp_path: Path) -> None:
    lines: list[str] = []
    wide = CONFIG.model_copy(update={"patch_shape": (80, 24, 16), "samples": 2})
    generate(bank.path, tmp_path / "data", wide, dry_run=True, log=lines.append)
    assert "padded with air" in lines[0]


def test_a_damaged_case_is_noticed_before_samples_are_made_from_it(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank", cases=1)
    ct = next((tmp_path / "bank/cases").glob("*/ct/c/0/0/0"))
    data = bytearray(ct.read_bytes())
    data[len(data) // 2] ^= 1
    ct.write_bytes(data)
    with pytest.raises(InputError, match="its bytes changed"):
        generate(bank.path, tmp_path / "data", CONFIG, log=quiet)
    assert not list((tmp_path / "data/manifest").glob("*"))


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_written(bank: Bank, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match="--device cuda: no CUDA device"):
        generate(bank.path, tmp_path / "data", CONFIG, device="cuda", log=quiet)
    assert not (tmp_path / "data").exists()
