"""Planning a label-free experiment: arms, datasets, commands, cases kept apart, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.experiments.cases import Sources, find_all, lay_out, ordered_for_annotation, splits_of
from pipeline.experiments.cost import Cost
from pipeline.experiments.experiment import Experiment
from pipeline.experiments.label_free import HELD_OUT, generate_settings, plan_label_free, targets_of
from pipeline.experiments.label_free_arms import arms_of
from pipeline.experiments.plan import Design, Planner
from pipeline.experiments.settings import HoldOut, LabelFree
from pipeline.sources import CaseSource
from pipeline.train_config import TrainConfig

GROUPS = {"healthy-train": 5, "healthy-val": 1, "healthy-test": 1, "annotated": 4, "annotated-2": 2, "real": 3}


def wanted(**given: Any) -> LabelFree:
    return LabelFree.model_validate({"steps": 10, **given})


def planner(groups: dict[str, int] = GROUPS, config: GenerateConfig | None = None, **given: Any) -> Planner:
    settings = wanted(**given)
    arms = arms_of(settings, config or GenerateConfig(), groups.get("annotated", 0))
    design = Design(settings, arms, targets_of(settings, HELD_OUT in groups))
    return Planner(design, groups, Path("exp"))


def commands(plan: Planner, verb: str) -> dict[str, str]:
    """Command lines of a verb by the step's name."""
    return {step.name: " ".join(step.words) for step in plan.steps(10) if step.verb == verb}


def make_cases(folder: Path, names: str) -> Path:
    """Case folders whose files nobody opens as images; the CT's bytes are those of its name."""
    for name in names.split():
        (folder / name).mkdir(parents=True)
        (folder / name / "ct.nii.gz").write_bytes(f"{folder.name} {name}".encode())
        (folder / name / "liver.nii.gz").write_bytes(b"mask")
    return folder


def experiment(tmp_path: Path, healthy: Path, real: Path, annotated: tuple[Path, ...] = (), **given: Any) -> Experiment:
    sources = Sources((healthy,), (real,), annotated)
    return plan_label_free(sources, tmp_path / "exp", wanted(**given), GenerateConfig(), TrainConfig())


# -- arms and commands ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arm", "data", "generated", "trained"),
    [
        ("synthetic", "exp/data/synthetic", "--bank exp/bank", "--seed 0"),
        ("on-the-fly", "exp/data/synthetic", "--bank exp/bank", "--endless 1"),
        ("seed-paper", "exp/data/seed-paper", "--presets seed-paper", "--seed 0"),
        ("no-shape", "exp/data/no-shape", "--without lobulation deformation", "--seed 0"),
        ("no-edge", "exp/data/no-edge", "--without soft_edge", "--seed 0"),
        ("no-small", "exp/data/no-small", "--tumors.liver.diameter-mm 10 60", "--seed 0"),
        ("real", "exp/data/real", "--bank exp/bank-annotated", "--seed 0"),
        ("mixed", "exp/data/real exp/data/synthetic", "--bank exp/bank-annotated", "--mix 0.5 0.5"),
    ],
)
def test_an_arm_is_a_dataset_and_a_training(arm: str, data: str, generated: str, trained: str) -> None:
    plan = planner(arms=(arm,))
    first = data.split()[0].removeprefix("exp/data/")
    assert generated in commands(plan, "generate")[f"generate {first}"]
    train = commands(plan, "train")
    assert list(train) == [f"train {arm}-0"]
    assert f"--data {data} --out exp/runs/{arm}-0 " in train[f"train {arm}-0"]
    assert trained in train[f"train {arm}-0"]


def test_flags_go_on_from_the_settings_of_generation() -> None:
    config = GenerateConfig.model_validate({"without": ["rim"], "tumors": {"liver": {"diameter_mm": [4, 30]}}})
    made = commands(planner(config=config, arms=("no-edge", "no-small")), "generate")
    assert made["generate no-edge"].endswith("--without rim soft_edge")
    assert made["generate no-small"].endswith("--tumors.liver.diameter-mm 10 30")


@pytest.mark.parametrize(
    ("arm", "settings"),
    [
        ("seed-paper", {"presets": "seed-paper"}),
        ("no-shape", {"without": ["shape"]}),
        ("no-edge", {"without": ["soft_edge"]}),
        ("no-small", {"tumors": {"liver": {"diameter_mm": [12, 30]}}}),
    ],
)
def test_an_arm_that_is_synthetic_under_another_name_is_refused(arm: str, settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"arm {arm} is the same as synthetic"):
        planner(config=GenerateConfig.model_validate(settings), arms=("synthetic", arm))


def test_without_annotated_cases_only_label_free_arms_are_trained() -> None:
    healthy_only = {"healthy-train": 2, "real": 1}
    names = [arm.name for arm in planner(healthy_only).arms]
    assert names == ["synthetic", "on-the-fly", "seed-paper", "no-shape", "no-edge", "no-small"]
    assert [arm.name for arm in planner().arms] == [*names, "real", "mixed"]
    assert "seed-paper" not in [arm.name for arm in planner(healthy_only, organ="kidney").arms]


def test_the_diversity_curve_trains_on_exactly_so_many_samples() -> None:
    made = commands(planner(arms=("synthetic",), diversity=(1000, 100)), "generate")
    assert list(made) == ["generate synthetic", "generate diversity-100", "generate diversity-1000"]
    assert "--samples 100 " in made["generate diversity-100"]
    assert "--split-share.train 1 --split-share.val 0" in made["generate diversity-100"]


def test_the_annotation_curve_has_each_number_with_and_without_synthetic() -> None:
    plan = planner(arms=("synthetic",), annotation=(2,), annotated_share=0.25)
    train, banks = commands(plan, "train"), commands(plan, "prepare")
    assert "--data exp/data/annotation-2 --out" in train["train annotation-2-0"]
    both = train["train annotation-2+synthetic-0"]
    assert "--data exp/data/annotation-2 exp/data/synthetic " in both
    assert both.endswith("--mix 0.25 0.75")
    assert "prepare annotated" not in banks  # no arm needs all of them
    assert banks["prepare annotated-2"].endswith("--split train --annotated")


def test_every_arm_is_scored_on_real_and_on_held_out_healthy_cases_after_the_last_step() -> None:
    plan = planner(arms=("synthetic",), seeds=(3, 4), real_labels="lits", labels="phantumor", min_tumor_mm3=30)
    scored = commands(plan, "evaluate")
    assert scored["evaluate synthetic-3 real"] == (
        "evaluate --run exp/runs/synthetic-3/last.pt --data exp/cases/real --out exp/evaluations/synthetic-3 "
        "--labels lits --min-tumor-mm3 30"
    )
    assert scored["evaluate synthetic-4 healthy-test"].endswith("--labels phantumor --min-tumor-mm3 30 --healthy")
    none_held_out = planner({"healthy-train": 2, "real": 1}, arms=("synthetic",))
    assert list(commands(none_held_out, "evaluate")) == ["evaluate synthetic-0 real"]


def test_no_command_of_a_training_or_its_data_names_a_real_case() -> None:
    plan = planner(diversity=(10,), annotation=(2,))
    reading = [step for step in plan.steps(10) if step.verb in ("prepare", "generate", "train")]
    assert reading
    assert not [step.name for step in reading if "exp/cases/real" in step.words]


def test_steps_come_after_what_they_need() -> None:
    seen: set[str] = set()
    for step in planner(diversity=(10,), annotation=(2,), seeds=(0, 1)).steps(10):
        assert set(step.needs) <= seen, step.name
        seen.add(step.name)


def test_minutes_are_measured_on_a_short_training_of_synthetic_samples() -> None:
    steps = planner(arms=("real", "synthetic"), steps=None, minutes=5).calibration()
    assert [step.verb for step in steps] == ["prepare"] * 3 + ["generate", "train"]
    assert "exp/data/synthetic" in steps[-1].words


# -- settings that make no sense --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": None}, "either --steps .* or --minutes"),
        ({"minutes": 3}, "either --steps .* or --minutes"),
        ({"patch_shape": "full"}, "trainings need patches"),
        ({"seeds": (1, 1)}, "seeds: something is named twice"),
        ({"organ": "spleen"}, "choose from liver"),
        ({"organ": "kidney", "arms": ("seed-paper",)}, "liver tumors only"),
    ],
)
def test_settings_are_checked(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        wanted(**given)


@pytest.mark.parametrize(
    ("given", "annotated", "message"),
    [
        ({"arms": ("real", "mixed")}, 0, "the arm real, the arm mixed: needs annotated cases"),
        ({"annotation": (1,)}, 0, "--annotation: needs annotated cases"),
        ({"annotation": (1, 5)}, 4, "--annotation 5: there are 4 annotated cases"),
    ],
)
def test_arms_need_their_cases(given: dict[str, Any], annotated: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        wanted(**given).chosen(annotated)


def test_no_sample_goes_into_the_test_split_unless_the_settings_say_so(tmp_path: Path) -> None:
    assert generate_settings(None).split_share.test == 0
    file = tmp_path / "generate.yaml"
    file.write_text("split_share: {train: 0.5, val: 0.2, test: 0.3}")
    assert generate_settings(file).split_share.test == 0.3


# -- cases ------------------------------------------------------------------------------------------------------------


def sources(count: int, split: str | None = None) -> dict[str, CaseSource]:
    ids = [f"c{k}" for k in range(count)]
    return {case_id: CaseSource(case_id, Path(f"{case_id}/ct.nii.gz"), split=split) for case_id in ids}


@pytest.mark.parametrize(
    ("count", "hold_out", "splits"),
    [
        (4, "auto", ["train"] * 4),
        (4, "always", ["train", "test", "val", "train"]),
        (5, "auto", ["train", "test", "val", "train", "train"]),
        (5, "never", ["train"] * 5),
    ],
)
def test_healthy_cases_are_held_out_where_there_are_enough(count: int, hold_out: HoldOut, splits: list[str]) -> None:
    assert list(splits_of(sources(count), hold_out).values()) == splits


def test_the_splits_of_a_datalist_stay() -> None:
    assert set(splits_of(sources(6, "val"), "auto").values()) == {"val"}


def test_few_annotated_cases_are_among_more_of_them() -> None:
    order = ordered_for_annotation(sources(16))
    assert sorted(order) == sorted(sources(16))
    assert order != sorted(order)
    assert order == ordered_for_annotation(dict(reversed(sources(16).items())))


@pytest.mark.parametrize("flag", ["--healthy", "--annotated"])
@pytest.mark.parametrize("how", ["same path", "same bytes"])
def test_a_real_case_that_would_be_trained_on_is_refused(tmp_path: Path, flag: str, how: str) -> None:
    healthy, real = make_cases(tmp_path / "healthy", "h1 h2"), make_cases(tmp_path / "real", "r1 r2")
    trained = make_cases(tmp_path / "trained", "t1 t2")
    ct = trained / "t2" / "ct.nii.gz"
    ct.unlink()
    if how == "same path":
        ct.symlink_to(real / "r1" / "ct.nii.gz")
    else:
        ct.write_bytes((real / "r1" / "ct.nii.gz").read_bytes())
    roles = (trained, real) if flag == "--healthy" else (healthy, real, (trained,))
    with pytest.raises(InputError, match=rf"r1/ct.nii.gz.*in no training.*t2/ct.nii.gz of {flag}"):
        experiment(tmp_path, *roles)
    assert not (tmp_path / "exp").exists()


def test_links_follow_cases_that_moved(tmp_path: Path) -> None:
    old, new = make_cases(tmp_path / "old", "a"), make_cases(tmp_path / "new", "a")
    for place in (old, new):
        lay_out({"real": list(find_all([place], None).values())}, tmp_path / "out")
    links = [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]
    assert links
    assert all(link.resolve().is_relative_to(new.resolve()) for link in links)


def test_two_cases_of_one_id_are_refused(tmp_path: Path) -> None:
    first, second = make_cases(tmp_path / "a", "x"), make_cases(tmp_path / "b", "x")
    with pytest.raises(InputError, match="2 cases have the id 'x'"):
        plan_label_free(
            Sources((first, second), (make_cases(tmp_path / "real", "r"),)),
            tmp_path / "exp",
            wanted(),
            GenerateConfig(),
            TrainConfig(),
        )


# -- cost -------------------------------------------------------------------------------------------------------------


def test_real_masks_that_cannot_be_read_are_told_of_before_anything_is_made(tmp_path: Path) -> None:
    healthy, real = make_cases(tmp_path / "healthy", "h1"), make_cases(tmp_path / "real", "r1")
    planned = experiment(tmp_path, healthy, real, arms=("synthetic",))
    with pytest.raises(InputError, match=r"--real \(see --real-labels\): .*r1/ct.nii.gz"):
        planned.check_readable()
    assert not (tmp_path / "exp").exists()


def test_the_cost_counts_datasets_once_and_trainings_by_seed(tmp_path: Path) -> None:
    healthy, real = make_cases(tmp_path / "healthy", "h1 h2"), make_cases(tmp_path / "real", "r1")
    arms = ("synthetic", "on-the-fly", "no-edge")
    planned = experiment(tmp_path, healthy, real, arms=arms, seeds=(0, 1), samples=100, diversity=(20,))
    cost = planned.cost(lambda: 0.5)
    assert (cost.datasets, cost.samples, cost.trainings) == (3, 220, 8)
    assert cost.seconds == 8 * 10 * 0.5
    assert cost.cases == {"healthy-train": 2, "real": 1}


def test_with_minutes_nothing_is_measured_for_the_cost(tmp_path: Path) -> None:
    healthy, real = make_cases(tmp_path / "healthy", "h1"), make_cases(tmp_path / "real", "r1")
    planned = experiment(tmp_path, healthy, real, arms=("synthetic",), steps=None, minutes=2)
    assert planned.cost(lambda: pytest.fail("measured")).seconds == 120


def test_the_cost_is_told_in_lines() -> None:
    lines = Cost(2, 1000, (64, 64, 64), 3, 60, {"real": 2}).lines()
    assert "cases: 2 real" in lines
    assert any("1000 samples, about 314.6 MB" in line for line in lines)
    assert any("3 trainings, about 3 min 00 s (1 min 00 s each)" in line for line in lines)
