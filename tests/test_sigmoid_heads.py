from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.train_config import NetworkConfig, TrainConfig
from tests.segmenters import Thresholds, make_ct, make_run, make_segmenter
from training.checkpoint import Checkpoint, load_for_inference, read_checkpoint, save_checkpoint
from training.export_network import export_network
from training.network import build_network, class_probabilities, levels
from training.predict import load_segmenter, predict_volume
from training.prediction.probabilities import TumorProbabilities

TINY = NetworkConfig(channels=(4, 8), strides=(2,), heads="sigmoid")


def test_the_background_has_the_logit_0_at_every_level() -> None:
    config = NetworkConfig(name="dynunet", channels=(4, 8, 16), deep_supervision=True, heads="sigmoid")
    network = build_network(config, 3, (16, 16, 16)).train()
    found = levels(network(torch.ones(1, 1, 16, 16, 16)))
    assert len(found) == 2
    assert all(bool((level[:, 0] == 0).all()) for level in found)
    assert all(bool((level[:, 1:] != 0).any()) for level in found)


def test_sigmoid_heads_change_neither_weights_nor_other_logits() -> None:
    softmax = build_network(TINY.model_copy(update={"heads": "softmax"}), 3, (8, 8, 8), seed=4)
    sigmoid = build_network(TINY, 3, (8, 8, 8), seed=4)
    for one, other in zip(softmax.parameters(), sigmoid.parameters(), strict=True):
        assert torch.equal(one, other)
    image = torch.linspace(-1, 1, 512).view(1, 1, 8, 8, 8)
    assert torch.equal(softmax(image)[:, 1:], sigmoid(image)[:, 1:])


def test_the_most_probable_class_is_the_largest_logit_with_both_heads() -> None:
    logits = torch.randn(2, 4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    logits[:, 0] = 0
    for heads in ("softmax", "sigmoid"):
        assert torch.equal(class_probabilities(logits, heads).argmax(1), logits.argmax(1))  # type: ignore[arg-type]
    assert torch.allclose(class_probabilities(logits, "softmax").sum(1), torch.ones(2, 3, 3, 3))
    assert torch.allclose(class_probabilities(logits, "sigmoid")[:, 1:], logits[:, 1:].sigmoid())


def test_prediction_and_tumor_probabilities_are_by_class() -> None:
    """`Thresholds` has no background logit but 0, so both heads find the same classes, with other probabilities."""
    ct = make_ct((12, 10, 8))
    softmax = make_segmenter(network=Thresholds(), patch_shape=(12, 10, 8))
    sigmoid = replace(softmax, heads="sigmoid")
    seen = {name: TumorProbabilities(softmax.classes) for name in ("softmax", "sigmoid")}
    labels = [predict_volume(one, ct, watch=seen[one.heads]) for one in (softmax, sigmoid)]
    assert np.array_equal(*labels)
    assert set(np.unique(labels[0])) == {0, 5, 6}
    tumor = {name: of.of(0)[6] for name, of in seen.items()}
    logit = 8 * ct.astype(np.float64).clip(-200, 200) / 200 - 2.6
    assert tumor["sigmoid"] == pytest.approx(1 / (1 + np.exp(-logit)), abs=2e-3)
    assert not np.allclose(tumor["sigmoid"], tumor["softmax"], atol=0.01)


def with_heads(run: Path, seed: int = 3) -> Path:
    """A run of `make_run` whose network has sigmoid heads."""
    file = make_run(run, seed=seed) / "best.pt"
    old = read_checkpoint(file)
    network = build_network(TINY, 3, (8, 8, 8), seed)
    meta = replace(old.meta, config=TrainConfig(network=TINY))
    save_checkpoint(file, Checkpoint(meta, network.state_dict(), None, {}, None, {}, None, 0))
    return run


def test_a_checkpoint_knows_its_heads(tmp_path: Path) -> None:
    run = with_heads(tmp_path / "run")
    assert load_segmenter(run, "cpu").heads == "sigmoid"
    network, _, _ = load_for_inference(run)
    assert bool((network(torch.ones(1, 1, 8, 8, 8))[:, 0] == 0).all())
    assert load_segmenter(make_run(tmp_path / "old"), "cpu").heads == "softmax"


def test_networks_with_other_heads_are_not_averaged(tmp_path: Path) -> None:
    runs = [with_heads(tmp_path / "a"), make_run(tmp_path / "b")]
    with pytest.raises(InputError, match=r"heads \(sigmoid and softmax\) differ"):
        load_segmenter(runs, "cpu")


def test_an_exported_network_says_how_its_probabilities_are_made(tmp_path: Path) -> None:
    told = export_network(with_heads(tmp_path / "run"), tmp_path / "network.pt2", "torch", log=lambda _: None)
    assert "sigmoid" in told["input"]["inference"]
    graph = torch.export.load(tmp_path / "network.pt2").module()
    assert bool((graph(torch.ones(1, 1, 8, 8, 8))[:, 0] == 0).all())
