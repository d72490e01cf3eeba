"""A planned experiment: checked when it is made, its commands run one by one or several at once, ending in a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.config import GenerateConfig
from pipeline.errors import PhantumorError
from pipeline.experiments.arms import Arm
from pipeline.experiments.cases import Group, check_readable, lay_out
from pipeline.experiments.cost import Cost
from pipeline.experiments.document import PACE, Document, check_same, plan_document, write_experiment, write_plan
from pipeline.experiments.ledger import Ledger
from pipeline.experiments.plan import CALIBRATION, GENERATE_CONFIG, TRAIN_CONFIG, Design, Planner, Step
from pipeline.experiments.processes import only_one
from pipeline.experiments.runner import Command, Further, Log, run_steps
from pipeline.files import replace_file
from pipeline.settings import Settings
from pipeline.sources import CaseSource
from pipeline.train_config import TrainConfig

_FAMILIAR_STEPS = 2  # of the calibration's measurements: the first ones are slow
Folders = Mapping[str, Sequence[CaseSource]]  # the cases to lay out, by folder


class Experiment:
    """Everything is checked when it is made, nothing written before `run`.

    `document` is what makes it this experiment and no other; `groups` are folders of cases and how many lie in each,
    of which `folders` are to be laid out; `configs` are further files that commands take with --config.
    """

    def __init__(
        self,
        out: Path,
        design: Design,
        document: Document,
        folders: Folders,
        groups: Mapping[str, int],
        generate: GenerateConfig,
        train: TrainConfig,
        configs: Mapping[str, Settings] | None = None,
    ) -> None:
        self.out, self.wanted, self.arms, self.train = out, design.wanted, design.arms, train
        self._configs = {GENERATE_CONFIG: generate, TRAIN_CONFIG: train, **(configs or {})}
        self._document = document | {
            "generate": generate.model_dump(mode="json"),
            "train": train.model_dump(mode="json"),
        }
        check_same(out, self._document, self.wanted.growing)
        self._folders, self.groups = folders, dict(groups)
        self._planner = Planner(design, self.groups, out)

    def check_readable(self) -> None:
        """InputError where the label map does not fit the real masks: before hours of training, not after."""
        real: Group = {case.case_id: case for case in self._folders.get("real", ())}
        if real:
            check_readable(real, self.wanted.real_labels)

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

    def run(self, log: Log, command: Callable[[Any], Command], how: Sequence[str], jobs: int = 1) -> dict[str, Any]:
        """Run what is not done yet; the document of `experiment.json`. `command` makes a runner from the lock."""
        write_experiment(self.out, self._document, self._configs)
        with only_one(self.out, log) as lock:
            lay_out(self._folders, self.out)
            run, ledger = command(lock), Ledger(self.out)

            def further(step: Step) -> Sequence[str]:
                return how if step.verb == "generate" else ()

            train_steps = self.wanted.steps or self._measured_steps(ledger, log, run, further)
            steps = self.steps(train_steps)
            write_plan(self.out, plan_document(self.arms, steps, train_steps, self.groups))
            run_steps(steps, ledger, log, run, further, jobs)
        return dict(json.loads((self.out / "experiment.json").read_text()))

    def _measured_steps(self, ledger: Ledger, log: Log, run: Command, further: Further) -> int:
        """Steps that fit into `minutes`, measured once, with nothing beside it, and kept."""
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
