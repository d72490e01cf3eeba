"""The report of a label-kinds experiment, from top to bottom. In: the document of `experiment.json`. Out: content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.experiment.curve_sections import annotation
from training.experiment.difference_section import differences
from training.experiment.label_kinds_results import REFERENCE
from training.experiment.minutes_chart import Dot, minutes_chart
from training.experiment.parts import NOTICE, TRAINING, protocol, real_pictures, scores, sizes, tiles, warnings
from training.experiment.tables import DICE, FOUND, Figure, whiskers
from training.report.cells import counted
from training.report.content import Chart, Charts, Opening, Picture, Section, Table

Record = Mapping[str, Any]
TITLE = "Kinds of labels"
PROTOCOL = {
    "training": TRAINING.format(differing="only what is seen of the tumors differs, and of which samples"),
    "labels": "Weak labels are derived from the exact masks of synthetic tumors, so they are as good as such labels "
    "can be; people err. Organ masks are taken as given in every arm.",
    "mixture": "mask-16+box: 16 samples as masks, all others as boxes; each kind has its share of every batch.",
    "samples scored on": "Patches that no arm was trained on; in their tables a scan is such a patch.",
    "annotation time": "Tumors of the training samples times the minutes of their kind (tags: samples times minutes). "
    "What it takes to find a tumor, to read a healthy scan or to outline organs is not counted, a report is free as it "
    "is written anyway. The times are estimates, see docs/label-kinds.md; they move dots sideways, never up or down.",
}


def opening(document: Record) -> Opening:
    """The result in one sentence, and what not to conclude from it."""
    runs, on = document["runs"], document["scored_on"]
    samples = counted(max((arm["samples"] for arm in document["arms"]), default=0), "sample")
    where = f"{counted(on['samples'], 'other sample')} of {counted(on['cases'], 'case')}"
    leads = [f"The same {samples} seen as other labels; each arm was trained for {document['train_steps']} steps."]
    done = f"{counted(runs['done'], 'training')} of {counted(len(document['arms']), 'arm')}"
    caution = [*warnings(runs, on["cases"], "source case")]
    if on["other_cases"] is False:
        caution.append("No case was held out: the samples scored on show other tumors in the cases trained on.")
    return Opening(
        TITLE, document["headline"], leads, f"{done}, scored on {where}. {NOTICE}.", caution, tiles(document, REFERENCE)
    )


def sections(document: Record, pictures: Sequence[Picture], commands: Sequence[Sequence[str]]) -> list[Section]:
    """Everything below the opening."""
    organ, arms = document["organ"], document["arms"]
    real = [arm | arm["real"] for arm in arms if arm["real"]]
    found = [
        _over_time(arms),
        scores("Arms", "Scores on held-out synthetic samples.", arms, organ, timed=True),
        differences(document["differences"], REFERENCE, organ, f"Against {REFERENCE}"),
        sizes(arms),
        scores("Real cases", "Scores on whole scans with real tumors.", real, organ, timed=True),
        differences(document["real_differences"], REFERENCE, organ, f"Against {REFERENCE}, on real cases"),
        annotation(real or arms, organ, f"What annotated cases add{', on real cases' if real else ''}.", REFERENCE),
        real_pictures(pictures, REFERENCE),
        protocol(PROTOCOL, commands, [_minutes_table(document["minutes_per"])]),
    ]
    return [section for section in found if section is not None]


def _over_time(arms: Sequence[Record]) -> Section | None:
    timed = [arm for arm in arms if arm["minutes"] is not None]
    if not timed:
        return None
    series = {
        "all samples as one kind": [arm for arm in timed if arm["curve"] == "" and len(arm["labels"]) == 1],
        "mixtures": [arm for arm in timed if len(arm["labels"]) > 1],
        "fewer samples, masks alone": [arm for arm in timed if arm["curve"] == "masks"],
    }
    shown = {name: group for name, group in series.items() if group}
    explanation = (
        "Further up is better, further left is cheaper. Estimated time of an annotator for all training samples of an "
        "arm; a report takes none, as it is written anyway."
    )
    return Section("Score over annotation time", explanation, [Charts([_chart(shown, key) for key in (DICE, FOUND)])])


def _chart(series: Mapping[str, Sequence[Record]], figure: Figure) -> Chart:
    dots = {name: [_dot(arm, figure.key) for arm in arms] for name, arms in series.items()}
    known = {name: [dot for dot in group if dot is not None] for name, group in dots.items()}
    title = figure.title if figure.digits is not None else f"{figure.title} (share)"
    drawn = (arm["figures"][figure.key] for arms in series.values() for arm in arms)
    return Chart(minutes_chart(known, title), f"{figure.title} by annotation time.", whiskers(drawn))


def _dot(arm: Record, key: str) -> Dot | None:
    figure = arm["figures"][key]
    if figure["mean"] is None:
        return None
    return Dot(arm["name"], arm["minutes"], figure["mean"], figure["low"], figure["high"])


def _minutes_table(minutes_per: Mapping[str, float]) -> Table:
    rows = [(kind, f"{minutes:g}", "sample" if kind == "tag" else "tumor") for kind, minutes in minutes_per.items()]
    return Table(("Kind", "Minutes", "for a"), rows, title="Annotation time")
