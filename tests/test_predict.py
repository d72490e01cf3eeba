from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from tests.datasets import make_dataset
from tests.segmenters import KIDNEY_HU, LIVER, TUMOR_HU, Mixed, expected, make_ct, make_run, make_segmenter
from training.augment import to_window
from training.network import ClassTable
from training.predict import (
    load_segmenter,
    predict_batch,
    predict_dataset,
    predict_samples,
    predict_volume,
)

torch.set_num_threads(1)


@pytest.mark.parametrize("shape", [(8, 8, 8), (11, 20, 9), (5, 6, 7), (3, 17, 8)])
def test_volumes_of_any_size_get_the_ids_of_their_voxels(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    ct = rng.choice(np.array([-1000, KIDNEY_HU, TUMOR_HU], np.int16), shape)
    labels = predict_volume(make_segmenter(), ct)
    assert labels.dtype == np.uint8
    assert np.array_equal(labels, expected(ct))


def test_a_volume_smaller_than_the_patch_is_padded_with_air() -> None:
    segmenter = make_segmenter()
    predict_volume(segmenter, np.full((4, 8, 8), 200, np.int16))
    (window,) = segmenter.network.seen  # type: ignore[misc]
    assert window.shape == (1, 1, 8, 8, 8)
    assert sorted(window.unique().tolist()) == [-1.0, 1.0]
    assert int((window == 1).sum()) == 4 * 8 * 8


def test_batches_are_predicted_sample_by_sample() -> None:
    images = torch.from_numpy(np.stack([make_ct((12, 12, 12)), np.full((12, 12, 12), -1000, np.int16)]))[:, None]
    labels = predict_batch(make_segmenter(), images)
    assert (labels.shape, labels.dtype) == ((2, 1, 12, 12, 12), torch.uint8)
    assert np.array_equal(labels[0, 0].numpy(), expected(make_ct((12, 12, 12))))
    assert not labels[1].any()


def test_windows_see_the_image_as_the_network_was_trained_to() -> None:
    """The overlap decides how many windows there are; the progress of a named image counts them."""
    for overlap, windows in ((0.0, 8), (0.5, 27)):
        segmenter = dataclasses.replace(make_segmenter(), overlap=overlap)
        predict_volume(segmenter, make_ct((16, 16, 16)))
        assert len(segmenter.network.seen) == windows  # type: ignore[arg-type]


def test_progress_is_shown_under_the_name_of_the_image(capsys: pytest.CaptureFixture[str]) -> None:
    predict_volume(make_segmenter(), make_ct((16, 16, 16)), "anna")
    assert "27/27 windows of anna" in capsys.readouterr().err
    predict_volume(make_segmenter(), make_ct((16, 16, 16)))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("overlap", [-0.1, 1.0])
def test_overlaps_that_make_no_windows_are_refused(overlap: float) -> None:
    with pytest.raises(InputError, match="share 0 to less than 1"):
        dataclasses.replace(make_segmenter(), overlap=overlap)


# ---- flips and several networks ----


def random_hu(batch: int = 2) -> torch.Tensor:
    return torch.randint(-300, 300, (batch, 1, 6, 7, 8), generator=torch.Generator().manual_seed(0)).to(torch.int16)


def test_mirroring_is_the_mean_over_eight_flips() -> None:
    network, hu = Mixed(), random_hu()
    total = torch.zeros(2, 3, 6, 7, 8)
    for flips in itertools.product([False, True], repeat=3):
        axes = [axis for axis, flip in zip((2, 3, 4), flips, strict=True) if flip]
        flipped = torch.flip(to_window(hu, (-200.0, 200.0)), axes)
        total += torch.flip(torch.softmax(network(flipped), 1), axes)
    with torch.inference_mode():
        plain = make_segmenter(network=network).probabilities(hu)
        mirrored = make_segmenter(network=network, mirror=True).probabilities(hu)
    torch.testing.assert_close(mirrored, total.detach() / 8)
    assert float((plain - mirrored).abs().max()) > 0.05
    torch.testing.assert_close(mirrored.sum(1), torch.ones(2, 6, 7, 8))


def test_several_networks_average_their_probabilities_each_in_its_own_window() -> None:
    hu, windows = random_hu(), [(-200.0, 200.0), (-50.0, 100.0), (-1000.0, 400.0)]
    one, *others = (make_segmenter(network=Mixed(seed), window=window) for seed, window in enumerate(windows))
    with torch.inference_mode():
        alone = [torch.softmax(Mixed(seed)(to_window(hu, window)), 1) for seed, window in enumerate(windows)]
        together = dataclasses.replace(one, others=tuple(others)).probabilities(hu)
    torch.testing.assert_close(together, torch.stack(alone).mean(0))


def test_runs_and_checkpoints_are_loaded_together(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one")
    two = make_run(tmp_path / "two", window=(-50.0, 100.0), seed=4)
    hu = random_hu()
    with torch.inference_mode():
        alone = [load_segmenter(run, "cpu").probabilities(hu) for run in (one, two)]
        both = load_segmenter([one, two / "best.pt"], "cpu", overlap=0.25, mirror=False)
        torch.testing.assert_close(both.probabilities(hu), (alone[0] + alone[1]) / 2)
    assert float((alone[0] - alone[1]).abs().max()) > 1e-3
    assert (both.overlap, both.mirror, len(both.others)) == (0.25, False, 1)


def test_networks_that_cannot_vote_together_are_refused(tmp_path: Path) -> None:
    runs = {
        "kidney": make_run(tmp_path / "kidney"),
        "liver": make_run(tmp_path / "liver", LIVER),
        "coarse": make_run(tmp_path / "coarse", spacing_mm=2.0),
        "large": make_run(tmp_path / "large", patch_shape=(16, 8, 8)),
        "other": make_run(tmp_path / "other", LIVER, spacing_mm=2.0),
    }
    cases = [
        ("liver", r"classes \(kidney, kidney_tumor and liver, liver_tumor\) differ"),
        ("coarse", r"spacings \(1 mm and 2 mm\) differ"),
        ("large", r"patch shapes \(\(8, 8, 8\) and \(16, 8, 8\)\) differ"),
        ("other", r"classes .*, spacings .* differ"),
    ]
    for name, message in cases:
        with pytest.raises(InputError, match=f"kidney and .*{name} cannot be averaged, their {message}"):
            load_segmenter([runs["kidney"], runs["kidney"], runs[name]], "cpu")
    with pytest.raises(InputError, match="no run is given"):
        load_segmenter([], "cpu")
    with pytest.raises(InputError, match="no such run"):
        load_segmenter([runs["kidney"], tmp_path / "none"], "cpu")


# ---- stored samples ----


def test_stored_samples_are_predicted_in_order_whatever_the_batch(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", samples=10)
    run = make_run(tmp_path / "run", LIVER)
    got = {size: list(predict_dataset(run, dataset, "all", batch_size=size, device="cpu")) for size in (1, 4)}
    assert [p.sample for p in got[1]] == list(range(10))
    for one, many in zip(got[1], got[4], strict=True):
        assert np.array_equal(one.truth, dataset.sample(one.sample).label)
        assert one.prediction.dtype == np.uint8
        assert np.array_equal(one.prediction, many.prediction)
    assert [sample for sample, _, _ in predict_dataset(run, dataset.path, "test")] == [4, 9]


def test_samples_are_scored_on_the_right_voxels(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", samples=2)
    segmenter = dataclasses.replace(make_segmenter((16, 16, 16)), classes=ClassTable(LIVER))
    for sample, truth, prediction in predict_samples(segmenter, dataset, [1, 0], 2):
        image = dataset.sample(sample).image
        assert np.array_equal(prediction > 0, image > 0)
        assert np.array_equal(truth, dataset.sample(sample).label)


def test_datasets_that_do_not_fit_the_run_are_refused(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "data", samples=3)
    run = make_run(tmp_path / "run", LIVER, spacing_mm=2.0)
    cases: list[tuple[Any, str, str]] = [
        (dataset, "train", "has 1 mm voxels, .* trained at 2 mm"),
        (dataset, "val", r"no samples of split 'val' \(the dataset has train 3\)"),
        (dataset, "validation", "unknown split"),
        (tmp_path, "train", "not a phantumor dataset"),
    ]
    for data, split, message in cases:
        with pytest.raises(InputError, match=message):
            predict_dataset(run, data, split)
