"""The realism report: each figure on populations whose answer is known, then the verb as a user types it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError
from pipeline.volume import write_nifti
from tests.command import run
from tests.datasets import make_dataset, with_manifest
from training.realism.classifier import Side, two_sample_auc
from training.realism.compare import auc_target, compare
from training.realism.distances import kolmogorov_smirnov, quantiles, wasserstein
from training.realism.features import FEATURES
from training.realism.lesions import BARE, CUT, SMALL, Scan, find_lesions
from training.realism.matching import capped, matched_counts, nearest_in_size
from training.realism.pictures import SHOWN_MM
from training.realism.populations import Population, synthetic_population
from training.realism.regions import boxes
from training.realism.shape import measure_shape
from training.realism.statistics import read_statistics
from training.realism.texture import correlation_length_mm

SHAPE = (52, 52, 52)
LIVER, TUMOR = 1, 2
LIVER_HU, NOISE_HU = 110.0, 15.0
Array = npt.NDArray[Any]


def rng_of(*entropy: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(entropy))


def ball(center: tuple[float, float, float], radius: float, shape: tuple[int, int, int] = SHAPE) -> Array:
    offsets = np.indices(shape) - np.reshape(center, (3, 1, 1, 1))
    return np.asarray((offsets**2).sum(axis=0) <= radius**2)


def make_scan(seed: int, contrast_hu: float = -45.0, case_id: str = "case", radius: float = 10.0) -> Scan:
    """A liver that fills all but a rim of the patch, and one ball-shaped lesion in it; white noise."""
    rng = rng_of(7, seed)
    label = np.zeros(SHAPE, np.uint8)
    label[2:-2, 2:-2, 2:-2] = LIVER
    label[ball(tuple(26 + rng.uniform(-3, 3, 3)), radius)] = TUMOR
    hu = np.select([label == LIVER, label == TUMOR], [LIVER_HU, LIVER_HU + contrast_hu], -80.0)
    image = np.rint(hu + rng.normal(0, NOISE_HU, SHAPE)).astype(np.int16)
    return Scan(f"scan {seed}", case_id, image, label, 1.0)


def make_population(seeds: range, contrast_hu: float = -45.0, cases: int = 3) -> Population:
    population = Population()
    for seed in seeds:
        scan = make_scan(seed, contrast_hu, f"case {seed % cases}")
        population.take(scan, "liver")
        population.take_healthy(scan, "liver", [9.0] * 4)
    return population


@pytest.fixture(scope="module")
def real() -> Population:
    return make_population(range(9))


# ---- two populations ----


def test_two_samples_of_one_population_cannot_be_told_apart(real: Population) -> None:
    figures = compare(real, make_population(range(100, 109)), {}, "liver", 1.0)
    contrast = figures["contrast"]
    assert contrast["w1_voxels_hu"] < 1.5
    assert contrast["w1_means_hu"] < 1.5
    assert contrast["real"]["mean"] == pytest.approx(-45, abs=1.5)
    assert not any("Healthy organ alone" in note for note in figures["notes"])
    border = figures["classifier"]["border"]
    assert border["folds_by"] == "case"
    assert border["auc"] == pytest.approx(0.5, abs=0.22)
    assert border["real"]["boxes"] == border["synthetic"]["boxes"] > 30
    assert figures["classifier_floor"]["border"]["auc"] == pytest.approx(0.5, abs=0.25)
    assert figures["targets"]["contrast_w1_hu"] == {"value": contrast["w1_voxels_hu"], "at_most": 10.0, "met": True}


def test_a_shifted_population_is_off_by_the_shift_and_told_apart(real: Population) -> None:
    figures = compare(real, make_population(range(200, 206), contrast_hu=-20.0, cases=2), {}, "liver", 1.0)
    contrast = figures["contrast"]
    assert contrast["w1_voxels_hu"] == pytest.approx(25, abs=1)
    assert contrast["w1_means_hu"] == pytest.approx(25, abs=1)
    assert contrast["w1_parenchyma_hu"] < 1
    assert figures["classifier"]["border"]["auc"] > 0.97
    assert figures["classifier_floor"]["border"]["auc"] < 0.8
    assert [target["met"] for target in figures["targets"].values()] == [False, False]
    telling = {row["name"]: row["auc"] for row in figures["classifier"]["border"]["features"]}
    assert telling["mean (HU)"] > 0.99
    assert abs(telling["noise ratio"] - 0.5) < 0.3


def test_a_floor_above_the_target_is_said(real: Population) -> None:
    """Another scanner: the same lesions under twice the noise."""
    noisy = Population()
    for seed in range(300, 306):
        scan = make_scan(seed, case_id=f"case {seed % 3}")
        rough = np.rint(scan.image + rng_of(11, seed).normal(0, 26, SHAPE)).astype(np.int16)
        noisy.take(replace(scan, image=rough), "liver")
        noisy.take_healthy(replace(scan, image=rough), "liver", [9.0] * 4)
    figures = compare(real, noisy, {}, "liver", 1.0)
    assert figures["classifier_floor"]["border"]["auc"] > 0.9
    assert any("Healthy organ alone" in note for note in figures["notes"])


def test_the_profile_steps_at_the_lesions_surface(real: Population) -> None:
    profile = compare(real, real, {}, "liver", 1.0)["profile"]
    by_depth = dict(zip(profile["depth_mm"], profile["real"], strict=True))
    assert by_depth[-2.5] == pytest.approx(0, abs=2)
    assert by_depth[0.5] == pytest.approx(-45, abs=4)
    assert by_depth[14.5] is None


# ---- classifier ----


def side(values: Array, lesions: int, cases: int, name: str) -> Side:
    """Boxes dealt to lesions, and lesions to cases, in turns."""
    lesion_of = [k % lesions for k in range(len(values))]
    return Side(values, tuple(f"{name}{k}" for k in lesion_of), tuple(f"{name}{k % cases}" for k in lesion_of))


@pytest.mark.parametrize(("shift_sd", "low", "high"), [(0.0, 0.4, 0.6), (1.9, 0.88, 0.94), (8.0, 0.999, 1.0)])
def test_auc_of_known_populations(shift_sd: float, low: float, high: float) -> None:
    """Two features, one of them shifted: the best possible AUC is the normal distribution at shift / sqrt(2)."""
    rng = rng_of(1)
    a, b = rng.normal(size=(400, 2)), rng.normal(size=(400, 2))
    b[:, 0] += shift_sd
    result = two_sample_auc(side(a, 40, 10, "a"), side(b, 40, 10, "b"), ("x", "y"))
    assert low <= result["auc"] <= high
    assert result["low"] <= result["auc"] <= result["high"]
    assert (result["folds_by"], result["folds"], result["notes"]) == ("case", 5, [])


@pytest.mark.parametrize(("cases", "folds_by"), [((2, 2), "case"), ((1, 2), "lesion"), ((3, 1), "lesion")])
def test_one_case_on_a_side_folds_by_lesion_and_says_so(cases: tuple[int, int], folds_by: str) -> None:
    rng = rng_of(2)
    sides = [side(rng.normal(size=(60, 2)), 6, n, name) for n, name in zip(cases, "ab", strict=True)]
    result = two_sample_auc(sides[0], sides[1], ("x", "y"))
    assert result["folds_by"] == folds_by
    assert any("folds are by lesion" in note for note in result["notes"]) is (folds_by == "lesion")


def test_fewer_than_two_lesions_give_no_auc_and_few_groups_no_interval() -> None:
    rng = rng_of(3)
    many, one = side(rng.normal(size=(60, 2)), 6, 1, "a"), side(rng.normal(size=(60, 2)), 1, 1, "b")
    assert two_sample_auc(many, one, ("x", "y"))["auc"] is None
    few = two_sample_auc(many, side(rng.normal(size=(9, 2)), 3, 1, "b"), ("x", "y"))
    assert (few["auc"], few["notes"]) == (None, ["not measured: a side has fewer than 10 boxes"])
    two = two_sample_auc(many, side(rng.normal(size=(60, 2)), 2, 1, "b"), ("x", "y"))
    assert two["folds"] == 2
    assert two["low"] is None
    enough = two_sample_auc(many, side(rng.normal(size=(60, 2)), 6, 1, "b"), ("x", "y"))
    assert enough["low"] <= enough["auc"] <= enough["high"]
    assert any("too narrow" in note for note in enough["notes"])
    assert any("no interval" in note for note in two["notes"])


def test_boxes_of_one_case_are_never_in_training_and_test_at_once() -> None:
    """Features that name the case and nothing else: only a classifier that saw the case could tell its side."""
    rng = rng_of(4)
    centers = rng.normal(0, 10, (2, 10, 5))
    sides = [side(centers[k][np.arange(200) % 10] + rng.normal(0, 0.1, (200, 5)), 10, 10, "ab"[k]) for k in (0, 1)]
    assert two_sample_auc(sides[0], sides[1], tuple("vwxyz"))["auc"] < 0.8


def test_a_feature_that_nobody_has_does_no_harm() -> None:
    rng = rng_of(5)
    a, b = rng.normal(size=(80, 2)), rng.normal(size=(80, 2)) + 5
    a[:, 1] = b[:, 1] = np.nan
    result = two_sample_auc(side(a, 8, 4, "a"), side(b, 8, 4, "b"), ("x", "empty"))
    assert result["auc"] > 0.99
    assert [row["name"] for row in result["features"]] == ["x"]


# ---- texture ----


@pytest.mark.parametrize(("sigma_vox", "spacing_mm"), [(0.8, 1.0), (1.0, 1.0), (1.5, 1.0), (1.0, 0.8)])
def test_the_length_of_a_field_of_known_correlation(sigma_vox: float, spacing_mm: float) -> None:
    """White noise blurred by sigma correlates as exp(-r^2 / 4 sigma^2): 1/e at 2 sigma."""
    field = ndimage.gaussian_filter(rng_of(6).normal(size=(48, 48, 48)), sigma_vox)
    hu = np.asarray(100 + 20 * field / field.std() + np.linspace(0, 30, 48)[:, None, None], np.float32)
    region = ball((24, 24, 24), 20, (48, 48, 48))
    length = correlation_length_mm(hu, region, spacing_mm)
    assert length == pytest.approx(2 * sigma_vox * spacing_mm, rel=0.15)


def test_white_noise_has_the_least_length_and_small_or_flat_regions_none() -> None:
    noise = rng_of(8).normal(size=(32, 32, 32)).astype(np.float32)
    region = ball((16, 16, 16), 14, (32, 32, 32))
    assert correlation_length_mm(noise, region, 1.0) == pytest.approx(0.63, abs=0.03)
    assert correlation_length_mm(noise, ball((16, 16, 16), 3, (32, 32, 32)), 1.0) is None
    assert correlation_length_mm(np.zeros_like(noise), region, 1.0) is None


# ---- lesions, boxes, shapes ----


def test_lesions_are_measured_or_left_out_for_a_stated_reason() -> None:
    scan = make_scan(0, radius=6.0)
    scan.label[ball((0, 8, 8), 5)] = TUMOR
    scan.label[4, 44, 4] = TUMOR
    scan.label[:, :, 36:] = 0
    scan.label[ball((26, 26, 48), 2)] = TUMOR  # far from the organ
    left_out: Counter[str] = Counter()
    lesions = list(find_lesions(scan, "liver", left_out))
    assert left_out == {CUT: 1, SMALL: 1, BARE: 1}
    assert len(lesions) == 1
    assert lesions[0].contrast_hu == pytest.approx(-45, abs=1.5)
    assert lesions[0].picture.hu.shape == (SHOWN_MM, SHOWN_MM)


def test_parenchyma_keeps_away_from_lesion_surface_and_neighbours() -> None:
    scan = make_scan(1)
    neighbour = ball((26, 26, 44), 4)
    scan.label[neighbour] = TUMOR
    scan.image[neighbour] = 3000
    lesion = max(find_lesions(scan, "liver", Counter()), key=lambda lesion: np.count_nonzero(lesion.mask))
    assert lesion.hu[lesion.parenchyma].mean() == pytest.approx(LIVER_HU, abs=1)
    assert lesion.depth_mm[lesion.parenchyma].max() <= -2
    assert lesion.depth_mm[lesion.parenchyma].min() >= -10
    assert lesion.depth_mm[lesion.mask].min() == 0.5
    assert not (lesion.tissue & lesion.mask).any()


def test_boxes_cross_the_border_or_lie_inside_and_keep_apart() -> None:
    (lesion,) = find_lesions(make_scan(2, radius=15.0), "liver", Counter())
    border, inside = (boxes(lesion, kind, rng_of(9)) for kind in FEATURES)
    assert len(border) >= 6
    assert inside
    for box in border:
        assert 0 < lesion.mask[box].mean() < 0.95
    for box in inside:
        assert lesion.mask[box].mean() >= 0.95
    starts = np.array([[axis.stop for axis in box] for box in border])
    apart = np.abs(starts[:, None] - starts).max(axis=2)
    assert apart[np.triu_indices(len(border), 1)].min() >= 8  # those at the array's edge are shorter
    assert border == boxes(lesion, "border", rng_of(9))


def test_the_shape_of_a_ball_and_of_a_bar() -> None:
    sphere = measure_shape(ball((26, 26, 26), 15), 0.5)
    assert sphere.diameter_mm == pytest.approx(15, rel=0.02)
    assert sphere.sphericity == pytest.approx(0.95, abs=0.05)  # a surface of voxels is a little larger
    assert sphere.box_fill == pytest.approx(np.pi / 6, abs=0.06)
    assert sphere.extent_ratio == 1
    bar = np.zeros((30, 10, 10), np.bool_)
    bar[2:26, 3:7, 3:7] = True
    shape = measure_shape(bar, 1.0)
    assert (shape.box_fill, shape.extent_ratio) == (1, 6)
    assert shape.sphericity is not None
    assert shape.sphericity < 0.8


# ---- distances and matching ----


def test_distances_of_known_distributions() -> None:
    values = rng_of(10).normal(size=3000)
    assert wasserstein(quantiles(values), quantiles(values + 7)) == pytest.approx(7)
    assert wasserstein([], [1.0]) is None
    assert kolmogorov_smirnov([1, 2, 3, 4], [3, 4, 5, 6]) == pytest.approx(0.5)
    assert kolmogorov_smirnov([1, 2], [3, 4]) == 1
    assert kolmogorov_smirnov([1, 2], [1, 2]) == 0


def test_boxes_are_dealt_to_lesions_of_like_size() -> None:
    assert nearest_in_size(20, [5, 19, 50, 22, 100, 21])[:3] == [5, 1, 3]
    taken, dealt = matched_counts([(20, 4), (60, 3)], [(21, 1), (19, 9), (400, 9), (64, 2), (5, 0)])
    assert sum(taken) == sum(dealt) == 7
    assert dealt[0] == 1
    assert matched_counts([(20, 50)], [(20, 3), (21, 4)]) == ([7], [3, 4])
    assert matched_counts([], [(20, 3)]) == ([], [0])
    assert matched_counts([(20, 9), (20, 9)], [(20, 3), (21, 3)]) == ([3, 3], [3, 3])  # none is left without
    assert capped([5, 1, 3], 5) == [2, 1, 2]
    assert capped([1, 1], 9) == [1, 1]


# ---- published statistics ----

ULS23_HEADER = "dataset case eqdiam_mm ex_mm ey_mm ez_mm bbox_fill sphericity at_voi_border".split()


def write_statistics(folder: Path, rows: list[list[object]], kits19: bool = False) -> Path:
    folder.mkdir()
    with (folder / "uls23_lesions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([ULS23_HEADER, *rows])
    if kits19:
        with (folder / "kits19_components.csv").open("w", newline="") as file:
            header = ["label", "vol_mm3", "eqdiam_mm", "extent_mm"]
            rows_19 = [[2, 4000, 19.7, "[20.0, 25.0, 16.0]"], [1, 9e4, 55, "[90.0, 50.0, 50.0]"]]
            csv.writer(file).writerows([header, *rows_19])
    return folder


def lesion_row(dataset: str, case: str, diameter_mm: float, at_border: int = 0) -> list[object]:
    return [dataset, case, diameter_mm, 10, 20, 10, 0.4, 0.8, at_border]


def test_statistics_leave_out_false_spacings_cut_lesions_and_crumbs(tmp_path: Path) -> None:
    rows = [lesion_row("LiTS", f"liver_{n}", n) for n in (5, 27, 28, 46, 47)]
    rows += [lesion_row("LiTS", "liver_1", 99, at_border=1), lesion_row("LiTS", "liver_2", 2.9)]
    rows += [lesion_row("KiTS21", "kidney21_case_00028", 30)]
    folder = write_statistics(tmp_path / "statistics", rows, kits19=True)
    assert {n: [x.diameter_mm for x in xs] for n, xs in read_statistics(folder, "liver").items()} == {
        "LiTS": [5, 27, 47]
    }
    kidney = read_statistics(folder, "kidney")
    assert kidney["KiTS21"][0].extent_ratio == 2
    assert (kidney["KiTS19"][0].box_fill, kidney["KiTS19"][0].sphericity) == (0.5, None)


# ---- the verb ----


def write_case(folder: Path, tumor: bool = True, spleen: bool = False) -> Path:
    """A case on files: a CT with a liver and two lesions, LiTS ids."""
    scan = make_scan(50, radius=6.0)
    label = np.pad(scan.label, 6)
    label[6 + 41 : 6 + 48, 14:21, 14:21] = TUMOR
    label[label == TUMOR] = TUMOR if tumor else LIVER
    hu = np.pad(scan.image, 6, constant_values=-1000)
    hu[label == TUMOR] += 60
    folder.mkdir(parents=True)
    write_nifti(folder / "ct.nii.gz", hu, np.eye(4))
    write_nifti(folder / "label.nii.gz", label if not spleen else (label > 0) * np.uint8(3), np.eye(4))
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("realism")
    make_dataset(home / "data", samples=6, patch_shape=(48, 48, 48))
    write_case(home / "cases" / "anna")
    return home


def test_the_verb_writes_a_report_with_every_figure(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.realism.populations.BALL_DIAMETERS_MM", (6.0,))
    monkeypatch.setattr("training.realism.classifier.MIN_BOXES", 2)
    monkeypatch.setattr(Dataset, "healthy", lambda self, index: np.minimum(self.sample(index).image, 120))
    statistics = write_statistics(tmp_path / "statistics", [lesion_row("LiTS", "liver_5", 12)])
    words = ["realism", home / "data", "--real", home / "cases", "--labels", "lits", "--statistics", statistics]
    code, out, err = run(capsys, *words, "--out", tmp_path / "out", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert document == json.loads((tmp_path / "out" / "realism.json").read_text())
    assert document["counts"]["real"]["lesions"] == 2
    assert document["counts"]["synthetic"]["lesions"] == 9
    assert document["counts"]["synthetic"]["healthy_regions"] > 0
    assert document["shape"]["LiTS"]["diameter_mm"]["real"]["n"] == 1
    assert document["classifier"]["border"]["folds_by"] == "lesion"
    assert document["targets"]["contrast_w1_hu"]["met"] is False  # +15 HU against +100 HU
    html = (tmp_path / "out" / "report.html").read_text()
    assert "missed" in html
    assert "folds are by lesion" in html
    assert html.count("<img") == 4
    assert "http" not in html
    # The same again, in words: same figures.
    first = (tmp_path / "out" / "realism.json").read_bytes()
    code, out, _ = run(capsys, *words, "--out", tmp_path / "out")
    assert code == 0
    assert "target 10 or less: missed" in out
    assert (tmp_path / "out" / "realism.json").read_bytes() == first


def test_without_its_bank_a_dataset_has_no_floor_and_that_is_said(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--real", home / "cases", "--labels", "lits", "--out", tmp_path / "out", "--limit", 2]
    code, out, err = run(capsys, "realism", home / "data", *words)
    assert code == 0, err
    assert "floor of healthy organ was not measured" in out
    document = json.loads((tmp_path / "out" / "realism.json").read_text())
    assert document["counts"]["synthetic"]["scans"] == 2
    assert document["classifier_floor"]["border"]["auc"] is None


def test_the_verb_has_help_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "realism", "--help")
    assert code == 0
    assert "Example: phantumor realism data --real" in out


@pytest.mark.parametrize(
    ("case", "words", "message"),
    [
        ({"tumor": False}, ["--labels", "lits"], "no lesion of the liver in 1 case: the masks hold liver"),
        ({"spleen": True}, ["--labels", "lits"], "does not know the ids [3]"),
        ({}, ["--labels", "liver=1,spleen=2"], "no lesion of the liver in 1 case: the masks hold liver, spleen"),
        ({}, ["--labels", "spleen=1,liver_tumor=2"], "the masks do not hold the liver itself"),
        ({}, ["--labels", "lits", "--organ", "kidney"], "has no tumors of the kidney, only liver_tumor"),
        ({}, ["--labels", "lits", "--organ", "lever"], "unknown organ 'lever'"),
        ({}, ["--labels", "lits", "--statistics", "."], "holds neither uls23_lesions.csv nor kits19_components.csv"),
    ],
)
def test_bad_input_is_one_clear_message(
    home: Path,
    tmp_path: Path,
    case: dict[str, bool],
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write_case(tmp_path / "case", **case)
    data = [home / "data", "--limit", 1]
    code, _, err = run(capsys, "realism", *data, "--real", folder, "--out", tmp_path / "out", *words)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_tumors_is_refused(home: Path) -> None:
    dataset = open_dataset(home / "data")
    empty = with_manifest(dataset, dataset.manifest.slice(0, 0))
    with pytest.raises(InputError, match="none of its 0 samples has a tumor of the liver"):
        synthetic_population(empty, "liver", 10)


def test_broken_statistics_name_the_file(tmp_path: Path) -> None:
    folder = write_statistics(tmp_path / "statistics", [["LiTS", "liver_1", "wide", 1, 1, 1, 1, 1, 0]])
    with pytest.raises(InputError, match=r"uls23_lesions\.csv: not the expected table"):
        read_statistics(folder, "liver")


@pytest.mark.parametrize(
    ("auc", "floor", "met"),
    [(0.6, 0.5, True), (0.9, 0.5, False), (0.6, 0.9, None), (0.9, 0.9, False), (0.6, None, True), (None, 0.5, None)],
)
def test_an_auc_below_a_floor_above_the_target_tells_nothing(
    auc: float | None, floor: float | None, met: bool | None
) -> None:
    assert auc_target(auc, floor)["met"] is met
