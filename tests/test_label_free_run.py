"""Running a label-free experiment: what is done stays done, whatever ends it; another one is kept out of its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import GenerateConfig
from pipeline.errors import InputError, PhantumorError
from pipeline.experiments.cases import Sources
from pipeline.experiments.label_free import plan_label_free
from pipeline.experiments.settings import LabelFree
from pipeline.train_config import TrainConfig
from tests.test_label_free_plan import make_cases

PRODUCTS = {"prepare": "cases.parquet", "generate": "manifest.parquet", "train": "last.pt", "evaluate": "report.html"}


class Commands:
    """Stands in for phantumor: makes what each command would, and does as told at one of them."""

    def __init__(self, at: int = 0, act: Callable[[], int] = lambda: 0) -> None:
        self.ran: list[str] = []
        self.stopped = False
        self._at, self._act = at, act

    def stop(self) -> None:
        self.stopped = True

    def __call__(self, words: Sequence[str], name: str) -> int:
        self.ran.append(" ".join(words))
        if words[0] == "experiment":
            out = Path(words[2])
            (out / "report.html").write_text("")
            (out / "experiment.json").write_text('{"headline": "done"}')
            return 0
        out = Path(words[words.index("--out") + 1])
        out.mkdir(parents=True, exist_ok=True)
        (out / PRODUCTS[words[0]]).write_text("")  # from the start, as a training's checkpoint
        if "--log-every" in words:
            times = [9000, 8000, 400, 600, 500]
            (out / "metrics.jsonl").write_text(
                "\n".join(json.dumps({"step": k, "step_ms": t}) for k, t in enumerate(times))
            )
        return self._act() if len(self.ran) == self._at else 0


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the experiment in `exp` with the commands given; settings by name."""
    healthy, real = make_cases(tmp_path / "healthy", "h1 h2 h3 h4 h5"), make_cases(tmp_path / "real", "r1 r2")

    def start(commands: Commands, log: Callable[[str], None] = print, **given: Any) -> dict[str, Any]:
        train = TrainConfig(lr=given.pop("lr", 0.001))
        length = {} if "minutes" in given else {"steps": 10}
        settings = LabelFree.model_validate({**length, "arms": ("synthetic", "no-edge"), **given})
        sources = Sources((healthy,), (real,))
        planned = plan_label_free(sources, tmp_path / "exp", settings, GenerateConfig(), train)
        return planned.run(log, lambda _: commands, ["--workers", "2"])

    return start


def interrupt() -> int:
    raise KeyboardInterrupt


def test_all_steps_run_once_in_order_and_the_results_come_back(run: Callable[..., Any], tmp_path: Path) -> None:
    commands = Commands()
    assert run(commands) == {"headline": "done"}
    verbs = [line.split()[0] for line in commands.ran]
    assert verbs == ["prepare"] * 3 + ["generate"] * 2 + ["train", "evaluate", "evaluate"] * 2 + ["experiment"]
    assert [line for line in commands.ran if line.endswith("--workers 2")] == commands.ran[3:5]
    held_out = tmp_path / "exp" / "cases" / "healthy-test"
    assert [path.name for path in held_out.iterdir()] == ["h2"]
    assert (held_out / "h2" / "ct.nii.gz").read_bytes() == b"healthy h2"


def test_a_second_call_has_nothing_to_do(run: Callable[..., Any]) -> None:
    run(Commands())
    again = Commands()
    assert run(again) == {"headline": "done"}
    assert again.ran == []


@pytest.mark.parametrize("number", [1, 4, 6, 7, 11])
@pytest.mark.parametrize("end", ["killed", "failed"])
def test_what_was_cut_off_goes_on_and_what_was_done_stays(run: Callable[..., Any], number: int, end: str) -> None:
    whole = Commands()
    cut = Commands(number, interrupt if end == "killed" else lambda: 1)
    with pytest.raises(KeyboardInterrupt if end == "killed" else PhantumorError) as caught:
        run(cut)
    if end == "failed":
        assert "ended with exit code 1" in str(caught.value)
        assert "Run the same command again" in str(caught.value)
    run(whole)
    first, rest = cut.ran[-1], whole.ran
    assert rest[0] == (first.replace("--seed 0", "--seed 0 --resume") if first.startswith("train") else first)
    assert len(cut.ran) + len(rest) == 12 + 1  # the cut one twice


def test_what_needs_a_lost_step_is_made_again(run: Callable[..., Any], tmp_path: Path) -> None:
    run(Commands())
    (tmp_path / "exp" / "runs" / "no-edge-0" / "last.pt").unlink()
    again = Commands()
    run(again)
    assert [line.split()[0] for line in again.ran] == ["train", "evaluate", "evaluate", "experiment"]
    assert all("no-edge-0" in line for line in again.ran[:3])


def test_a_killed_repeat_leaves_nothing_of_the_old_state_behind(run: Callable[..., Any], tmp_path: Path) -> None:
    run(Commands())
    (tmp_path / "exp" / "data" / "synthetic" / "manifest.parquet").unlink()
    with pytest.raises(KeyboardInterrupt):
        run(Commands(2, interrupt))  # the dataset is made again, its training is not
    again = Commands()
    run(again)
    assert [line.split()[0] for line in again.ran] == ["train", "evaluate", "evaluate", "experiment"]


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({"steps": 11}, "settings.steps: 10 -> 11"),
        ({"spacing": 2.0}, "settings.spacing: 1.5 -> 2.0"),
        ({"lr": 0.01}, "train.lr: 0.001 -> 0.01"),
        ({"arms": ("synthetic",)}, "settings.arms"),
        ({"hold_out": "never"}, "settings.hold_out: auto -> never"),
    ],
)
def test_another_experiment_is_refused_in_the_same_folder(
    run: Callable[..., Any], given: dict[str, Any], changed: str
) -> None:
    run(Commands())
    refused = Commands()
    with pytest.raises(InputError, match="holds an experiment with other settings") as caught:
        run(refused, **given)
    assert changed in str(caught.value)
    assert refused.ran == []


@pytest.mark.parametrize(("file", "named"), [("ct.nii.gz", "ct"), ("liver.nii.gz", "masks")])
def test_another_scan_or_mask_is_another_experiment(
    run: Callable[..., Any], tmp_path: Path, file: str, named: str
) -> None:
    run(Commands())
    (tmp_path / "real" / "r1" / file).write_bytes(b"another one")
    with pytest.raises(InputError, match=rf"cases\.real\.r1\.{named}"):
        run(Commands())


def test_arms_and_seeds_may_be_added(run: Callable[..., Any]) -> None:
    run(Commands())
    more = Commands()
    run(more, arms=("no-edge", "synthetic", "on-the-fly"), seeds=(0, 1))
    trained = [
        line.partition("--out ")[2].split()[0].rpartition("/")[2] for line in more.ran if line.startswith("train")
    ]
    assert trained == ["on-the-fly-0", "no-edge-1", "synthetic-1", "on-the-fly-1"]


def test_a_folder_of_something_else_is_left_alone(run: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no experiment"):
        run(Commands())
    assert [path.name for path in (tmp_path / "exp").iterdir()] == ["thesis.txt"]


def test_minutes_become_steps_once(run: Callable[..., Any]) -> None:
    first = Commands()
    run(first, minutes=1)
    steps = {line.split("--steps ")[1].split()[0] for line in first.ran if line.startswith("train") and "runs/" in line}
    assert steps == {"120"}  # 60 s at 500 ms, without the slow steps at the start
    again = Commands()
    run(again, minutes=1)
    assert again.ran == []
