"""The report of an experiment, from top to bottom. In: the document of `experiment.json`. Out: content."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from training.experiment.curve_sections import annotation, diversity
from training.experiment.difference_section import differences
from training.experiment.spread import RESAMPLES
from training.experiment.tables import (
    DICE,
    FALSE_ML,
    FOUND,
    LEGEND,
    ON_HEALTHY,
    ON_REAL,
    ORGAN_DICE,
    cell,
    figure_table,
    size_table,
)
from training.intervals import FEW_GROUPS
from training.report.cells import counted
from training.report.content import Opening, Picture, Section, Table, Terms, Tile

Record = Mapping[str, Any]
TITLE = "Label-free experiment"
NOTICE = "Research software, not for clinical use"
PROTOCOL = {
    "training": "Every arm is trained for the same number of steps with the same settings, from the same first weights "
    "of a seed; only its samples differ. The last checkpoint is scored, none is chosen by a validation.",
    "evaluation": "Each network predicts every real case as a whole scan. No CT of them is among the cases that were "
    "trained on: the same file, or the same bytes elsewhere, is refused.",
    "found": "A true tumor of which at least one voxel is predicted as tumor.",
    "false tumor": "A predicted piece of tumor that touches no true one.",
    "interval": f"95 % of {RESAMPLES} draws, with replacement, of cases and of seeds, each by itself: another patient "
    f"and another training would both give another figure. None below {FEW_GROUPS} cases. With one seed it says "
    "nothing of how much trainings differ.",
}


def opening(document: Record) -> Opening:
    """The result in one sentence, and what not to conclude from it."""
    runs, cases = document["runs"], document["cases"]
    healthy = counted(cases.get("healthy-train", 0), "healthy case")
    leads = [f"The synthetic tumors were put into {healthy}; each arm was trained for {document['train_steps']} steps."]
    done = f"{counted(runs['done'], 'training')} of {counted(len(document['arms']), 'arm')}"
    notice = f"{done}, scored on {counted(cases['real'], 'real case')}. {NOTICE}."
    return Opening(TITLE, document["headline"], leads, notice, _warnings(document), _tiles(document))


def sections(document: Record, pictures: Sequence[Picture], commands: Sequence[Sequence[str]]) -> list[Section]:
    """Everything below the opening."""
    found = [
        _arms(document),
        _sizes(document),
        differences(document),
        _healthy(document),
        diversity(document),
        annotation(document),
        _pictures(pictures),
        _protocol(commands),
    ]
    return [section for section in found if section is not None]


def _warnings(document: Record) -> list[str]:
    warnings = []
    runs, cases = document["runs"], document["cases"]
    if runs["done"] < runs["planned"]:
        warnings.append(f"Not finished: {runs['done']} of {runs['planned']} trainings are evaluated.")
    if cases["real"] < FEW_GROUPS:
        few = counted(cases["real"], "real case")
        warnings.append(f"Only {few}: differences between arms may be chance, and other patients may differ.")
    if not cases.get("healthy-test"):
        warnings.append("No healthy case was held out: false alarms in healthy people are unknown.")
    return warnings


def _tiles(document: Record) -> list[Tile]:
    found = [arm for arm in document["arms"] if arm["name"] == "synthetic"]
    if not found:
        return []
    tiles = []
    for title, key, digits in (DICE, FOUND, FALSE_ML, ORGAN_DICE):
        figure = found[0]["figures"][key]
        value = cell(figure, digits)
        details = [detail for detail in (value.detail, f"synthetic, {counted(figure['cases'], 'case')}") if detail]
        tiles.append(Tile(title.format(organ=document["organ"].capitalize()), value.value, details))
    return tiles


def _arms(document: Record) -> Section | None:
    arms = [arm for arm in document["arms"] if not arm["curve"]]
    if not arms:
        return None
    return Section("Arms", f"Scores on the real cases. {LEGEND}", [figure_table(arms, ON_REAL, document["organ"])])


def _sizes(document: Record) -> Section | None:
    if not document["arms"]:
        return None
    explanation = "Tumors found, by the diameter of the ball of equal volume, added up over seeds."
    return Section("Tumors by size", explanation, [size_table(document["arms"])])


def _healthy(document: Record) -> Section | None:
    arms = [arm for arm in document["arms"] if arm["figures"]["healthy_clean"]["cases"]]
    if not arms:
        return None
    explanation = f"Held-out healthy scans: every predicted tumor is false. {LEGEND}"
    return Section("Healthy scans", explanation, [figure_table(arms, ON_HEALTHY, document["organ"])])


def _pictures(pictures: Sequence[Picture]) -> Section | None:
    if not pictures:
        return None
    return Section("Real cases", "CT, truth and prediction of the arm synthetic, first seed, by rising Dice.", pictures)


def _protocol(commands: Sequence[Sequence[str]]) -> Section:
    rows = [(str(step), shlex.join(words)) for step, words in enumerate(commands, 1)]
    table = Table(("Step", "Command"), rows, title="Commands of all steps", plain=True, folded=True)
    return Section(
        "Protocol", "How the figures came about; the same commands give them again.", [Terms(PROTOCOL), table]
    )
