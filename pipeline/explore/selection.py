"""Answering the page: which samples meet the filters, in which order, and how the facts are spread over them.

A filter on tumors is met by a sample with at least one tumor that meets all filters on tumors, as `--where` has it.
Histograms of tumors count the tumors that meet the filters; each leaves its own filter out, so that what else could be
chosen stays visible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.explore.facts import Facts, Names
from pipeline.explore.filters import Filters, Marks, expression, marks
from pipeline.explore.kept import Kept

Positions = npt.NDArray[np.int64]
Where = Callable[[str], Positions]  # which samples meet an expression, by position, ascending
_MOST_NAMES = 60  # in one histogram; the most frequent ones, there may be thousands of cases
_KEPT = 8


class Selection:
    """Samples by filters; what was asked for last is kept. Any thread may ask."""

    def __init__(self, facts: Facts, where: Where) -> None:
        self._facts, self._where = facts, where
        self._found: Kept[Positions] = Kept(_KEPT)
        self._ordered: Kept[Positions] = Kept(_KEPT)
        self._largest = _largest_tumors(facts)

    def positions(self, filters: Filters) -> Positions:
        """The samples that meet the filters, ascending."""
        return self._found.get(filters.key, lambda: self._find(filters))

    def _find(self, filters: Filters) -> Positions:
        if filters.where:
            return self._where(expression(self._facts, filters))
        return np.flatnonzero(self._samples(filters))

    def _samples(self, filters: Filters) -> Marks:
        """Marks on the samples that meet the choices, whatever the expression."""
        of_sample, of_tumor = self._by_level(filters)
        if of_tumor is None:
            return of_sample
        touched = np.zeros(self._facts.samples, bool)
        touched[self._facts.parents[of_tumor]] = True
        return touched & of_sample

    def _by_level(self, filters: Filters) -> tuple[Marks, Marks | None]:
        """The samples that meet the choices on samples, the tumors that meet those on tumors (None: no such choice)."""
        of_sample, of_tumor = np.ones(self._facts.samples, bool), None
        for name, choice in filters.choices.items():
            fact = self._facts.facts[name]
            met = marks(fact, choice)
            if fact.level == "sample":
                of_sample &= met
            else:
                of_tumor = met if of_tumor is None else of_tumor & met
        return of_sample, of_tumor

    def ordered(self, filters: Filters, sort: str) -> Positions:
        """The samples in the order of a column of the table; `-name` descending, unknown values last."""
        return self._ordered.get((filters.key, sort), lambda: self._order(self.positions(filters), sort))

    def _order(self, found: Positions, sort: str) -> Positions:
        name, falling = sort.removeprefix("-"), sort.startswith("-")
        if name == "index":
            return found[::-1] if falling else found
        values = self.column(name).astype(np.float64)[found]
        return found[np.argsort(-values if falling else values, kind="stable")]

    def column(self, name: str) -> npt.NDArray[Any]:
        """Numbers that order the samples by a column; of tumors those of the sample's largest."""
        if name in self._facts.extra:
            return self._facts.extra[name]
        fact = self._facts.facts.get(name)
        if fact is None:
            raise InputError(f"sort={name}: no such column; choose one of the table's")
        values = fact.codes if isinstance(fact, Names) else fact.values
        if fact.level == "sample":
            return values
        if not len(values):
            return np.full(self._facts.samples, np.nan)
        return np.where(self._largest >= 0, values[self._largest], np.nan)

    def row(self, position: int) -> dict[str, Any]:
        """One line of the table."""
        shown: dict[str, Any] = {"index": int(self._facts.ids[position])}
        tumor = int(self._largest[position])
        for name, fact in self._facts.facts.items():
            place = position if fact.level == "sample" else tumor
            shown[name] = None if place < 0 else _value(fact, place)
        return shown | {name: _plain(values[position]) for name, values in self._facts.extra.items()}

    def charts(self, filters: Filters) -> dict[str, Any]:
        """How often each name or range of each fact occurs among what meets the other filters."""
        whole = self._whole(filters.where)
        return {name: self._chart(name, filters.without(name), whole) for name in self._facts.facts}

    def _whole(self, where: str) -> Marks | None:
        """The samples that meet the user's own expression; None without one."""
        if not where:
            return None
        found = np.zeros(self._facts.samples, bool)
        found[self.positions(Filters({}, where))] = True
        return found

    def _chart(self, name: str, others: Filters, whole: Marks | None) -> dict[str, Any]:
        fact = self._facts.facts[name]
        of_sample = self._samples(others) if fact.level == "sample" else self._by_level(others)[0]
        if whole is not None:
            of_sample = of_sample & whole
        counted = of_sample
        if fact.level == "tumor":
            of_tumor = self._by_level(others)[1]
            counted = of_sample[self._facts.parents]
            counted = counted if of_tumor is None else counted & of_tumor
        if isinstance(fact, Names):
            return _name_counts(fact, counted)
        inner = np.asarray(fact.edges[1:-1])  # the outer bars are open
        bars = np.searchsorted(inner, fact.values[counted & np.isfinite(fact.values)], side="right")
        counts = np.bincount(bars, minlength=len(fact.edges) - 1)
        return {"edges": list(fact.edges), "counts": counts.tolist()}


def _name_counts(fact: Names, counted: Marks) -> dict[str, Any]:
    counts = np.bincount(fact.codes[counted], minlength=len(fact.names))
    if fact.quoted:
        order = np.argsort(-counts, kind="stable")[:_MOST_NAMES]
    else:
        order = np.argsort([int(name) for name in fact.names], kind="stable")[:_MOST_NAMES]
    shown = [{"name": fact.names[k], "count": int(counts[k])} for k in order.tolist()]
    return {"names": shown, "more": max(0, len(fact.names) - len(shown))}


def _largest_tumors(facts: Facts) -> npt.NDArray[np.int64]:
    """The tumor with the largest diameter of each sample, by place among all tumors; -1 without tumors."""
    largest = np.full(facts.samples, -1, np.int64)
    diameter = facts.facts.get("diameter_mm")
    if diameter is not None and not isinstance(diameter, Names) and len(facts.parents):
        order = np.argsort(np.nan_to_num(diameter.values, nan=-np.inf), kind="stable")
        largest[facts.parents[order]] = order  # the last one that is written stays
    return largest


def _value(fact: Any, place: int) -> Any:
    return fact.names[fact.codes[place]] if isinstance(fact, Names) else _plain(fact.values[place])


def _plain(value: Any) -> int | float | None:
    """A number as JSON has it; NaN becomes null."""
    number = value.item()
    return None if number != number else number
