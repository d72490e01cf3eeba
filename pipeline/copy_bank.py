"""Copying a bank: case by case, each in the copy when its row is, as when it was prepared."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping

import pyarrow.parquet as pq

from pipeline.bank import Bank, open_bank
from pipeline.bank_format import CASES, INFO, TABLE, CaseRecord, chunk_key, table_of
from pipeline.errors import InputError
from pipeline.files import writing_to
from pipeline.sending import ELSEWHERE, RESUME, Copied, Parcel, Sender, check_free
from pipeline.store import Store
from pipeline.threads import in_threads


def copy_bank(here: Store, there: Store) -> Copied:
    """Copy what an earlier copy has not; InputError when another bank lies there."""
    bank = open_bank(here.url)
    held = _held_cases(there, bank)
    ours, theirs = ({e.key: e.size for e in store.entries(CASES)} for store in (here, there))
    parcels = {record.case_id: _case_parcels(record, ours) for record in bank.records}
    todo = [
        record
        for record in bank.records
        if record.case_id not in held or any(theirs.get(p.key) != p.size for p in parcels[record.case_id])
    ]
    sender = Sender(here, there, [parcel for record in todo for parcel in parcels[record.case_id]])
    with writing_to(there.url, RESUME):
        if not held:
            there.replace(INFO, sender.fetch(INFO))
        for record in todo:
            for _ in in_threads(sender.send, parcels[record.case_id], sender.threads):
                pass
            there.settle(f"{CASES}/{record.case_id}.zarr")
            held |= {record.case_id: record}
            there.replace(TABLE, _table(held.values()))
        there.replace(TABLE, _table(bank.records))  # splits may have changed since an earlier copy
    sender.end()
    return Copied("bank", len(bank.records), len(todo), sender.bytes)


def _case_parcels(record: CaseRecord, sizes: Mapping[str, int]) -> list[Parcel]:
    """Metadata and arrays of a case."""
    group = f"{CASES}/{record.case_id}.zarr"
    metadata = [k for k in sizes if k.startswith(f"{group}/") and k.endswith("/zarr.json")]
    digests = {f"{group}/{chunk_key(n, len(a.shape))}": a.sha256 for n, a in record.arrays.items()}
    return [Parcel(key, sizes.get(key, 0), digests.get(key)) for key in (*metadata, *digests)]


def _held_cases(there: Store, bank: Bank) -> dict[str, CaseRecord]:
    """The cases of an earlier copy; InputError when it is no copy of this bank."""
    if not there.exists(INFO):
        check_free(there)
        return {}
    if not there.exists(TABLE):  # an earlier copy, or `prepare`, got no further
        return {}
    other = open_bank(there.url)
    if abs(other.spacing_mm - bank.spacing_mm) > 1e-6:
        raise InputError(f"{there.url}: a bank of {other.spacing_mm:g} mm, not {bank.spacing_mm:g} mm; {ELSEWHERE}")
    ours = {record.case_id: record.arrays for record in bank.records}
    for record in other.records:
        if ours.get(record.case_id) != record.arrays:
            what = "another state of" if record.case_id in ours else "besides"
            raise InputError(f"{there.url}: a bank that holds {what} case {record.case_id!r}; {ELSEWHERE}")
    return {record.case_id: record for record in other.records}


def _table(records: Iterable[CaseRecord]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table_of(list(records)), sink, compression="zstd")
    return sink.getvalue()
