"""A network learns to find tumors through real shards: cases, bank, generation, stream, training, held-out samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.bank import create_or_open_bank
from pipeline.case import build_case
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.organs import tumor_id
from pipeline.phantom import make_phantom
from pipeline.train_config import NetworkConfig, TrainConfig
from training.checkpoint import load_for_inference
from training.metrics import dice
from training.network import ClassTable, build_network
from training.predict import Segmenter, load_segmenter, predict_samples, samples_to_predict
from training.train import train
from workers.generate import generate

SPACING_MM = 3.0
TUMORS = {"liver": {"diameter_mm": [15, 42], "contrast_hu": [-90, -60], "count": [1, 3]}}
GENERATE = GenerateConfig.model_validate(
    {
        "samples": 80,
        "patch_shape": [48, 48, 32],
        "shard_samples": 16,
        "body_share": 0,
        "split_share": {"train": 0.8, "val": 0, "test": 0.2},
        "tumors": TUMORS,
    }
)
TRAIN = TrainConfig(
    steps=500,
    lr=4e-3,
    network=NetworkConfig(channels=(8, 16, 32, 64)),
    threads=1,
    validate_every=500,
    checkpoint_every=500,
    log_every=100,
)


def phantom_bank(folder: Path) -> Path:
    """Three phantom patients to train on, one held out."""
    with create_or_open_bank(folder, SPACING_MM) as bank:
        for seed, split in enumerate(["train", "train", "train", "test"]):
            phantom = make_phantom(seed, (112, 92, 68), SPACING_MM)
            bank.add_case(
                build_case(f"phantom_{seed}", phantom.ct, phantom.organs, phantom.affine, SPACING_MM, split=split)
            )
    return folder


def tumor_dice(segmenter: Segmenter, dataset: Dataset, indices: Sequence[int]) -> float:
    """Mean over the samples that hold a tumor."""
    scores = []
    for _, truth, prediction in predict_samples(segmenter, dataset, indices, 4):
        mask = truth == tumor_id("liver")
        if mask.any():
            scores.append(dice(mask, prediction == tumor_id("liver")))
    return float(np.mean([score for score in scores if score is not None]))


@pytest.mark.slow
def test_500_steps_on_64_samples_find_held_out_tumors(tmp_path: Path) -> None:
    bank = phantom_bank(tmp_path / "bank")
    generate(bank, tmp_path / "data", GENERATE, log=lambda _: None)
    dataset = open_dataset(tmp_path / "data")
    torch.set_num_threads(1)
    train(dataset, tmp_path / "run", TRAIN, log=lambda _: None)

    trained = load_segmenter(tmp_path / "run", "cpu")
    held_out = samples_to_predict(trained, dataset, "test")
    assert len(held_out) >= 8
    _, classes, meta = load_for_inference(tmp_path / "run")
    start = build_network(TRAIN.network, len(classes.ids), meta.patch_shape, TRAIN.seed).eval()
    untrained = Segmenter(
        start, ClassTable(meta.classes), TRAIN.window, meta.patch_shape, SPACING_MM, torch.device("cpu")
    )

    before, after = (tumor_dice(segmenter, dataset, held_out) for segmenter in (untrained, trained))
    print(
        f"tumor Dice on {len(held_out)} held-out samples: {before:.2f} at step 0, {after:.2f} after {TRAIN.steps} steps"
    )
    assert after > 0.45
    assert after > before + 0.3
