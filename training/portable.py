"""Sources by their places, which other processes and machines can open."""

from __future__ import annotations

from dataclasses import replace

from pipeline.bank import Bank
from pipeline.catalog import Dataset
from pipeline.store import Location, absolute, open_store
from training.sources import Endless, Mixture, Source, Stored


def portable(source: Dataset | Location | Source) -> str | Source:
    """The same source by its place."""
    match source:
        case Stored(dataset=dataset):
            return replace(source, dataset=place_of(dataset))
        case Endless(bank=bank):
            return replace(source, bank=bank.place if isinstance(bank, Bank) else absolute(open_store(bank)))
        case Mixture(parts=parts):
            return Mixture([(portable(part), share) for part, share in parts])
        case _:
            return place_of(source)


def place_of(dataset: Dataset | Location) -> str:
    """The absolute path or URL of a dataset."""
    return absolute(dataset.store if isinstance(dataset, Dataset) else open_store(dataset))
