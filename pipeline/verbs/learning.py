"""Verbs of training and evaluation: train, predict, evaluate, realism."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from pipeline.errors import InputError
from pipeline.settings import resolve
from pipeline.train_config import TrainConfig
from pipeline.verbs.app import Flatten, Local, app, given, ours, print_json, say


@app.command
def train(
    *,
    data: str,
    out: Local,
    config: Local | None = None,
    resume: bool = False,
    settings: Annotated[TrainConfig | None, Flatten] = None,
) -> None:
    """Train a segmentation network on a dataset, streamed from its shards.

    Example: phantumor train --data data --out run --steps 20000 --batch-size 4

    Parameters
    ----------
    data
        Made by `phantumor generate`.
    out
        The run: a new folder, or with --resume one to go on with.
    config
        YAML file with any of the settings below; flags go before it.
    resume
        Go on from the run's last checkpoint.
    """
    ours("training")
    from training.train import train as run

    run(data, out, resolve(TrainConfig, config, given(settings)), resume=resume, log=print)


@app.command
def predict(run: Path, *, images: Path, out: Path) -> None:
    """Segment CT files with a trained network: NIfTI in, NIfTI out on the same grid.

    Example: phantumor predict run --images ct/ --out predictions

    Parameters
    ----------
    run
        Made by `phantumor train`.
    images
        Folder of .nii.gz files, or of case folders with ct.nii.gz.
    out
        Folder for the label maps (class ids of `phantumor inspect`).
    """
    ours("training")
    from training.predict import predict_folder

    for path in predict_folder(run, images, out, log=say):
        print(path)


@app.command
def evaluate(
    *,
    out: Local,
    run: Local | None = None,
    data: str | None = None,
    truth: Local | None = None,
    predictions: Local | None = None,
    split: Literal["train", "val", "test", "all"] = "test",
    labels: str | None = None,
    healthy: bool = False,
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    json: bool = False,
) -> None:
    """Score a network against the truth: Dice, surface Dice, tumors found by size, false positives; with a report.

    Examples: phantumor evaluate --run run --data data --out report
    phantumor evaluate --truth labels/ --predictions predictions/ --out report

    Parameters
    ----------
    out
        Folder for report.html, metrics.json, cases.parquet and lesions.parquet.
    run
        Made by `phantumor train`.
    data
        With --run: a dataset, or a folder of real cases with masks.
    truth
        Folder of true label maps (NIfTI).
    predictions
        Folder of predicted label maps with the same names.
    split
        Which samples of a dataset.
    labels
        Label map of true masks (lits, totalsegmentator, name=value,...); default: our class ids.
    healthy
        The real cases have no tumors: every predicted one is false.
    limit
        Score at most this many samples or cases.
    json
        Print the metrics as JSON.
    """
    ours("training")
    from training.evaluate import describe, evaluate_folders, evaluate_run

    if truth is not None and predictions is not None and run is None and data is None:
        result = evaluate_folders(truth, predictions, out, labels=labels, limit=limit, log=say)
    elif run is not None and data is not None and truth is None and predictions is None:
        result = evaluate_run(run, data, out, split=split, labels=labels, healthy=healthy, limit=limit, log=say)
    else:
        raise InputError("evaluate takes either --run and --data, or --truth and --predictions")
    if json:
        print_json(result)
    else:
        print("\n".join(describe(result, out)))


@app.command
def realism(
    dataset: str,
    *,
    real: Local,
    out: Local,
    labels: str | None = None,
    organ: str = "liver",
    statistics: Local | None = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1))] = 200,
    json: bool = False,
) -> None:
    """How far synthetic lesions are from real ones, beside healthy tissue from healthy tissue; with a report.

    Example: phantumor realism data --real real_cases/ --labels lits --out realism

    Parameters
    ----------
    dataset
        Made by `phantumor generate`; with its bank, whose healthy tissue is the floor of the comparison.
    real
        A real case with lesion masks, or a folder of them.
    out
        Folder for report.html and realism.json.
    labels
        Label map of the real masks (lits, totalsegmentator, name=value,...); default: masks named after organs.
    organ
        Organ whose lesions are compared.
    statistics
        Folder with published lesion sizes: uls23_lesions.csv, kits19_components.csv.
    limit
        Read at most this many samples, spread over the dataset.
    json
        Print the figures as JSON.
    """
    ours("training")
    from training.realism import describe
    from training.realism import realism as run

    result = run(dataset, real, out, labels=labels, organ=organ, statistics=statistics, limit=limit, log=say)
    if json:
        print_json(result)
    else:
        print("\n".join(describe(result, out)))
