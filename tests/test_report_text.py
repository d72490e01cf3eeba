"""Reports are read back as written, free text within stated error rates, and the answers of models are checked."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.annotations.findings import Finding, TumorFacts, findings_of, written_mm
from pipeline.annotations.language_model import LanguageModelReader, findings_from_json
from pipeline.annotations.parsing import parse_report, read_report
from pipeline.annotations.wording import MACHINE_GENERATED, write_report
from pipeline.errors import InputError
from tests.report_variants import HELD_OUT, TUNED, Variant

REPORTS = 600
REGIONS = {"liver": (None, "right lobe"), "pancreas": ("head", "tail"), "kidney": ("left upper pole", None)}


def stated(findings: Sequence[Finding]) -> list[tuple[object, ...]]:
    """What is compared: organ, region, number, diameters."""
    return sorted(
        ((f.organ, f.region, f.count, f.diameters_mm) for f in findings), key=lambda one: tuple(map(str, one))
    )


def wrong(variants: Sequence[Variant]) -> list[str]:
    return [one.text for one in variants if stated(parse_report(one.text)) != stated(one.findings)]


def drawn(rng: np.random.Generator) -> tuple[Finding, ...]:
    """Up to four tumors of three organs."""
    tumors = []
    for _ in range(rng.integers(5)):
        organ = str(rng.choice(list(REGIONS)))
        sizes = tuple(written_mm(float(size)) for size in rng.uniform(3, 90, rng.integers(1, 4)))
        region = REGIONS[organ][rng.integers(2)]
        tumors.append(TumorFacts(organ, sizes, region, float(rng.uniform(-80, 60)), float(rng.uniform(0, 6))))
    return findings_of(tumors, "portal_venous")


def test_reports_say_what_they_were_made_from() -> None:
    rng = np.random.default_rng(5)
    for _ in range(REPORTS):
        findings = drawn(rng)
        text = write_report(findings, REGIONS, rng)
        assert text.startswith(MACHINE_GENERATED)
        assert stated(parse_report(text)) == stated(findings), text
        assert set(read_report(text).free) == set(REGIONS) - {finding.organ for finding in findings}


def test_free_text_is_read_within_the_stated_error_rates() -> None:
    assert len(TUNED) == len(HELD_OUT) == 38
    assert not wrong(TUNED)
    assert len(wrong(HELD_OUT)) <= 1


@pytest.mark.parametrize("variant", [*TUNED, *HELD_OUT], ids=lambda variant: variant.text[:40])
def test_no_organ_is_called_free_that_is_not(variant: Variant) -> None:
    assert set(read_report(variant.text).free) <= set(variant.free)


def test_a_model_s_answer_becomes_findings() -> None:
    answer = {"findings": [{"organ": "liver", "count": 2, "diameters_mm": [23, 18], "attenuation": "hypo"}]}
    reader = LanguageModelReader(lambda prompt: json.dumps(answer))
    assert reader("Two hypodense liver lesions, the larger 2.3 x 1.8 cm.") == (
        Finding("liver", None, 2, (23.0, 18.0), "hypo"),
    )


@pytest.mark.parametrize(
    "answer",
    ["no JSON", "[]", '{"findings": [{"organ": "brain"}]}', '{"findings": [{"organ": "liver", "diameters_mm": [-1]}]}'],
)
def test_an_answer_that_is_no_finding_is_refused(answer: str) -> None:
    with pytest.raises(InputError):
        findings_from_json(answer)
