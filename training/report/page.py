"""What an evaluation report says below its opening, in the order in which a reader asks.

In: the dict of `training.summary`, the records, pictures. Out: sections.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from training.records import CaseScore, LesionRecord
from training.report.content import Picture, Section, Table, Terms
from training.report.detection import detection, tumors_found
from training.report.failures import failures, worst_cases
from training.report.healthy import healthy
from training.report.opening import NOTICE
from training.report.outlines import outlines
from training.report.sections import MEANINGS
from training.report.strata import strata

Record = Mapping[str, Any]

CLOSING = f"{NOTICE}."


def evaluation(
    metrics: Record,
    scores: Sequence[CaseScore],
    lesions: Sequence[LesionRecord],
    pictures: Sequence[Picture],
    context: Mapping[str, str],
) -> list[Section]:
    """What an evaluation has to say, most important first; what was not measured is left out."""
    found = (
        tumors_found(metrics),
        detection(metrics),
        healthy(metrics, scores),
        outlines(metrics, scores),
        strata(metrics),
        failures(lesions),
        worst_cases(pictures),
        Section(MEANINGS, "", [Terms(metrics["definitions"])]),
        evaluated("What was evaluated", context, metrics["settings"]),
    )
    return [section for section in found if section is not None]


def evaluated(title: str, context: Mapping[str, str], settings: Record) -> Section:
    """What was evaluated, with which software, and the settings of the figures."""
    known = {f"setting {name}": json.dumps(value) for name, value in settings.items()}
    rows = list({**context, **known}.items())
    return Section(title, "", [Table(("Item", "Value"), rows, plain=True)])
