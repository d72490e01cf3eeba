"""Words for findings: a templated English radiology report, phrased by a random generator.

In: findings, the organs that were looked at, a generator. Out: a text whose every number is one of the findings',
marked as machine-generated. Pure, no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from pipeline.annotations.findings import UNCOUNTED, Attenuation, Finding
from pipeline.annotations.report_sizes import NUMBER_WORDS
from pipeline.organs import ORGANS

MACHINE_GENERATED = "MACHINE-GENERATED from a label; no radiologist wrote it."
_WORDS = {number: word for word, number in NUMBER_WORDS.items() if 1 < number <= 12}
_ROMAN = {"1": "I", "2": "II", "3": "III", "4": "IV", "5": "V", "6": "VI", "7": "VII", "8": "VIII"}
_LOOKS: dict[Attenuation, tuple[str, ...]] = {
    "hypo": ("hypodense", "hypoattenuating", "low-attenuation", "low-density"),
    "iso": ("isodense", "isoattenuating"),
    "hyper": ("hyperdense", "hyperattenuating"),
}
_MARGINS = {
    "well-defined": ("well-defined", "well-circumscribed", "sharply marginated"),
    "ill-defined": ("ill-defined", "poorly defined", "indistinct"),
}
_TECHNIQUES = {
    "native": ("CT of the abdomen without intravenous contrast.", "Unenhanced CT of the abdomen."),
    "arterial": ("CT of the abdomen in the arterial phase.", "Contrast-enhanced abdominal CT, arterial phase."),
    "portal_venous": ("CT of the abdomen in the portal venous phase.", "Abdominal CT, portal venous phase."),
    "delayed": ("CT of the abdomen in the delayed phase.", "Contrast-enhanced abdominal CT, delayed phase."),
}
_ADJECTIVES = {"liver": "hepatic", "pancreas": "pancreatic", "kidney": "renal", "colon": "colonic", "spleen": "splenic"}
_MASS_MM = 30.0  # (choice) a nodule is smaller, a mass larger, as of the lung
T = TypeVar("T")


def write_report(findings: Sequence[Finding], organs_seen: Iterable[str], rng: np.random.Generator) -> str:
    """A report of `findings`; the organs of `organs_seen` without any are reported free of tumor.

    The phase is the first that a finding has. Sizes stand in cm or mm, with as many digits as the findings have.
    """
    wording = _Wording(rng)
    found = sorted({finding.organ for finding in findings}, key=ORGANS.index)
    free = [organ for organ in sorted(set(organs_seen), key=ORGANS.index) if organ not in found]
    paragraphs = [wording.organ([f for f in findings if f.organ == organ]) for organ in found]
    paragraphs += wording.negatives(free)
    phase = next((finding.phase for finding in findings if finding.phase), None)
    technique = wording.one_of(_TECHNIQUES.get(phase or "", ("CT of the abdomen.", "Abdominal CT.")))
    body = "\n".join(paragraphs or ["No organ was looked at for tumors."])
    impression = wording.impression(findings, free)
    return f"{MACHINE_GENERATED}\n\nTECHNIQUE: {technique}\n\nFINDINGS:\n{body}\n\nIMPRESSION:\n{impression}\n"


class _Wording:
    """The phrases of one report: one unit and one style of sizes, anything else drawn for each sentence."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._unit = self.one_of(("cm", "mm"))
        self._times = self.one_of((" x ", " by ", " × "))
        self._unit_each = bool(rng.integers(4) == 0)
        self._headed = bool(rng.integers(2))

    def one_of(self, options: Sequence[T]) -> T:
        return options[int(self._rng.integers(len(options)))]

    def organ(self, findings: Sequence[Finding]) -> str:
        """The sentences on one organ."""
        heading = f"{_name(findings[0].organ).capitalize()}: " if self._headed else ""
        return heading + " ".join(self.lesion(f) if f.count == 1 else self.group(f) for f in findings)

    def lesion(self, finding: Finding) -> str:
        """One or two sentences on one lesion."""
        noun, place = self._noun(finding), self._place(finding)
        adjectives = self._look(finding)
        margin = self._margin(finding)
        size = self.size(finding.diameters_mm)
        match int(self._rng.integers(4)) if size else 4:
            case 0:
                edge = f", with {margin} margins" if margin else ""
                return f"There is {_a(f'{adjectives}{noun}')} {place}{edge}, measuring {size}."
            case 1:
                return f"{_upper(_a(f'{_before(margin)}{adjectives}{noun}'))} {place} measures {size}."
            case 2:
                edge = f" Its margins are {margin}." if margin else ""
                return f"{_upper(size)} {adjectives}{noun} {place}{f', {margin}' if edge else ''}."
            case 3:
                return f"{_upper(place)}, {_a(f'{_before(margin)}{adjectives}{noun}')} is seen. It measures {size}."
        return f"{_upper(_a(f'{_before(margin)}{adjectives}{noun}'))} is present {place}."

    def group(self, finding: Finding) -> str:
        """One sentence on several lesions."""
        number = self._number(finding.count)
        nouns = f"{_before(self._margin(finding))}{self._look(finding)}{self.one_of(('lesions', 'foci', 'masses'))}"
        place, size = self._place(finding), self.size(finding.diameters_mm)
        start = f"{number} {nouns} {place}" if self._rng.integers(2) else f"There are {number} {nouns} {place}"
        largest = self.one_of((", the largest {}", ", the largest measuring {}", ", up to {}")) if size else ""
        return f"{_upper(start)}{largest.format(size)}."

    def negatives(self, free: Sequence[str]) -> list[str]:
        """Sentences on organs without tumor: each its own, or one for all."""
        if len(free) > 1 and not self._headed and self._rng.integers(2):
            listed = f"{', '.join(map(_name, free[:-1]))} or {_name(free[-1])}"
            return [f"No {self.one_of(('focal', 'suspicious'))} lesion is seen in the {listed}."]
        return [self._negative(organ) for organ in free]

    def _negative(self, organ: str) -> str:
        name = _name(organ)
        if self._headed:
            said = self.one_of(("No focal lesion.", "Unremarkable.", "No mass is identified."))
            return f"{name.capitalize()}: {said}"
        options = ("No focal {} lesion.", "The {} shows no focal lesion.", "The {} is unremarkable.", "No {} mass.")
        return self.one_of(options).format(name)

    def impression(self, findings: Sequence[Finding], free: Sequence[str]) -> str:
        """Numbered lines: every finding in short, then the free organs."""
        lines = []
        for finding in findings:
            adjective = _ADJECTIVES.get(finding.organ, _name(finding.organ))
            number = "" if finding.count == 1 else f"{self._number(finding.count)} "
            noun = "lesion" if finding.count == 1 else "lesions"
            size = self.size(finding.diameters_mm[:1])
            up_to = "" if not size else f", {size}" if finding.count == 1 else f", up to {size}"
            lines.append(f"{_upper(f'{number}{self._look(finding)}{adjective} {noun}')}{up_to}.")
        if free:
            lines.append(f"No tumor of the {' or the '.join(map(_name, free))}.")
        return "\n".join(f"{k}. {line}" for k, line in enumerate(lines or ["No statement on tumors."], 1))

    def size(self, diameters_mm: Sequence[float]) -> str:
        """`2.3 x 1.8 cm`, `23 mm by 18 mm` or `three centimeters`; empty without diameters."""
        if not diameters_mm:
            return ""
        numbers = [f"{d / 10 if self._unit == 'cm' else d:g}" for d in diameters_mm]
        if len(numbers) == 1 and numbers[0].isdigit() and int(numbers[0]) in _WORDS and self._rng.integers(4) == 0:
            unit = "centimeters" if self._unit == "cm" else "millimeters"
            return f"{_WORDS[int(numbers[0])]} {unit}"
        if self._unit_each:
            return self._times.join(f"{number} {self._unit}" for number in numbers)
        return f"{self._times.join(numbers)} {self._unit}"

    def _number(self, count: int) -> str:
        if count == UNCOUNTED:
            return self.one_of(("multiple", "several", "numerous"))
        return _WORDS[count] if count in _WORDS and self._rng.integers(4) else str(count)

    def _noun(self, finding: Finding) -> str:
        largest = max(finding.diameters_mm, default=0.0)
        return self.one_of(("lesion", "lesion", "mass" if largest >= _MASS_MM else "nodule"))

    def _look(self, finding: Finding) -> str:
        return "" if finding.attenuation is None else f"{self.one_of(_LOOKS[finding.attenuation])} "

    def _margin(self, finding: Finding) -> str:
        return "" if finding.margin is None else self.one_of(_MARGINS[finding.margin])

    def _place(self, finding: Finding) -> str:
        organ, region = finding.organ, finding.region
        if region is None:
            return f"in the {_name(organ)}"
        match organ:
            case "liver":
                return self._liver_place(region)
            case "pancreas":
                process = region.removesuffix(" process")
                return self.one_of((f"in the {region} of the pancreas", f"in the pancreas, {process}"))
            case "kidney":
                return self._kidney_place(region)
        whole = f"{region} colon" if region in ("ascending", "transverse", "descending", "sigmoid") else region
        return f"in the {whole}"

    def _liver_place(self, region: str) -> str:
        if not region.startswith("segment "):
            return self.one_of((f"in the {region} of the liver", f"in the {region.replace(' ', ' hepatic ')}"))
        names = region.removeprefix("segment ").split("/")
        roman = "/".join(_ROMAN[name[0]] + name[1:] for name in names)
        word = "segment" if len(names) == 1 else "segments"
        arabic = f"in liver {word} {'/'.join(names)}"
        return self.one_of((arabic, f"in hepatic {word} {roman}", f"in {word} {roman} of the liver"))

    def _kidney_place(self, region: str) -> str:
        side, _, pole = region.partition(" ") if region.startswith(("right", "left")) else ("", "", region)
        kidney = f"{side} kidney".strip()
        if not pole:
            return f"in the {kidney}"
        part = "interpolar region" if pole == "interpolar" else pole
        return self.one_of((f"in the {part} of the {kidney}", f"in the {kidney}, {part}"))


def _name(organ: str) -> str:
    return organ.replace("_", " ")


def _before(adjective: str) -> str:
    return f"{adjective} " if adjective else ""


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _upper(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
