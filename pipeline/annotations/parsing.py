"""A parser of English radiology reports by rules: which tumors a report describes, and which organs it calls free.

In: report text. Out: findings, free organs. Pure, no files. What it makes of cysts, earlier sizes, hedges and plain
plurals, and how often it errs, is in docs/report-parser.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.annotations import report_terms as terms
from pipeline.annotations.findings import MOST_DIAMETERS, UNCOUNTED, Finding
from pipeline.annotations.report_sizes import Size, find_sizes, present_sizes, spell_out
from pipeline.annotations.report_terms import Place
from pipeline.errors import InputError

MOST_CHARACTERS = 20_000  # of a report; long ones have 10,000, and a text of other kind may take the rules minutes

_HEADINGS = {
    "findings": "findings",
    "impression": "impression",
    "conclusion": "impression",
    "opinion": "impression",
    "technique": "technique",
    "protocol": "technique",
    **dict.fromkeys(("history", "clinical history", "indication", "clinical information", "comparison"), "aside"),
}
_HEADING = re.compile(rf"\b({'|'.join(sorted(_HEADINGS, key=len, reverse=True))})\s*:", re.IGNORECASE)
_LINE_ENDS = re.compile(r"\n\s*(?=\d+[.)]\s|[-*•]\s|[A-Z][A-Za-z/ ]{2,30}:)|\n\s*\n|(?<=[.:;])\s*\n")
_NUMBERED = re.compile(r"(?:(?<=[.:;])|^)\s*\d{1,2}[.)]\s+")
_CLAUSES = re.compile(
    r"\.(?!\d)|[;!?•]|,?\s*\b(?:however|but|although|though|whereas|while)\b,?|,(?=\s*there (?:is|are)\b)"
)
_LARGEST = re.compile(r"\b(?:largest|larger|biggest|bigger|dominant|reference|index|representative)\b")
_GOES_ON = re.compile(
    r"^\W*(?:it|this|these|they|both|the (?:largest|larger|biggest|dominant)|largest|measur\w+|size)\b"
)


@dataclass(frozen=True)
class ReportReading:
    """What a report says of tumors."""

    findings: tuple[Finding, ...]
    free: tuple[str, ...]  # organs said to hold no tumor, none of those in findings


def parse_report(text: str) -> tuple[Finding, ...]:
    """The findings of an English report, in its order; () where it describes no lesion."""
    return read_report(text).findings


def read_report(text: str) -> ReportReading:
    """Findings and free organs of an English report.

    The body is read where there is one; the impression only tells of organs that the body says nothing about.
    InputError for a text that is too long to be a report.
    """
    if len(text) > MOST_CHARACTERS:
        raise InputError(
            f"a report has at most {MOST_CHARACTERS} characters, found {len(text)}; hand reports over one by one"
        )
    sections = _sections(text)
    phase = terms.phase_in(spell_out((sections["technique"] or text).lower()))
    body = _read(sections["findings"])
    summary = _read(sections["impression"])
    told = {finding.organ for finding in body.findings} | set(body.free)
    findings = (*body.findings, *(f for f in summary.findings if f.organ not in told))
    found = {finding.organ for finding in findings}
    free = dict.fromkeys((*body.free, *(organ for organ in summary.free if organ not in told)))
    return ReportReading(
        tuple(replace(finding, phase=phase) for finding in findings), tuple(o for o in free if o not in found)
    )


def _sections(text: str) -> dict[str, str]:
    """Text by section; what precedes the first heading counts as findings."""
    sections = dict.fromkeys(("findings", "impression", "technique", "aside"), "")
    pieces = _HEADING.split(text)
    sections["findings"] = pieces[0] if not {h.lower() for h in pieces[1::2]} & {"findings"} else ""
    for heading, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        sections[_HEADINGS[heading.lower()]] += piece + "\n\n"
    return sections


def _read(section: str) -> ReportReading:
    reader = _Reader()
    for clause in _clauses(section):
        reader.read(clause)
    return ReportReading(tuple(reader.findings), tuple(reader.free))


def _clauses(section: str) -> list[str]:
    text = _LINE_ENDS.sub(". ", section).replace("\n", " ").lower()
    text = re.sub(r"\b(?:approx|ca|vs|seg|segs)\.", lambda m: m[0][:-1], text)
    text = _NUMBERED.sub(" . ", terms.mark_parts(spell_out(text)))
    return [clause.strip(" ,") for clause in _CLAUSES.split(present_sizes(text)) if clause.strip(" ,")]


class _Reader:
    """Reads clause after clause; keeps which organs were spoken of last."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.free: dict[str, None] = {}
        self._context: tuple[str, ...] = ()

    def read(self, clause: str) -> None:
        found = terms.places(clause, self._context)
        about = tuple(dict.fromkeys(place.organ for place in found))
        foreign = terms.FOREIGN.search(clause)
        if foreign and (not found or foreign.start() < found[0].start):
            self._context = about
            return
        self._context = about or self._context
        if terms.SAYS_NOTHING.search(clause):
            return
        negated = terms.NEGATED.search(clause)
        said = clause[: negated.start()] if negated else clause
        lesions = bool(terms.LESION.search(said))
        if negated:
            within = [place.organ for place in found if place.start >= negated.start()]
            self._set_free(within if lesions else self._context)
        elif not lesions and terms.NORMAL.search(clause):
            self._set_free(self._context)
        if lesions:
            self._describe(said, [place for place in found if place.start < len(said)])
        elif sizes := find_sizes(said):
            self._go_on(said, sizes)

    def _set_free(self, organs: Sequence[str]) -> None:
        self.free |= dict.fromkeys(organs)

    def _describe(self, said: str, found: list[Place]) -> None:
        """Findings of a clause that names lesions."""
        sizes = find_sizes(said)
        own = terms.own_places(found, said) or [Place(0, organ) for organ in self._context[:1]]
        if not own:
            return
        blank = "".join(c if not any(s.start <= k < s.end for s in sizes) else " " for k, c in enumerate(said))
        count = terms.lesion_count(blank)
        look, margin = terms.attenuation_in(blank), terms.margin_in(blank)
        for place, number, diameters in _lesions(own, sizes, 1 if count is None else count):
            finding = Finding(place.organ, place.region, number, diameters[:MOST_DIAMETERS], look, margin)
            self._add(finding, said)

    def _add(self, finding: Finding, said: str) -> None:
        """A reference lesion of a group spoken of before gives that group its size."""
        last = self.findings[-1] if self.findings else None
        group = last is not None and last.organ == finding.organ and last.count != 1 and not last.diameters_mm
        if last is not None and group and finding.count == 1 and finding.diameters_mm and _LARGEST.search(said):
            self.findings[-1] = replace(last, region=finding.region, diameters_mm=finding.diameters_mm)
        else:
            self.findings.append(finding)

    def _go_on(self, said: str, sizes: list[Size]) -> None:
        """`It measures 2 cm` gives the lesion spoken of before its size."""
        if self.findings and not self.findings[-1].diameters_mm and _GOES_ON.search(said):
            self.findings[-1] = replace(self.findings[-1], diameters_mm=sizes[0].diameters_mm)


def _lesions(own: list[Place], sizes: list[Size], count: int) -> list[tuple[Place, int, tuple[float, ...]]]:
    """Place, number and diameters of each lesion, or group, that a clause with these places and sizes describes."""
    if len(sizes) > 1 and len(own) == len(sizes):
        return [(place, 1, size.diameters_mm) for place, size in zip(own, sizes, strict=True)]
    if len(sizes) > 1 and count in (1, UNCOUNTED, len(sizes)):
        return [(_nearest(own, size), 1, size.diameters_mm) for size in sizes]
    if sizes:
        largest = max(sizes, key=lambda size: size.diameters_mm)
        return [(_joined(own, largest), count, largest.diameters_mm)]
    if len(own) > 1 and count != 1:
        return [(place, UNCOUNTED if count != len(own) else 1, ()) for place in own]
    return [(own[0], count, ())]


def _nearest(own: list[Place], size: Size) -> Place:
    """The last place named before a size, else the first after it."""
    before = [place for place in own if place.start < size.start]
    return before[-1] if before else own[0]


def _joined(own: list[Place], size: Size) -> Place:
    """Where the only lesion of a clause is: the first part named of the organ that stands nearer to its size."""
    organ = _nearest(own, size).organ
    return next(place for place in own if place.organ == organ)
