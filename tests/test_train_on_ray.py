"""Training on Ray: a real local cluster whose processes are killed, and each decision by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.catalog import Dataset
from pipeline.errors import InputError, PhantumorError
from pipeline.train_config import NetworkConfig, TrainConfig
from tests.datasets import make_dataset
from training.checkpoint import BEST, LAST, read_checkpoint
from training.stream import ShardStream
from training.train import TrainingInterrupted
from workers import ray_cluster, train_on_ray
from workers.desk import Desk

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """25 samples, 15 of them `train`."""
    return make_dataset(tmp_path_factory.mktemp("on-ray") / "dataset", samples=25)


def settings(steps: int) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch_size=2,
        network=NetworkConfig(channels=(4, 8)),
        validate_every=100_000,
        validate_samples=2,
        log_every=5,
        checkpoint_every=5,
        device="cpu",
    )


# -- a real cluster ---------------------------------------------------------------------------------------------------


@pytest.mark.soak  # half a minute: Ray starts its processes and waits for them to end
def test_a_loop_of_ray_train_streams_each_sample_once(cluster: Any, dataset: Dataset, tmp_path: Path) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def users_loop(told: dict[str, Any]) -> None:
        import ray.train

        context = ray.train.get_context()
        rank, world_size = context.get_world_rank(), context.get_world_size()
        stream = ShardStream(told["dataset"], 2, epochs=1, rank=rank, world_size=world_size)
        seen = [index for batch in stream for index in batch["index"].tolist()]
        Path(told["out"], f"{rank}.txt").write_text(" ".join(map(str, seen)))

    told = {"dataset": dataset.path, "out": str(tmp_path)}
    trainer = TorchTrainer(
        users_loop,
        train_loop_config=told,
        scaling_config=ScalingConfig(num_workers=2),
        run_config=RunConfig(storage_path=str(tmp_path / "ray")),
    )
    trainer.fit()
    shares = [[int(index) for index in (tmp_path / f"{rank}.txt").read_text().split()] for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == dataset.indices_of("train")
    assert abs(len(shares[0]) - len(shares[1])) <= 1


@pytest.mark.slow
def test_a_process_on_ray_trains_and_its_summary_comes_back(
    cluster: Any, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "connect", lambda *_: None)
    monkeypatch.setattr(cluster, "shutdown", lambda: None)  # the cluster is for other tests as well
    out, lines = tmp_path / "run", []
    summary = train_on_ray.train_on_ray([dataset.path], out, settings(10), address="local", log=lines.append)
    assert (summary["steps"], summary["out"]) == (10, str(out))
    assert lines[0].startswith("training 10 steps")
    assert [line.partition(":")[0] for line in lines if line.startswith("step")][:2] == ["step 5/10", "step 10/10"]
    assert read_checkpoint(out / LAST).meta.step == 10
    assert (out / BEST).exists()
    assert list(out.glob(".*")) == []


STARTER = """
import os, signal, sys
from pathlib import Path
from pipeline.train_config import TrainConfig
from training.train import TrainingInterrupted
from workers.train_on_ray import train_on_ray

data, out, config = sys.argv[1:]
said = []

def log(line):
    said.append(line)
    steps = sum(said_line.startswith("step") for said_line in said)
    resumed = any(said_line.startswith("resuming") for said_line in said)
    if steps == 2 and not resumed and not log.killed:
        import psutil  # Ray brings it
        log.killed = True
        mine = psutil.Process().children(recursive=True)
        [process for process in mine if "RayTrainWorker" in " ".join(process.cmdline())][-1].kill()
    if resumed and line.startswith("step") and not log.stopped:
        log.stopped = True
        os.kill(os.getpid(), signal.SIGINT)

log.killed = log.stopped = False
try:
    train_on_ray(data, Path(out), TrainConfig.model_validate_json(config), address="local", workers=2, log=log)
except TrainingInterrupted as stopped:
    said.append(str(stopped))
print("\\n".join(said))
"""


@pytest.mark.soak
def test_a_killed_process_is_restarted_and_ctrl_c_leaves_a_checkpoint(dataset: Dataset, tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTER, dataset.path, str(tmp_path / "run"), settings(100_000).model_dump_json()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    [again] = [k for k, line in enumerate(said) if line.startswith("a process was lost")]
    assert "in 2 processes" in said[0]
    assert said[again + 1].startswith("resuming at step ")
    begun = int(said[again + 1].removeprefix("resuming at step ").partition(" ")[0])
    assert begun >= 5
    assert said[-1].startswith("stopped after step ")
    stopped = int(said[-1].removeprefix("stopped after step ").partition(" ")[0])
    assert stopped > begun
    assert read_checkpoint(tmp_path / "run" / LAST).meta.step == stopped


# -- each decision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "expected"),
    [
        ([{"CPU": 8}], 2, "auto", (False, 4, True)),
        ([{"CPU": 8}], 3, "auto", (False, 2, True)),
        ([{"CPU": 8}, {"CPU": 3}], 3, "auto", (False, 3, True)),
        ([{"CPU": 1}], 2, "cpu", (False, 1, False)),
        ([{"CPU": 16, "GPU": 2}], 2, "auto", (True, 8, True)),
        ([{"CPU": 16, "GPU": 2}], 3, "auto", (True, 1, False)),
        ([{"CPU": 16, "GPU": 2}], 4, "cpu", (False, 4, True)),
        ([{"CPU": 64}, {"CPU": 8, "GPU": 4}], 4, "cuda", (True, 2, True)),
        ([{}], 1, "cuda", (True, 1, False)),
    ],
)
def test_every_process_gets_the_same_share_of_the_cluster(
    nodes: list[dict[str, float]], workers: int, device: str, expected: tuple[bool, int, bool]
) -> None:
    share = train_on_ray._share(nodes, workers, device)
    assert (share.gpu, share.cpus, share.fits) == expected


def test_what_this_machine_lacks_is_refused_and_a_cluster_may_grow() -> None:
    lines: list[str] = []
    with pytest.raises(InputError, match=r"--workers 9: each needs a GPU and a CPU .* or train with --device cpu"):
        train_on_ray._wait_or_refuse("local", 9, True, lines.append)
    train_on_ray._wait_or_refuse("auto", 9, False, lines.append)
    assert "waiting for it to grow" in lines[0]


def test_bad_requests_are_refused_before_ray_starts(dataset: Dataset, tmp_path: Path) -> None:
    for data, workers, message in [(dataset, 0, "--workers"), (tmp_path / "none", 1, "no such folder")]:
        with pytest.raises(InputError, match=message):
            train_on_ray.train_on_ray(data, tmp_path / "run", settings(1), address="local", workers=workers)
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        train_on_ray.train_on_ray(dataset, tmp_path / "file", settings(1), address="local")


def test_no_cluster_leaves_no_folder(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Ray cluster answers there"):
        train_on_ray.train_on_ray(dataset, tmp_path / "run", settings(1), address="127.0.0.1:1")
    assert not (tmp_path / "run").exists()


class Here:
    """Ray, as far as it is used here, with actors in this very process."""

    @staticmethod
    def get(answer: Any) -> Any:
        return answer


class Calls:
    """An actor's handle: `handle.method.remote(...)` runs at once."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._actor, name)
        return type("Method", (), {"remote": staticmethod(method)})


class Scripted:
    """A training in place of Ray Train's: what it does each time the user's side looks after it."""

    def __init__(self, *turns: Any, error: BaseException | None = None) -> None:
        self._turns, self.error = list(turns), error

    def start(self) -> None:
        pass

    def is_alive(self) -> bool:
        return bool(self._turns)

    def join(self, seconds: float) -> None:
        if self._turns:
            self._turns.pop(0)()


def followed(desk: Desk, training: Scripted, lines: list[str] | None = None) -> dict[str, Any]:
    log = [].append if lines is None else lines.append
    return train_on_ray._followed(Here, training, Calls(desk), log)  # type: ignore[arg-type]


def ctrl_c() -> None:
    raise KeyboardInterrupt


def test_lines_are_passed_on_until_the_summary_comes() -> None:
    desk, lines = Desk(), []
    training = Scripted(lambda: desk.say("step 1"), lambda: desk.say("step 2"), lambda: desk.finish("done", {"a": 1}))
    assert followed(desk, training, lines) == {"a": 1}
    assert lines == ["step 1", "step 2"]


@pytest.mark.parametrize(
    ("outcome", "kind"), [("stopped", TrainingInterrupted), ("refused", InputError), ("failed", PhantumorError)]
)
def test_what_ends_a_training_is_raised_in_its_words(outcome: Any, kind: type[Exception]) -> None:
    desk = Desk()

    def end() -> None:
        desk.finish(outcome, "in words")
        desk.finish("failed", "what follows from it")

    with pytest.raises(kind, match=r"^in words$") as raised:
        followed(desk, Scripted(end))
    assert type(raised.value) is kind
    assert desk.begin() == 0  # Ray starts all processes again: they have nothing left to do


def test_ctrl_c_waits_for_the_checkpoint() -> None:
    desk, lines = Desk(), []
    asked: list[bool] = []

    def step() -> None:
        asked.append(desk.say("step"))
        if asked[-1]:
            desk.finish("stopped", "stopped after step 2")

    desk.begin()
    with pytest.raises(TrainingInterrupted, match="after step 2"):
        followed(desk, Scripted(step, ctrl_c, step, step), lines)
    assert asked == [False, True]
    assert "Ctrl-C again" in lines[1]


def test_ctrl_c_twice_or_before_the_training_begins_stops_at_once() -> None:
    begun = Desk()
    begun.begin()
    for desk, turns in [(begun, [ctrl_c, ctrl_c, ctrl_c]), (Desk(), [ctrl_c, ctrl_c])]:
        with pytest.raises(TrainingInterrupted, match=r"at once.*--resume"):
            followed(desk, Scripted(*turns))


def test_a_checkpoint_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_on_ray, "_STOP_SECONDS", -1)
    desk = Desk()
    desk.begin()
    with pytest.raises(TrainingInterrupted, match="no checkpoint came"):
        followed(desk, Scripted(ctrl_c, ctrl_c))


def test_when_ray_gives_up_the_processes_words_are_shown() -> None:
    error = RuntimeError("long")
    error.worker_failures = {1: ValueError("Traceback\n  far\nthe last line\n\n"), 0: OSError()}  # type: ignore[attr-defined]
    with pytest.raises(
        PhantumorError, match=r"at most 3 restarts.*process 0: no reason given; process 1: the last line\. .*--resume"
    ):
        followed(Desk(), Scripted(error=error))


def test_a_process_that_does_not_see_the_runs_folder_says_so(dataset: Dataset, tmp_path: Path) -> None:
    desk = Calls(Desk())
    job = train_on_ray._Job((dataset.path,), tmp_path, settings(1), False, tmp_path / ".shared", desk)
    with pytest.raises(InputError, match="does not see this folder: --out must lie on a disk"):
        train_on_ray._train(job, train_on_ray.Ranks(1, 2, 0), 1, False, lambda line: None)


@pytest.mark.parametrize(
    ("attempt", "asked", "checkpoint", "resumes"),
    [(1, False, True, False), (1, True, True, True), (2, False, True, True), (2, False, False, False)],
)
def test_a_restart_takes_up_the_last_checkpoint(
    attempt: int, asked: bool, checkpoint: bool, resumes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(train_on_ray, "train", lambda *_, **named: given.update(named) or {})
    monkeypatch.setattr("ray.get", Here.get)
    (tmp_path / ".shared").touch()
    if checkpoint:
        (tmp_path / LAST).touch()
    desk, lines = Desk(), []
    for _ in range(attempt - 1):
        desk.begin()
    job = train_on_ray._Job(("data",), tmp_path, settings(1), asked, tmp_path / ".shared", Calls(desk))
    found = train_on_ray._agreed(train_on_ray.Ranks(), job)
    assert found == (attempt, resumes)
    train_on_ray._train(job, train_on_ray.Ranks(), *found, lines.append)
    assert given["resume"] is resumes
    assert [line.partition(":")[0] for line in lines] == ["a process was lost"] * (attempt - 1)
