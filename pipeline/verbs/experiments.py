"""Verbs of experiments: experiment label-free, experiment label-kinds, experiment report."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.experiments.label_kinds_settings import LabelKinds
from pipeline.experiments.settings import LabelFree
from pipeline.settings import resolve
from pipeline.train_config import TrainConfig
from pipeline.verbs.app import ALONE, Flatten, Local, Workforce, app, ours, print_json, say

if TYPE_CHECKING:
    from pipeline.experiments.experiment import Experiment

_HELP = "Whole experiments with one command and one report: label-free, label-kinds, report."
experiment = App(name="experiment", help=_HELP)
app.command(experiment)


def _some(_: Any, given: Any) -> None:
    if not given:
        raise ValueError("name one folder or more")


Folders = Annotated[tuple[Local, ...], Parameter(validator=_some)]


@dataclass(frozen=True)
class Running:
    """How an experiment is run; the flags of every experiment.

    Parameters
    ----------
    config
        YAML file with the settings of every training, see `train`.
    generate_config
        YAML file with the settings of every dataset, see `generate`.
    jobs
        Run so many steps at once that do not need each other; the same files come out. Their lines begin with the
        step's name then.
    dry_run
        Only show the arms, the commands, how much they make and how long it takes.
    json
        Print the plan (--dry-run) or the results as JSON; progress goes to standard error.
    """

    config: Local | None = None
    generate_config: Local | None = None
    jobs: Annotated[int, Parameter(validator=Number(gte=1))] = 1
    dry_run: bool = False
    json: bool = False


_AS_USUAL = Running()


@experiment.command
def label_free(
    *,
    healthy: Folders,
    real: Folders,
    out: Local,
    annotated: tuple[Local, ...] = (),
    running: Annotated[Running, Flatten] = _AS_USUAL,
    who: Annotated[Workforce, Flatten] = ALONE,
    settings: Annotated[LabelFree | None, Flatten] = None,
) -> None:
    """Train on synthetic tumors in healthy CTs, judge by real tumors: arms, curves, one report. Goes on after any end.

    Examples: phantumor experiment label-free --healthy healthy/ --real lits/ --real-labels lits --steps 20000 --out exp
    phantumor experiment label-free --healthy healthy/ --annotated lits_train/ --real lits_test/ --real-labels lits
    --diversity 100 1000 10000 --annotation 1 4 16 --seeds 0 1 2 --minutes 60 --out exp --dry-run

    Parameters
    ----------
    healthy
        Healthy cases with organ masks, which get the synthetic tumors: case folders, folders of them, or datalists.
    real
        Cases with real tumors and their masks. They are evaluated on, and in no training.
    out
        Folder for bank, datasets, runs, evaluations and the report; the same command again goes on there.
    annotated
        Other cases with real tumors and their masks, to train on: for the arms real and mixed, and --annotation.
    """
    ours("training", "workers")
    from pipeline.experiments.cases import Sources
    from pipeline.experiments.label_free import generate_settings, plan_label_free

    given = settings.model_dump(exclude_unset=True) if settings is not None else {}
    planned = plan_label_free(
        Sources(healthy, real, annotated),
        out,
        resolve(LabelFree, None, given),
        generate_settings(running.generate_config),
        resolve(TrainConfig, running.config, {}),
    )
    _show_or_run(planned, who, running)


@experiment.command
def label_kinds(
    *,
    out: Local,
    bank: Local | None = None,
    healthy: tuple[Local, ...] = (),
    test: Local | None = None,
    real: tuple[Local, ...] = (),
    annotated: tuple[Local, ...] = (),
    running: Annotated[Running, Flatten] = _AS_USUAL,
    who: Annotated[Workforce, Flatten] = ALONE,
    settings: Annotated[LabelKinds | None, Flatten] = None,
) -> None:
    """Train on the same samples seen as masks, boxes, scribbles, reports, ...: score over annotation time, one report.

    Examples: phantumor experiment label-kinds --healthy healthy/ --steps 5000 --seeds 0 1 2 --out kinds
    phantumor experiment label-kinds --bank bank --spacing 1.5 --kinds mask box tag --mixtures mask:16+box
    --annotation 4 16 64 --real lits/ --real-labels lits --minutes 30 --minutes-per.mask 10 --out kinds --dry-run

    Parameters
    ----------
    out
        Folder for bank, datasets, runs, evaluations and the report; the same command again goes on there.
    bank
        Made by `phantumor prepare`; or give --healthy.
    healthy
        Healthy cases with organ masks to make a bank of: case folders, folders of them, or datalists.
    test
        Score on this dataset, its split test where it has one, instead of on new samples of held-out cases.
    real
        Score on these cases with real tumors and their masks as well. They are in no training.
    annotated
        Other cases with real tumors and their masks: --annotation counts these.
    """
    ours("training", "workers")
    from pipeline.experiments.cases import Sources
    from pipeline.experiments.label_kinds import Material, plan_label_kinds, train_settings
    from training.supervision.kinds import kinds_of

    given = settings.model_dump(exclude_unset=True) if settings is not None else {}
    planned = plan_label_kinds(
        Material(Sources(healthy, real, annotated), bank, test),
        out,
        resolve(LabelKinds, None, given),
        resolve(GenerateConfig, running.generate_config, {}),
        train_settings(running.config),
    )
    for arm in planned.arms:
        kinds_of(planned.train.model_copy(update={"labels": arm.labels or None}), len(arm.data))
    _show_or_run(planned, who, running)


def _show_or_run(planned: Experiment, who: Workforce, running: Running) -> None:
    from pipeline.experiments.experiment import describe

    planned.check_readable()
    log = say if running.json else partial(print, flush=True)
    for line in ("Arms:", *describe(planned.arms)):
        log(line)
    if running.dry_run:
        _show_plan(planned, running.json)
    else:
        _run(planned, log, who, running)


def _show_plan(planned: Experiment, as_json: bool) -> None:
    from training.experiment.pace import step_seconds

    wanted = planned.wanted
    cost = planned.cost(lambda: step_seconds(planned.train, wanted.organ, wanted.patch_shape))
    steps = planned.steps(wanted.steps or 0)
    if as_json:
        print_json({**cost.to_json(), "commands": [["phantumor", *step.words] for step in steps]})
        return
    unknown = "" if wanted.steps else " (--steps 0 stands for as many as the minutes allow)"
    print(f"Commands{unknown}:")
    print("\n".join(f"  phantumor {shlex.join(step.words)}" for step in steps))
    print("\n".join(cost.lines()))


def _run(planned: Experiment, log: Any, who: Workforce, running: Running) -> None:
    from pipeline.experiments.processes import Processes

    stdout, jobs = sys.stderr if running.json else None, running.jobs
    result = planned.run(log, lambda lock: Processes(lock, stdout, named=jobs > 1), _how(who), jobs)
    if running.json:
        print_json(result)
    else:
        print(f"\n{result['headline']}\nreport: {planned.out / 'report.html'}")


def _how(who: Workforce) -> list[str]:
    """Words of `generate` that say who makes shards."""
    words = ["--workers", str(who.workers)]
    words += ["--ray", who.ray] if who.ray else []
    words += ["--insecure"] if who.insecure else []
    return [*words, *(["--retry-failed"] if who.retry_failed else [])]


@experiment.command
def report(out: Local, *, json: bool = False) -> None:
    """Write the report of an experiment from the evaluations that are there, at the end or in between.

    Example: phantumor experiment report exp

    Parameters
    ----------
    out
        The --out of `phantumor experiment label-free` or label-kinds.
    json
        Print the results as JSON.
    """
    ours("training")
    from pipeline.experiments.document import read_plan
    from training.experiment import write_experiment_report

    if not Path(out).is_dir():
        raise InputError(f"{out}: no such folder; give the --out of `phantumor experiment`")
    result = write_experiment_report(out, read_plan(out))
    if json:
        print_json(result)
    else:
        print(f"{result['headline']}\nreport: {out / 'report.html'}")
