"""Tumor probabilities beside a prediction: right on every voxel, on the CT's own grid, and cut where the rules cut."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest
import torch

from pipeline.image import Volume
from tests.segmenters import Mixed, Thresholds, make_ct, make_segmenter
from training.evaluation.predictor import Predictor
from training.predict import predict_batch, predict_grid
from training.prediction.postprocess import Rules, postprocess
from training.prediction.probabilities import TumorProbabilities, predict_with_probabilities, within_rules
from training.prediction.regrid import values_onto

torch.set_num_threads(1)
KIDNEY, TUMOR = 5, 6
ONE_MM = (1.0, 1.0, 1.0)


def of_threshold(hu: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
    """What the network `Thresholds` gives the tumor class, voxel by voxel, in the window of -200 to 200 HU."""
    scaled = torch.from_numpy(hu.astype(np.float32)).clip(-200, 200)[None, None] / 200
    return np.asarray(Thresholds()(scaled).softmax(1)[0, 2].numpy(), np.float32)


@pytest.mark.parametrize("shape", [(11, 20, 9), (8, 8, 21), (5, 6, 7)])
def test_every_voxel_gets_its_probability_whatever_axis_the_slabs_run_along(shape: tuple[int, int, int]) -> None:
    ct = np.random.default_rng(0).integers(-300, 300, (2, *shape)).astype(np.int16)
    segmenter = make_segmenter()
    seen = TumorProbabilities(segmenter.classes)
    labels = predict_batch(segmenter, torch.from_numpy(ct)[:, None], watch=seen)
    assert torch.equal(labels, predict_batch(segmenter, torch.from_numpy(ct)[:, None]))
    for k in range(2):
        found = seen.of(k)
        assert (list(found), found[TUMOR].shape, str(found[TUMOR].dtype)) == ([TUMOR], shape, "float16")
        np.testing.assert_allclose(found[TUMOR].astype(np.float32), of_threshold(ct[k]), atol=1e-3)


def test_networks_that_vote_give_the_mean() -> None:
    ct = torch.randint(-300, 300, (1, 1, 8, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.int16)
    one, two = make_segmenter(network=Mixed(0)), make_segmenter(network=Mixed(1))
    alone = []
    for segmenter in (one, two, dataclasses.replace(one, others=(two,))):
        seen = TumorProbabilities(segmenter.classes)
        predict_batch(segmenter, ct, watch=seen)
        alone.append(seen.of(0)[TUMOR].astype(np.float32))
    np.testing.assert_allclose(alone[2], (alone[0] + alone[1]) / 2, atol=1e-3)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (0.8, 1.0, 2.0)])
def test_probabilities_lie_on_the_grid_of_the_class_ids(sizes: tuple[float, float, float]) -> None:
    affine = np.diag([*sizes, 1.0])
    affine[:3, 3] = (12.5, -40, 7)
    ct = Volume(make_ct((24, 26, 20)), affine)
    labels, found = predict_with_probabilities(make_segmenter(), ct)
    assert np.array_equal(labels, predict_grid(make_segmenter(), ct, ct.shape, affine))
    assert found[TUMOR].shape == labels.shape
    # Two of three classes share the rest, so where one has more than half it wins; interpolation moves edges a little.
    assert np.mean((found[TUMOR] > 0.5) == (labels == TUMOR)) > (0.99 if sizes == ONE_MM else 0.97)


def test_values_are_interpolated_in_mm_and_zero_outside() -> None:
    """A ramp stays a ramp; the edge voxels reach half a voxel beyond their centers."""
    ramp = np.broadcast_to(np.arange(8)[:, None, None] / 8, (8, 3, 4)).astype(np.float16)
    target = np.diag([0.5, 1.0, 2.0, 1.0])
    target[0, 3] = -1.0
    found = values_onto(ramp, np.eye(4), (20, 3, 2), target)
    at = -1 + 0.5 * np.arange(20)
    expected = np.where((at >= -0.5) & (at <= 7.5), np.clip(at, 0, 7) / 8, 0)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, np.broadcast_to(expected[:, None, None], (20, 3, 2)), atol=1e-3)
    with pytest.raises(ValueError, match="turn against each other"):
        values_onto(ramp, np.eye(4), (8, 3, 4), np.eye(4)[[1, 0, 2, 3]])


def test_a_case_is_answered_by_the_rules_in_ids_and_in_probabilities() -> None:
    hu = np.full((24, 12, 12), -1000, np.int16)
    hu[2:10, 2:10, 2:10] = 100
    hu[4:7, 4:7, 4:7] = hu[18:21, 4:7, 4:7] = 200
    ct = Volume(hu, np.eye(4))
    at = [(5, 5, 5), (19, 5, 5)]  # in the kidney, and 8 mm from it
    for rules, ids in ((Rules(), [TUMOR, TUMOR]), (Rules(within_organ_mm=4.0), [TUMOR, 0])):
        answer = Predictor(make_segmenter(), rules, probabilities=True).case(ct)
        assert [int(answer.labels[voxel]) for voxel in at] == ids
        assert answer.probabilities is not None
        assert [float(answer.probabilities[TUMOR][voxel]) > 0.5 for voxel in at] == [bool(i) for i in ids]
    assert Predictor(make_segmenter(), Rules(), probabilities=False).case(ct).probabilities is None


@pytest.mark.parametrize("probabilities", [True, False])
def test_a_case_with_a_name_shows_how_far_it_is(capsys: pytest.CaptureFixture[str], probabilities: bool) -> None:
    ct = Volume(np.full((24, 12, 12), 100, np.int16), np.eye(4))
    predictor = Predictor(make_segmenter(), Rules(), probabilities)
    predictor.case(ct)
    assert capsys.readouterr().err == ""
    predictor.case(ct, "anna")
    said = capsys.readouterr().err.splitlines()[-1]
    total = said.partition(" ")[0].split("/")
    assert total[0] == total[1]
    assert " windows of anna, " in said
    assert said.endswith("/s")


@pytest.mark.parametrize("organ", [True, False])
def test_where_the_rules_leave_no_tumor_its_probability_is_zero(organ: bool) -> None:
    labels = np.zeros((20, 8, 8), np.uint8)
    labels[2:8, 2:6, 2:6] = KIDNEY if organ else 0
    labels[9, 3, 3] = labels[15, 3, 3] = TUMOR
    high = {TUMOR: np.full(labels.shape, 0.9, np.float16)}
    rules = Rules(within_organ_mm=4.0)
    kept = within_rules(high, labels, ONE_MM, rules)[TUMOR] > 0
    after, _ = postprocess(labels, ONE_MM, make_segmenter().classes, rules)
    assert np.array_equal(kept & (labels == TUMOR), after == TUMOR)
    assert (bool(kept[9, 3, 3]), bool(kept[15, 3, 3])) == (organ, False)
    assert kept.any() == organ
    assert within_rules(high, labels, ONE_MM, Rules(min_tumor_mm3=5)) == high
