"""Writing the report of an experiment: `experiment.json`, `report.md`, `report.html`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError
from pipeline.experiments.document import EXPERIMENT
from pipeline.files import replace_file, writing_to
from training.experiment.arms import REAL, evaluations_of
from training.experiment.page import NOTICE, opening, sections
from training.experiment.pictures import pictures_of
from training.experiment.results import REFERENCE, collect
from training.experiment.spread import Record
from training.report.content import Picture
from training.report.markdown_page import markdown_page
from training.report.sections import html_page

RESULTS = "experiment.json"


def write_experiment_report(out: Path, plan: Mapping[str, Any]) -> Record:
    """Write the three files, `report.html` last; the document of `experiment.json`. `plan` is `plan.json`.

    InputError when no run has been evaluated yet.
    """
    settings = _settings(out)
    document = collect(out, plan, settings)
    if not document["arms"]:
        raise InputError(f"{out}: no run is evaluated yet; run `phantumor experiment label-free` on")
    commands = [step["command"] for step in plan["steps"]]
    first, rest = opening(document), sections(document, _pictures(out, settings), commands)
    with writing_to(out, "Run the same command again"):
        replace_file(out / RESULTS, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
        replace_file(out / "report.md", markdown_page(first, rest, f"{NOTICE}.").encode())
        replace_file(out / "report.html", html_page(first, rest, f"{NOTICE}.").encode())
    return document


def _settings(out: Path) -> Mapping[str, Any]:
    try:
        settings: Mapping[str, Any] = yaml.safe_load((out / EXPERIMENT).read_text())["settings"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise InputError(
            f"{out / EXPERIMENT}: not readable ({error!r}); run `phantumor experiment label-free`"
        ) from error
    return settings


def _pictures(out: Path, settings: Mapping[str, Any]) -> list[Picture]:
    """Of the reference arm's first run."""
    found = evaluations_of(out, REAL, REFERENCE, settings["seeds"])
    first = next(iter(found.values()), None)
    return [] if first is None else pictures_of(out, first, settings["organ"], settings["real_labels"])
