"""Scored samples and a reader of HTML, for the tests of the evaluation report."""

from __future__ import annotations

from collections.abc import Iterable
from html.parser import HTMLParser
from typing import Any

import numpy as np

from training.records import CaseResult, TumorFact
from training.report import Example
from training.scoring import score_case
from training.summary import aggregate

CLASSES = {"background": 0, "liver": 1, "liver_tumor": 2}
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)> & 'quoted' | `x`\n# no heading"


def labels(*corners: int, size: int = 2) -> np.ndarray:
    """A liver of 14 x 10 x 6 voxels with a tumor at each (corner, 3, 2)."""
    out = np.zeros((16, 12, 8), np.uint8)
    out[1:15, 1:11, 1:7] = 1
    for x in corners:
        out[x : x + size, 3 : 3 + size, 2 : 2 + size] = 2
    return out


def scored(
    case_id: str, truth: np.ndarray, prediction: np.ndarray, group: str | None = None, **more: Any
) -> CaseResult:
    return score_case(case_id, truth, prediction, 2.0, more.pop("classes", CLASSES), group=group, **more)


def fact(x: int, kind: str, contrast_hu: float) -> TumorFact:
    """What is known of the tumor at that corner."""
    return TumorFact(x, 2, (float(x), 3.0, 2.0), kind, contrast_hu, None)


FOUND = scored("found", labels(2, 8), labels(2), "ct1")
MISSED = scored("missed", labels(3), labels(), "ct2")
CLEAN = scored("clean", labels(), labels(), "ct3")
ALARM = scored("alarm", labels(), labels(5), "ct4")
ORGANS_ONLY = scored("a", labels(2), labels(2), classes={"background": 0, "liver": 1})
# With everything that a report can have: facts of the tumors, and probabilities.
KNOWN = scored(
    "known",
    labels(2, 8),
    labels(2, 12),
    "ct5",
    facts=[fact(2, "clear_cell", -45.0), fact(8, "hcc", 12.0)],
    probabilities={2: np.where(labels(2, 12) == 2, 0.9, 0.0).astype(np.float32)},
)


def summary(results: Iterable[CaseResult]) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Metrics, scores and lesions of these results."""
    found = list(results)
    scores = [score for result in found for score in result.scores]
    lesions = [lesion for result in found for lesion in result.lesions]
    return aggregate(scores, lesions, [scan for result in found for scan in result.candidates]), scores, lesions


def example(case_id: str = "found", caption: str = "Best outline") -> Example:
    ct = np.full((16, 12, 8), 40, np.int16)
    return Example(case_id, ct, labels(2, 8), labels(2), 2.0, caption)


class Reader(HTMLParser):
    """Visible text, tags with attributes, and whether every element is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def numbers(self, element: str, attribute: str) -> list[float]:
        """That attribute of all such elements."""
        return [float(found[attribute] or 0) for name, found in self.elements if name == element]


def assert_loads_nothing(html: str) -> Reader:
    """The page is whole, and neither runs anything nor asks for anything from elsewhere."""
    page = Reader(html)
    assert page.open == []
    assert not {"script", "link", "iframe", "object", "base", "use"} & {name for name, _ in page.elements}
    for _, attributes in page.elements:
        assert not {"href", "xlink:href", "srcset", "action"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
    return page
