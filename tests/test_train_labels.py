"""Training on partial and weak labels, from datasets on disk to runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.annotations.annotate import annotate
from pipeline.annotations.settings import AnnotationSettings
from pipeline.catalog import Dataset
from pipeline.errors import InputError
from pipeline.manifest import SCHEMA
from pipeline.train_config import LabelKind, TrainConfig
from tests.augmenting import NO_CHANGE
from tests.datasets import make_dataset, with_manifest
from tests.two_organs import PATCH, make_of, show_both
from training.checkpoint import read_checkpoint
from training.data import TrainingData, open_data
from training.metrics import dice
from training.network import build_network
from training.predict import Segmenter, load_segmenter, predict_volume
from training.stream import ShardStream
from training.supervision.labels import CodedLabels, Masks
from training.supervision.targets import Targets
from training.train import train

torch.set_num_threads(1)
FLIPS = NO_CHANGE.model_copy(update={"flip": 0.5})
SHORT = TrainConfig.model_validate(
    {
        "steps": 6,
        "lr": 1e-2,
        "warmup_steps": 0,
        "log_every": 1,
        "validate_every": 3,
        "validate_samples": 2,
        "checkpoint_every": 2,
        "network": {"channels": (4, 8), "strides": (2,)},
        "augment": FLIPS.model_dump(),
        "threads": 1,
        "device": "cpu",
    }
)
WEAK = tuple(kind for kind in get_args(LabelKind) if kind != "mask")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[Dataset]:
    """One dataset that annotates livers, one that annotates kidneys; all images show both."""
    folder = tmp_path_factory.mktemp("labels")
    return [make_of("liver", folder / "liver"), make_of("kidney", folder / "kidney", seed=1)]


def changed(**settings: Any) -> TrainConfig:
    return TrainConfig.model_validate(SHORT.model_dump() | settings)


def data_of(datasets: list[Dataset], **settings: Any) -> TrainingData:
    return open_data(datasets, changed(**settings))


def silent(line: str) -> None:
    pass


def losses(run: Path) -> list[float]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


def batches(data: TrainingData, count: int) -> list[tuple[dict[str, torch.Tensor], Targets]]:
    """The first batches of a training without augmentation, and their targets."""
    found = []
    with ShardStream(data.source, 2, seed=0, threads=1, relabel=data.labels.relabel) as stream:
        for _, batch in zip(range(count), stream, strict=False):
            found.append((batch, data.labels.targets(batch["label"], batch, stream.positions)))
    return found


# -- targets


def test_where_all_is_annotated_masks_are_trained_on_as_they_are(two: list[Dataset]) -> None:
    data = data_of(two[:1])
    assert type(data.labels) is Masks
    for batch, targets in batches(data, 3):
        assert torch.equal(targets.codes, data.classes.to_channels(batch["label"]))
        assert targets.only_known
        assert not targets.has_weak_facts


def test_codes_of_samples_that_annotate_everything_are_channels(two: list[Dataset]) -> None:
    """So that their loss, and with it a training, is the same to the bit."""
    data = data_of(two[:1])
    coded = CodedLabels(data._origins(), data.classes, 1.0, data.config.supervision, FLIPS, 0)
    (plain, expected), *_ = batches(data, 1)
    label = plain["label"].clone()
    for index, sample in zip(plain["index"].tolist(), label, strict=True):
        coded._encode(0, index, sample[0].numpy())
    found = coded.targets(label, plain, np.zeros(2, np.int64))
    assert torch.equal(found.codes, expected.codes)
    assert found.only_known


@pytest.mark.parametrize("partial", ["marginal", "background"])
def test_each_sample_is_trained_on_what_its_dataset_annotates(two: list[Dataset], partial: str) -> None:
    data = data_of(two, supervision={"partial": partial})
    sources = set()
    for batch, targets in batches(data, 6):
        for source, codes in zip(batch["source"].tolist(), targets.codes, strict=True):
            sources.add(source)
            background = {0} if partial == "background" else {0, *((3, 4) if source == 0 else (1, 2))}
            seen = set(codes.unique().tolist())
            sets = [set(np.flatnonzero(row).tolist()) for row in targets.sets[[k - 5 for k in seen if k >= 5]]]
            assert sets == ([] if partial == "background" else [background])
            assert {k for k in seen if 0 < k < 5} <= ({1, 2} if source == 0 else {3, 4})
    assert sources == {0, 1}


def test_samples_of_one_dataset_may_annotate_different_classes(two: list[Dataset]) -> None:
    rows = two[0].manifest.to_pylist()
    for row in rows[::2]:
        row["annotated_classes"] = [0, 1]
    data = data_of([with_manifest(two[0], pa.Table.from_pylist(rows, schema=SCHEMA))])
    for batch, targets in batches(data, 4):
        for index, codes in zip(batch["index"].tolist(), targets.codes, strict=True):
            assert data.annotated(data.datasets[0], index) == ({0, 1} if index % 2 == 0 else {0, 1, 2})
            assert bool((codes < 3).all()) == (index % 2 == 1)
    assert data.lines() == [
        "taken as unknown (background or one of these), as it is not annotated there: liver_tumor in 6 samples of "
        + data.datasets[0].path
    ]


@pytest.mark.parametrize("kind", WEAK)
def test_stored_annotations_are_those_that_are_derived(tmp_path: Path, kind: str) -> None:
    dataset = make_of("liver", tmp_path / "data", samples=6)
    derived = batches(data_of([dataset], labels=[kind], batch_size=1), 4)
    assert "(derived)" in data_of([dataset], labels=[kind]).lines()[0]
    annotate(dataset.path, AnnotationSettings(), log=silent)
    data = data_of([dataset], labels=[kind])
    assert data.lines() == [f"tumors are seen as: {kind} in {dataset.path} (as stored)"]
    for (_, one), (_, other) in zip(derived, batches(data, 4), strict=True):
        assert torch.equal(one.codes, other.codes)
        assert (one.boxes, one.reports) == (other.boxes, other.reports)
        assert (one.tags is None) == (other.tags is None)
        assert one.tags is None or other.tags is None or torch.equal(one.tags, other.tags)


def test_kinds_may_differ_between_datasets(two: list[Dataset]) -> None:
    data = data_of(two, labels=["mask", "box"])
    for batch, targets in batches(data, 6):
        has_box = [bool(boxes) for boxes in targets.boxes] or [False] * 2
        for source, index, boxed in zip(batch["source"].tolist(), batch["index"].tolist(), has_box, strict=True):
            assert boxed == (source == 1 and data.datasets[1].row(index)["n_tumors"] > 0)


def test_boxes_are_where_the_flipped_tumors_are(two: list[Dataset], tmp_path: Path) -> None:
    """Boxes of a training, beside the masks of the same training."""
    seen: dict[str, list[Targets]] = {}
    for kind in ("mask", "box"):
        targets: list[Targets] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "training.step.SupervisedLoss.forward",
                lambda self, outputs, of, kept=targets: (kept.append(of), outputs[0].square().mean())[1],
            )
            train(two[:1], tmp_path / kind, changed(labels=[kind], steps=3, validate_every=9), log=silent)
        seen[kind] = targets
    count = 0
    for masks, boxed in zip(seen["mask"], seen["box"], strict=True):
        for codes, boxes in zip(masks.codes, boxed.boxes, strict=True):
            tumor = codes[0] == 2
            count += len(boxes)
            assert len(boxes) == bool(tumor.any())
            for box in boxes:
                region = tuple(slice(low, high) for low, high in zip(box.low, box.high, strict=True))
                assert tumor[region].sum() == tumor.sum()
                assert [int(p.max() - p.min()) + 1 for p in tumor.nonzero().T] == list(tumor[region].shape)
    assert count >= 3


# -- runs


@pytest.mark.parametrize("heads", ["softmax", "sigmoid"])
@pytest.mark.parametrize("kind", WEAK)
def test_each_kind_is_learnt_from(tmp_path: Path, two: list[Dataset], kind: str, heads: str) -> None:
    """The loss of one batch, again and again: it falls by a twentieth or more in twenty steps."""
    settings = {"labels": [kind], "steps": 20, "batch_size": 4, "validate_every": 100, "where": "index in (0, 1, 2, 5)"}
    network = SHORT.network.model_dump() | {"heads": heads}
    config = changed(**settings, network=network, augment=NO_CHANGE.model_dump())
    train(two[:1], tmp_path / "run", config, log=silent)
    found = losses(tmp_path / "run")
    assert len(found) == 20
    assert np.isfinite(found).all()
    assert found[-1] < 0.95 * found[0]


def state(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "last.pt").model


class Killed(Exception):  # noqa: N818, not an error but a scene
    """The process is gone: nothing is saved."""


def killed(line: str) -> None:
    if line.startswith("step 5/6"):
        raise Killed


@pytest.mark.parametrize("kinds", [["mask", "mask"], ["box", "report"], ["scribble", "tag"]])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path, two: list[Dataset], kinds: list[str]) -> None:
    config = changed(labels=kinds)
    train(two, tmp_path / "straight", config, log=silent)
    with pytest.raises(Killed):
        train(two, tmp_path / "run", config, log=killed)
    train(two, tmp_path / "run", changed(labels=kinds, threads=2), resume=True, log=silent)
    straight, resumed = state(tmp_path / "straight"), state(tmp_path / "run")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_a_run_does_not_go_on_with_other_annotations(tmp_path: Path) -> None:
    dataset = make_of("liver", tmp_path / "data", samples=6)
    train(dataset, tmp_path / "run", changed(labels=["box"], steps=2), log=silent)
    annotate(dataset.path, AnnotationSettings(), log=silent)
    train(dataset, tmp_path / "run", changed(labels=["box"], steps=2), resume=True, log=silent)
    (tmp_path / "data" / "annotations.parquet").unlink()
    annotate(dataset.path, AnnotationSettings(box_jitter_mm=2), log=silent)
    with pytest.raises(InputError, match="dataset: "):
        train(dataset, tmp_path / "run", changed(labels=["box"], steps=2), resume=True, log=silent)


def test_validation_scores_what_is_annotated_alone(tmp_path: Path, two: list[Dataset]) -> None:
    result = train(two, tmp_path / "run", changed(steps=3, validate_samples=4), log=silent)
    held = result["val"]["samples_with"]
    assert held["liver"] == held["kidney"] == 2
    assert result["val"]["samples"] == 4


def test_two_processes_learn_as_one_from_mixed_labels(tmp_path: Path, two: list[Dataset]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(changed(labels=["box", "report"], steps=3).model_dump(mode="json")))
    command = ["-m", "pipeline.cli", "train", "--data", two[0].path, two[1].path, "--config", str(config)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    whole = [sys.executable, *torchrun, *command, "--batch-size", "2", "--out", str(tmp_path / "two")]
    done = subprocess.run(whole, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    train(two, tmp_path / "one", changed(labels=["box", "report"], steps=3, batch_size=4), log=silent)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert len(losses(tmp_path / "two")) == 3


def mean_dice(segmenter: Segmenter) -> dict[str, float]:
    """Of each class in samples that nobody trained on, against the whole truth."""
    scores: dict[str, list[float]] = {name: [] for name in segmenter.classes.names[1:]}
    for index in range(6):
        image, truth = show_both(9, index, PATCH)
        found = predict_volume(segmenter, image)
        for name, scored in scores.items():
            number = segmenter.classes.classes[name]
            if (truth == number).any():
                scored.append(dice(truth == number, found == number) or 0.0)
    return {name: float(np.mean(scored)) for name, scored in scores.items()}


@pytest.mark.parametrize(("heads", "margins"), [("softmax", (0.4, 0.4)), ("sigmoid", (0.4, None))])
def test_two_partly_annotated_datasets_train_one_network_for_both_organs(
    tmp_path: Path, two: list[Dataset], heads: str, margins: tuple[float, float | None]
) -> None:
    """Better than at its start by these margins of Dice, of organs and tumors, on images that show both organs.

    Sigmoid heads find tumors as small as these after four times as many steps.
    """
    network = {"channels": (8, 16), "strides": (2,), "heads": heads}
    config = changed(steps=120, lr=2e-2, batch_size=4, network=network, validate_every=200, checkpoint_every=200)
    train(two, tmp_path / "run", config, log=silent)
    trained = load_segmenter(tmp_path / "run", "cpu")
    start = build_network(config.network, 5, PATCH, config.seed).eval()
    cpu = torch.device("cpu")
    untrained = Segmenter(start, trained.classes, config.window, PATCH, 1.0, cpu, heads=config.network.heads)
    before, after = mean_dice(untrained), mean_dice(trained)
    for name, score in after.items():
        margin = margins["tumor" in name]
        assert margin is None or score > before[name] + margin, (name, before, after)


# -- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ["mask"] * 3}, "labels names 3 kinds .* for 2 datasets: give one for all"),
        ({"labels": ["box"], "augment": {"zoom_share": 0}}, r"labels box with augment.rotate_share 0.2: .*--augment"),
        ({"labels": ["mask", "tag"], "augment": {}}, "labels tag with augment.rotate_share 0.2, augment.zoom_share"),
        ({"labels": ["report"], "crop_shape": (8, 8, 8)}, r"labels report with crop_shape \(8, 8, 8\)"),
        ({"labels": ["mask", "point"], "endless": 0.5}, "labels point with endless 0.5: .* masks only"),
    ],
)
def test_what_does_not_go_together_is_refused(two: list[Dataset], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        data_of(two, **settings)


def test_what_moves_with_the_image_may_be_turned_and_cropped(two: list[Dataset], tmp_path: Path) -> None:
    config = changed(labels=["scribble", "circle"], augment={"rotate_share": 1.0}, crop_shape=(16, 8, 8), steps=2)
    train(two, tmp_path / "run", config, log=silent)
    assert np.isfinite(losses(tmp_path / "run")).all()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="labels"):
        changed(labels=["polygon"])


def test_a_dataset_without_tumor_annotations_has_no_weak_labels(two: list[Dataset]) -> None:
    rows = two[0].manifest.to_pylist()
    for row in rows:
        row["annotated_classes"] = [0, 1]
    organs = with_manifest(two[0], pa.Table.from_pylist(rows, schema=SCHEMA))
    with pytest.raises(InputError, match=r"labels box: no sample of .* annotates tumors"):
        data_of([organs], labels=["box"])


def test_a_run_from_before_these_settings_goes_on_as_it_was(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", samples=10)
    train(dataset, tmp_path / "straight", SHORT, log=silent)
    with pytest.raises(Killed):
        train(dataset, tmp_path / "run", SHORT, log=killed)
    last = tmp_path / "run" / "last.pt"
    document = torch.load(last, weights_only=True)
    for name in ("labels", "supervision"):
        del document["meta"]["config"][name]
    del document["meta"]["config"]["network"]["heads"]
    torch.save(document, last)
    train(dataset, tmp_path / "run", SHORT, resume=True, log=silent)
    straight, resumed = state(tmp_path / "straight"), state(tmp_path / "run")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
