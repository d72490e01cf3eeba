"""A report's content as plain Markdown, for pull requests and papers: the same words and tables, without pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence

from training.report.cells import Cell
from training.report.content import Opening, Part, Picture, Section, Table, Terms

# What Markdown or HTML in it would read as markup; an underscore within a word is none.
_SPECIAL = re.compile(r"[\\`*\[\]<>|#~]|(?<!\w)_|_(?!\w)")


def markdown_page(opening: Opening, sections: Sequence[Section], closing: str) -> str:
    """The whole report as Markdown text."""
    blocks = [*_opening(opening)]
    for content in sections:
        parts = [block for part in content.parts for block in _part(part)]
        if parts:
            blocks += [f"## {_text(content.title)}", *_paragraph(content.explanation), *parts]
    return "\n\n".join([*blocks, f"*{_text(closing)}*"]) + "\n"


def _opening(opening: Opening) -> list[str]:
    tiles = [(tile.name, tile.value, ", ".join(tile.details)) for tile in opening.tiles]
    return [
        f"# {_text(opening.title)}",
        f"**{_text(opening.headline)}**",
        *_paragraph(" ".join(opening.leads)),
        *_paragraph(opening.notice),
        *(f"> {_text(warning)}" for warning in opening.warnings),
        *([_table(("Figure", "Value", ""), tiles)] if tiles else []),
    ]


def _part(part: Part) -> list[str]:
    match part:
        case Table():
            title = [f"**{_text(part.title)}**"] if part.title else []
            return [*title, _table(part.header, part.rows)]
        case Terms():
            return ["\n".join(f"- **{_text(name)}**: {_text(meaning)}" for name, meaning in part.words.items())]
        case Picture():
            return [f"- {_text(part.caption)}"]
        case _:
            return []


def _table(header: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> str:
    lines = [_row(header), _row([":--", *["--:"] * (len(header) - 1)], escape=False)]
    return "\n".join([*lines, *map(_row, rows)])


def _row(cells: Sequence[str | Cell], escape: bool = True) -> str:
    texts = [cell.line() if isinstance(cell, Cell) else cell for cell in cells]
    return f"| {' | '.join(map(_text, texts) if escape else texts)} |"


def _paragraph(words: str) -> list[str]:
    return [_text(words)] if words else []


def _text(words: str) -> str:
    """On one line, with nothing that reads as markup."""
    return _SPECIAL.sub(lambda found: "\\" + found.group(), " ".join(words.split()))
