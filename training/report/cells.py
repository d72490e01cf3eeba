"""Numbers as a reader meets them: rounded, with interval, unit and n; a dash where a figure does not exist."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.report.markup import Markup, join, tag

Record = Mapping[str, Any]
_NONE = "–"
_MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int) -> str:
    """A rounded number, or a dash."""
    if value is None:
        return _NONE
    text = f"{value:.{digits}f}"
    # A small negative value must not read as minus zero.
    return text.lstrip("-") if float(text) == 0 else text.replace("-", _MINUS)


def signed(value: float | None, digits: int) -> str:
    """A rounded difference: its sign always stands, but before zero."""
    text = number(value, digits)
    return text if value is None or value < 0 or float(text) == 0 else f"+{text}"


def p_value(p: float | None) -> str:
    """`0.012`, `< 0.001`, or a dash."""
    if p is None:
        return _NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def percent(share: float | None) -> str:
    """A share (0 to 1) in whole percent, or a dash; only 0 and 1 themselves read 0 % and 100 %."""
    if share is None:
        return _NONE
    if 0 < share < 0.005:
        return "< 1 %"
    if 0.995 <= share < 1:
        return "> 99 %"
    return f"{100 * share:.0f} %"


def share_interval(share: Record) -> str:
    """`75 to 94 %`; empty when there is none."""
    return "" if share["low"] is None else f"{100 * share['low']:.0f} to {100 * share['high']:.0f} %"


def mean_interval(mean: Record, digits: int) -> str:
    """`0.68 to 0.78`; empty when there is none."""
    return "" if mean["low"] is None else f"{number(mean['low'], digits)} to {number(mean['high'], digits)}"


@dataclass(frozen=True)
class Cell:
    """A figure of a table, and what belongs below it: the interval."""

    value: str
    detail: str = ""

    def html(self) -> Markup:
        """Two lines, the second one small."""
        return join([self.value, tag("br"), tag("small", self.detail)]) if self.detail else join([self.value])

    def line(self) -> str:
        """One line of text."""
        between = " " if self.detail.startswith("(") else ", "
        return between.join([self.value, self.detail]) if self.detail else self.value


def share_cell(share: Record) -> Cell:
    """`41 of 47`, percent and interval of a proportion."""
    if not share["n"]:
        return Cell(_NONE)
    return Cell(f"{share['count']} of {share['n']}", f"{percent(share['value'])} ({share_interval(share)})")


def mean_cell(mean: Record, digits: int) -> Cell:
    """A mean and below it the interval; a star where it has a note."""
    star = "*" if mean["n"] and "note" in mean else ""
    interval = mean_interval(mean, digits)
    return Cell(number(mean["mean"], digits) + star, f"({interval})" if interval else "")


def interval_legend(means: Iterable[Record]) -> str:
    """What the brackets and stars of these means stand for."""
    notes = sorted({note for mean in means if mean["n"] and "note" in mean for note in mean["note"].split("; ")})
    return " ".join(["In brackets the 95 % interval.", *(f"* {note}." for note in notes)])


def table(header: Sequence[str], rows: Sequence[Sequence[str | Cell]], class_: str = "scroll") -> Markup:
    """A table that scrolls by itself on a narrow screen. Cells are text unless they are markup."""
    head = tag("thead", tag("tr", *(tag("th", name) for name in header)))
    body = tag("tbody", *(tag("tr", *(tag("td", _html(cell)) for cell in row)) for row in rows))
    return tag("div", tag("table", head, body), class_=class_)


def _html(cell: str | Cell) -> str:
    return cell.html() if isinstance(cell, Cell) else cell


def class_title(name: str) -> str:
    """`liver_tumor` as `Liver tumor`."""
    return name.replace("_", " ").capitalize()


def stratum(from_mm: float, below_mm: float | None) -> str:
    """`below 5`, `5 to 10`, `20 and more`."""
    if below_mm is None:
        return f"{from_mm:g} and more"
    return f"{from_mm:g} to {below_mm:g}" if from_mm else f"below {below_mm:g}"


def counted(n: int, noun: str) -> str:
    """`1 tumor`, `2 tumors`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
