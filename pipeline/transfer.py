"""Copying a bank or a dataset from one place to another, disk or object store.

A copy that was cut off is a smaller bank, or a dataset that is not complete; the same command goes on.
"""

from __future__ import annotations

import time
from dataclasses import replace

from pipeline import bank_format, description
from pipeline.copy_bank import copy_bank
from pipeline.copy_dataset import copy_dataset
from pipeline.errors import InputError
from pipeline.sending import Copied
from pipeline.store import Location, Store, absolute, open_store


def copy(source: Location, destination: Location, bank: Location | None = None) -> Copied:
    """Copy a bank or a dataset. What is there already is kept; another bank or dataset there is refused.

    `bank` is where the copied dataset shall look for its bank. By default, where a copy of its bank lies to it as the
    bank lies to the source, else where the source looks. InputError when things do not fit together.
    """
    started = time.monotonic()
    here, there = open_store(source), open_store(destination)
    _check_apart(here, there)
    if here.exists(description.INFO):
        done = copy_dataset(here, there, bank)
    elif here.exists(bank_format.INFO):
        if bank is not None:
            raise InputError(f"--bank {bank}: {here.url} is a bank itself; --bank is for copies of datasets")
        done = copy_bank(here, there)
    else:
        raise InputError(f"{here.url}: neither a bank nor a dataset: no {bank_format.INFO}, no {description.INFO}")
    return replace(done, seconds=time.monotonic() - started)


def _check_apart(here: Store, there: Store) -> None:
    ours, theirs = f"{absolute(here)}/", f"{absolute(there)}/"
    if ours.startswith(theirs) or theirs.startswith(ours):
        raise InputError(f"{there.url}: a copy cannot lie at, in or around {here.url}; give another place")
