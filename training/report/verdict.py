"""What a comparison of two evaluations shows, and what it cannot show: the top of its report.

In: the dict of `training.comparison`. Out: `Opening`. A figure counts as different when its p after Holm is below
`LEVEL`: of means that of the permutation test, which swaps whole source cases. McNemar's test takes tumors as
independent, so its p counts only where each source case gave one sample, and there are enough of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from training.report.cells import counted, mean_interval, number, p_value, signed
from training.report.content import Opening, Tile
from training.report.figure_names import digits, measure_title, share_title
from training.report.opening import NOTICE

Record = Mapping[str, Any]

TITLE = "Two evaluations compared: a and b"
LEVEL = 0.05
ALL_TUMORS = "all_tumors"
_NAMED = 3  # figures that the headline names


def comparison_opening(record: Record) -> Opening:
    """Headline, leads, warnings and tiles of a comparison."""
    pairs = record["pairs"]
    notice = (
        f"{counted(pairs['samples'], 'sample')} from {counted(pairs['source_cases'], 'source case')}, scored for both. "
        f"{NOTICE}."
    )
    return Opening(TITLE, headline(record), _leads(record), notice, _warnings(record), _tiles(record))


def headline(record: Record) -> str:
    """What was shown, in one sentence; never that two are equal, which no test can show."""
    tested = [row["permutation_p"] for row in record["measures"]]
    tested += [row["mcnemar_p"] for row in record["shares"] if _one_from_each_case(row)]
    figures = sum(p is not None for p in tested)
    if not figures:
        return "Nothing was compared: no sample has a figure on both sides."
    better = {side: [title for winner, title in _differences(record) if winner == side] for side in "ab"}
    if not any(better.values()):
        cases = counted(record["pairs"]["source_cases"], "source case")
        return f"No difference shown between a and b in {cases}."
    parts = [f"{side} is better in {_listed(better[side])}" for side in "ba" if better[side]]
    return f"Of {counted(figures, 'figure')}, {' and '.join(parts)}."


def _listed(titles: Sequence[str]) -> str:
    more = f" and {len(titles) - _NAMED} more" if len(titles) > _NAMED else ""
    return f"{len(titles)} ({', '.join(titles[:_NAMED])}{more})"


def _differences(record: Record) -> list[tuple[str, str]]:
    """The better side and the title of each figure that differs by more than chance, tumors first."""
    measures = [row for row in record["measures"] if _is_shown(row["permutation_p_holm"])]
    shares = [row for row in record["shares"] if _one_from_each_case(row) and _is_shown(row["mcnemar_p_holm"])]
    organs_last = sorted(measures, key=lambda row: not _of_tumors(row))
    return [
        *((_better_mean(row), measure_title(row, record["settings"])) for row in organs_last),
        *(("b" if row["only_b"] > row["only_a"] else "a", share_title(row)) for row in shares),
    ]


def _is_shown(p: float | None) -> bool:
    return p is not None and p < LEVEL


def _better_mean(row: Record) -> str:
    return "b" if (row["difference"]["mean"] > 0) == (row["better"] == "higher") else "a"


def _of_tumors(row: Record) -> bool:
    return str(row["class"]).endswith("_tumor") or row["class"] == ALL_TUMORS


def _one_from_each_case(row: Record) -> bool:
    """Whether McNemar's test may take what it counts as independent, and could show anything."""
    return bool(row["n"] == row["groups"] and _least_p(row["groups"], 1) < LEVEL)


def _least_p(source_cases: int, rows: int) -> float:
    """Smallest permutation p after Holm that so many source cases can give: of 2^n ways to swap, two are extreme."""
    return min(1.0, math.ldexp(rows, 1 - source_cases))


def _leads(record: Record) -> list[str]:
    """How far apart they may be in the figure that matters most."""
    row = _main(record, "dice")
    if row is None or not row["n"]:
        return []
    difference, title = row["difference"], measure_title(row, record["settings"])
    measured = f"{title}: b minus a is {signed(difference['mean'], digits(row))}"
    if difference["low"] is None:
        return [f"{measured}, with {counted(row['groups'], 'source case')} too few for an interval."]
    interval = mean_interval(difference, digits(row))
    unproven = "" if _differences(record) else " No difference shown does not mean equal."
    return [f"{measured}; what fits the data reaches from {interval} (95 % interval).{unproven}"]


def _warnings(record: Record) -> list[str]:
    pairs = record["pairs"]
    tested = [row for row in record["measures"] if row["permutation_p"] is not None]
    least = _least_p(max((row["groups"] for row in tested), default=0), len(tested))
    warnings = []
    if tested and least >= LEVEL:
        warnings.append(
            f"{counted(pairs['source_cases'], 'source case')} cannot show a difference in "
            f"{counted(len(tested), 'mean')}: the smallest p after Holm that is possible is {p_value(least)}. "
            "Evaluate more cases."
        )
    if any(row["n"] > row["groups"] for row in record["shares"]):
        warnings.append(
            "Several tumors or samples share a source case. Differences of means allow for that; the tests of shares "
            "do not, their p is too small, and the headline leaves them out."
        )
    return warnings


def _tiles(record: Record) -> list[Tile]:
    rows = [_main(record, name) for name in ("dice", "nsd_2mm", "false_positive_lesions")]
    found = _main(record, "tumors found (iou_0.1)")
    tiles = [_mean_tile(row, record["settings"]) for row in rows if row is not None and row["n"]]
    return [*tiles, *([_share_tile(found)] if found is not None and found["n"] else [])]


def _main(record: Record, measure: str) -> Record | None:
    """The row of a measure for all tumors, else of the tumor class, else of the first class."""
    rows = [row for row in (*record["measures"], *record["shares"]) if row["measure"] == measure]
    ranked = sorted(rows, key=lambda row: (row["class"] != ALL_TUMORS, not _of_tumors(row)))
    return ranked[0] if ranked else None


def _mean_tile(row: Record, settings: Record) -> Tile:
    difference, places = row["difference"], digits(row)
    interval = f"95 % interval {mean_interval(difference, places)}" if difference["low"] is not None else "no interval"
    details = (
        f"b minus a; a {number(row['mean_a'], places)}, b {number(row['mean_b'], places)}",
        interval,
        f"p {p_value(row['permutation_p_holm'])} after Holm",
    )
    return Tile(measure_title(row, settings), signed(difference["mean"], places), details)


def _share_tile(row: Record) -> Tile:
    change = row["b"]["count"] - row["a"]["count"]
    details = (
        f"b minus a; a {row['a']['count']}, b {row['b']['count']} of {row['n']}",
        f"only a: {row['only_a']}, only b: {row['only_b']}",
        f"p {p_value(row['mcnemar_p_holm'])} after Holm",
    )
    return Tile(share_title(row), signed(change, 0), details)
