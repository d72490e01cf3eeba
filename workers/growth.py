"""Beginning a dataset, and making one larger: what was made stays byte for byte, new samples come in new shards.

`growth/000001.json` is created before the first growth, 000002 before the second: of two commands that would make a
dataset larger in different ways, one wins. `dataset.json` then tells readers.
"""

from __future__ import annotations

import json

from pipeline.catalog import has_bank
from pipeline.description import INFO, DatasetInfo, check_same, create_info, info_bytes, read_info
from pipeline.errors import InputError
from pipeline.files import writing_to
from pipeline.store import Store
from workers.plan import Plan


def planned(store: Store, new: DatasetInfo) -> DatasetInfo:
    """What the dataset shall be, from the one that is there (if any) and the settings asked for; writes nothing.

    InputError when the dataset there is another one, or larger.
    """
    if _is_new(store):
        return new
    old = read_info(store)
    if old.sources:
        raise InputError(f"{store.url} is a view of other datasets; generate into a folder of its own")
    samples = new.config.samples
    check_same(store, _larger(old, samples), new)
    if samples < old.config.samples:
        raise InputError(
            f"{store.url} already holds a dataset made with other settings: samples: {old.config.samples} -> "
            f"{samples}. A dataset can grow, not shrink: `phantumor select` makes a smaller view of it"
        )
    if not has_bank(store, old):  # the bank was moved: its fingerprint is that of the one given
        old = old.model_copy(update={"bank": new.bank})
    return old if samples == old.config.samples else _grown(old, samples)


def _larger(info: DatasetInfo, samples: int) -> DatasetInfo:
    return info.model_copy(update={"config": info.config.model_copy(update={"samples": samples})})


def _grown(old: DatasetInfo, samples: int) -> DatasetInfo:
    """The dataset after one more growth."""
    grown = (*old.grown, old.config.samples)
    shards = Plan(samples, old.config.shard_samples, grown).shards
    return _larger(old, samples).model_copy(update={"grown": grown, "shards": shards})


def _totals(info: DatasetInfo) -> tuple[int, ...]:
    """How many samples it held when it was made, and after each growth."""
    return (*info.grown, info.config.samples)


def begin(store: Store, info: DatasetInfo) -> None:
    """Write `dataset.json`, or the growth and the new `dataset.json`; harmless when that was done already.

    InputError when the dataset has grown in another way since it was planned.
    """
    with writing_to(store.url, "Choose another --out, or mend the disk"):
        if _is_new(store):
            create_info(store, info)
            return
        old, new = read_info(store), _totals(info)
        if _totals(old)[: len(new)] == new:
            if _totals(old) == new and old.bank != info.bank:
                store.replace(INFO, info_bytes(old.model_copy(update={"bank": info.bank})))
            return  # it is that large, or larger by now: what was planned is a part of it
        if _totals(old) != new[:-1]:
            raise InputError(f"{store.url} has grown to {old.config.samples} samples in the meantime; run it again")
        _claim(store, len(info.grown), info.config.samples)
        _write_growth(store, info)


def _write_growth(store: Store, info: DatasetInfo) -> None:
    """Write `dataset.json`, and again for each later growth: another command may have written that before us."""
    store.replace(INFO, info_bytes(info))
    later = _growth_name(len(info.grown) + 1)
    if store.exists(later):
        _write_growth(store, _grown(info, int(json.loads(store.read(later))["samples"])))


def _growth_name(number: int) -> str:
    return f"growth/{number:06d}.json"


def _claim(store: Store, number: int, samples: int) -> None:
    """Be the one growth of that number, or find that it is the same one."""
    key, wanted = _growth_name(number), {"samples": samples}
    if not store.create(key, json.dumps(wanted).encode()):
        found = json.loads(store.read(key))
        if found != wanted:
            raise InputError(
                f"{store.url}: another command makes it grow to {found.get('samples')} samples; use that number, or "
                "grow it further when that is done"
            )


def _is_new(store: Store) -> bool:
    """Whether nothing is there yet; InputError when something else lies where a dataset would be made."""
    if store.exists(INFO):
        return False
    if store.is_free():
        return True
    if store.exists(INFO):  # made just now by another job of the same array
        return False
    raise InputError(f"{store.url} exists and is not a dataset; choose an empty or new folder for --out")
