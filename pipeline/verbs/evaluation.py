"""The verb `evaluate`: what is scored, how it is predicted and scored, and which flags go with which input."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from pipeline.errors import InputError
from pipeline.verbs.app import Flatten, Local, app, ours, print_json, say, told_when_stopped

_NOT_NEGATIVE = Parameter(validator=Number(gte=0))


@dataclass(frozen=True)
class Subject:
    """What is scored.

    Parameters
    ----------
    run
        Made by `phantumor train`; several of the same classes, spacing and patch shape are averaged.
    data
        With --run: a dataset, or a folder of real cases with masks.
    split
        Which samples of a dataset: train, val, test (default) or all.
    healthy
        The real cases have no tumors: every predicted one is false.
    truth
        Folder of true label maps (NIfTI).
    predictions
        Folder of predicted label maps with the same names, of nnU-Net too.
    a
        Compare two: the folder of an evaluation, or a run, which is scored first (with --data).
    b
        What --a is compared with.
    labels
        Label map of true masks (lits, totalsegmentator, name=value,...); default: masks named after organs, or
        nnU-Net's dataset.json, or our class ids.
    prediction_labels
        Label map of --predictions; default: nnU-Net's dataset.json beside them, or our class ids.
    limit
        Score at most this many samples or cases.
    """

    run: tuple[Local, ...] | None = None
    data: str | None = None
    split: Literal["train", "val", "test", "all"] | None = None
    healthy: bool = False
    truth: Local | None = None
    predictions: Local | None = None
    a: Local | None = None
    b: Local | None = None
    labels: str | None = None
    prediction_labels: str | None = None
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None


@dataclass(frozen=True)
class Predicting:
    """How a run predicts; as `predict` does.

    Parameters
    ----------
    mirror
        Average a run over all 8 flips; takes 8 times as long.
    overlap
        Of a run's neighbouring windows, as a share of their edge; default: 0.5.
    within_organ_mm
        Remove a run's tumor voxels farther than this from their organ, see `predict`.
    min_tumor_mm3
        Give a run's smaller tumors back to what surrounds them.
    froc
        Keep a run's probabilities for the FROC curve (default: yes); 2 bytes a voxel and tumor class.
    """

    mirror: bool = False
    overlap: Annotated[float | None, Parameter(validator=Number(gte=0, lt=1))] = None
    within_organ_mm: Annotated[float | None, _NOT_NEGATIVE] = None
    min_tumor_mm3: Annotated[float | None, _NOT_NEGATIVE] = None
    froc: bool | None = None


@dataclass(frozen=True)
class Scoring:
    """How predictions are scored.

    Parameters
    ----------
    tolerance_mm
        Of the surface Dice; default: 2.
    diameter_cuts_mm
        Where the groups of tumor diameters end; default: 5 10 20.
    min_lesion_mm3
        Leave smaller pieces of truth and prediction out; default: 0.
    connectivity
        One tumor is what shares faces (6), edges (18) or corners (26) of voxels; default: 26.
    """

    tolerance_mm: Annotated[float | None, Parameter(validator=Number(gt=0))] = None
    diameter_cuts_mm: tuple[float, ...] | None = None
    min_lesion_mm3: Annotated[float | None, _NOT_NEGATIVE] = None
    connectivity: Literal[6, 18, 26] | None = None


_AS_RUNS_DO, _AS_ALL_DO = Predicting(), Scoring()
_SCORED = {"tolerance_mm", "diameter_cuts_mm", "min_lesion_mm3", "connectivity", "labels", "limit"}
_PREDICTED = {"split", "healthy", "mirror", "overlap", "within_organ_mm", "min_tumor_mm3", "froc"}
# What names each input, and which flags go with it.
_INPUTS = {
    ("run", "data"): _SCORED | _PREDICTED,
    ("truth", "predictions"): _SCORED | {"prediction_labels"},
    ("a", "b"): _SCORED | _PREDICTED | {"data"},
}
_NAMED = "--run and --data, or --truth and --predictions, or --a and --b (with --data where they are runs)"


@app.command
def evaluate(
    *,
    out: Local,
    subject: Annotated[Subject | None, Flatten] = None,
    predicting: Annotated[Predicting, Flatten] = _AS_RUNS_DO,
    scoring: Annotated[Scoring, Flatten] = _AS_ALL_DO,
    json: bool = False,
) -> None:
    """Score a network against the truth: Dice, surface Dice, tumors found by size, false positives; with a report.

    Examples: phantumor evaluate --run run --data data --out report
    phantumor evaluate --run run --data real_cases/ --labels lits --min-tumor-mm3 30 --out report
    phantumor evaluate --truth labelsTs/ --predictions nnunet_predictions/ --out report
    phantumor evaluate --a report_a --b report_b --out comparison

    Parameters
    ----------
    out
        Folder for report.html, report.md, metrics.json, cases.parquet and lesions.parquet; of a comparison for
        report.html, report.md and comparison.json.
    json
        Print the metrics as JSON.
    """
    ours("training")
    said = _said(subject, predicting, scoring)
    with told_when_stopped(f"no report was written to {out}; the same command predicts and scores all cases again"):
        result, lines = _evaluate(_input(said), said, out)
    if json:
        print_json(result)
    else:
        print("\n".join(lines))


def _said(*groups: Any) -> dict[str, Any]:
    """The flags that the command line named, with their values; 0 is one, a switch that is off is none."""
    values = {name: value for group in groups if group is not None for name, value in asdict(group).items()}
    return {
        name: value for name, value in values.items() if value is not None and (value is not False or name == "froc")
    }


def _input(said: dict[str, Any]) -> tuple[str, str]:
    """Which of `_INPUTS` the flags name; InputError when it is none, more than one, or a flag does not go with it."""
    naming = [names for names in _INPUTS if names[0] in said or names[1] in said]
    if ("a", "b") in naming and ("run", "data") in naming and "run" not in said:
        naming.remove(("run", "data"))
    if len(naming) != 1 or not all(name in said for name in naming[0]):
        found = " and ".join(_flag(name) for name in ("run", "data", "truth", "predictions", "a", "b") if name in said)
        raise InputError(f"evaluate takes {_NAMED}; found {found or 'none of them'}")
    (names,) = naming
    stray = [_flag(name) for name in said if name not in _INPUTS[names] and name not in names]
    if stray:
        raise InputError(f"{', '.join(stray)} cannot go with {_flag(names[0])} and {_flag(names[1])}; leave it out")
    return names


def _evaluate(names: tuple[str, str], said: dict[str, Any], out: Path) -> tuple[Any, list[str]]:
    """The figures, and the lines that tell of them."""
    from training.evaluate import compare_evaluations, describe, describe_comparison, evaluate_folders, evaluate_run

    if names == ("truth", "predictions"):
        sides = {name: said.get(name) for name in ("labels", "prediction_labels", "limit")}
        result = evaluate_folders(said["truth"], said["predictions"], out, **sides, settings=_settings(said), log=say)
        return result, describe(result, out)
    if names == ("run", "data"):
        result = evaluate_run(said["run"], said["data"], out, **_run_options(said), log=say)
        return result, describe(result, out)
    _check_comparison(said)
    options = _run_options(said) if "data" in said else {}
    record = compare_evaluations(said["a"], said["b"], out, data=said.get("data"), **options, log=say)
    return record, describe_comparison(record, out)


def _run_options(said: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `evaluate_run`."""
    from training.prediction.postprocess import Rules

    names = ("split", "labels", "healthy", "limit", "mirror", "overlap", "froc")
    options = {name: said[name] for name in names if name in said}
    rules = Rules(said.get("within_organ_mm"), said.get("min_tumor_mm3"))
    return options | {"rules": rules, "settings": _settings(said)}


def _settings(said: dict[str, Any]) -> Any:
    """`ScoreSettings`; its defaults where nothing is said."""
    from training.records import ScoreSettings

    names = {"nsd_tolerance_mm": "tolerance_mm"} | {
        name: name for name in ("diameter_cuts_mm", "min_lesion_mm3", "connectivity")
    }
    return ScoreSettings(**{field: said[flag] for field, flag in names.items() if flag in said})


def _check_comparison(said: dict[str, Any]) -> None:
    """Evaluations are scored already, so only runs take flags that say how."""
    from training.evaluation.results import is_evaluation

    runs = [f"--{side} {said[side]}" for side in ("a", "b") if not is_evaluation(said[side])]
    stray = sorted(_flag(name) for name in said if name not in ("a", "b"))
    if runs and "data" not in said:
        raise InputError(f"{' and '.join(runs)}: no folder of an evaluation; a run takes --data to be scored on")
    if stray and not runs:
        raise InputError(f"{', '.join(stray)} cannot go with --a and --b that are scored already; leave it out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
