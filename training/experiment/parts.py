"""The parts that reports of all experiments have: warnings, tiles, tables of arms, pictures, protocol."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from training.experiment.spread import OVER_SEEDS, RESAMPLES
from training.experiment.tables import (
    DICE,
    FALSE_ML,
    FOUND,
    ON_REAL,
    ORGAN_DICE,
    arms_legend,
    cell,
    figure_table,
    size_table,
)
from training.intervals import FEW_GROUPS
from training.report.cells import counted
from training.report.content import Picture, Section, Table, Terms, Tile

Record = Mapping[str, Any]
NOTICE = "Research software, not for clinical use"
TRAINING = (
    "Every arm is trained for the same number of steps with the same settings, from the same first weights of a seed; "
    "{differing}. The last checkpoint is scored, none is chosen by a validation."
)
TERMS = {
    "found": "A true tumor of which at least one voxel is predicted as tumor.",
    "false tumor": "A predicted piece of tumor that touches no true one.",
    "interval over cases and seeds": f"95 % of {RESAMPLES} draws, with replacement, of cases and of seeds, each by "
    "itself: another patient and another training would both give another figure. With one seed it is over cases "
    "alone and says nothing of how much trainings differ.",
    f"interval {OVER_SEEDS}": f"Below {FEW_GROUPS} cases: Student's two-sided 95 % t interval of the seeds' figures, "
    "cut at what a figure can be. It shows how much trainings differ and says nothing of other patients. Of a "
    "difference it is taken of the differences seed by seed. Where all seeds agree it has no width, which is no "
    "certainty.",
}


def warnings(runs: Mapping[str, int], cases: int, noun: str) -> Iterator[str]:
    """What keeps the figures from being read at face value; `noun` is what was scored on."""
    if runs["done"] < runs["planned"]:
        yield f"Not finished: {runs['done']} of {runs['planned']} trainings are evaluated."
    if cases < FEW_GROUPS:
        yield (
            f"Only {counted(cases, noun)}: an interval can be over seeds alone and says nothing of other patients, in "
            "whom arms may differ otherwise."
        )


def tiles(document: Record, reference: str) -> list[Tile]:
    """The main figures of one arm."""
    found = [arm for arm in document["arms"] if arm["name"] == reference]
    if not found:
        return []
    made = []
    for title, key, digits in (DICE, FOUND, FALSE_ML, ORGAN_DICE):
        figure = found[0]["figures"][key]
        value, counts = cell(figure, digits), f"{reference}, {counted(figure['cases'], 'case')}"
        over = figure["interval"] if figure["interval"] == OVER_SEEDS else ""
        details = [detail for detail in (value.detail, over, counts) if detail]
        made.append(Tile(title.format(organ=document["organ"].capitalize()), value.value, details))
    return made


def scores(title: str, what: str, arms: Sequence[Record], organ: str, timed: bool = False) -> Section | None:
    """A row an arm; `what` says what was scored on."""
    if not arms:
        return None
    table = figure_table(arms, ON_REAL, organ, timed)
    return Section(title, f"{what} {arms_legend(arms, ON_REAL)}", [table])


def sizes(arms: Sequence[Record]) -> Section | None:
    """Tumors found by diameter."""
    if not arms:
        return None
    explanation = "Tumors found, by the diameter of the ball of equal volume, added up over seeds."
    return Section("Tumors by size", explanation, [size_table(arms)])


def real_pictures(pictures: Sequence[Picture], reference: str) -> Section | None:
    """Real cases as the reference arm predicts them."""
    if not pictures:
        return None
    explanation = f"CT, truth and prediction of the arm {reference}, first seed, by rising Dice."
    return Section("Real cases in pictures", explanation, pictures)


def protocol(words: Mapping[str, str], commands: Sequence[Sequence[str]], tables: Sequence[Table] = ()) -> Section:
    """What words mean, and every command."""
    rows = [(str(step), shlex.join(words)) for step, words in enumerate(commands, 1)]
    table = Table(("Step", "Command"), rows, title="Commands of all steps", plain=True, folded=True)
    explanation = "How the figures came about; the same commands give them again."
    return Section("Protocol", explanation, [Terms({**words, **TERMS}), *tables, table])
