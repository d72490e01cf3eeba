"""The report of a label-kinds experiment: annotation time, figures by source case, picture and page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import yaml

from pipeline.experiments.label_kinds_settings import MinutesPer
from tests.test_label_free_report import LIVER, TUMOR, lesion, score
from training.experiment import write_experiment_report
from training.experiment.minutes_chart import Dot, minutes_chart
from training.records import CaseScore
from training.report.write import write_report
from training.summary import aggregate

# Samples and tumors of the datasets: what is annotated of them is counted from their manifests.
TUMORS = {"synthetic": [1, 2, 0, 3, 0], "synthetic-first-2": [1, 2], "synthetic-from-2": [0, 3, 0]}
SETTINGS = {"organ": LIVER, "seeds": [0, 1], "real_labels": None, "minutes_per": MinutesPer().model_dump()}


def samples_of(dice: float) -> list[CaseScore]:
    """Four samples, three of them of one patient, whose scores are not those of three patients."""
    scores = [score(f"s{k}", name, dice + 0.01 * k, int(k < 2), 0) for k in range(4) for name in (LIVER, TUMOR)]
    return [CaseScore(**{**vars(s), "group": "p0" if s.case_id != "s3" else "p1"}) for s in scores]


def evaluate(folder: Path, dice: float) -> None:
    scores, lesions = samples_of(dice), [lesion("s0", 1, 8, matched=True)]
    write_report(folder, aggregate(scores, lesions), scores, lesions, [], {"run": "run"})


def arm(name: str, data: list[str], labels: list[str], curve: str = "") -> dict[str, Any]:
    samples = sum(len(TUMORS.get(part, [])) for part in data)
    given = {"name": name, "title": name, "curve": curve, "amount": 2, "annotated": 0, "samples": samples}
    return {**given, "data": data, "labels": labels}


ARMS = {
    "mask": (arm("mask", ["synthetic"], ["mask"]), (0.6, 0.7)),
    "tag": (arm("tag", ["synthetic"], ["tag"]), (0.2, 0.3)),
    "report": (arm("report", ["synthetic"], ["report"]), (0.3, 0.3)),
    "mask-2+box": (arm("mask-2+box", ["synthetic-first-2", "synthetic-from-2"], ["mask", "box"]), (0.5, 0.62)),
    "mask-2": (arm("mask-2", ["synthetic-first-2"], ["mask"], "masks"), (0.1, 0.1)),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """The experiment's document, and where it lies."""
    out = tmp_path_factory.mktemp("kinds")
    for name, (_, by_seed) in ARMS.items():
        for seed, dice in enumerate(by_seed):
            evaluate(out / "synthetic" / f"{name}-{seed}", dice)
    (out / "experiment.yaml").write_text(yaml.safe_dump({"experiment": "label-kinds", "settings": SETTINGS}))
    plan = {"train_steps": 100, "cases": {"healthy-train": 2}, "arms": [planned for planned, _ in ARMS.values()]}
    plan["steps"] = [{"name": "x", "command": ["phantumor", "x"]}]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.experiment.label_kinds_results.open_dataset", _dataset)
        return write_experiment_report(out, plan), out


def _dataset(place: Path) -> Any:
    return SimpleNamespace(columns=lambda names: pa.table({names[0]: TUMORS[place.name]}))


@pytest.mark.parametrize(
    ("name", "minutes"),
    [
        ("mask", 6 * 3.6),
        ("tag", 5 * 0.3),  # by sample, with a tumor or without
        ("report", 0.0),
        ("mask-2+box", 3 * 3.6 + 3 * 0.32),
        ("mask-2", 3 * 3.6),
    ],
)
def test_annotation_time_is_tumors_times_minutes(made: tuple[dict[str, Any], Path], name: str, minutes: float) -> None:
    arms = {row["name"]: row for row in made[0]["arms"]}
    assert arms[name]["minutes"] == pytest.approx(minutes, abs=0.01)


def test_samples_of_one_patient_count_as_one_case(made: tuple[dict[str, Any], Path]) -> None:
    document, _ = made
    figure = document["arms"][0]["figures"]["tumor_dice"]
    assert (figure["cases"], document["scored_on"]["samples"], document["scored_on"]["cases"]) == (2, 4, 2)
    assert figure["mean"] == pytest.approx(0.665)  # of samples, not of patients
    assert figure["interval"] == "over seeds, on these cases only"


def test_the_headline_names_what_comes_closest_for_less(made: tuple[dict[str, Any], Path]) -> None:
    document, _ = made
    assert "training on masks reaches tumor Dice 0.67" in document["headline"]
    assert "mask-2+box comes closest" in document["headline"]
    assert f"at {100 * 11.76 / 21.6:.0f} % of the time" in document["headline"]
    assert [row["name"] for row in document["differences"]] == ["tag", "report", "mask-2+box", "mask-2"]
    assert document["real_differences"] == []


def test_the_page_has_the_picture_the_costs_and_what_not_to_conclude(made: tuple[dict[str, Any], Path]) -> None:
    document, out = made
    page, text = (out / "report.html").read_text(), (out / "report.md").read_text()
    assert json.loads((out / "experiment.json").read_text()) == document
    assert "Score over annotation time" in page
    assert page.count("<svg") == 3
    for words in (
        "## Against mask",
        "No case was held out",
        "Only 2 source cases:",
        "| mask | 3.6 | tumor |",
        "| tag | 0.3 | sample |",
        "21 min 36 s",
    ):
        assert words in text
    assert 'src="http' not in page


def test_the_axis_of_minutes_is_logarithmic_and_has_a_place_for_none() -> None:
    dots = [Dot(str(minutes), minutes, 0.5, 0.4, 0.6) for minutes in (0.0, 1.0, 10.0, 100.0)]
    svg = minutes_chart({"kinds": dots}, "Dice")
    zero, *places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', svg)]
    assert zero < places[0]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.05)


def test_names_of_dots_at_one_place_do_not_cover_each_other() -> None:
    dots = [Dot(name, 10.0, 0.5, None, None) for name in ("box", "recist", "circle")]
    svg = minutes_chart({"kinds": dots}, "Dice")
    at = {name: re.search(rf'x="([\d.]+)" y="([\d.]+)"[^>]*>{name}<', svg) for name in ("box", "recist", "circle")}
    assert all(at.values())
    assert len({found.groups() for found in at.values() if found}) == 3
