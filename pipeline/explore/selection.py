"""Answering the page: which samples meet the filters, in which order, and how the facts are spread over them.

A filter on tumors is met by a sample with at least one tumor that meets all filters on tumors, as `--where` has it; the
table then shows the largest tumor that meets them, else the largest. Histograms of tumors count the tumors that meet
the filters; each leaves its own filter out, so that what else could be chosen stays visible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.explore.facts import Facts, Names
from pipeline.explore.filters import Filters, marks
from pipeline.explore.kept import Kept
from pipeline.where import Marks, Matches, Positions

Where = Callable[[str], Matches]
_MOST_NAMES = 60  # in one histogram; the most frequent ones, there may be thousands of cases
_KEPT = 8


@dataclass(frozen=True)
class _Met:
    """What meets some filters: `samples` as far as those on samples go; `tumors` None without a filter on tumors."""

    samples: Marks
    tumors: Marks | None

    def both(self, other: _Met) -> _Met:
        if self.tumors is None or other.tumors is None:
            tumors = self.tumors if other.tumors is None else other.tumors
        else:
            tumors = self.tumors & other.tumors
        return _Met(self.samples & other.samples, tumors)


class Selection:
    """Samples by filters; what was asked for last is kept. Any thread may ask."""

    def __init__(self, facts: Facts, where: Where) -> None:
        self._facts, self._where = facts, where
        self._found: Kept[Positions] = Kept(_KEPT)
        self._ordered: Kept[Positions] = Kept(_KEPT)
        self._expressions: Kept[_Met] = Kept(_KEPT)
        self._tumors: Kept[Positions] = Kept(_KEPT)
        self._by_size = _by_size(facts)

    def positions(self, filters: Filters) -> Positions:
        """The samples that meet the filters, ascending."""
        return self._found.get(filters.key, lambda: np.flatnonzero(self._samples(self._met(filters))))

    def by_tumor(self, filters: Filters) -> bool:
        """Whether the filters choose among tumors, so that the table shows one that meets them."""
        return self._met(filters).tumors is not None

    def _samples(self, met: _Met) -> Marks:
        """Marks on the samples that meet the filters, of tumors by at least one."""
        if met.tumors is None:
            return met.samples
        touched = np.zeros(self._facts.samples, bool)
        touched[self._facts.parents[met.tumors]] = True
        return touched & met.samples

    def _met(self, filters: Filters) -> _Met:
        samples, tumors = np.ones(self._facts.samples, bool), None
        for name, choice in filters.choices.items():
            fact = self._facts.facts[name]
            met = marks(fact, choice)
            if fact.level == "sample":
                samples &= met
            else:
                tumors = met if tumors is None else tumors & met
        chosen = _Met(samples, tumors)
        return chosen.both(self._by_expression(filters.where)) if filters.where else chosen

    def _by_expression(self, where: str) -> _Met:
        """What meets the user's own expression."""
        return self._expressions.get(where, lambda: self._evaluated(where))

    def _evaluated(self, where: str) -> _Met:
        found = self._where(where)
        samples = np.zeros(self._facts.samples, bool)
        samples[found.rows] = True
        return _Met(samples, found.tumors)

    def ordered(self, filters: Filters, sort: str) -> Positions:
        """The samples in the order of a column of the table; `-name` descending, unknown values last."""
        return self._ordered.get((filters.key, sort), lambda: self._order(filters, sort))

    def _order(self, filters: Filters, sort: str) -> Positions:
        name, falling = sort.removeprefix("-"), sort.startswith("-")
        found = self.positions(filters)
        if name == "index":
            return found[::-1] if falling else found
        values = self._column(name, filters).astype(np.float64)[found]
        return found[np.argsort(-values if falling else values, kind="stable")]

    def _column(self, name: str, filters: Filters) -> npt.NDArray[Any]:
        """Numbers that order the samples by a column; of tumors those of the one that the table shows."""
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
        shown = self._shown(filters)
        return np.where(shown >= 0, values[shown], np.nan)

    def _shown(self, filters: Filters) -> Positions:
        """Of each sample the largest tumor that meets the filters, by place among all tumors; -1 without one."""
        return self._tumors.get(filters.key, lambda: self._largest(self._met(filters).tumors))

    def _largest(self, met: Marks | None) -> Positions:
        order = self._by_size if met is None else self._by_size[met[self._by_size]]
        largest = np.full(self._facts.samples, -1, np.int64)
        largest[self._facts.parents[order]] = order  # the last one that is written stays
        return largest

    def row(self, position: int, filters: Filters) -> dict[str, Any]:
        """One line of the table; `tumor`: which of the sample's tumors it shows, None without one."""
        at = int(self._shown(filters)[position])
        first = int(np.searchsorted(self._facts.parents, position))
        shown: dict[str, Any] = {"index": int(self._facts.ids[position]), "tumor": None if at < 0 else at - first}
        for name, fact in self._facts.facts.items():
            place = position if fact.level == "sample" else at
            shown[name] = None if place < 0 else _value(fact, place)
        return shown | {name: _plain(values[position]) for name, values in self._facts.extra.items()}

    def charts(self, filters: Filters) -> dict[str, Any]:
        """How often each name or range of each fact occurs among what meets the other filters."""
        return {name: self._chart(name, filters.without(name)) for name in self._facts.facts}

    def _chart(self, name: str, others: Filters) -> dict[str, Any]:
        fact, met = self._facts.facts[name], self._met(others)
        if fact.level == "sample":
            counted = self._samples(met)
        else:
            counted = met.samples[self._facts.parents]
            counted = counted if met.tumors is None else counted & met.tumors
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


def _by_size(facts: Facts) -> Positions:
    """All tumors by their diameter, ascending; where it is not known, first."""
    diameter = facts.facts.get("diameter_mm")
    if diameter is None or isinstance(diameter, Names):
        return np.zeros(0, np.int64)
    return np.argsort(np.nan_to_num(diameter.values, nan=-np.inf), kind="stable")


def _value(fact: Any, place: int) -> Any:
    return fact.names[fact.codes[place]] if isinstance(fact, Names) else _plain(fact.values[place])


def _plain(value: Any) -> int | float | None:
    """A number as JSON has it; NaN becomes null."""
    number = value.item()
    return None if number != number else number
