"""Verbs that show images in the browser: explore."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from pipeline.verbs.app import app, ours, say

if TYPE_CHECKING:
    from pipeline.catalog import Dataset
    from pipeline.explore.scored_images import ClassIds, Flag, Labels


@app.command
def explore(
    dataset: str,
    *,
    labels: str | None = None,
    prediction_labels: str | None = None,
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 0,
    browser: bool = True,
    host: str = "127.0.0.1",
    i_know: bool = False,
) -> None:
    """Look through a dataset in the browser: table, histograms that filter, slices and 3D of each sample.

    Example: phantumor explore data

    Also opens what `phantumor evaluate` wrote about cases: predictions beside the truth. Everything is read only.

    Parameters
    ----------
    dataset
        Made by `phantumor generate`, or a folder that `phantumor evaluate --out` wrote.
    labels
        Of an evaluation: the label map of the true masks (lits, totalsegmentator, name=value,...), if not the one
        that they were scored with.
    prediction_labels
        Of an evaluation of two folders: the label map of the predictions, likewise.
    port
        Where to serve the page; 0: any free port.
    browser
        Open the page; with --no-browser only its address is printed.
    host
        Address to serve on. Anything but this machine's own needs --i-know: images and token are not encrypted.
    i_know
        Let others reach the page.
    """
    from pipeline.explore.explore import explore as run
    from pipeline.explore.scored_images import FromTraining

    training = FromTraining(_predict, _folder_ids)
    chosen = {"labels": labels, "prediction_labels": prediction_labels}
    run(dataset, training, **chosen, host=host, port=port, i_know=i_know, browser=browser, say=say)


def _predict(run: str, dataset: Dataset, index: int) -> Labels:
    """What a run says of a stored sample, uint8 class ids (X, Y, Z)."""
    from training.predict import predict_samples

    (predicted,) = predict_samples(_segmenter(run), dataset, [index], 1)
    return predicted.prediction


def _folder_ids(folder: Path, given: str | None, flag: Flag) -> ClassIds:
    """What the ids of a folder's label maps mean, as `evaluate` has it."""
    ours("training")
    from training.evaluation.label_names import folder_labels

    return folder_labels(folder, given, flag).apply


@lru_cache(1)
def _segmenter(run: str) -> Any:
    ours("training")
    from training.predict import load_segmenter

    return load_segmenter([Path(one) for one in run.split(", ")])
