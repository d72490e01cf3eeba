"""What the page's user chose to see, as a record, as a `--where` expression, and as marks on the facts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError
from pipeline.explore.facts import Facts, Names, Numbers

Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` on and below `high`; infinite where open."""

    low: float
    high: float


Choice = frozenset[str] | Range


@dataclass(frozen=True)
class Filters:
    """A choice for each of some facts, all of which must hold, and an expression of the user's own."""

    choices: Mapping[str, Choice]
    where: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal filters, and hashable."""
        return (frozenset(self.choices.items()), self.where)

    def without(self, name: str) -> Filters:
        """These but for the choice of one fact: what its own histogram counts."""
        return Filters({k: v for k, v in self.choices.items() if k != name}, self.where)


def parse_filters(facts: Facts, pairs: Sequence[tuple[str, str]]) -> Filters:
    """From the parameters of an address: `kind=hcc&kind=cyst&diameter_mm=5..10&where=...`; others are not looked at."""
    choices: dict[str, Choice] = {}
    for name, fact in facts.facts.items():
        given = [value for key, value in pairs if key == name]
        if given:
            choices[name] = _names(name, fact, given) if isinstance(fact, Names) else _range(name, given)
    return Filters(choices, next((value.strip() for key, value in pairs if key == "where"), ""))


def _names(name: str, fact: Names, given: Sequence[str]) -> frozenset[str]:
    unknown = sorted(set(given) - set(fact.names))
    if unknown:
        raise InputError(f"{name}={unknown[0]}: nothing here has that; reset the filters")
    return frozenset(given)


def _range(name: str, given: Sequence[str]) -> Range:
    low, dots, high = given[0].partition("..")
    try:
        found = Range(float(low or -math.inf), float(high or math.inf))
    except ValueError:
        found = Range(math.nan, math.nan)
    if not dots or len(given) > 1 or given[0] == ".." or not found.low < found.high:
        raise InputError(f"{name}={given[0]}: a range is written 5..10, 5.. or ..10; reset the filters")
    return found


def expression(facts: Facts, filters: Filters) -> str:
    """The filters as `--where` takes them; empty without any."""
    terms = [_term(name, facts.facts[name], choice) for name, choice in filters.choices.items()]
    if filters.where:
        terms.insert(0, f"({filters.where})" if terms else filters.where)
    return " and ".join(term for term in terms if term)


def _term(name: str, fact: Names | Numbers, choice: Choice) -> str:
    if isinstance(choice, Range):
        low = f"{name} >= {choice.low:.12g}" if math.isfinite(choice.low) else ""
        high = f"{name} < {choice.high:.12g}" if math.isfinite(choice.high) else ""
        return " and ".join(part for part in (low, high) if part)
    quoted = isinstance(fact, Names) and fact.quoted
    values = [repr(value) if quoted else value for value in sorted(choice)]
    return f"{name} = {values[0]}" if len(values) == 1 else f"{name} in ({', '.join(values)})"


def marks(fact: Names | Numbers, choice: Choice) -> Marks:
    """Which rows of a fact meet its choice."""
    if isinstance(choice, Range):
        assert isinstance(fact, Numbers)
        above = fact.values >= choice.low if math.isfinite(choice.low) else np.isfinite(fact.values)
        return above & (fact.values < choice.high) if math.isfinite(choice.high) else above
    assert isinstance(fact, Names)
    wanted = np.array([name in choice for name in fact.names], bool)
    found: Marks = wanted[fact.codes]
    return found
