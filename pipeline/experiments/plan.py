"""From arms to commands: banks, datasets, trainings, evaluations, and what shows that each is done. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.experiments.arms import HEALTHY_BANK, SYNTHETIC, Arm, Made
from pipeline.experiments.cases import CASE_FOLDER
from pipeline.experiments.settings import LabelFree

Words = tuple[str, ...]
GENERATE_CONFIG, TRAIN_CONFIG = "generate.yaml", "train.yaml"
CALIBRATION, CALIBRATION_STEPS, CALIBRATION_EVERY = "calibration", 60, 10


@dataclass(frozen=True)
class Step:
    """One command. It is done when it ended well and `product` is there."""

    name: str
    words: Words  # after `phantumor`
    product: Path  # the file that it writes last
    needs: tuple[str, ...] = ()  # steps before it
    resume: Words = ()  # further words where the product is there, but the step was cut off

    @property
    def verb(self) -> str:
        return self.words[0]


@dataclass(frozen=True)
class Layout:
    """Where an experiment keeps what."""

    out: Path

    def bank(self, name: str) -> Path:
        return self.out / ("bank" if name == HEALTHY_BANK else f"bank-{name}")

    def data(self, name: str) -> Path:
        return self.out / "data" / name

    def run(self, arm: str, seed: int) -> Path:
        return self.out / "runs" / f"{arm}-{seed}"

    def checkpoint(self, arm: str, seed: int) -> Path:
        """The last one: every arm is scored after the same number of steps, none is chosen by a validation."""
        return self.run(arm, seed) / "last.pt"

    def evaluation(self, arm: str, seed: int) -> Path:
        return self.out / "evaluations" / f"{arm}-{seed}"

    def healthy(self, arm: str, seed: int) -> Path:
        """Of the same run on held-out healthy cases."""
        return self.out / "healthy" / f"{arm}-{seed}"

    def cases(self, group: str) -> Path:
        return self.out / CASE_FOLDER / group


class Planner:
    """The steps of one experiment. `groups` names the folders of cases and how many lie in each."""

    def __init__(self, wanted: LabelFree, arms: Sequence[Arm], groups: Mapping[str, int], out: Path) -> None:
        self.wanted, self.arms, self.groups, self.at = wanted, arms, groups, Layout(out)
        self.datasets: dict[str, Made] = {made.name: made for arm in arms for made in arm.data}

    def calibration(self) -> list[Step]:
        """What a measurement of the training's pace needs, and the short training itself."""
        made = self.datasets.get(SYNTHETIC) or next(iter(self.datasets.values()))
        run, steps, every = self.at.out / CALIBRATION, str(CALIBRATION_STEPS), str(CALIBRATION_EVERY)
        words: Words = (
            "train",
            "--data",
            str(self.at.data(made.name)),
            "--out",
            str(run),
            "--config",
            self._train_config,
        )
        words += ("--steps", steps, "--log-every", every, "--validate-every", steps, "--checkpoint-every", steps)
        train = Step("calibration", words, run / "last.pt", (f"generate {made.name}",), ("--resume",))
        return [*self._banks({made.bank}), self._generate(made), train]

    def steps(self, steps: int) -> list[Step]:
        """Everything, each arm trained for so many optimizer steps; all arms with the first seed come first."""
        banks = {made.bank for made in self.datasets.values()}
        made = [self._generate(dataset) for dataset in self.datasets.values()]
        runs = [step for seed in self.wanted.seeds for arm in self.arms for step in self._runs(arm, seed, steps)]
        report = ("experiment", "report", str(self.at.out))
        needs = tuple(step.name for step in runs if step.verb == "evaluate")
        return [*self._banks(banks), *made, *runs, Step("report", report, self.at.out / "report.html", needs)]

    def _banks(self, names: set[str]) -> Iterator[Step]:
        """Healthy cases split by split; annotated ones are all trained on, as the real cases judge them."""
        for group in self.groups:
            split = group.removeprefix("healthy-")
            bank = HEALTHY_BANK if split != group else group
            if bank not in names:
                continue
            labels = self.wanted.labels if bank == HEALTHY_BANK else self._annotated_labels
            folder = self.at.bank(bank)
            words: Words = (
                "prepare",
                str(self.at.cases(group)),
                "--out",
                str(folder),
                "--spacing",
                f"{self.wanted.spacing:g}",
            )
            words += ("--split", split if bank == HEALTHY_BANK else "train", *_flag("--labels", labels))
            words += ("--annotated",) if bank != HEALTHY_BANK else ()
            yield Step(f"prepare {group}", words, folder / "cases.parquet")

    def _generate(self, made: Made) -> Step:
        wanted, data, bank = self.wanted, self.at.data(made.name), self.at.bank(made.bank)
        words: Words = (
            "generate",
            "--bank",
            str(bank),
            "--out",
            str(data),
            "--config",
            str(self.at.out / GENERATE_CONFIG),
        )
        words += ("--samples", str(made.samples), "--patch-shape", *map(str, wanted.patch_shape))
        words += ("--organs", wanted.organ, *made.flags)
        needs = tuple(f"prepare {group}" for group in self.groups if self._bank_of(group) == made.bank)
        return Step(f"generate {made.name}", words, data / "manifest.parquet", needs)

    def _runs(self, arm: Arm, seed: int, steps: int) -> Iterator[Step]:
        """Training and evaluations of one arm with one seed."""
        name, run, last = f"{arm.name}-{seed}", self.at.run(arm.name, seed), self.at.checkpoint(arm.name, seed)
        data = (str(self.at.data(made.name)) for made in arm.data)
        words: Words = ("train", "--data", *data, "--out", str(run), "--config", self._train_config)
        words += ("--steps", str(steps), "--seed", str(seed), *arm.flags)
        needs = tuple(f"generate {made.name}" for made in arm.data)
        yield Step(f"train {name}", words, last, needs, ("--resume",))
        yield self._evaluation(name, last, "real", self.at.evaluation(arm.name, seed), self.wanted.real_labels)
        if "healthy-test" in self.groups:
            yield self._evaluation(name, last, "healthy-test", self.at.healthy(arm.name, seed), self.wanted.labels)

    def _evaluation(self, name: str, checkpoint: Path, group: str, out: Path, labels: str | None) -> Step:
        words: Words = ("evaluate", "--run", str(checkpoint), "--data", str(self.at.cases(group)), "--out", str(out))
        words += (*_flag("--labels", labels), *_flag("--within-organ-mm", self.wanted.within_organ_mm))
        words += _flag("--min-tumor-mm3", self.wanted.min_tumor_mm3)
        words += ("--healthy",) if group != "real" else ()
        return Step(f"evaluate {name} {group}", words, out / "report.html", (f"train {name}",))

    @staticmethod
    def _bank_of(group: str) -> str:
        return HEALTHY_BANK if group.startswith("healthy-") else group

    @property
    def _train_config(self) -> str:
        return str(self.at.out / TRAIN_CONFIG)

    @property
    def _annotated_labels(self) -> str | None:
        return self.wanted.annotated_labels or self.wanted.real_labels


def _flag(name: str, value: Any) -> Words:
    return () if value is None else (name, f"{value:g}" if isinstance(value, float) else str(value))
