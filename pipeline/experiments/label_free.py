"""The label-free experiment: networks that saw synthetic tumors only, judged by real ones, one command from cases to
report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.config import GenerateConfig, SplitShare
from pipeline.errors import InputError, PhantumorError
from pipeline.experiments.arms import Arm, arms_of
from pipeline.experiments.cases import Cases, check_apart, check_readable, find_all, folders_of, lay_out, splits_of
from pipeline.experiments.cost import Cost
from pipeline.experiments.document import (
    PACE,
    PLAN,
    check_same,
    document_of,
    plan_document,
    write_experiment,
    write_plan,
)
from pipeline.experiments.plan import CALIBRATION, Planner, Step
from pipeline.experiments.runner import Command, Ledger, Log, only_one, run_steps
from pipeline.experiments.settings import LabelFree
from pipeline.files import replace_file
from pipeline.settings import resolve
from pipeline.train_config import TrainConfig

_FAMILIAR_STEPS = 2  # of the calibration's measurements: the first ones are slow
_TRAIN_AND_VAL = SplitShare(train=0.9, val=0.1, test=0.0)  # real cases are the test


@dataclass(frozen=True)
class Sources:
    """Where cases lie. `real` ones are evaluated on and never trained on."""

    healthy: tuple[Path, ...]
    real: tuple[Path, ...]
    annotated: tuple[Path, ...] = ()


class Experiment:
    """A planned experiment: everything is checked when it is made, nothing written before `run`."""

    def __init__(
        self, sources: Sources, out: Path, wanted: LabelFree, generate: GenerateConfig, train: TrainConfig
    ) -> None:
        labels = (wanted.labels, wanted.annotated_labels or wanted.real_labels, wanted.real_labels)
        groups = (sources.healthy, sources.annotated, sources.real)
        self.cases = Cases(*(find_all(group, names) for group, names in zip(groups, labels, strict=True)))
        self.out, self.wanted, self.generate, self.train = out, wanted, generate, train
        self.arms = arms_of(wanted, generate, len(self.cases.annotated))
        digests = self.cases.digests()
        check_apart(self.cases, digests)
        splits = splits_of(self.cases.healthy, wanted.hold_out)
        names = wanted.chosen(len(self.cases.annotated))
        self._document = document_of(wanted, names, generate, train, digests, splits)
        check_same(out, self._document)
        self._folders = folders_of(self.cases, wanted.hold_out, wanted.annotation)
        self.groups = {name: len(cases) for name, cases in self._folders.items()}
        self._planner = Planner(wanted, self.arms, self.groups, out)

    def check_readable(self) -> None:
        """InputError where the label map does not fit the real masks: before hours of training, not after."""
        check_readable(self.cases.real, self.wanted.real_labels)

    def steps(self, train_steps: int) -> list[Step]:
        """All commands."""
        return self._planner.steps(train_steps)

    def cost(self, step_seconds: Callable[[], float]) -> Cost:
        """What it will take; `step_seconds` measures an optimizer step where steps are given."""
        made = self._planner.datasets.values()
        runs = len(self.arms) * len(self.wanted.seeds)
        seconds = (self.wanted.minutes or 0) * 60 or (self.wanted.steps or 0) * step_seconds()
        samples = sum(dataset.samples for dataset in made)
        return Cost(len(made), samples, self.wanted.patch_shape, runs, seconds, self.groups)

    def run(self, log: Log, command: Callable[[Any], Command], how: Sequence[str]) -> dict[str, Any]:
        """Run what is not done yet; the document of `experiment.json`. `command` makes a runner from the lock."""
        write_experiment(self.out, self._document, self.generate, self.train)
        with only_one(self.out, log) as lock:
            lay_out(self._folders, self.out)
            run, ledger = command(lock), Ledger(self.out)

            def further(step: Step) -> Sequence[str]:
                return how if step.verb == "generate" else ()

            train_steps = self.wanted.steps or self._measured_steps(ledger, log, run, further)
            steps = self.steps(train_steps)
            write_plan(self.out, plan_document(self.arms, steps, train_steps, self.groups))
            run_steps(steps, ledger, log, run, further)
        return dict(json.loads((self.out / "experiment.json").read_text()))

    def _measured_steps(self, ledger: Ledger, log: Log, run: Command, further: Callable[[Step], Sequence[str]]) -> int:
        """Steps that fit into `minutes`, measured once and kept."""
        file = self.out / PACE
        if not file.exists():
            log("how many steps fit into the minutes of an arm, measured on a short training:")
            run_steps(self._planner.calibration(), ledger, log, run, further)
            step_ms = _pace(self.out / CALIBRATION)
            steps = max(1, round((self.wanted.minutes or 0) * 60_000 / step_ms))
            replace_file(file, json.dumps({"step_ms": step_ms, "steps": steps}).encode())
        pace = json.loads(file.read_text())
        log(f"{pace['steps']} steps an arm, at {pace['step_ms']:.0f} ms a step")
        return int(pace["steps"])


def generate_settings(file: Path | None) -> GenerateConfig:
    """Settings of generation; where nothing is said of splits, no sample goes into `test`."""
    config = resolve(GenerateConfig, file, {})
    if "split_share" in config.model_fields_set:
        return config
    return config.model_copy(update={"split_share": _TRAIN_AND_VAL})


def read_plan(out: Path) -> dict[str, Any]:
    """`plan.json` of an experiment."""
    try:
        return dict(json.loads((out / PLAN).read_text()))
    except FileNotFoundError as error:
        raise InputError(
            f"{out}: no experiment was begun there; give the --out of `phantumor experiment label-free`"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{out / PLAN}: cannot be read ({error}); run the experiment's command again") from error


def describe(arms: Sequence[Arm]) -> list[str]:
    """The arms, one line each."""
    width = max(len(arm.name) for arm in arms)
    return [f"  {arm.name:{width}}  {arm.title}" for arm in arms]


def _pace(run: Path) -> float:
    """Milliseconds of a step, the median without the first ones."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    found = [record["step_ms"] for record in map(json.loads, lines) if "step_ms" in record]
    if not found:
        raise PhantumorError(f"{run}: its metrics.jsonl tells no step's time; remove the folder and run the same again")
    return float(median(found[_FAMILIAR_STEPS:] or found))
