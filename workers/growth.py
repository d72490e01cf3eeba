"""Beginning a dataset, and making one larger: what was made stays byte for byte, new samples come in new shards.

`growth/000001.json` is created before the first growth, 000002 before the second: of two commands that would make a
dataset larger in different ways, one wins. `dataset.json` then tells readers.
"""

from __future__ import annotations

import json
import re

from pipeline.catalog import INFO, DatasetInfo, check_same, create_info, info_bytes, read_info
from pipeline.errors import InputError
from pipeline.files import writing_to
from pipeline.store import Store
from workers.plan import Plan

_INFO_ASIDE = re.compile(rf"\.{re.escape(INFO)}\.[0-9a-f]{{8}}\.tmp")  # of a command that was killed, or is at it


def planned(store: Store, new: DatasetInfo) -> DatasetInfo:
    """What the dataset shall be, from the one that is there (if any) and the settings asked for; writes nothing.

    InputError when the dataset there is another one, or larger.
    """
    if not store.exists(INFO):
        _check_free(store)
        return new
    old = read_info(store)
    if old.sources:
        raise InputError(f"{store.url} is a view of other datasets; generate into a folder of its own")
    samples = new.config.samples
    same_but_larger = old.model_copy(update={"config": old.config.model_copy(update={"samples": samples})})
    check_same(store, same_but_larger, new)
    if samples < old.config.samples:
        raise InputError(
            f"{store.url} already holds a dataset made with other settings: samples: {old.config.samples} -> "
            f"{samples}. A dataset can grow, not shrink: `phantumor select` makes a smaller view of it"
        )
    if samples == old.config.samples:
        return old
    grown = (*old.grown, old.config.samples)
    plan = Plan(samples, old.config.shard_samples, grown)
    return same_but_larger.model_copy(update={"grown": grown, "shards": plan.shards})


def begin(store: Store, info: DatasetInfo) -> None:
    """Write `dataset.json`, or the growth and the new `dataset.json`; harmless when that was done already."""
    with writing_to(store.url, "Choose another --out, or mend the disk"):
        if not store.exists(INFO):
            _check_free(store)
            create_info(store, info)
            return
        old = read_info(store)
        if old.config.samples == info.config.samples:
            return
        _claim(store, len(info.grown), info.config.samples)
        store.replace(INFO, info_bytes(info))


def _claim(store: Store, number: int, samples: int) -> None:
    """Be the one growth of that number, or find that it is the same one."""
    key, wanted = f"growth/{number:06d}.json", {"samples": samples}
    if not store.create(key, json.dumps(wanted).encode()):
        found = json.loads(store.read(key))
        if found != wanted:
            raise InputError(
                f"{store.url}: another command makes it grow to {found.get('samples')} samples; use that number, or "
                "grow it further when that is done"
            )


def _check_free(store: Store) -> None:
    """InputError when something else lies where a dataset would be made."""
    held = next(store.entries(), None) if store.folder is None else _anything(store)
    if held:
        raise InputError(f"{store.url} exists and is not a dataset; choose an empty or new folder for --out")


def _anything(store: Store) -> object:
    folder = store.folder
    if folder is not None and folder.exists() and not folder.is_dir():
        return folder
    if folder is None or not folder.is_dir():
        return None
    return next((path for path in folder.iterdir() if not _INFO_ASIDE.fullmatch(path.name)), None)
