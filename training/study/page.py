"""The text of a study's report: one self-contained page. In: the document of `study.json`. Out: HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.intervals import FEW_GROUPS
from training.report.cells import Cell, counted, number, percent, share_cell, table
from training.report.charts import ShareBar, share_bars
from training.report.markup import Markup, html_document, join, tag
from training.report.opening import NOTICE
from training.report.sections import definitions, section
from training.report.style import CSS
from training.study.verdict import headline

Record = Mapping[str, Any]

TITLE = "Reader study: real or synthetic?"
_MOST_BARS = 8  # readers in one chart
_MODES = {
    "yes-no": "one lesion at a time, real or synthetic, with confidence",
    "2afc": "a real and a synthetic lesion side by side, which is synthetic",
}
_FACTS = {
    "diameter_mm": "Diameter (mm)",
    "parenchyma_hu": "Parenchyma, median (HU)",
    "noise_hu": "Noise (HU)",
    "slice_grain": "Slice grain",
    "others": "Other lesions in the crop",
}


def page(document: Record) -> str:
    """The whole report as HTML text."""
    body = [
        _opening(document),
        _tiles(document),
        _accuracy(document),
        _equivalence(document),
        _agreement(document),
        _machine(document),
        _balance(document),
        _leaks(document),
        definitions(document["definitions"]),
        section("What was read", "", table(("Item", "Value"), list(document["context"].items()), "scroll plain")),
        tag("p", f"{NOTICE}.", class_="notice"),
    ]
    return html_document(TITLE, CSS, body)


def _opening(document: Record) -> Markup:
    study = document["study"]
    extent = (
        f"{counted(study['trials'], 'trial')}: {_MODES[study['mode']]}; {study['real_lesions']} real and "
        f"{study['synthetic_lesions']} synthetic lesions of the {study['organ']} at {study['spacing_mm']:g} mm. "
        f"{NOTICE}."
    )
    return join(
        [
            tag("h1", TITLE),
            tag("p", headline(document), class_="headline"),
            tag("p", document["sentence"], class_="lead"),
            tag("p", extent, class_="notice"),
            *(tag("p", f"{note[0].upper()}{note[1:]}.", class_="warning") for note in document["notes"]),
        ]
    )


def _tiles(document: Record) -> Markup:
    pooled, test = document["pooled"], document["equivalence"]
    accuracy = pooled["accuracy"]
    tiles = [
        _tile(
            "Accuracy", percent(accuracy["value"]), f"{accuracy['count']} of {accuracy['n']} decided", _range(accuracy)
        )
    ]
    if pooled["auc"]:
        auc = pooled["auc"]
        details = (auc["note"],) if auc.get("note") else (_ends(auc), "0.5 is chance")
        tiles.append(_tile("AUC", number(auc["value"], 2), *details))
    tiles += [
        _tile("d'", number(pooled["d_prime"], 2), "0 is chance", f"criterion {number(pooled['criterion'], 2)}"),
        _tile(
            f"Equivalence within {100 * test['margin']:g} points",
            "shown" if test["met"] else "not shown",
            f"p = {number(test['p'], 3)}",
            f"{test['n']} answers, {test['needed']} needed",
        ),
        _tile("Time a case", f"{number(pooled['seconds']['median'], 1)} s", "median"),
    ]
    return tag("div", *tiles, class_="tiles")


def _tile(name: str, value: str, *details: str) -> Markup:
    shown = (tag("span", detail) for detail in details if detail)
    return tag("div", tag("span", name, class_="name"), tag("b", value), *shown, class_="tile")


def _accuracy(document: Record) -> Markup:
    """Readers and all together: one row each, in two tables, as one would be wider than a page."""
    yes_no = document["study"]["mode"] == "yes-no"
    shares = ["Reader", "Answers", "Unsure", "Accuracy", *(["Sensitivity", "Specificity"] if yes_no else [])]
    signals = ["Reader", *(["AUC"] if yes_no else []), "d'", "Criterion", "Again the same (kappa)", "Median time (s)"]
    pooled = document["pooled"]
    shown = [(one, _who(one)) for one in document["readers"]]
    if pooled["readers"] > 1:
        shown.append((pooled | {"of": None, "within": None}, join(["All"])))
    bars = [_bar(one["reader"], one["accuracy"]) for one in document["readers"]][:_MOST_BARS]
    bars += [_bar("All", pooled["accuracy"])] if pooled["readers"] > 1 else []
    clustered = pooled["clustered"]
    drawn = f" Drawing readers and trials, all: {_two(clustered, 100)} %." if clustered else ""
    return section(
        "Readers",
        "In brackets the 95 % interval. 50 % is chance; unsure answers are left out of accuracy, sensitivity and "
        f"specificity.{drawn}",
        table(shares, [_shares(one, who, yes_no) for one, who in shown]),
        table(signals, [_signals(one, who, yes_no) for one, who in shown]),
        tag("div", tag("figure", share_bars(bars, "Reader", "Right answers")), class_="charts"),
    )


def _shares(one: Record, who: Markup, yes_no: bool) -> list[str | Cell]:
    """Answers, and how many of them were right."""
    of = f" of {one['of']}" if one["of"] else ""
    kinds = [share_cell(one[name]) for name in ("sensitivity", "specificity")] if yes_no else []
    return [who, f"{one['answered']}{of}", str(one["unsure"]), share_cell(one["accuracy"]), *kinds]


def _signals(one: Record, who: Markup, yes_no: bool) -> list[str | Cell]:
    """What the ratings tell, agreement of a reader with himself, and time."""
    auc = [Cell(number(one["auc"]["value"], 2), _ends(one["auc"]))] if yes_no else []
    again = f"{number(one['within']['value'], 2)} (n = {one['within']['n']})" if one["within"] else ""
    rest = number(one["d_prime"], 2), number(one["criterion"], 2), again, number(one["seconds"]["median"], 1)
    return [who, *auc, *rest]


def _who(one: Record) -> Markup:
    about = ", ".join(
        [*([one["role"]] if one["role"] else []), *([f"{one['years']:g} years"] if one["years"] is not None else [])]
    )
    return join([one["reader"], tag("br"), tag("small", about)])


def _bar(name: str, accuracy: Record) -> ShareBar:
    return ShareBar(name, accuracy["count"], accuracy["n"], accuracy["low"], accuracy["high"])


def _equivalence(document: Record) -> Markup:
    test = document["equivalence"]
    margin = 100 * test["margin"]
    rows = [
        ("Accuracy, unsure as half right", percent(test["share"])),
        ("90 % interval (Wilson)", _two([test["low"], test["high"]], 100) + " %"),
        (
            "90 % interval, drawing readers and trials",
            _two(test["clustered"], 100) + " %" if test["clustered"] else "–",
        ),
        ("Has to lie within", f"{50 - margin:g} to {50 + margin:g} %"),
        ("p of the two one-sided tests", number(test["p"], 4)),
        ("Answers", str(test["n"])),
        ("Answers needed if readers guess (power 80 %)", str(test["needed"])),
        ("Equivalent to chance", "yes" if test["met"] else "not shown"),
    ]
    return section(
        "Equivalence with chance",
        "Not being told apart is claimed only where the whole interval lies within the margin. A difference that is "
        "not significant shows nothing.",
        table(("", ""), rows, "scroll plain"),
        tag("p", tag("b", "What may be written: "), document["sentence"]),
    )


def _agreement(document: Record) -> Markup:
    found = document["agreement"]
    rows = [
        (" and ".join(p["readers"]), number(p["value"], 2), percent(p["agreed"]), str(p["n"])) for p in found["pairs"]
    ]
    if found["fleiss"]:
        fleiss = found["fleiss"]
        rows.append((f"All {fleiss['readers']} (Fleiss)", number(fleiss["value"], 2), "", str(fleiss["n"])))
    if not rows:
        return section("Agreement between readers", "There is one reader.")
    return section(
        "Agreement between readers",
        "Kappa: 0 is agreement by chance, 1 is always. Readers who guess do not agree; readers who agree see "
        "something, right or wrong.",
        table(("Readers", "Kappa", "Same answer", "Trials"), rows),
    )


def _machine(document: Record) -> Markup:
    machine = document["machine"]
    rows = [
        (
            f"{kind.capitalize()} boxes",
            number(one["auc"], 2),
            _ends({"low": one["low"], "high": one["high"]}),
            f"{one['real']['lesions']} / {one['synthetic']['lesions']}",
            f"{one['real']['boxes']} / {one['synthetic']['boxes']}",
        )
        for kind, one in machine["auc"].items()
    ]
    notes = dict.fromkeys(note for one in machine["auc"].values() for note in one["notes"])
    return section(
        "Machine observer",
        "A classifier of texture and edge on held-out boxes of the same crops. It is stricter than a person: "
        f"it sees numbers, and learns from labelled cases. {machine['measured']} of {machine['lesions']} lesions could "
        "be measured.",
        table(("Observer", "AUC", "95 % interval", "Lesions, real / synthetic", "Boxes"), rows),
        *(tag("p", f"{note[0].upper()}{note[1:]}.", class_="note") for note in notes),
    )


def _balance(document: Record) -> Markup:
    rows = [
        (_FACTS[row["fact"]], number(row["real"], 2), number(row["synthetic"], 2), number(row["smd"], 2))
        for row in document["balance"]
    ]
    return section(
        "Matching",
        "Medians of both sides, and the standardised mean difference. What differs here may be what readers saw.",
        table(("Fact", "Real", "Synthetic", "Difference (SD)"), rows),
    )


def _leaks(document: Record) -> Markup:
    rows = [
        (one["name"].capitalize(), one["how"], one["detail"], "passed" if one["passed"] else "failed")
        for one in document["leak_check"]
    ]
    return section("Leak check", "", table(("What", "How it was tested", "Found", ""), rows, "scroll plain"))


def _range(accuracy: Record) -> str:
    return "" if accuracy["low"] is None else f"{_two([accuracy['low'], accuracy['high']], 100)} %"


def _ends(interval: Record) -> str:
    if interval.get("note"):
        return f"fewer than {FEW_GROUPS} cases of a class"
    return "no interval" if interval["low"] is None else _two([interval["low"], interval["high"]], 1)


def _two(ends: Any, scale: int) -> str:
    digits = 0 if scale == 100 else 2
    return "–" if ends[0] is None else f"{number(scale * ends[0], digits)} to {number(scale * ends[1], digits)}"
