"""Findings: what a radiology report says of tumors, as records, and how they follow from measured tumors.

In: measured facts of each tumor. Out: findings, their lengths rounded as a report writes them. Pure, no files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from pipeline.organs import ORGANS

Attenuation = Literal["hypo", "iso", "hyper"]
Margin = Literal["well-defined", "ill-defined"]
Phase = Literal["native", "arterial", "portal_venous", "delayed"]
ATTENUATIONS: tuple[Attenuation, ...] = get_args(Attenuation)
MARGINS: tuple[Margin, ...] = get_args(Margin)
PHASES: tuple[Phase, ...] = get_args(Phase)

UNCOUNTED = 0  # several lesions, their number not said ("multiple", "innumerable")
MOST_DIAMETERS = 3

_SEGMENTS = ("1", "2", "3", "4", "4a", "4b", "5", "6", "7", "8")
_POLES = ("upper pole", "interpolar", "lower pole")
# Every region that a report may name. `pipeline.annotations.regions` gives a few of them; a parsed report any.
REGIONS: Mapping[str, tuple[str, ...]] = {
    "liver": (
        *(f"segment {one}" for one in _SEGMENTS),
        *(f"segment {a}/{b}" for i, a in enumerate(_SEGMENTS) for b in _SEGMENTS[i + 1 :]),
        "right lobe",
        "left lobe",
        "caudate lobe",
    ),
    "pancreas": ("head", "uncinate process", "neck", "body", "tail"),
    "kidney": ("right", "left", *_POLES, *(f"{side} {pole}" for side in ("right", "left") for pole in _POLES)),
    "colon": (
        "cecum",
        "ascending",
        "hepatic flexure",
        "transverse",
        "splenic flexure",
        "descending",
        "sigmoid",
        "rectum",
    ),
}

# (choice) Between -10 and 10 HU a reader sees no difference: iso-attenuating pancreatic cancers differ by 9 +- 11 HU
# from the gland, the visible ones by -75 +- 36 HU (Prokesch 2002).
ISO_HU = 10.0
ILL_DEFINED_MM = 2.0  # (choice) width of the soft edge from which on a margin reads as ill-defined


@dataclass(frozen=True)
class Finding:
    """One lesion, or several that a report speaks of together. What the report does not say is None or ()."""

    organ: str
    region: str | None = None  # of REGIONS
    count: int = 1  # lesions; UNCOUNTED where the number is not said
    diameters_mm: tuple[float, ...] = ()  # up to 3, largest first, as written; of the largest lesion where count != 1
    attenuation: Attenuation | None = None  # against the organ
    margin: Margin | None = None
    phase: str | None = None  # of PHASES

    def __post_init__(self) -> None:
        if self.organ not in ORGANS:
            raise ValueError(f"a finding's organ is {self.organ!r}; choose from {', '.join(ORGANS)}")
        known = {
            "region": REGIONS.get(self.organ, ()),
            "attenuation": ATTENUATIONS,
            "margin": MARGINS,
            "phase": PHASES,
        }
        for name, choices in known.items():
            if (value := getattr(self, name)) is not None and value not in choices:
                shown = ", ".join(choice for choice in choices if "/" not in choice) or "no known ones"
                raise ValueError(f"{self.organ}: {name} {value!r} is none of {shown}")
        if self.count < UNCOUNTED:
            raise ValueError(f"{self.organ}: count is {self.count}; a number of lesions, or {UNCOUNTED} for unknown")
        _check_diameters(self.organ, self.diameters_mm)


def _check_diameters(organ: str, diameters_mm: tuple[float, ...]) -> None:
    if len(diameters_mm) > MOST_DIAMETERS or not all(math.isfinite(d) and d > 0 for d in diameters_mm):
        raise ValueError(f"{organ}: diameters {diameters_mm} are not up to {MOST_DIAMETERS} positive lengths in mm")
    if list(diameters_mm) != sorted(diameters_mm, reverse=True):
        raise ValueError(f"{organ}: diameters {diameters_mm} are not in order, largest first")


@dataclass(frozen=True)
class TumorFacts:
    """What is known of one tumor, unrounded."""

    organ: str
    diameters_mm: tuple[float, ...]  # 1 to 3, any order
    region: str | None = None
    contrast_hu: float | None = None  # mean of the tumor minus parenchyma
    edge_mm: float | None = None  # width of its soft edge


def findings_of(tumors: Iterable[TumorFacts], phase: str | None = None, group_from: int = 0) -> tuple[Finding, ...]:
    """What a report says of measured tumors: organs in the order of pipeline.organs, in each the largest tumor first.

    One finding a tumor; with `group_from` > 1, that many or more tumors of an organ with one attenuation become one
    finding with the diameters of the largest. `phase` as a case has it; "unknown" is left out.
    """
    said = cast("str | None", phase if phase in PHASES else None)
    found = [_finding(tumor, said) for tumor in tumors]
    found.sort(key=lambda f: (ORGANS.index(f.organ), [-d for d in f.diameters_mm]))
    return tuple(_grouped(found, group_from) if group_from > 1 else found)


def attenuation_of(contrast_hu: float | None) -> Attenuation | None:
    """How a tumor looks against its organ, from its contrast in HU."""
    if contrast_hu is None:
        return None
    if abs(contrast_hu) < ISO_HU:
        return "iso"
    return "hypo" if contrast_hu < 0 else "hyper"


def written_mm(length_mm: float) -> float:
    """A length as a report writes it: whole millimetres, halves up, at least 1 mm; in cm that is one decimal."""
    return float(max(1, math.floor(length_mm + 0.5)))


def _finding(tumor: TumorFacts, phase: str | None) -> Finding:
    edge = tumor.edge_mm
    return Finding(
        organ=tumor.organ,
        region=tumor.region,
        diameters_mm=tuple(sorted(map(written_mm, tumor.diameters_mm), reverse=True)),
        attenuation=attenuation_of(tumor.contrast_hu),
        margin=None if edge is None else "ill-defined" if edge >= ILL_DEFINED_MM else "well-defined",
        phase=phase,
    )


def _grouped(findings: Sequence[Finding], group_from: int) -> list[Finding]:
    """Findings in order, the alike ones of an organ merged into the first where there are enough."""
    alike: dict[tuple[str, str | None], list[Finding]] = {}
    for finding in findings:
        alike.setdefault((finding.organ, finding.attenuation), []).append(finding)
    merged: list[Finding] = []
    for finding in findings:
        members = alike[finding.organ, finding.attenuation]
        if len(members) < group_from:
            merged.append(finding)
        elif finding is members[0]:
            merged.append(replace(finding, count=len(members), region=_common(members), margin=None))
    return merged


def _common(members: Sequence[Finding]) -> str | None:
    regions = {member.region for member in members}
    return regions.pop() if len(regions) == 1 else None
