from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.catalog import Dataset
from pipeline.errors import InputError, PhantumorError
from pipeline.settings import resolve
from pipeline.train_config import NetworkConfig, TrainConfig
from tests.augmenting import NO_CHANGE
from tests.datasets import make_dataset, with_manifest
from training.augment import augment
from training.checkpoint import load_for_inference, read_checkpoint
from training.network import build_network
from training.predict import predict_dataset
from training.train import TrainingInterrupted, learning_rate, train

torch.set_num_threads(1)
TINY = NetworkConfig(channels=(4, 8), strides=(2,))
SHORT = TrainConfig(
    steps=12,
    warmup_steps=3,
    log_every=1,
    validate_every=4,
    validate_samples=3,
    checkpoint_every=3,
    network=TINY,
    crop_shape=(12, 8, 16),
    device="cpu",
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("train") / "data", samples=20)


def changed(**settings: Any) -> TrainConfig:
    return TrainConfig.model_validate(SHORT.model_dump() | settings)


def silent(line: str) -> None:
    pass


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def comparable(run: Path) -> list[dict[str, Any]]:
    """Metrics without times and memory."""
    kept = ("step", "loss", "lr", "val")
    return [{key: record[key] for key in kept if key in record} for record in metrics(run)]


def tensors(tree: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return {prefix: tree}
    items = tree.items() if isinstance(tree, dict) else []
    return {name: tensor for key, value in items for name, tensor in tensors(value, f"{prefix}/{key}").items()}


def assert_same_state(a: Path, b: Path) -> None:
    one, two = read_checkpoint(a), read_checkpoint(b)
    for name in ("model", "averaged", "optimizer"):
        left, right = (tensors(getattr(checkpoint, name)) for checkpoint in (one, two))
        assert left.keys() == right.keys()
        assert left or name == "averaged"
        assert all(torch.equal(left[key], right[key]) for key in left), name
    assert (one.stream, one.meta.step, one.best_score) == (two.stream, two.meta.step, two.best_score)


# -- schedule


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (60, 0.5), (110, 0.0), (35, 0.8535533905932737)]
)
def test_learning_rate_warms_up_and_falls_to_zero(step: int, expected: float) -> None:
    config = TrainConfig(steps=110, warmup_steps=10, lr=1.0)
    assert learning_rate(step, config) == pytest.approx(expected)


def test_every_step_uses_the_schedule(tmp_path: Path, dataset: Dataset) -> None:
    config = changed(steps=6)
    train(dataset, tmp_path / "run", config, log=silent)
    (group,) = read_checkpoint(tmp_path / "run" / "last.pt").optimizer["param_groups"]
    assert group["lr"] == learning_rate(5, config)
    assert [record["lr"] for record in metrics(tmp_path / "run") if "lr" in record] == [
        learning_rate(step, config) for step in range(6)
    ]


def test_augmentation_is_told_window_and_place_in_the_global_order(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def remember(*args: Any, **shown: Any) -> Any:
        seen.append(args[3:])
        return augment(*args, **shown)

    monkeypatch.setattr("training.step.augment", remember)
    train(dataset, tmp_path / "run", changed(steps=2, window=(-100, 160), seed=5, accumulate=2), log=silent)
    assert [(seed, positions.tolist(), window) for seed, positions, window in seen] == [
        (5, [first, first + 1], (-100, 160)) for first in (0, 2, 4, 6)
    ]


@pytest.mark.parametrize(("steps", "warmup"), [(5, 0), (5, 5), (5, 50), (1, 0), (1, 1)])
def test_every_schedule_is_positive_until_its_end(steps: int, warmup: int) -> None:
    config = TrainConfig(steps=steps, warmup_steps=warmup, lr=1e-3)
    assert all(0 < learning_rate(step, config) <= 1e-3 for step in range(steps))


# -- learning


def test_thirty_steps_leave_a_whole_run(tmp_path: Path, dataset: Dataset) -> None:
    lines: list[str] = []
    config = TrainConfig(steps=30, lr=1e-2, warmup_steps=3, log_every=5, validate_every=10, network=TINY)
    result = train(dataset.path, tmp_path / "run", config, log=lines.append)
    records = metrics(tmp_path / "run")
    steps = [record for record in records if "loss" in record]
    assert [record["step"] for record in steps] == [5, 10, 15, 20, 25, 30]
    assert [record["step"] for record in records if "val" in record] == [10, 20, 30]
    names = "step loss lr samples_per_s voxels_per_s data_wait_ms data_wait_frac step_ms rss_mb eta_s".split()
    assert all(set(names) <= set(record) for record in steps)
    assert steps[-1]["loss"] < 0.8 * steps[0]["loss"]
    assert steps[-1]["eta_s"] == 0
    written = tmp_path / "run" / "config.yaml"
    assert str(dataset.path) in written.read_text().splitlines()[0]
    assert resolve(TrainConfig, written, {}) == config  # what --config does with it
    val = records[-1]["val"]
    assert val["samples"] == 4
    assert val["dice"]["liver"] > 0.8
    assert result["val"] == val
    assert (result["steps"], result["loss"]) == (30, steps[-1]["loss"])
    assert 0 <= result["input_stall"] <= 1
    assert lines[-1].startswith("input stall ")
    assert sum("validation" in line for line in lines) == 3
    assert sum(line.startswith("step 30/30: loss") for line in lines) == 1


def test_one_batch_is_learned_by_heart(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data", samples=2)
    network = NetworkConfig(channels=(8, 16), strides=(2,))
    config = TrainConfig(steps=150, lr=2e-2, augment=NO_CHANGE, network=network, log_every=50)
    train(data, tmp_path / "run", config, log=silent)
    for _, truth, prediction in predict_dataset(tmp_path / "run", data, "train"):
        for class_id, least in ((1, 0.95), (2, 0.8)):
            both = np.sum((truth == class_id) & (prediction == class_id))
            assert 2 * both / (np.sum(truth == class_id) + np.sum(prediction == class_id)) > least


@pytest.mark.parametrize("settings", [{"threads": 1}, {"threads": 3, "log_every": 5, "checkpoint_every": 7}])
def test_threads_and_logging_do_not_change_the_weights(
    tmp_path: Path, dataset: Dataset, settings: dict[str, Any]
) -> None:
    train(dataset, tmp_path / "a", SHORT, log=silent)
    train(dataset, tmp_path / "b", changed(**settings), log=silent)
    assert_same_state(tmp_path / "a" / "last.pt", tmp_path / "b" / "last.pt")


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1},
        {"crop_tumor_share": 0.0},
        {"augment": {"noise_hu": 4}},
        {"lr": 2e-3},
        {"clip_norm": 1e-3},
        {"crop_shape": None},
    ],
)
def test_other_settings_give_other_weights(tmp_path: Path, dataset: Dataset, settings: dict[str, Any]) -> None:
    for name, config in (("a", SHORT), ("b", changed(**settings))):
        train(dataset, tmp_path / name, config.model_copy(update={"steps": 2}), log=silent)
    a, b = (read_checkpoint(tmp_path / name / "last.pt").model for name in "ab")
    assert not all(torch.equal(a[key], b[key]) for key in a)


def test_the_best_checkpoint_is_the_best_validation(tmp_path: Path, dataset: Dataset) -> None:
    config = changed(steps=24, lr=2e-2, validate_every=2, network={"channels": (8, 16), "strides": (2,)})
    train(dataset, tmp_path / "run", config, log=silent)
    scores = {record["step"]: record["val"]["score"] for record in metrics(tmp_path / "run") if "val" in record}
    best = read_checkpoint(tmp_path / "run" / "best.pt")
    assert best.meta.step == max(step for step, score in scores.items() if score == max(scores.values()))
    assert best.best_score == max(scores.values())


def test_without_validation_samples_the_best_checkpoint_is_the_last(tmp_path: Path) -> None:
    lines: list[str] = []
    data = make_dataset(tmp_path / "data", samples=3)
    result = train(data, tmp_path / "run", SHORT, log=lines.append)
    assert sum("no samples of split 'val'" in line for line in lines) == 1
    assert (tmp_path / "run" / "best.pt").read_bytes() == (tmp_path / "run" / "last.pt").read_bytes()
    assert read_checkpoint(tmp_path / "run" / "best.pt").meta.step == 12
    assert result["val"] is None
    assert not any("val" in record for record in metrics(tmp_path / "run"))


@pytest.mark.parametrize("shuffle", ["full", "shard"])
def test_gradients_of_two_batches_are_those_of_one_twice_as_large(
    tmp_path: Path, dataset: Dataset, shuffle: str
) -> None:
    once = changed(batch_size=4, steps=5, shuffle=shuffle)
    train(dataset, tmp_path / "once", once, log=silent)
    train(dataset, tmp_path / "twice", changed(batch_size=2, accumulate=2, steps=5, shuffle=shuffle), log=silent)
    a, b = (read_checkpoint(tmp_path / name / "last.pt") for name in ("once", "twice"))
    assert a.stream == b.stream
    # Weights cannot be compared: Adam blows up the rounding of gradients that are zero, as of biases before a norm.
    losses = [[record["loss"] for record in metrics(tmp_path / name) if "loss" in record] for name in ("once", "twice")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert losses[0][0] != losses[0][-1]


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "poly", "precision": "bf16", "channels_last": True, "ema": 0.5, "keep": 3},
        {"deterministic": True, "loss": {"region": "tversky", "voxel": "focal", "class_weights": {"liver_tumor": 3}}},
        {"where": "n_tumors > 0", "sample_weights": {"index < 10": 3}},
    ],
)
def test_a_run_with_other_settings_goes_on_to_the_same_weights(
    tmp_path: Path, dataset: Dataset, settings: dict[str, Any]
) -> None:
    config = changed(**settings)
    train(dataset, tmp_path / "straight", config, log=silent)
    with pytest.raises(Killed):
        train(dataset, tmp_path / "run", config, log=log_that(kill, "step 8/12"))
    train(dataset, tmp_path / "run", config, resume=True, log=silent)
    assert_same_state(tmp_path / "straight" / "last.pt", tmp_path / "run" / "last.pt")


class TestFp16:
    """On the CPU, where only the loss's scale is of use."""

    @pytest.fixture(autouse=True)
    def in_fp16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("training.weights.precision_of", lambda *_: torch.float16)

    def test_gradients_are_clipped_at_their_true_size(self, tmp_path: Path, dataset: Dataset) -> None:
        """The same losses as in float32, but for rounding, though the gradient is scaled by 65536."""
        config = changed(clip_norm=0.5, steps=8)
        train(dataset, tmp_path / "half", config, log=silent)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("training.weights.precision_of", lambda *_: torch.float32)
            train(dataset, tmp_path / "whole", config, log=silent)
        losses = [[r["loss"] for r in metrics(tmp_path / name) if "loss" in r] for name in ("half", "whole")]
        assert losses[0] == pytest.approx(losses[1], rel=1e-2)
        assert losses[0] != losses[1]

    def test_a_killed_run_goes_on_with_the_same_scale(self, tmp_path: Path, dataset: Dataset) -> None:
        train(dataset, tmp_path / "straight", SHORT, log=silent)
        with pytest.raises(Killed):
            train(dataset, tmp_path / "run", SHORT, log=log_that(kill, "step 8/12"))
        train(dataset, tmp_path / "run", SHORT, resume=True, log=silent)
        assert_same_state(tmp_path / "straight" / "last.pt", tmp_path / "run" / "last.pt")
        scaler = read_checkpoint(tmp_path / "run" / "last.pt").scaler
        assert scaler == read_checkpoint(tmp_path / "straight" / "last.pt").scaler
        assert scaler is not None
        assert scaler["_growth_tracker"] == 12

    def test_gradients_that_never_are_finite_stop_the_run(
        self, tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*given: Any) -> torch.nn.Module:
            network = build_network(*given)
            next(network.parameters()).register_hook(lambda gradient: gradient * float("nan"))
            return network

        monkeypatch.setattr("training.weights.build_network", broken)
        with pytest.raises(PhantumorError, match=r"gradient is no longer finite at step 1[78] "):
            train(dataset, tmp_path / "run", changed(steps=60), log=silent)


def test_averaged_weights_lag_behind_and_are_what_is_used(tmp_path: Path, dataset: Dataset) -> None:
    train(dataset, tmp_path / "run", changed(ema=0.9), log=silent)
    state = read_checkpoint(tmp_path / "run" / "last.pt")
    assert state.averaged is not None
    used, _, _ = load_for_inference(tmp_path / "run" / "last.pt")
    for name, weights in used.state_dict().items():
        assert torch.equal(weights, state.averaged[name])
    assert not all(torch.equal(state.averaged[name], state.model[name]) for name in state.model)


def test_several_datasets_are_trained_on_together(tmp_path: Path, dataset: Dataset) -> None:
    other = make_dataset(tmp_path / "other", samples=10, seed=1)
    config = changed(mix=(1, 3), validate_samples=4)
    result = train([dataset, other], tmp_path / "run", config, log=silent)
    assert result["val"]["samples"] == 4
    with pytest.raises(InputError, match="dataset: "):
        train([other, dataset], tmp_path / "run", config, resume=True, log=silent)


def test_datasets_that_do_not_go_together_are_refused(tmp_path: Path, dataset: Dataset) -> None:
    other = make_dataset(tmp_path / "other", samples=4, patch_shape=(8, 8, 8))
    with pytest.raises(InputError, match="the same patch shape and spacing"):
        train([dataset, other], tmp_path / "run", changed(crop_shape=None), log=silent)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["last.pt", "curve.png", "config.yaml", "metrics.jsonl"])
def test_a_run_holds(straight: Path, name: str) -> None:
    assert (straight / name).stat().st_size > 0


# -- stop and resume


class Killed(Exception):  # noqa: N818, not an error but a scene
    """The process is gone: nothing is saved."""


def log_that(do: Callable[[], Any], at: str) -> Callable[[str], None]:
    """A log whose line that starts with `at` does something."""

    def log(line: str) -> None:
        if line.startswith(at):
            do()

    return log


def kill() -> None:
    raise Killed


def interrupt() -> None:
    raise KeyboardInterrupt


def ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset) -> Path:
    """12 steps at once."""
    run = tmp_path_factory.mktemp("straight") / "run"
    train(dataset, run, SHORT, log=silent)
    return run


@pytest.mark.parametrize("at", ["training", "step 2/12", "step 6/12", "step 8/12", "step 8: validation", "step 12/12"])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, dataset: Dataset, straight: Path, at: str) -> None:
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(dataset, run, SHORT, log=log_that(kill, at))
    train(dataset, run, SHORT, resume=True, log=silent)
    assert_same_state(straight / "last.pt", run / "last.pt")
    assert_same_state(straight / "best.pt", run / "best.pt")
    assert comparable(run) == comparable(straight)


@pytest.mark.parametrize("stop", [interrupt, ctrl_c])
@pytest.mark.parametrize(("at", "step"), [("step 5/12", 5), ("step 8: validation", 8), ("step 12/12", 12)])
def test_an_interrupted_run_loses_no_step(
    tmp_path: Path, dataset: Dataset, straight: Path, stop: Callable[[], None], at: str, step: int
) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match=f"stopped after step {step} of 12.*--resume"):
        train(dataset, run, SHORT, log=log_that(stop, at))
    assert read_checkpoint(run / "last.pt").meta.step == step
    lines: list[str] = []
    train(dataset, run, SHORT, resume=True, log=lines.append)
    assert lines[0].startswith(f"resuming at step {step} of 12")
    assert_same_state(straight / "last.pt", run / "last.pt")
    assert comparable(run) == comparable(straight)


def test_an_update_is_never_saved_half_done(
    tmp_path: Path, dataset: Dataset, straight: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = torch.optim.AdamW.step
    calls: list[int] = []

    def interrupted_step(self: torch.optim.AdamW, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGTERM)
        return step(self, *args)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted_step)
    with pytest.raises(TrainingInterrupted, match="stopped after step 5"):
        train(dataset, tmp_path / "run", SHORT, log=silent)
    train(dataset, tmp_path / "run", SHORT, resume=True, log=silent)
    assert_same_state(straight / "last.pt", tmp_path / "run" / "last.pt")


def test_a_finished_run_resumes_to_itself(tmp_path: Path, dataset: Dataset) -> None:
    first = train(dataset, tmp_path / "run", SHORT, log=silent)
    kept = comparable(tmp_path / "run")
    again = train(dataset, tmp_path / "run", SHORT, resume=True, log=silent)
    assert {key: again[key] for key in ("steps", "loss", "val", "best_score")} == {
        key: first[key] for key in ("steps", "loss", "val", "best_score")
    }
    assert comparable(tmp_path / "run") == kept


def test_a_moved_dataset_and_free_settings_may_change_on_resume(
    tmp_path: Path, dataset: Dataset, straight: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(dataset, run, SHORT, log=log_that(kill, "step 7/12"))
    moved = make_dataset(tmp_path / "elsewhere", samples=20)
    train(moved, run, changed(threads=1, checkpoint_every=100), resume=True, log=silent)
    assert_same_state(straight / "last.pt", run / "last.pt")


def test_training_works_outside_the_main_thread(tmp_path: Path, dataset: Dataset) -> None:
    results: list[dict[str, Any]] = []
    config = changed(steps=1)
    thread = threading.Thread(target=lambda: results.append(train(dataset, tmp_path / "run", config, log=silent)))
    thread.start()
    thread.join()
    assert results[0]["steps"] == 1


# -- bad input


@pytest.mark.parametrize(
    ("settings", "difference"),
    [
        ({"lr": 0.5}, r"lr: 0\.001 -> 0\.5"),
        ({"steps": 24}, "steps: 12 -> 24"),
        ({"network": {"channels": (8, 16), "strides": (2,)}}, r"network\.channels: \[4, 8\] -> \[8, 16\]"),
        ({"augment": {"flip": 0}}, r"augment\.flip: 0\.5 -> 0"),
    ],
)
def test_resuming_with_other_settings_names_the_difference(
    dataset: Dataset, straight: Path, settings: dict[str, Any], difference: str
) -> None:
    before = (straight / "last.pt").read_bytes()
    with pytest.raises(InputError, match=difference):
        train(dataset, straight, changed(**settings), resume=True, log=silent)
    assert (straight / "last.pt").read_bytes() == before


def test_the_samples_of_a_step_stay_the_same_however_they_are_split(
    tmp_path: Path, dataset: Dataset, straight: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(Killed):
        train(dataset, run, SHORT, log=log_that(kill, "step 7/12"))
    with pytest.raises(InputError, match=r"samples of a step .*: 2 -> 4"):
        train(dataset, run, changed(accumulate=2), resume=True, log=silent)
    train(dataset, run, changed(batch_size=1, accumulate=2), resume=True, log=silent)
    assert read_checkpoint(run / "last.pt").stream == read_checkpoint(straight / "last.pt").stream


def test_resuming_on_other_data_is_refused(tmp_path: Path, straight: Path) -> None:
    for other in (make_dataset(tmp_path / "more", samples=21), make_dataset(tmp_path / "seed", samples=20, seed=1)):
        with pytest.raises(InputError, match=f"dataset: .* -> {other.path}"):
            train(other, straight, SHORT, resume=True, log=silent)


def test_resuming_on_a_dataset_that_has_grown_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    growing = with_manifest(dataset, dataset.manifest.slice(0, 15))
    train(growing, tmp_path / "run", changed(steps=2), log=silent)
    with pytest.raises(InputError, match="or it has grown"):
        train(dataset, tmp_path / "run", changed(steps=2), resume=True, log=silent)


def test_resume_needs_a_run_and_a_new_run_needs_a_place(tmp_path: Path, dataset: Dataset, straight: Path) -> None:
    (tmp_path / "file").touch()
    for out, resume, message in (
        (tmp_path / "new", True, "no checkpoint to resume"),
        (straight, False, "already holds a run. Add --resume .* another --out"),
        (tmp_path / "file", False, "is a file"),
    ):
        with pytest.raises(InputError, match=message):
            train(dataset, out, SHORT, resume=resume, log=silent)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop_shape": (9, 8, 8)}, r"crop_shape \(9, 8, 8\) does not fit.*nearest valid shape is \(10, 8, 8\)"),
        ({"crop_shape": (24, 16, 16)}, r"crop_shape \(24, 16, 16\) is larger than the patches"),
        ({"crop_shape": None, "network": {"channels": (2,) * 3, "strides": (2, 3)}}, r"patch shape.*\(12, 12, 12\)"),
        ({"device": "gpu"}, "device 'gpu' cannot be used"),
        ({"precision": "fp16"}, "precision fp16 needs a GPU"),
        ({"batch_size": 13}, "--batch-size 13: .* has 12 training samples"),
        ({"where": "nonsense ="}, "nonsense"),
        ({"mix": (1, 2)}, "mix names 2 shares for 1 datasets"),
        ({"crop_shape": (24, 8, 16)}, "crop_shape .* is larger than the patches of .*: set a smaller one"),
    ],
)
def test_settings_that_cannot_train_are_refused_before_anything_is_written(
    tmp_path: Path, dataset: Dataset, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(dataset, tmp_path / "run", changed(**settings), log=silent)
    assert not (tmp_path / "run").exists()


def test_a_dataset_without_training_samples_is_refused(tmp_path: Path, dataset: Dataset) -> None:
    empty = with_manifest(dataset, dataset.manifest.slice(3, 2))
    with pytest.raises(InputError, match="'train' holds no sample"):
        train(empty, tmp_path / "run", SHORT, log=silent)
    with pytest.raises(InputError, match="not a phantumor dataset"):
        train(tmp_path / "nowhere", tmp_path / "run", SHORT, log=silent)


def test_a_loss_that_is_not_finite_stops_with_advice_and_keeps_the_last_checkpoint(
    tmp_path: Path, dataset: Dataset
) -> None:
    with pytest.raises(PhantumorError, match=r"no longer finite at step \d+ .*lower --lr than 1e\+30"):
        train(dataset, tmp_path / "run", changed(lr=1e30, checkpoint_every=1, validate_every=100), log=silent)
    state = read_checkpoint(tmp_path / "run" / "last.pt")
    assert state.meta.step < 12
    assert len(metrics(tmp_path / "run")) == state.meta.step


def test_a_gradient_that_is_not_finite_is_never_applied(
    tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *args: torch.tensor(float("nan")))
    with pytest.raises(PhantumorError, match="gradient is no longer finite at step 1 "):
        train(dataset, tmp_path / "run", changed(checkpoint_every=1), log=silent)
    assert read_checkpoint(tmp_path / "run" / "last.pt").meta.step == 0


def test_a_full_disk_is_one_message(tmp_path: Path, dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.checkpoint.replace_file", full)
    with pytest.raises(PhantumorError, match=r"cannot write to .*No space left on device.*--resume"):
        train(dataset, tmp_path / "run", SHORT, log=silent)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_training_and_resuming_run_on_a_gpu(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(Killed):
        train(dataset, tmp_path / "run", changed(device="auto"), log=log_that(kill, "step 7/12"))
    result = train(dataset, tmp_path / "run", changed(device="cuda"), resume=True, log=silent)
    assert result["steps"] == 12
    assert all(record["gpu_mb"] > 0 for record in metrics(tmp_path / "run") if "loss" in record)
