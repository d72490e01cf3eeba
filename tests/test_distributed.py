from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.cli import main
from pipeline.errors import InputError
from tests.datasets import make_dataset
from training.arithmetic import training_device
from training.checkpoint import read_checkpoint
from training.distributed import Ranks, gathered, mean_over, ranks_here, wait_for_all

TRAIN = """
--network.channels 4 8 --network.strides 2 --log-every 1 --steps 6 --warmup-steps 2 --validate-every 3 --device cpu
--validate-samples 3 --crop-shape 12 8 16 --threads 1
""".split()


def test_torchrun_says_who_this_process_is() -> None:
    assert ranks_here({}) == Ranks(0, 1, 0)
    assert ranks_here({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Ranks(3, 8, 1)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "start with torchrun, or unset it"),
        ({"WORLD_SIZE": "2", "RANK": "x", "LOCAL_RANK": "0"}, "is not a number"),
        ({"WORLD_SIZE": "2", "RANK": "2", "LOCAL_RANK": "0"}, "does not lie below WORLD_SIZE"),
    ],
)
def test_an_environment_that_makes_no_sense_is_an_input_error(environment: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ranks_here(environment)


def test_alone_there_is_nothing_to_agree_on() -> None:
    wait_for_all(Ranks())
    assert mean_over(Ranks(), (1.5, 2.5), torch.device("cpu")) == [1.5, 2.5]
    assert gathered(Ranks(), [1, "a"]) == [1, "a"]


def test_several_processes_take_a_gpu_each() -> None:
    two = Ranks(1, 2, 1)
    assert training_device("cpu", two) == torch.device("cpu")
    assert training_device("auto", Ranks()).type in ("cpu", "cuda")
    with pytest.raises(InputError, match="a GPU of their own; give auto, cuda or cpu"):
        training_device("cuda:0", two)


def run(command: list[str]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def validations(folder: Path) -> list[dict[str, object]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record["val"] for record in records if "val" in record]


def test_two_processes_learn_as_one_with_twice_the_batch(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", samples=20)
    command = ["train", "--data", str(data.path), *TRAIN]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = ["--batch-size", "1", "--accumulate", "2", "--out", str(tmp_path / "two")]
    run([*torchrun, "-m", "pipeline.cli", *command, *two])
    assert main([*command, "--batch-size", "4", "--out", str(tmp_path / "one")]) == 0
    # Weights cannot be compared: Adam blows up the rounding of gradients that are zero, as of biases before a norm.
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert len(losses(tmp_path / "two")) == 6
    assert [v["samples"] for v in validations(tmp_path / "two")] == [3, 3]
    states = [read_checkpoint(tmp_path / name / "last.pt") for name in ("two", "one")]
    assert states[0].stream == states[1].stream
    assert [state.meta.processes for state in states] == [2, 1]
