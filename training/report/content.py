"""What a report consists of, whatever it is written as: `sections` makes HTML of it, `markdown_page` plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.report.cells import Cell
from training.report.markup import Markup


@dataclass(frozen=True)
class Table:
    """Rows of text or figures. `plain` ones hold words rather than numbers; `folded` ones repeat what a chart shows."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    title: str = ""
    plain: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Chart:
    """A drawing with a caption; only in HTML."""

    svg: Markup
    title: str
    caption: str


@dataclass(frozen=True)
class Charts:
    """Drawings side by side."""

    charts: Sequence[Chart]


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption; the caption alone in Markdown."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class Terms:
    """What words mean."""

    words: Mapping[str, str]


Part = Table | Charts | Picture | Terms


@dataclass(frozen=True)
class Section:
    """A heading, what the reader sees there, and the parts."""

    title: str
    explanation: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Tile:
    """One of the few figures that most readers look for; `details` stand below it."""

    name: str
    value: str
    details: Sequence[str] = ()


@dataclass(frozen=True)
class Opening:
    """What stands first: the result in one sentence, what belongs beside it, and what not to conclude."""

    title: str
    headline: str
    leads: Sequence[str]
    notice: str
    warnings: Sequence[str]
    tiles: Sequence[Tile]
