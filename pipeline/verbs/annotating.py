"""Verbs of weak labels: annotate, export-annotations."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.annotations.settings import AnnotationSettings
from pipeline.settings import resolve
from pipeline.verbs.app import Flatten, Local, app, print_json, say


@app.command
def annotate(
    dataset: str,
    *,
    config: Local | None = None,
    settings: Annotated[AnnotationSettings | None, Flatten] = None,
    bank: str | None = None,
    anew: bool = False,
    json: bool = False,
) -> None:
    """Derive from every label what a reader would have drawn or written instead: boxes, RECIST, scribbles, reports.

    Example: phantumor annotate data --box-jitter-mm 3

    Kept as annotations.parquet beside the manifest. Run it again when the dataset has grown, or to resume.

    Parameters
    ----------
    dataset
        Made by `phantumor generate`, or a view.
    config
        YAML file of settings; flags win over it.
    bank
        Where the dataset's bank lies, if it was moved; without it, reports name no part of an organ and no phase.
    anew
        Derive everything again, with these settings.
    json
        Print the result as JSON.
    """
    from pipeline.annotations.annotate import annotate as run

    flags = settings.model_dump(exclude_unset=True) if settings is not None else {}
    wanted = resolve(AnnotationSettings, config, flags) if config is not None or flags else None
    summary = run(dataset, wanted, bank=bank, anew=anew, log=say)
    if json:
        print_json(summary.to_json())
    else:
        print("\n".join(summary.lines()))


@app.command
def export_annotations(
    dataset: str,
    *,
    out: Local,
    kinds: tuple[Literal["box", "recist", "tag", "report", "scribble"], ...] | None = None,
    where: str | None = None,
    json: bool = False,
) -> None:
    """Write the annotations of a dataset in formats that other tools read. Masks: `phantumor export`.

    Example: phantumor export-annotations data --kinds box recist --out labels

    Parameters
    ----------
    dataset
        One that `phantumor annotate` has been at.
    out
        A new or an empty folder; it holds everything when the command ends well, else nothing.
    kinds
        box: boxes.json, as COCO with a third axis; recist and tag: CSV; report: text and JSON lines; scribble: a
        raw dataset of nnU-Net v2 with the label ignore, images included. Default: all.
    where
        Only samples that meet this, e.g. "split = 'train' and n_tumors > 0".
    json
        Print the result as JSON.
    """
    from pipeline.annotations.export.export import KINDS
    from pipeline.annotations.export.export import export_annotations as run

    summary = run(dataset, out, kinds or KINDS, where=where, log=say)
    if json:
        print_json(summary.to_json())
    else:
        print(summary.line())
