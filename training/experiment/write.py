"""Writing the report of an experiment: `experiment.json`, `report.md`, `report.html`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.errors import InputError
from pipeline.experiments.document import EXPERIMENT
from pipeline.files import replace_file, writing_to
from training.experiment import label_free_page, label_kinds_page, label_kinds_results, results
from training.experiment.arms import REAL, evaluations_of
from training.experiment.parts import NOTICE
from training.experiment.pictures import pictures_of
from training.experiment.spread import Record
from training.report.content import Opening, Picture, Section
from training.report.markdown_page import markdown_page
from training.report.sections import html_page

RESULTS = "experiment.json"


class _Kind(NamedTuple):
    """How the report of one kind of experiment comes about."""

    collect: Callable[[Path, Mapping[str, Any], Mapping[str, Any]], Record]
    reference: str
    opening: Callable[[Record], Opening]
    sections: Callable[[Record, Sequence[Picture], Sequence[Sequence[str]]], list[Section]]


_KINDS = {
    "label-free": _Kind(results.collect, results.REFERENCE, label_free_page.opening, label_free_page.sections),
    "label-kinds": _Kind(
        label_kinds_results.collect, label_kinds_results.REFERENCE, label_kinds_page.opening, label_kinds_page.sections
    ),
}


def write_experiment_report(out: Path, plan: Mapping[str, Any]) -> Record:
    """Write the three files, `report.html` last; the document of `experiment.json`. `plan` is `plan.json`.

    InputError when no run has been evaluated yet.
    """
    experiment = _experiment(out)
    kind = _KINDS[experiment["experiment"]]
    document = kind.collect(out, plan, experiment)
    if not document["arms"]:
        raise InputError(
            f"{out}: no run is evaluated yet; run `phantumor experiment {experiment['experiment']}` further on"
        )
    commands = [step["command"] for step in plan["steps"]]
    pictures = _pictures(out, experiment["settings"], kind.reference)
    first, rest = kind.opening(document), kind.sections(document, pictures, commands)
    with writing_to(out, "Run the same command again"):
        replace_file(out / RESULTS, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
        replace_file(out / "report.md", markdown_page(first, rest, f"{NOTICE}.").encode())
        replace_file(out / "report.html", html_page(first, rest, f"{NOTICE}.").encode())
    return document


def _experiment(out: Path) -> Mapping[str, Any]:
    file = out / EXPERIMENT
    try:
        found: Mapping[str, Any] = yaml.safe_load(file.read_text())
        known = found["experiment"] in _KINDS and found["settings"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(f"{file}: not readable ({error!r}); run the experiment's command again") from error
    if not known:
        raise InputError(f"{file}: holds no {' and no '.join(_KINDS)} experiment but {found['experiment']!r}")
    return found


def _pictures(out: Path, settings: Mapping[str, Any], reference: str) -> list[Picture]:
    """Of the reference arm's first run."""
    found = evaluations_of(out, REAL, reference, settings["seeds"])
    first = next(iter(found.values()), None)
    return [] if first is None else pictures_of(out, first, settings["organ"], settings["real_labels"])
