"""The verb `realism`: a dataset and a folder of real cases in, `realism.json` and `report.html` out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.catalog import open_dataset
from pipeline.errors import InputError
from pipeline.files import replace_file, writing_to
from pipeline.organs import organ_id
from pipeline.store import Location
from pipeline.versions import software
from training.realism.compare import compare
from training.realism.page import page
from training.realism.populations import real_population, synthetic_population
from training.realism.side_by_side import side_by_side
from training.realism.statistics import read_statistics
from training.report.cells import counted

_RESUME = "Free the space or choose another --out, then run the same command again"


def realism(
    data: Location,
    real: Path,
    out: Path,
    *,
    labels: str | None = None,
    organ: str = "liver",
    statistics: Path | None = None,
    limit: int,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Compare lesions of a dataset with those of real cases; the document of `realism.json`.

    `labels` maps the ids of the real masks, `statistics` is a folder of published lesion sizes, `limit` the most
    synthetic samples to read. Real cases are resampled to the dataset's spacing. Raises InputError.
    """
    organ_id(organ)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out takes a folder")
    dataset = open_dataset(data)
    references = read_statistics(statistics, organ) if statistics else {}
    if not real.is_dir():  # before minutes of measuring
        raise InputError(f"{real}: no such folder; --real takes a case folder, or a folder of them")
    synthetic = synthetic_population(dataset, organ, limit)
    measured = real_population(real, labels, organ, dataset.info.spacing_mm)
    figures = compare(measured, synthetic, references, organ, dataset.info.spacing_mm)
    context = {
        "dataset": str(data),
        "dataset config digest": dataset.info.config_digest,
        "samples read": f"{synthetic.scans} of {dataset.rows}",
        "real cases": str(real),
        "statistics": str(statistics) if statistics else "none",
        **{f"version of {name}": version for name, version in software().items()},
    }
    document = {**figures, "context": context}
    html = page(document, side_by_side(measured.lesions, synthetic.lesions))
    with writing_to(out, _RESUME):
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / "realism.json", (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
        replace_file(out / "report.html", html.encode())
    log(f"wrote {out / 'report.html'}")
    return document


def describe(document: Mapping[str, Any], out: Path) -> list[str]:
    """What was found, in a few lines."""
    contrast, targets, counts = document["contrast"], document["targets"], document["counts"]
    aucs = "; ".join(_auc_line(document, kind) for kind in document["classifier"])
    ratio = document["texture"]["ratio"]
    return [
        *(f"note: {note}" for note in document["notes"]),
        f"{_extent(counts['real'], 'real')}, {_extent(counts['synthetic'], 'synthetic')}",
        f"contrast W1: {contrast['w1_voxels_hu']:.1f} HU ({_verdict(targets['contrast_w1_hu'])}), of lesion means "
        f"{contrast['w1_means_hu']:.1f} HU; parenchyma against parenchyma {contrast['w1_parenchyma_hu']:.1f} HU, "
        f"as few synthetic lesions against the others {_or_dash(contrast['w1_sampling_hu'])} HU",
        f"told apart: {aucs} ({_verdict(targets['auc'])})",
        f"correlation length, lesion over parenchyma: real {_or_dash(ratio['real']['median'])}, "
        f"synthetic {_or_dash(ratio['synthetic']['median'])} (medians)",
        f"report: {out / 'report.html'}",
    ]


def _extent(counts: Mapping[str, Any], side: str) -> str:
    return f"{counted(counts['lesions'], f'{side} lesion')} of {counted(counts['cases'], 'case')}"


def _auc_line(document: Mapping[str, Any], kind: str) -> str:
    here, floor = document["classifier"][kind], document["classifier_floor"][kind]
    folds = f", folds by {here['folds_by']}" if here["folds_by"] else ""
    return f"{kind} AUC {_or_dash(here['auc'])}, floor {_or_dash(floor['auc'])}{folds}"


def _verdict(target: Mapping[str, Any]) -> str:
    state = {None: "cannot be told", True: "met", False: "missed"}[target["met"]]
    return f"target {target['at_most']:g} or less: {state}"


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
