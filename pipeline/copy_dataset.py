"""Copying a dataset: its description first, then shard by shard, each committed by its part file, at last the manifest.

So the copy is at any time a dataset that could have been made there, and is not complete yet.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from pipeline.bank import open_bank
from pipeline.catalog import Dataset, compact, has_bank, open_dataset
from pipeline.description import INFO, DatasetInfo, info_bytes, read_info
from pipeline.errors import InputError, PhantumorError
from pipeline.files import writing_to
from pipeline.manifest import WHOLE, Part, open_part, open_whole, part_name, shard_name
from pipeline.sending import ELSEWHERE, RESUME, Copied, Parcel, Sender, check_free
from pipeline.settings import differences
from pipeline.shard import DTYPES
from pipeline.store import Location, Store, absolute, open_store, relative_place, store_at
from pipeline.threads import in_threads

_PIXELS = ("index", "image_crc32c", "label_crc32c")
_NOTES = ("failures", "runs")  # when and how it was made


def copy_dataset(here: Store, there: Store, bank: Location | None) -> Copied:
    """Copy what an earlier copy has not; InputError when another dataset lies there."""
    dataset = open_dataset(here)
    if dataset.info.sources:
        places = ", ".join(dict.fromkeys(home.store.url for home in dataset.homes))
        raise InputError(f"{here.url} is a view of {places}: copy those, and make the view again from the copies")
    held = _held_parts(there, dataset.info)
    info = dataset.info.model_copy(update={"bank": _bank_place(here, there, dataset.info, bank)})
    theirs = {e.key: e.size for e in there.entries("shards")} if held else {}
    _check_pixels(here, there, [part for shard, part in held.items() if _is_other(part, dataset.parts.get(shard))])
    todo = [part for shard, part in sorted(dataset.parts.items()) if not _is_whole(held.get(shard), theirs)]
    broken = [held[part.shard] for part in todo if part.shard in held and _is_other(held[part.shard], part)]
    sender = Sender(here, there, [parcel for part in todo for parcel in _shard_parcels(part)])
    with writing_to(there.url, RESUME):
        _describe(here, there, sender, info)
        _withdraw(there, broken)
        for _ in in_threads(lambda part: _send_shard(here, there, sender, part), todo, sender.threads):
            pass
        if dataset.complete:
            _complete(here, there, sender, dataset)
    sender.end()
    return Copied("dataset", info.shards, len(todo), sender.bytes, bank=info.bank, note=_note(dataset, there, info))


def _note(dataset: Dataset, there: Store, info: DatasetInfo) -> str:
    if not dataset.complete:
        return f"the source holds {len(dataset.parts)} of {info.shards} shards yet: run this again when it has them all"
    if there.folder is None and "://" not in info.bank:
        return "that is on this machine: copy the bank as well, then run this again with --bank PLACE"
    return ""


def _held_parts(there: Store, info: DatasetInfo) -> Mapping[int, Part]:
    """The shards that an earlier copy, or `generate`, committed there; InputError when it is another dataset."""
    if not there.exists(INFO):
        check_free(there)
        return {}
    _check_same(there, read_info(there), info)
    return open_dataset(there).parts


def _check_same(there: Store, other: DatasetInfo, info: DatasetInfo) -> None:
    """InputError unless the dataset there is this one, or what it was before it grew."""
    before, now = ((*one.grown, one.config.samples) for one in (other, info))
    was = info.config.model_copy(update={"samples": other.config.samples})
    theirs, ours = (
        {"config": config.model_dump(mode="json"), "bank": one.bank_fingerprint, "view": bool(one.sources)}
        for one, config in ((other, other.config), (info, was))
    )
    changed = differences(theirs, ours)
    if not changed and before != now[: len(before)]:
        changed = [f"samples: {before[-1]} -> {now[-1]}, grown in other steps"]
    if changed:
        raise InputError(f"{there.url} holds another dataset: {'; '.join(changed)}; {ELSEWHERE}")


def _is_other(held: Part, part: Part | None) -> bool:
    """Whether a shard there was not copied from this one, but made there, or from what this one was before."""
    return part is not None and held.attempt != part.attempt


def _check_pixels(here: Store, there: Store, others: Sequence[Part]) -> None:
    """InputError unless what was made there are the same samples: other software may come to other pixels."""

    def same(part: Part) -> bool:
        a, b = (open_part(store, part.shard).columns(_PIXELS) for store in (here, there))
        return bool(a.equals(b))

    for part, fits in zip(others, in_threads(same, others), strict=True):
        if not fits:
            raise InputError(
                f"{there.url}: its shard {part.shard} was made to other pixels than that of {here.url} (other "
                f"software, or it was made again since); {ELSEWHERE}, or remove {WHOLE} and {part_name(part.shard)} "
                "there to have it replaced"
            )


def _is_whole(held: Part | None, sizes: Mapping[str, int]) -> bool:
    """Whether a shard lies there with all its bytes, and so need not be copied."""
    return held is not None and all(sizes.get(p.key) == p.size for p in _shard_parcels(held))


def _withdraw(there: Store, broken: Sequence[Part]) -> None:
    """Take back the commits of shards that lack bytes, and remove the rest of their files."""
    if not broken:
        return
    there.remove([WHOLE])
    there.remove([part_name(part.shard) for part in broken])
    there.settle("manifest")  # before the files go: what names them must not come back after a power cut
    for part in broken:
        there.remove_group(shard_name(part.shard, part.attempt))


def _shard_parcels(part: Part) -> list[Parcel]:
    """The data objects of a shard; a recipe's has none."""
    group = shard_name(part.shard, part.attempt)
    return [Parcel(f"{group}/{file.path}", file.size, file.sha256) for file in part.files]


def _describe(here: Store, there: Store, sender: Sender, info: DatasetInfo) -> None:
    """Say first what the dataset is: nobody else begins another one there, and what is cut off can be told apart."""
    if not there.create(INFO, info_bytes(info)):
        other = read_info(there)
        _check_same(there, other, info)
        if other != info:
            there.replace(INFO, info_bytes(info))
    for entry in here.entries("growth"):
        there.create(entry.key, sender.fetch(entry.key))
    for notes in _NOTES:
        held = {entry.key: entry.size for entry in there.entries(notes)}
        for entry in here.entries(notes):
            if held.get(entry.key) != entry.size:
                there.replace(entry.key, sender.fetch(entry.key))


def _send_shard(here: Store, there: Store, sender: Sender, part: Part) -> None:
    group = shard_name(part.shard, part.attempt)
    names = ("zarr.json", *(f"{name}/zarr.json" for name in DTYPES)) if part.files else ()
    for parcel in (*_shard_parcels(part), *(Parcel(f"{group}/{name}", 0) for name in names)):
        sender.send(parcel)
    if part.files:
        there.settle(group)
    rows = sender.fetch(part_name(part.shard))
    if open_part(here, part.shard).part() != part:
        raise InputError(f"{here.url}: shard {part.shard} was made anew while it was copied; copy again")
    if not there.create(part_name(part.shard), rows) and open_part(there, part.shard).part().attempt != part.attempt:
        there.remove_group(group)  # `generate` made it there in the meantime


def _complete(here: Store, there: Store, sender: Sender, dataset: Dataset) -> None:
    """Write the whole manifest: the source's where it names the shards that are there, else a new one."""
    copied = open_dataset(there)
    if there.exists(WHOLE) and open_whole(there).parts() == copied.parts:
        return
    if here.exists(WHOLE) and open_whole(here).parts() == dataset.parts == copied.parts:
        there.replace(WHOLE, sender.fetch(WHOLE))
    else:
        compact(there)


# ---- where a dataset finds its bank ----


def _bank_place(here: Store, there: Store, info: DatasetInfo, chosen: Location | None) -> str:
    """What `dataset.json` of the copy says of the bank; InputError when the one that was chosen is another one."""
    default = relative_place(store_at(info.bank, here), there)
    if chosen is not None:
        fingerprint = open_bank(chosen).fingerprint
        if fingerprint != info.bank_fingerprint:
            raise InputError(
                f"--bank {chosen}: not the bank that {here.url} was made from: fingerprint {fingerprint[:12]}, "
                f"not {info.bank_fingerprint[:12]}"
            )
        return relative_place(open_store(chosen), there)
    said = read_info(there).bank if there.exists(INFO) else default
    if said != default and has_bank(there, info.model_copy(update={"bank": said})):
        return said  # was chosen for an earlier copy
    beside = _beside(absolute(store_at(info.bank, here)), absolute(here), absolute(there))
    if beside and _is_bank(beside, info.bank_fingerprint):
        return relative_place(open_store(beside), there)
    return default


def _beside(bank: str, here: str, there: str) -> str:
    """The place that lies to `there` as `bank` lies to `here`; empty where nothing does."""
    (of_bank, bank_path), (of_here, here_path), (of_there, there_path) = (
        _split(place) for place in (bank, here, there)
    )
    if of_bank != of_here:
        return ""
    return of_there + posixpath.normpath(posixpath.join(there_path, posixpath.relpath(bank_path, here_path)))


def _split(place: str) -> tuple[str, str]:
    """The bucket, empty for disks, and the path in it, from its root."""
    if "://" not in place:
        return "", place
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    return f"s3://{bucket}", f"/{prefix}"


def _is_bank(place: str, fingerprint: str) -> bool:
    try:
        return open_bank(place).fingerprint == fingerprint
    except (PhantumorError, OSError):
        return False
