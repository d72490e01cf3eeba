"""The report of a label-free experiment: figures over cases and seeds, differences, curves, what a reader is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from training.experiment import write_experiment_report
from training.experiment.curve import Point, amount_chart
from training.experiment.pictures import chosen
from training.experiment.results import collect
from training.experiment.spread import SHARE, crossed
from training.records import CaseScore, LesionRecord
from training.report.write import write_report
from training.summary import aggregate

LIVER, TUMOR = "liver", "liver_tumor"


def score(case_id: str, class_name: str, dice: float, found: int = 0, false: int = 0) -> CaseScore:
    """A case with two tumors of which `found` are found;"""
    tumor = class_name == TUMOR
    lesions: dict[str, Any] = (
        {"truth_lesions": 2, "found_lesions": found, "predicted_lesions": found + false} if tumor else {}
    )
    false_ones: dict[str, Any] = {
        "false_positive_lesions": false,
        "false_positive_ml": 0.5 * false,
        "false_negative_ml": 0.0,
    }
    return CaseScore(
        case_id=case_id,
        group=case_id,
        split=None,
        class_name=class_name,
        organ=LIVER,
        tumor=tumor,
        healthy=False,
        truth_voxels=1000,
        predicted_voxels=1000,
        truth_ml=1.0,
        predicted_ml=1.0,
        dice=dice,
        nsd_2mm=dice,
        hd95_mm=2.0,
        **(lesions | false_ones if tumor else {}),
    )


def lesion(case_id: str, number: int, diameter_mm: float, matched: bool) -> LesionRecord:
    """A true tumor."""
    return LesionRecord(
        case_id=case_id,
        group=case_id,
        class_name=TUMOR,
        organ=LIVER,
        source="truth",
        lesion_id=number,
        volume_mm3=100.0,
        diameter_mm=diameter_mm,
        centroid_x_vox=0,
        centroid_y_vox=0,
        centroid_z_vox=0,
        overlap_voxels=int(matched),
        matched=matched,
        iou=0.5,
    )


def evaluate(folder: Path, dice: dict[str, float]) -> None:
    """Write an evaluation: the first tumor of each case has 8 mm and is found where Dice is above 0.2."""
    scores = [s for case, d in dice.items() for s in (score(case, LIVER, 0.9), score(case, TUMOR, d, int(d > 0.2), 1))]
    lesions = [
        row for case, d in dice.items() for row in (lesion(case, 1, 8, d > 0.2), lesion(case, 2, 20, matched=False))
    ]
    write_report(folder, aggregate(scores, lesions), scores, lesions, [], {"run": "run"})


def plan(*arms: dict[str, Any]) -> dict[str, Any]:
    full = [
        {"title": f"as {arm['name']}", "curve": "", "amount": 0, "annotated": 0, "samples": 10, "data": [], **arm}
        for arm in arms
    ]
    cases = {"healthy-train": 4, "real": 6}
    return {"train_steps": 100, "cases": cases, "arms": full, "steps": [{"name": "x", "command": ["phantumor", "x"]}]}


SETTINGS = {"organ": LIVER, "seeds": [0, 1], "real_labels": None}
EXPERIMENT = {"experiment": "label-free", "settings": SETTINGS}
BASE = {f"r{k}": 0.1 * (k + 1) for k in range(6)}


def made(out: Path, **arms: float) -> dict[str, Any]:
    """Evaluations of two seeds each; an arm's Dice is BASE and what is given."""
    for name, more in arms.items():
        for seed in (0, 1):
            evaluate(out / "evaluations" / f"{name}-{seed}", {case: d + more for case, d in BASE.items()})
    return plan(*({"name": name} for name in arms))


# -- spread -----------------------------------------------------------------------------------------------------------


def test_a_mean_over_cases_and_seeds_by_hand() -> None:
    found = crossed(np.array([[1.0, 3.0], [5.0, 0.0]]), np.array([[1.0, 1.0], [1.0, 0.0]]))
    assert found["mean"] == 3.0
    assert found["by_seed"] == [3.0, 3.0]
    assert (found["cases"], found["seeds"]) == (2, 2)


def test_of_few_cases_the_interval_is_over_seeds_by_hand() -> None:
    values = np.array([[0.2, 0.3, 0.4], [0.4, 0.5, 0.6]])  # by seed 0.3, 0.4, 0.5: s = 0.1
    found = crossed(values, np.ones((2, 3)))
    half = 4.302653 * 0.1 / 3**0.5  # t(0.975) of two degrees of freedom, as printed in tables
    assert (found["low"], found["high"]) == pytest.approx((0.4 - half, 0.4 + half), abs=1e-6)
    assert found["interval"] == "over seeds, on these cases only"


@pytest.mark.parametrize(
    ("cases", "seeds", "interval"),
    [
        (4, 1, None),
        (4, 2, "over seeds, on these cases only"),
        (5, 1, "over cases"),
        (5, 2, "over cases and seeds"),
    ],
)
def test_an_interval_names_what_it_is_over(cases: int, seeds: int, interval: str | None) -> None:
    values = np.random.default_rng(np.random.SeedSequence((cases, seeds))).random((cases, seeds))
    found = crossed(values, np.ones_like(values))
    assert found["interval"] == interval
    assert (found["low"] is None) == (interval is None)


def test_an_interval_over_seeds_ends_at_what_a_figure_can_be() -> None:
    values = np.array([[0.1, 0.9]])  # t is 12.7: the interval reaches far beyond
    assert [crossed(values, np.ones((1, 2)), SHARE)[end] for end in ("low", "high")] == [0, 1]
    assert crossed(values, np.ones((1, 2)))["low"] < -1  # a difference may be negative


def test_cases_without_a_figure_do_not_count() -> None:
    found = crossed(np.array([[1.0], [0.0]]), np.array([[2.0], [0.0]]))
    assert (found["mean"], found["cases"]) == (0.5, 1)
    assert crossed(np.zeros((2, 1)), np.zeros((2, 1)))["mean"] is None


@given(st.integers(5, 12), st.integers(1, 3), st.integers(0, 99))
def test_the_interval_holds_the_mean(cases: int, seeds: int, seed: int) -> None:
    values = np.random.default_rng(np.random.SeedSequence((seed, 1))).random((cases, seeds))
    found = crossed(values, np.ones_like(values))
    assert found["low"] <= found["mean"] <= found["high"]
    assert found["mean"] == pytest.approx(values.mean())


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(np.random.SeedSequence((4,)))
    values = rng.random((8, 1)) + np.zeros((1, 4))
    alike, apart = (crossed(values + shift, np.ones((8, 4))) for shift in (np.zeros(4), np.array([-1, 1, -1, 1])))
    assert apart["mean"] == pytest.approx(alike["mean"])
    assert apart["high"] - apart["low"] > alike["high"] - alike["low"] + 0.5


# -- results ----------------------------------------------------------------------------------------------------------


def test_figures_of_an_arm_are_those_of_its_evaluations(tmp_path: Path) -> None:
    document = collect(tmp_path, made(tmp_path, synthetic=0.0), EXPERIMENT)
    figures = document["arms"][0]["figures"]
    assert figures["tumor_dice"]["mean"] == pytest.approx(0.35)
    assert figures["sensitivity"]["mean"] == pytest.approx(4 / 12)
    assert figures["organ_dice"]["mean"] == pytest.approx(0.9)
    assert (figures["false_tumors"]["mean"], figures["false_ml"]["mean"]) == (1.0, 0.5)
    assert figures["healthy_clean"]["mean"] is None
    sizes = {row["from_mm"]: (row["found"], row["n"]) for row in document["arms"][0]["by_diameter"]}
    assert sizes == {0: (0, 0), 5: (8, 12), 10: (0, 0), 20: (0, 12)}


def test_arms_are_compared_with_synthetic_case_by_case(tmp_path: Path) -> None:
    document = collect(tmp_path, made(tmp_path, synthetic=0.0, real=0.05, worse=-0.04), EXPERIMENT)
    rows = {row["name"]: row for row in document["differences"]}
    assert list(rows) == ["real", "worse"]
    assert rows["real"]["tumor_dice"]["mean"] == pytest.approx(0.05)
    assert rows["worse"]["tumor_dice"]["mean"] == pytest.approx(-0.04)
    assert rows["real"]["p"] == pytest.approx(2 / 2**6)  # all six cases in one direction
    assert rows["real"]["p_holm"] == pytest.approx(4 / 2**6)
    assert "trained on annotated tumors 0.40" in document["headline"]


def test_few_cases_get_intervals_over_seeds_in_every_part_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.experiment.write.pictures_of", lambda *_: [])
    by_seed = {"synthetic": (0.1, 0.2, 0.3), "no-edge": (0.15, 0.24, 0.36), "diversity-10": (0.1, 0.1, 0.2)}
    for name, dice in by_seed.items():
        for seed, value in enumerate(dice):
            evaluate(tmp_path / "evaluations" / f"{name}-{seed}", {"r0": value})
    given = plan(*({"name": name} for name in by_seed))
    given["arms"][-1] |= {"curve": "diversity", "amount": 10}
    settings = SETTINGS | {"seeds": [0, 1, 2]}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT | {"settings": settings}))
    document = write_experiment_report(tmp_path, given)
    row = document["differences"][0]
    half = 4.302653 * 0.01 / 3**0.5  # paired by seed: 0.05, 0.04, 0.06, although the arms' seeds differ by 0.1
    found = row["tumor_dice"]
    assert (found["low"], found["high"]) == pytest.approx((0.05 - half, 0.05 + half), abs=1e-6)
    assert row["p"] == 1.0  # over cases, of which there is one
    text, page = (tmp_path / "report.md").read_text(), (tmp_path / "report.html").read_text()
    assert "tumor Dice 0.20 (0.00 to 0.45 over seeds, on these cases only)" in document["headline"]
    assert "In square brackets the 95 % t interval over seeds, on these cases only." in text
    assert r"0.050, \[0.025 to 0.075\]" in text
    assert page.count("Whiskers: 95 % intervals over seeds, on these cases only.") == 3
    assert "says nothing of other patients" in page


def test_what_is_not_evaluated_yet_is_left_out_and_said(tmp_path: Path) -> None:
    whole = made(tmp_path, synthetic=0.0)
    whole["arms"].append({**whole["arms"][0], "name": "no-edge"})
    document = collect(tmp_path, whole, EXPERIMENT)
    assert [arm["name"] for arm in document["arms"]] == ["synthetic"]
    assert document["runs"] == {"done": 2, "planned": 4}


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_says_what_was_found_and_what_not_to_conclude(tmp_path: Path) -> None:
    given = made(tmp_path, **{"on-the-fly": 0.02})
    for name, amount, more in (("diversity-10", 10, 0.0), ("diversity-100", 100, 0.01)):
        given["arms"] += made(tmp_path, **{name: more})["arms"]
        given["arms"][-1] |= {"curve": "diversity", "amount": amount}
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    document = write_experiment_report(tmp_path, given)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "experiment.json").read_text()) == document
    assert "No healthy case was held out" in page
    assert page.count("<svg") == 2
    for words in (
        "## Diversity",
        "## Arms",
        "on-the-fly",
        "diversity-10",
    ):
        assert words in text
    assert 'src="http' not in page


def test_a_report_without_any_evaluation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    with pytest.raises(InputError, match="no run is evaluated yet"):
        write_experiment_report(tmp_path, plan({"name": "synthetic"}))


def test_pictures_go_from_the_worst_to_the_best_outline() -> None:
    scores = [score(f"r{k}", TUMOR, k / 20) for k in (9, 3, 17, 0, 12, 6, 14, 1)]
    assert list(chosen(scores)) == ["r0", "r3", "r9", "r12", "r17"]
    assert list(chosen(scores[:1])) == ["r9"]
    assert chosen([]) == {}


def test_the_axis_of_amounts_is_logarithmic() -> None:
    svg = amount_chart({"stored": [Point(a, 0.5, 0.4, 0.6) for a in (10, 100, 1000)]}, "samples", "Dice")
    places = [float(part.split('"')[1]) for part in svg.split("<circle cx=")[1:]]
    assert len(places) == 3
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.05)
