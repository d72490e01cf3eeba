"""Building HTML and SVG so that text is always escaped: only `tag` and `join` make markup."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

_VOID = frozenset({"meta", "img", "br", "hr", "col"})


class Markup(str):
    """A string that is markup already; any other string is text."""

    __slots__ = ()


def tag(name: str, /, *children: str | int, **attributes: str | float | None) -> Markup:
    """An element. Text children are escaped. `class_` is written `class`, `font_size` `font-size`; None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_attribute(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>" if name in _VOID else f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[str | int]) -> Markup:
    """Children one after another, text among them escaped."""
    return Markup("".join(child if isinstance(child, Markup) else html.escape(str(child)) for child in children))


def html_document(title: str, style: str, body: Sequence[Markup]) -> str:
    """A whole page that needs nothing beside itself."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, tag('body', *body), lang='en')}\n"


def png_figure(caption: str, png: bytes) -> Markup:
    """A picture, embedded, with its caption."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return tag("figure", tag("img", src=source, alt=caption), tag("figcaption", caption))


def _attribute(value: str | float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
