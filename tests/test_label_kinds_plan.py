"""Planning a label-kinds experiment: arms, views, annotations, what is scored on, refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.experiments.cases import Sources
from pipeline.experiments.experiment import Experiment
from pipeline.experiments.label_kinds import Material, plan_label_kinds, train_settings
from pipeline.experiments.label_kinds_settings import KINDS, LabelKinds
from pipeline.train_config import TrainConfig
from tests.test_label_free_plan import make_cases

PRODUCTS = {
    "prepare": "cases.parquet",
    "generate": "manifest.parquet",
    "select": "dataset.json",
    "annotate": "annotations.parquet",
    "train": "last.pt",
    "evaluate": "report.html",
}


def planned(tmp_path: Path, cases: str = "h1 h2", real: str = "", annotated: str = "", **given: Any) -> Experiment:
    """The experiment in `exp`, of cases whose files nobody opens as images."""
    groups = {"healthy": cases, "real": real, "annotated": annotated}
    for name, names in groups.items():
        if not (tmp_path / name).exists():
            make_cases(tmp_path / name, names)
    sources = Sources(**{name: (tmp_path / name,) if names else () for name, names in groups.items()})
    wanted = LabelKinds.model_validate({"steps": 10, "samples": 100, **given})
    return plan_label_kinds(Material(sources), tmp_path / "exp", wanted, GenerateConfig(), TrainConfig())


def commands(experiment: Experiment, verb: str) -> dict[str, str]:
    """Command lines of a verb by the step's name, without the experiment's place."""
    out = f"{experiment.out}/"
    return {step.name: " ".join(step.words).replace(out, "") for step in experiment.steps(10) if step.verb == verb}


def test_each_kind_is_an_arm_on_the_same_samples(tmp_path: Path) -> None:
    train = commands(planned(tmp_path), "train")
    assert [name.removeprefix("train ").removesuffix("-0") for name in train] == list(KINDS)
    for kind in KINDS:
        assert "--data data/synthetic --out" in train[f"train {kind}-0"]
        assert train[f"train {kind}-0"].endswith(f"--steps 10 --seed 0 --labels {kind}")


def test_a_mixture_is_two_views_that_share_no_sample(tmp_path: Path) -> None:
    experiment = planned(tmp_path, kinds=("mask",), mixtures=("mask:16+box",), mask_share=0.25)
    assert list(commands(experiment, "select").values()) == [
        "select data/synthetic --out data/synthetic-first-16 --where index < 16",
        "select data/synthetic --out data/synthetic-from-16 --where index >= 16",
    ]
    train = commands(experiment, "train")["train mask-16+box-0"]
    assert "--data data/synthetic-first-16 data/synthetic-from-16 " in train
    assert train.endswith("--labels mask box --mix 0.25 0.75")


def test_only_what_is_seen_as_something_else_than_masks_is_annotated_before_it_is_trained_on(tmp_path: Path) -> None:
    experiment = planned(tmp_path, kinds=("mask",), mixtures=("mask:16+box",), annotation=(4,))
    assert list(commands(experiment, "annotate")) == ["annotate synthetic-from-16"]
    by_name = {step.name: step for step in experiment.steps(10)}
    assert "annotate synthetic-from-16" in by_name["train mask-16+box-0"].needs
    assert by_name["annotate synthetic-from-16"].needs == ("select synthetic-from-16",)


def test_steps_come_after_what_they_need(tmp_path: Path) -> None:
    seen: set[str] = set()
    experiment = planned(tmp_path, real="r1", mixtures=("mask:16+box", "box:4+report"), annotation=(4,), seeds=(0, 1))
    for step in experiment.steps(10):
        assert set(step.needs) <= seen, step.name
        seen.add(step.name)


def test_annotation_counts_samples_or_annotated_cases(tmp_path: Path) -> None:
    samples = planned(tmp_path, kinds=("mask",), annotation=(16, 4))
    assert [arm.name for arm in samples.arms] == ["mask", "mask-4", "mask-16"]
    assert "--data data/synthetic-first-4 --out" in commands(samples, "train")["train mask-4-0"]
    cases = planned(tmp_path, real="r1", annotated="a1 a2", kinds=("mask",), annotation=(2,))
    assert [arm.name for arm in cases.arms] == ["mask", "annotation-2", "annotation-2+synthetic"]
    both = commands(cases, "train")["train annotation-2+synthetic-0"]
    assert "--data data/annotation-2 data/synthetic " in both


@pytest.mark.parametrize(
    ("cases", "split", "other"),
    [("h1 h2", "train", "test"), ("h1 h2 h3 h4 h5", "test", "train")],
)
def test_other_samples_are_scored_on_of_other_cases_where_some_are_held_out(
    tmp_path: Path, cases: str, split: str, other: str
) -> None:
    experiment = planned(tmp_path, cases, kinds=("mask",), test_samples=30)
    made = commands(experiment, "generate")
    assert "--split-share.train 1 --split-share.val 0 --split-share.test 0" in made["generate synthetic"]
    assert made["generate test"].endswith(
        f"--seed 1 --split-share.{split} 1 --split-share.val 0 --split-share.{other} 0"
    )
    assert "--samples 30 " in made["generate test"]
    scored = commands(experiment, "evaluate")
    assert scored["evaluate mask-0 test"].endswith("--data data/test --out synthetic/mask-0 --split all")


def test_real_cases_are_scored_on_as_well(tmp_path: Path) -> None:
    scored = commands(planned(tmp_path, real="r1", kinds=("box",), real_labels="lits"), "evaluate")
    assert list(scored) == ["evaluate box-0 test", "evaluate box-0 real"]
    assert scored["evaluate box-0 real"].endswith("--data cases/real --out evaluations/box-0 --labels lits")


def test_patches_are_not_turned_unless_the_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("augment: {zoom_share: 0.3}")
    augment = train_settings(file).augment
    assert (augment.rotate_share, augment.zoom_share, augment.elastic_share) == (0, 0.3, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mixtures": ("mask+box",)}, "write KIND:SAMPLES"),
        ({"mixtures": ("mask:4+mask",)}, "mask alone"),
        ({"mixtures": ("mask:100+box",)}, "leaves none of the 100 samples"),
        ({"kinds": ("box", "box")}, "kinds: something is named twice"),
        ({"kinds": ()}, "at least 1"),
        ({"minutes_per": {"mask": -1}}, "greater than or equal to 0"),
    ],
)
def test_settings_are_checked(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        planned(tmp_path, **given)


def test_more_masks_than_samples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--annotation 100: of 100 samples; give fewer"):
        planned(tmp_path, annotation=(4, 100))


def test_bank_or_healthy_cases_one_of_them(tmp_path: Path) -> None:
    wanted = LabelKinds(steps=1)
    with pytest.raises(InputError, match=r"either --bank.* or --healthy"):
        plan_label_kinds(Material(Sources()), tmp_path / "exp", wanted, GenerateConfig(), TrainConfig())


def test_a_real_case_that_would_be_trained_on_is_refused(tmp_path: Path) -> None:
    make_cases(tmp_path / "real", "r1")
    make_cases(tmp_path / "healthy", "h1")
    ct = (tmp_path / "real" / "r1" / "ct.nii.gz").read_bytes()
    (tmp_path / "healthy" / "h1" / "ct.nii.gz").write_bytes(ct)
    with pytest.raises(InputError, match="must be in no training"):
        planned(tmp_path, "h1", "r1")


# -- running ----------------------------------------------------------------------------------------------------------


class Commands:
    """Stands in for phantumor: makes what each command would; `select` refuses a folder that is not new."""

    def __init__(self, cut_at: str = "") -> None:
        self.ran: list[str] = []
        self._cut_at = cut_at

    def stop(self) -> None:
        pass

    def __call__(self, words: Sequence[str], name: str) -> int:
        self.ran.append(name)
        if words[0] == "experiment":
            (Path(words[2]) / "report.html").write_text("")
            (Path(words[2]) / "experiment.json").write_text(json.dumps({"headline": "done"}))
            return 0
        out = Path(words[1] if words[0] == "annotate" else words[words.index("--out") + 1])
        if words[0] == "select" and out.exists():
            return 2
        out.mkdir(parents=True, exist_ok=True)
        (out / PRODUCTS[words[0]]).write_text("")
        if name == self._cut_at:
            raise KeyboardInterrupt
        return 0


@pytest.mark.parametrize("cut_at", ["select synthetic-first-16", "annotate synthetic-from-16", "train box-0"])
def test_what_was_cut_off_goes_on(tmp_path: Path, cut_at: str) -> None:
    settings: dict[str, Any] = {"kinds": ("mask", "box"), "mixtures": ("mask:16+box",)}
    cut, rest = Commands(cut_at), Commands()
    with pytest.raises(KeyboardInterrupt):
        planned(tmp_path, **settings).run(print, lambda _: cut, [])
    assert planned(tmp_path, **settings).run(print, lambda _: rest, []) == {"headline": "done"}
    assert rest.ran[0] == cut_at
    assert (tmp_path / "exp" / "annotate.yaml").read_text()


def test_kinds_and_mixtures_may_be_added_and_the_costs_may_not_change(tmp_path: Path) -> None:
    planned(tmp_path, kinds=("mask",)).run(print, lambda _: Commands(), [])
    more = Commands()
    planned(tmp_path, kinds=("mask", "tag"), mixtures=("mask:4+tag",)).run(print, lambda _: more, [])
    assert [name for name in more.ran if name.startswith("train")] == ["train tag-0", "train mask-4+tag-0"]
    with pytest.raises(InputError, match=r"minutes_per\.box"):
        planned(tmp_path, kinds=("mask", "tag"), mixtures=("mask:4+tag",), minutes_per={"box": 5})
