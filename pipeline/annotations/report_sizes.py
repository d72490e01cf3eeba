"""Lengths in the English of radiology reports: which numbers are sizes of today, in mm.

In: report text. Out: the text with earlier sizes, dates and image numbers taken out, and the sizes left in it. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

NUMBER_WORDS: dict[str, int] = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split()
    )
}
_WORD = "|".join(NUMBER_WORDS)
_N = r"(?<![\w.])\d{1,4}(?:\.\d{1,3})?(?!\d)"
_U = r"(?:cm|mm)\b"
_SIZE = rf"{_N}\s*(?:{_U})?(?:\s*(?:x|by|\*)\s*{_N}\s*(?:{_U})?){{0,2}}(?<=m)"
_FIND = re.compile(_SIZE)
_PAIR = rf"({_N})\s*({_U})?\s*(?:to|and|-|through)\s*({_N})\s*({_U})"
_MM = {"cm": 10.0, "mm": 1.0}

_SPELLING: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"[×✕*]", "x"),
        (r"[‐‑‒–—]", "-"),
        (r"[-\s]*\bcentimet(?:er|re)s?\b|\bcms\b", " cm"),
        (r"[-\s]*\bmillimet(?:er|re)s?\b|\bmms\b", " mm"),
        (r"(?<=\d),(?=\d{1,2}\s*(?:x|cm|mm|by)\b)", "."),
        (r"(?<=\d)\s*-?\s*(?=[cm]m\b)", " "),
        (r"(?<=m)x(?=\s*\d)", " x"),
        (r"(?<=\d)x(?=\d)", " x "),
        (
            r"\b([cm]m)\s*\(?(?:ap|tr|trans|transverse|cc|ml|si|craniocaudal|anteroposterior)\b\)?(?=\s*(?:x|by)\b)",
            r"\1",
        ),
        (r"\([^()]*\b(?:series|image|images|slice|se|im|img)\b[^()]*\)", " "),
        (r"\b(?:series|images?|slice)\s*#?\d+(?:\s*/\s*\d+)?", " "),
        (r"\(\d+[/:]\d+\)", " "),
        (r"\b(?:on\s+)?(?:\d{1,2}[/.]\d{1,2}[/.]\d{2,4}|\d{4}-\d\d-\d\d)\b", " "),
    )
)
_DECIMAL_WORDS = re.compile(rf"\b({_WORD}) point ({_WORD})\b")
_LENGTH_WORDS = re.compile(rf"\b({_WORD})(?=[-\s]*(?:and a half\s*)?(?:[cm]m)\b)")
_LIST = re.compile(rf"({_N})(\s*(?:,\s*and|,|and|&)\s*)(?={_N}(?:\s*(?:,\s*and|,|and|&)\s*{_N})*\s*({_U}))")

_CHANGE = re.compile(
    rf"\b(?:increas|decreas|grow|grew|enlarg|reduc|chang|shr[iau]nk|progress|regress)\w*\s+[^.;\d]{{0,25}}\bfrom\s+({_SIZE})"
    rf"\s*(?:to|-)\s*(?={_N})"
)
_RANGE = re.compile(rf"\b(?:(?:from|between)\s+)?{_PAIR}")
_BOUND = re.compile(rf"(?:<|\b(?:less|smaller) than|\bunder|\bbelow)\s*{_SIZE}")
_TODAY = r"(?:now|currently|today)"
_EARLIER = re.compile(
    rf"\(?\b(?:previously(?!\s+(?:described|seen|noted|identified|known|reported|treated))|formerly|prior(?:\s+\w+)?"
    rf"|earlier|baseline|nadir|compared\s+(?:to|with)|in comparison\s+(?:to|with)|versus|vs|used to be|last\s+\w+"
    rf"|originally)\b(?:(?!\b{_TODAY}\b)[^.;\d]){{0,40}}{_SIZE}(?:[^().;,]*\))?"
)
_WAS = re.compile(rf"(?<=m)\s*(?:,\s*)?(?:\(|and\s+)?(?:was|were|had been)\s+(?:(?!{_TODAY})[^.;\d]){{0,20}}{_SIZE}")
_ON_PRIOR = re.compile(rf"{_SIZE}\s+(?:on|at)\s+(?:the\s+)?(?:prior|previous|last|earlier|baseline)\b")


@dataclass(frozen=True)
class Size:
    """One size and where it stands in the text."""

    start: int
    end: int
    diameters_mm: tuple[float, ...]  # largest first


def spell_out(text: str) -> str:
    """Lower-case text with one spelling of lengths (`2.3 x 1.8 cm`), without dates and image numbers."""
    for pattern, new in _SPELLING:
        text = pattern.sub(new, text)
    text = _DECIMAL_WORDS.sub(lambda m: f"{NUMBER_WORDS[m[1]]}.{NUMBER_WORDS[m[2]]}", text)
    return _LENGTH_WORDS.sub(lambda m: str(NUMBER_WORDS[m[1]]), text)


def present_sizes(sentence: str) -> str:
    """A spelled-out sentence without sizes of earlier examinations and upper bounds; a range becomes its larger end."""
    sentence = _BOUND.sub(" ", sentence)
    sentence = _CHANGE.sub(" ", sentence)
    for earlier in (_ON_PRIOR, _EARLIER, _WAS):
        sentence = earlier.sub(" ", sentence)
    return _LIST.sub(r"\1 \3\2", _RANGE.sub(_larger, sentence))


def find_sizes(text: str) -> list[Size]:
    """The sizes in a spelled-out text, in order."""
    sizes = (Size(match.start(), match.end(), _diameters(match[0])) for match in _FIND.finditer(text))
    return [size for size in sizes if size.diameters_mm[-1] > 0]


def _larger(match: re.Match[str]) -> str:
    """`0.6 to 1.7 cm` is a range; `12 mm and 9 mm` are two sizes unless `between` says otherwise."""
    low, low_unit, high, unit = match.groups()
    first = match[0].split()[0]
    if re.search(r"\band\b", match[0]) and first != "between":
        return match[0]
    ends = (float(low) * _MM[low_unit or unit], float(high) * _MM[unit])
    return f"{max(ends):g} mm"


def _diameters(text: str) -> tuple[float, ...]:
    """Numbers without a unit have that of the next one that has."""
    found = re.findall(rf"({_N})\s*(cm|mm)?", text)
    unit, lengths = "", []
    for number, own in reversed(found):
        unit = own or unit
        lengths.append(round(float(number) * _MM[unit], 3))
    return tuple(sorted(lengths, reverse=True))
