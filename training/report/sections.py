"""A report's content as HTML: sections, what stands in them, and the self-contained page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from training.report.cells import table
from training.report.content import Chart, Charts, Opening, Part, Picture, Section, Table, Terms, Tile
from training.report.markup import Markup, html_document, join, png_figure, tag
from training.report.style import CSS

MEANINGS = "What the words mean"


def html_page(opening: Opening, sections: Sequence[Section], closing: str) -> str:
    """The whole page; `closing` stands at its foot."""
    body = [_opening(opening), *map(_section, sections), tag("p", closing, class_="notice")]
    return html_document(opening.title, CSS, body)


def section(title: str, explanation: str, *parts: Markup) -> Markup:
    """A heading, what the reader sees there, and the parts."""
    explained = [tag("p", explanation, class_="explain")] if explanation else []
    return tag("section", tag("h2", title), *explained, *parts)


def definitions(words: Mapping[str, str]) -> Markup:
    """What the words of a report mean."""
    return section(MEANINGS, "", tag("dl", *_terms(words.items())))


def _opening(opening: Opening) -> Markup:
    return join(
        [
            tag("h1", opening.title),
            tag("p", opening.headline, class_="headline"),
            *(tag("p", lead, class_="lead") for lead in opening.leads),
            tag("p", opening.notice, class_="notice"),
            *(tag("p", warning, class_="warning") for warning in opening.warnings),
            *([tag("div", *map(_tile, opening.tiles), class_="tiles")] if opening.tiles else []),
        ]
    )


def _tile(tile: Tile) -> Markup:
    details = (tag("span", detail) for detail in tile.details)
    return tag("div", tag("span", tile.name, class_="name"), tag("b", tile.value), *details, class_="tile")


def _section(content: Section) -> Markup:
    return section(content.title, content.explanation, *map(_part, content.parts))


def _part(part: Part) -> Markup:
    match part:
        case Table():
            return _table(part)
        case Charts():
            return tag("div", *map(_chart, part.charts), class_="charts")
        case Picture():
            return png_figure(part.caption, part.png)
        case Terms():
            return tag("dl", *_terms(part.words.items()))


def _table(content: Table) -> Markup:
    body = table(content.header, content.rows, "scroll plain" if content.plain else "scroll")
    if content.folded:
        return tag("details", tag("summary", content.title or "Numbers"), body)
    return join([tag("p", tag("b", content.title)), body]) if content.title else body


def _chart(chart: Chart) -> Markup:
    return tag("figure", chart.svg, tag("figcaption", tag("b", chart.title), f" {chart.caption}"))


def _terms(words: Iterable[tuple[str, str]]) -> list[Markup]:
    return [part for name, meaning in words for part in (tag("dt", name), tag("dd", meaning))]
