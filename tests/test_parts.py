"""Provenance of shards in a table: the same parts come out, and nothing that leads out of the dataset gets in."""

from __future__ import annotations

import base64
import dataclasses
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.parts import Part, Parts, check_claims
from pipeline.shard import FileDigest, object_path


def make_part(shard: int = 0, **changes: Any) -> Part:
    files = tuple(FileDigest(object_path(name), 100 + shard, f"{shard:064x}") for name in ("image", "label"))
    part = Part(shard, f"{shard:08x}", files, "ab" * 32, {"draw": 0.5 * shard}, "node", {"phantumor": "1", "pid": "7"})
    return dataclasses.replace(part, **changes)


def test_parts_come_out_as_they_went_in() -> None:
    wanted = {shard: make_part(shard) for shard in (0, 3, 7)}
    wanted[7] = make_part(7, files=(), timings_s={}, versions={})  # of a recipe
    for parts in (Parts.of(wanted.values()), Parts.unpack(Parts.of(wanted.values()).pack())):
        assert parts == wanted
        assert (list(parts), len(parts), 3 in parts, 4 in parts) == ([0, 3, 7], 3, True, False)
        assert parts.file_bytes == 100 + 100 + 103 + 103
        with pytest.raises(KeyError):
            parts[4]


def test_no_parts_are_parts() -> None:
    assert dict(Parts.unpack(Parts.of([]).pack())) == {}
    assert Parts.of([]).file_bytes == 0


def test_some_of_them_renumbered_and_joined() -> None:
    parts = Parts.of([make_part(0), make_part(3), make_part(7)])
    moved = parts.only(np.array([3, 7]), 10)
    assert moved == {shard + 10: dataclasses.replace(make_part(shard), shard=shard + 10) for shard in (3, 7)}
    assert list(Parts.joined([parts, moved])) == [0, 3, 7, 13, 17]
    with pytest.raises(ValueError, match="named twice"):
        Parts.joined([parts, parts])


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"attempt": "../../x"}, "not a hexadecimal name"),
    ({"attempt": "ab\n12345678"}, "not a hexadecimal name"),
    ({"attempt": "12345678\n"}, "not a hexadecimal name"),
    ({"files": [{"path": "../../x", "size": 1, "sha256": "0" * 64}]}, "not a shard object"),
    ({"files": [{"path": None, "size": 1, "sha256": "0" * 64}]}, "not a shard object"),
    ({"files": [{"path": object_path("image"), "size": -1, "sha256": "0" * 64}]}, "below 0"),
    ({"files": [{"path": object_path("image"), "size": 1, "sha256": "no"}]}, "no sha256"),
    ({"shard": -1}, "below 0"),
    ({"attempt": None}, "without number, attempt or files"),
    ({"files": None}, "without number, attempt or files"),
]


@pytest.mark.parametrize(("changes", "says"), BROKEN)
def test_broken_provenance_is_refused_before_it_is_used(changes: dict[str, Any], says: str) -> None:
    whole = pq.read_table(io.BytesIO(base64.b64decode(Parts.of([make_part(0), make_part(1)]).pack())))
    rows = whole.to_pylist()
    rows[1] |= changes
    with pytest.raises(ValueError, match=says):
        Parts(pa.Table.from_pylist(rows, schema=whole.schema))


@pytest.mark.parametrize("text", [b"", b"{}", b"!!!!", base64.b64encode(b"PAR1 no"), b"UEFSMQ=="])
def test_what_is_no_table_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Parts.unpack(text)


def test_a_table_of_something_else_is_refused() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"shard": [1]}), sink)
    with pytest.raises(ValueError, match="columns shard"):
        Parts.unpack(base64.b64encode(sink.getvalue()))


def test_a_file_that_claims_more_rows_than_bytes_is_refused() -> None:
    sink = io.BytesIO()
    pq.write_table(pa.table({"zeros": np.zeros(10**6, np.int8)}), sink, compression="zstd")
    size = len(sink.getvalue())
    with pytest.raises(ValueError, match=f"claims 1000000 rows in {size} bytes"):
        check_claims(pq.read_metadata(sink), size)
