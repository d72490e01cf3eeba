"""The report of a label-free experiment, from top to bottom. In: the document of `experiment.json`. Out: content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.experiment.curve_sections import annotation, diversity
from training.experiment.difference_section import differences
from training.experiment.parts import NOTICE, TRAINING, protocol, real_pictures, scores, sizes, tiles, warnings
from training.experiment.results import REFERENCE
from training.experiment.tables import ON_HEALTHY, arms_legend, figure_table
from training.report.cells import counted
from training.report.content import Opening, Picture, Section

Record = Mapping[str, Any]
TITLE = "Label-free experiment"
PROTOCOL = {
    "training": TRAINING.format(differing="only its samples differ"),
    "evaluation": "Each network predicts every real case as a whole scan. No CT of them is among the cases that were "
    "trained on: the same file, or the same bytes elsewhere, is refused.",
}


def opening(document: Record) -> Opening:
    """The result in one sentence, and what not to conclude from it."""
    runs, cases = document["runs"], document["cases"]
    healthy = counted(cases.get("healthy-train", 0), "healthy case")
    leads = [f"The synthetic tumors were put into {healthy}; each arm was trained for {document['train_steps']} steps."]
    done = f"{counted(runs['done'], 'training')} of {counted(len(document['arms']), 'arm')}"
    notice = f"{done}, scored on {counted(cases['real'], 'real case')}. {NOTICE}."
    caution = [*warnings(runs, cases["real"], "real case")]
    if not cases.get("healthy-test"):
        caution.append("No healthy case was held out: false alarms in healthy people are unknown.")
    return Opening(TITLE, document["headline"], leads, notice, caution, tiles(document, REFERENCE))


def sections(document: Record, pictures: Sequence[Picture], commands: Sequence[Sequence[str]]) -> list[Section]:
    """Everything below the opening."""
    organ = document["organ"]
    found = [
        scores("Arms", "Scores on the real cases.", [arm for arm in document["arms"] if not arm["curve"]], organ),
        sizes(document["arms"]),
        differences(document["differences"], REFERENCE, organ, f"Against {REFERENCE}"),
        _healthy(document),
        diversity(document),
        annotation(document["arms"], organ, "What annotated cases add.", REFERENCE),
        real_pictures(pictures, REFERENCE),
        protocol(PROTOCOL, commands),
    ]
    return [section for section in found if section is not None]


def _healthy(document: Record) -> Section | None:
    arms = [arm for arm in document["arms"] if arm["figures"]["healthy_clean"]["cases"]]
    if not arms:
        return None
    explanation = f"Held-out healthy scans: every predicted tumor is false. {arms_legend(arms, ON_HEALTHY)}"
    return Section("Healthy scans", explanation, [figure_table(arms, ON_HEALTHY, document["organ"])])
