"""From arms to commands: banks, datasets, views, trainings, evaluations, and what shows that each is done. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.experiments.arms import HEALTHY_BANK, SYNTHETIC, Arm, Data, Made, View
from pipeline.experiments.cases import CASE_FOLDER
from pipeline.experiments.settings import Common

Words = tuple[str, ...]
GENERATE_CONFIG, TRAIN_CONFIG, ANNOTATE_CONFIG = "generate.yaml", "train.yaml", "annotate.yaml"
CALIBRATION, CALIBRATION_STEPS, CALIBRATION_EVERY = "calibration", 60, 10


@dataclass(frozen=True)
class Step:
    """One command. It is done when it ended well and `product` is there."""

    name: str
    words: Words  # after `phantumor`
    product: Path  # the file that it writes last
    needs: tuple[str, ...] = ()  # steps before it
    resume: Words = ()  # further words where the product is there, but the step was cut off
    new: Path | None = None  # the folder that it makes and wants to be new

    @property
    def verb(self) -> str:
        return self.words[0]


@dataclass(frozen=True)
class Target:
    """What every run is scored on, and further words of `evaluate`."""

    name: str  # in the names of steps
    folder: str  # of the experiment, for the evaluations
    data: Path | Made | None  # a dataset there or to generate; None: the cases of this name, which are laid out
    flags: Words = ()


@dataclass(frozen=True)
class Layout:
    """Where an experiment keeps what. `given` is a bank of healthy cases that lies elsewhere."""

    out: Path
    given: Path | None = None

    def bank(self, name: str) -> Path:
        if name == HEALTHY_BANK:
            return self.given or self.out / "bank"
        return self.out / f"bank-{name}"

    def data(self, name: str) -> Path:
        return self.out / "data" / name

    def run(self, arm: str, seed: int) -> Path:
        return self.out / "runs" / f"{arm}-{seed}"

    def checkpoint(self, arm: str, seed: int) -> Path:
        """The last one: every arm is scored after the same number of steps, none is chosen by a validation."""
        return self.run(arm, seed) / "last.pt"

    def cases(self, group: str) -> Path:
        return self.out / CASE_FOLDER / group


@dataclass(frozen=True)
class Design:
    """What is trained, and what it is scored on."""

    wanted: Common
    arms: tuple[Arm, ...]
    targets: tuple[Target, ...]
    bank: Path | None = None  # of healthy cases, made before


class Planner:
    """The steps of one experiment. `groups` names the folders of cases and how many lie in each."""

    def __init__(self, design: Design, groups: Mapping[str, int], out: Path) -> None:
        self.wanted, self.arms, self.targets = design.wanted, design.arms, design.targets
        self.groups, self.at = groups, Layout(out, design.bank)
        self.used: dict[str, Data] = {data.name: data for arm in self.arms for data in arm.data}
        made = [data.of if isinstance(data, View) else data for data in self.used.values()]
        made += [target.data for target in self.targets if isinstance(target.data, Made)]
        self.datasets: dict[str, Made] = {data.name: data for data in made}
        self.weak = {data.name for arm in self.arms for data in arm.weak()}

    def calibration(self) -> list[Step]:
        """What a measurement of the training's pace needs, and the short training itself."""
        made = self.datasets.get(SYNTHETIC) or next(iter(self.datasets.values()))
        run, steps, every = self.at.out / CALIBRATION, str(CALIBRATION_STEPS), str(CALIBRATION_EVERY)
        words: Words = ("train", "--data", str(self.at.data(made.name)), "--out", str(run))
        words += ("--config", self._config(TRAIN_CONFIG), "--steps", steps, "--log-every", every)
        words += ("--validate-every", steps, "--checkpoint-every", steps)
        train = Step("calibration", words, run / "last.pt", (_maker(made),), ("--resume",))
        return [*self._banks({made.bank}), self._generate(made), train]

    def steps(self, steps: int) -> list[Step]:
        """Everything, each arm trained for so many optimizer steps; all arms with the first seed come first."""
        banks = {made.bank for made in self.datasets.values()}
        made = [self._generate(dataset) for dataset in self.datasets.values()]
        views = [self._select(data) for data in self.used.values() if isinstance(data, View)]
        annotated = [self._annotate(data) for data in self.used.values() if data.name in self.weak]
        runs = [step for seed in self.wanted.seeds for arm in self.arms for step in self._runs(arm, seed, steps)]
        report = ("experiment", "report", str(self.at.out))
        needs = tuple(step.name for step in runs if step.verb == "evaluate")
        last = Step("report", report, self.at.out / "report.html", needs)
        return [*self._banks(banks), *made, *views, *annotated, *runs, last]

    def _banks(self, names: set[str]) -> Iterator[Step]:
        """Healthy cases split by split; annotated ones are all trained on, as the real cases judge them."""
        for group in self._prepared:
            split, bank = group.removeprefix("healthy-"), _bank_of(group)
            if bank not in names:
                continue
            labels = self.wanted.labels if bank == HEALTHY_BANK else self._annotated_labels
            folder = self.at.bank(bank)
            words: Words = ("prepare", str(self.at.cases(group)), "--out", str(folder))
            words += ("--spacing", f"{self.wanted.spacing:g}")
            words += ("--split", split if bank == HEALTHY_BANK else "train", *flag("--labels", labels))
            words += ("--annotated",) if bank != HEALTHY_BANK else ()
            yield Step(f"prepare {group}", words, folder / "cases.parquet")

    def _generate(self, made: Made) -> Step:
        wanted, data, bank = self.wanted, self.at.data(made.name), self.at.bank(made.bank)
        words: Words = ("generate", "--bank", str(bank), "--out", str(data), "--config", self._config(GENERATE_CONFIG))
        words += ("--samples", str(made.samples), "--patch-shape", *map(str, wanted.patch_shape))
        words += ("--organs", wanted.organ, *made.flags)
        needs = tuple(f"prepare {group}" for group in self._prepared if _bank_of(group) == made.bank)
        return Step(_maker(made), words, data / "manifest.parquet", needs)

    def _select(self, view: View) -> Step:
        data = self.at.data(view.name)
        words = ("select", str(self.at.data(view.of.name)), "--out", str(data), "--where", view.where)
        return Step(_maker(view), words, data / "dataset.json", (_maker(view.of),), new=data)

    def _annotate(self, data: Data) -> Step:
        words = ("annotate", str(self.at.data(data.name)), "--config", self._config(ANNOTATE_CONFIG))
        return Step(f"annotate {data.name}", words, self.at.data(data.name) / "annotations.parquet", (_maker(data),))

    def _runs(self, arm: Arm, seed: int, steps: int) -> Iterator[Step]:
        """Training and evaluations of one arm with one seed."""
        name, run, last = f"{arm.name}-{seed}", self.at.run(arm.name, seed), self.at.checkpoint(arm.name, seed)
        data = (str(self.at.data(data.name)) for data in arm.data)
        words: Words = ("train", "--data", *data, "--out", str(run), "--config", self._config(TRAIN_CONFIG))
        words += ("--steps", str(steps), "--seed", str(seed), *arm.flags)
        needs = (*map(_maker, arm.data), *(f"annotate {data.name}" for data in arm.weak()))
        yield Step(f"train {name}", words, last, needs, ("--resume",))
        for target in self.targets:
            yield self._evaluation(name, last, target)

    def _evaluation(self, name: str, checkpoint: Path, target: Target) -> Step:
        needs, out = [f"train {name}"], self.at.out / target.folder / name
        data = target.data or self.at.cases(target.name)
        if isinstance(data, Made):
            needs, data = [*needs, _maker(data)], self.at.data(data.name)
        words = ("evaluate", "--run", str(checkpoint), "--data", str(data), "--out", str(out), *target.flags)
        return Step(f"evaluate {name} {target.name}", words, out / "report.html", tuple(needs))

    @property
    def _prepared(self) -> list[str]:
        """Groups of cases that become banks here."""
        return [group for group in self.groups if not (self.at.given and _bank_of(group) == HEALTHY_BANK)]

    def _config(self, name: str) -> str:
        return str(self.at.out / name)

    @property
    def _annotated_labels(self) -> str | None:
        return self.wanted.annotated_labels or self.wanted.real_labels


def real_cases(wanted: Common) -> Target:
    """Whole scans with real tumors."""
    return Target("real", "evaluations", None, (*flag("--labels", wanted.real_labels), *rules(wanted)))


def rules(wanted: Common) -> Words:
    """Flags of what every prediction goes through."""
    return (*flag("--within-organ-mm", wanted.within_organ_mm), *flag("--min-tumor-mm3", wanted.min_tumor_mm3))


def flag(name: str, value: Any) -> Words:
    """A flag with its value; nothing where there is none."""
    return () if value is None else (name, f"{value:g}" if isinstance(value, float) else str(value))


def _maker(data: Data) -> str:
    """The step that makes a dataset."""
    return f"select {data.name}" if isinstance(data, View) else f"generate {data.name}"


def _bank_of(group: str) -> str:
    return HEALTHY_BANK if group.startswith("healthy-") else group
