"""The text of the realism report: one self-contained page. In: the document of `realism.json`, pictures. Out: HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.realism.classifier import BY_LESION
from training.realism.sections import classifier, contrast, left_out, shapes, texture
from training.report.cells import counted, number, table
from training.report.markup import Markup, html_document, join, png_figure, tag
from training.report.opening import NOTICE
from training.report.sections import definitions, section
from training.report.style import CSS

Record = Mapping[str, Any]

TITLE = "Synthetic lesions: realism report"
_STATE = {None: "cannot be told", True: "met", False: "missed"}


def page(document: Record, pictures: Sequence[tuple[str, bytes]]) -> str:
    """The whole report as HTML text."""
    body = [
        _opening(document),
        _tiles(document),
        _pictures(pictures),
        contrast(document),
        classifier(document),
        texture(document),
        shapes(document),
        left_out(document),
        definitions(document["definitions"]),
        section("What was compared", "", table(("Item", "Value"), list(document["context"].items()), "scroll plain")),
        tag("p", f"{NOTICE}.", class_="notice"),
    ]
    return html_document(TITLE, CSS, body)


def headline(document: Record) -> str:
    """The verdict in one plain sentence."""
    targets = document["targets"]
    met = [target["met"] for target in targets.values()]
    measured = [state for state in met if state is not None]
    return f"{sum(measured)} of {counted(len(measured), 'measured target')} met."


def _opening(document: Record) -> Markup:
    real, synthetic = (document["counts"][side] for side in ("real", "synthetic"))
    extent = (
        f"{counted(real['lesions'], 'real lesion')} of {counted(real['cases'], 'case')} against "
        f"{counted(synthetic['lesions'], 'synthetic lesion')} of {counted(synthetic['scans'], 'sample')} from "
        f"{counted(synthetic['cases'], 'healthy case')}, {document['organ']}, at {document['spacing_mm']:g} mm. "
        f"{NOTICE}."
    )
    return join(
        [
            tag("h1", TITLE),
            tag("p", headline(document), class_="headline"),
            tag("p", extent, class_="notice"),
            *(tag("p", note, class_="warning") for note in _warnings(document)),
        ]
    )


def _warnings(document: Record) -> list[str]:
    """The notes, and how the classifier was folded where that limits what it says."""
    by_lesion = any(record["folds_by"] == "lesion" for record in document["classifier"].values())
    return [*document["notes"], *([f"Classifier: {BY_LESION}."] if by_lesion else [])]


def _tiles(document: Record) -> Markup:
    contrasts, ratio = document["contrast"], document["texture"]["ratio"]
    tiles = [
        _target_tile(
            "Contrast distance (W1)",
            number(contrasts["w1_voxels_hu"], 1) + " HU",
            document["targets"]["contrast_w1_hu"],
            f"floor {number(contrasts['w1_parenchyma_hu'], 1)} HU",
        )
    ]
    tiles += [_auc_tile(document, kind) for kind in document["classifier"]]
    smooth = f"{number(ratio['synthetic']['median'], 2)} / {number(ratio['real']['median'], 2)}"
    tiles.append(_tile("Correlation ratio, synthetic / real", smooth, "medians of lesion over parenchyma"))
    return tag("div", *tiles, class_="tiles")


def _auc_tile(document: Record, kind: str) -> Markup:
    record, floor = document["classifier"][kind], document["classifier_floor"][kind]
    floor_text = f"floor {number(floor['auc'], 2)} (healthy against healthy)"
    return _target_tile(f"Told apart, {kind} (AUC)", number(record["auc"], 2), record["target"], floor_text)


def _target_tile(name: str, value: str, target: Record, detail: str) -> Markup:
    return _tile(name, value, f"target {target['at_most']:g} or less: {_STATE[target['met']]}", detail)


def _tile(name: str, value: str, *details: str) -> Markup:
    return tag(
        "div", tag("span", name, class_="name"), tag("b", value), *(tag("span", d) for d in details), class_="tile"
    )


def _pictures(pictures: Sequence[tuple[str, bytes]]) -> Markup:
    return section(
        "Side by side",
        "Real lesions drawn at random (seeded), each with synthetic ones drawn among those nearest in size. Axial, "
        "where the lesion is largest, all at one scale and window; diameter and contrast stand above. Black is beyond "
        "the image.",
        *(png_figure(caption, png) for caption, png in pictures),
    )
