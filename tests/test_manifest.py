"""The manifest: its schema, the commit that happens once, and damage that is told apart from data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import manifest, whole_manifest
from pipeline.errors import InputError
from pipeline.manifest import (
    SCHEMA,
    TUMOR_TYPE,
    WHOLE,
    Part,
    commit_part,
    committed_shards,
    open_whole,
    part_name,
    read_part,
    sample_id,
    shard_name,
)
from pipeline.shard import FileDigest
from pipeline.store import open_store
from pipeline.whole_manifest import write_whole_manifest

# The format as users know it; a change is a new version.
COLUMNS = (
    "sample_id index split case_id shard row organs spacing_mm shape_vox origin_vox affine n_tumors tumor_voxels "
    "image_crc32c label_crc32c image_range label_range annotated_classes series_id time_days generator spec "
    "tumors"
).split()
TUMOR_FIELDS = (
    "instance organ kind center_mm diameter_mm recist_long_mm recist_short_mm volume_mm3 mean_hu parenchyma_hu "
    "contrast_hu bbox_vox vessel_distance_mm surface_distance_mm"
).split()


def make_part(shard: int = 0, attempt: str = "0123abcd") -> Part:
    files = (FileDigest("image/c/0/0/0/0", 123, "ab" * 32), FileDigest("label/c/0/0/0/0", 45, "cd" * 32))
    versions = {"phantumor": "0.1.0", "numpy": "2.0"}
    return Part(shard, attempt, files, "ef" * 32, {"encode": 0.25, "write": 1.5}, "node-7", versions)


def make_row(index: int, shard: int = 0, row: int = 0, tumors: int = 1) -> dict[str, Any]:
    """A row with a value in every column; the values are of no sample."""
    diameter = 5.5 + index
    tumor: dict[str, Any] = dict.fromkeys(TUMOR_TYPE.names, diameter)
    tumor |= {"organ": "liver", "kind": "hcc", "center_mm": [1.0, -2.0, 3.0], "bbox_vox": [1, 2, 3, 4, 5, 6]}
    return {
        "sample_id": sample_id(index),
        "index": index,
        "split": "train",
        "case_id": f"case-{index % 3}",
        "shard": shard,
        "row": row,
        "organs": ["liver"],
        "spacing_mm": 1.0,
        "shape_vox": [8, 9, 10],
        "origin_vox": [-4, 0, 17],
        "affine": [float(k) for k in range(16)],
        "n_tumors": tumors,
        "tumor_voxels": 100 * tumors,
        "image_crc32c": 2**32 - 1 - index,
        "label_crc32c": index,
        "image_range": [1000 * row, 1000],
        "label_range": [100 * row, 100],
        "annotated_classes": [0, 1, 2],
        "series_id": index // 3,
        "time_days": 90.0 * (index % 3),
        "generator": "tests",
        "spec": json.dumps({"index": index}),
        "tumors": [tumor | {"instance": k + 1} for k in range(tumors)],
    }


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    (tmp_path / "manifest").mkdir()
    return tmp_path


# -- schema -----------------------------------------------------------------------------------------------------------


def test_the_columns_are_those_of_the_format() -> None:
    assert SCHEMA.names == COLUMNS
    assert set(TUMOR_FIELDS) <= set(TUMOR_TYPE.names)
    assert SCHEMA.field("tumors").type == pa.list_(TUMOR_TYPE)


def test_rows_come_back_as_they_went_in(dataset: Path) -> None:
    rows = [make_row(k, row=k, tumors=k) for k in range(4)]
    assert commit_part(open_store(dataset), make_part(), rows)
    _, table = read_part(open_store(dataset), 0)
    assert table.schema.equals(SCHEMA)
    assert table.schema.metadata == SCHEMA.metadata
    assert table.to_pylist() == rows


def test_any_parquet_reader_opens_a_part(dataset: Path) -> None:
    commit_part(open_store(dataset), make_part(), [make_row(3)])
    assert pq.ParquetFile(dataset / part_name(0)).read().column("index").to_pylist() == [3]


def test_names_on_disk_are_fixed() -> None:
    assert sample_id(42) == "s000000042"
    assert part_name(42) == "manifest/000042.parquet"
    assert shard_name(42, "0123abcd") == "shards/000042-0123abcd.zarr"


# -- commit -----------------------------------------------------------------------------------------------------------


def test_provenance_comes_back_as_it_went_in(dataset: Path) -> None:
    part = make_part(7)
    commit_part(open_store(dataset), part, [make_row(0, shard=7)])
    assert read_part(open_store(dataset), 7)[0] == part


def test_the_second_attempt_at_a_shard_loses(dataset: Path) -> None:
    first, second = make_part(attempt="11111111"), make_part(attempt="22222222")
    assert commit_part(open_store(dataset), first, [make_row(0)])
    assert not commit_part(open_store(dataset), second, [make_row(0)])
    assert read_part(open_store(dataset), 0)[0] == first


def test_of_two_attempts_at_once_one_wins(dataset: Path) -> None:
    parts = [make_part(attempt=str(k) * 8) for k in range(2)]
    together = Barrier(2)

    def commit(part: Part) -> bool:
        together.wait()
        return commit_part(open_store(dataset), part, [make_row(0)])

    with ThreadPoolExecutor(2) as threads:
        won = list(threads.map(commit, parts))
    assert sorted(won) == [False, True]
    assert read_part(open_store(dataset), 0)[0] == parts[won.index(True)]
    assert [path.name for path in (dataset / "manifest").iterdir()] == ["000000.parquet"]


@pytest.mark.parametrize(
    "attempt",
    ["../x", "/abs", "../../../12345678", "1234567", "", "a" * 33, "ABCDEF12", "0123456g", "01234567\n", "0123/567"],
)
def test_an_attempt_whose_name_is_no_plain_name_is_refused(attempt: str) -> None:
    with pytest.raises(ValueError, match="not a hexadecimal name"):
        make_part(attempt=attempt)


def test_committed_shards_are_the_part_files_in_the_order_of_their_numbers(dataset: Path) -> None:
    for name in ("000010", "000009", "1000000", "999999", "000000"):
        (dataset / "manifest" / f"{name}.parquet").touch()
    for other in (".000011.parquet.ab12.tmp", "000012.parquet.tmp", "12.parquet", "notes.txt", "x00013.parquet"):
        (dataset / "manifest" / other).touch()
    assert committed_shards(open_store(dataset)) == [0, 9, 10, 999999, 1000000]


def test_a_dataset_without_parts_has_no_committed_shard(tmp_path: Path) -> None:
    assert committed_shards(open_store(tmp_path)) == []


# -- the whole manifest -----------------------------------------------------------------------------------------------


def write_whole(dataset: Path, shards: int, per_shard: int = 3) -> Path:
    parts = []
    for shard in range(shards):
        rows = [make_row(shard * per_shard + k, shard, k, tumors=k) for k in range(per_shard)]
        commit_part(open_store(dataset), make_part(shard, f"{shard:08x}"), rows)
        parts.append(read_part(open_store(dataset), shard))
    write_whole_manifest(open_store(dataset), parts)
    return dataset / WHOLE


def test_the_whole_manifest_holds_all_rows_by_index_and_all_provenance(dataset: Path) -> None:
    file = open_whole(open_store(write_whole(dataset, 11).parent))
    parts, table = file.parts(), file.columns()
    assert table["index"].to_pylist() == list(range(33))
    assert table.to_pylist() == [
        row for shard in range(11) for row in read_part(open_store(dataset), shard)[1].to_pylist()
    ]
    assert parts == {shard: read_part(open_store(dataset), shard)[0] for shard in range(11)}
    assert table.schema.equals(SCHEMA)


def test_a_whole_manifest_is_written_bit_by_bit_and_one_that_is_cut_off_leaves_the_old_one(
    dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(whole_manifest, "_GROUP_ROWS", 3)
    before = write_whole(dataset, 2).read_bytes()
    sizes: list[int] = []

    def pieces() -> Iterator[tuple[Any, pa.Table]]:
        for shard in range(6):
            sizes.append(sum(file.stat().st_size for file in dataset.glob(".manifest.parquet.*.tmp")))
            yield read_part(open_store(dataset), shard % 2)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_whole_manifest(open_store(dataset), pieces())
    assert sizes[-1] > 0  # what was made lies beside it already, not in memory or another disk
    assert (dataset / "manifest.parquet").read_bytes() == before
    assert not list(dataset.glob(".*.tmp"))


def test_a_whole_manifest_may_be_empty(dataset: Path) -> None:
    file = open_whole(open_store(write_whole(dataset, 0).parent))
    parts, table = file.parts(), file.columns()
    assert parts == {}
    assert table.num_rows == 0


def test_the_same_parts_make_the_same_bytes(dataset: Path) -> None:
    before = write_whole(dataset, 2).read_bytes()
    write_whole_manifest(open_store(dataset), [read_part(open_store(dataset), shard) for shard in range(2)])
    assert (dataset / WHOLE).read_bytes() == before


def test_columns_and_rows_are_read_without_the_others(dataset: Path) -> None:
    write_whole(dataset, 11)
    file = open_whole(open_store(dataset))
    assert file.rows == 33
    assert file.columns(["index", "tumors.kind"]).to_pylist()[2] == {"index": 2, "tumors": [{"kind": "hcc"}] * 2}
    assert [file.row(k)["index"] for k in (0, 17, 32)] == [0, 17, 32]
    with pytest.raises(IndexError):
        file.row(33)


def test_rows_are_found_in_every_row_group(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole_manifest, "_GROUP_ROWS", 5)
    write_whole(dataset, 4)
    file = open_whole(open_store(dataset))
    assert pq.ParquetFile(dataset / WHOLE).metadata.num_row_groups == 2
    assert [file.row(k)["index"] for k in range(12)] == list(range(12))


# -- damage -----------------------------------------------------------------------------------------------------------


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def rewrite(change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        pq.write_table(change(pq.read_table(file, partitioning=None)), file)

    return damage


def metadata(**changes: bytes | None) -> Callable[[Path], None]:
    """Change or remove (None) entries of the Parquet metadata."""

    def change(table: pa.Table) -> pa.Table:
        new = table.schema.metadata | {f"phantumor.{name}".encode(): value for name, value in changes.items()}
        return table.replace_schema_metadata({name: value for name, value in new.items() if value is not None})

    return rewrite(change)


def part_document(**changes: Any) -> bytes:
    return json.dumps(make_part().to_json() | changes).encode()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (Path.unlink, "not a readable manifest file"),
    "empty": (empty, "not a readable manifest file"),
    "cut": (cut, "not a readable manifest file"),
    "of another format": (lambda file: file.write_text("index,split\n0,train\n"), "not a readable manifest file"),  # type: ignore[dict-item, return-value]
    "of a later version": (metadata(manifest_version=b"4"), "version 4"),
    "of an earlier version": (metadata(manifest_version=b"1"), "version 1"),
    "of no version": (metadata(manifest_version=None), "version none"),
    "without provenance": (metadata(part=None), "lacks"),
    "with broken JSON": (metadata(part=b"{"), "lacks"),
    "with a provenance of another kind": (metadata(part=b"[1]"), "broken shard provenance"),
    "with a provenance that lacks a field": (metadata(part=b'{"shard": 0, "files": []}'), "broken shard provenance"),
    "with a path as attempt": (metadata(part=part_document(attempt="../../x")), "broken shard provenance"),
    "with a number as attempt": (metadata(part=part_document(attempt=12345678)), "broken shard provenance"),
    "with a file outside of the shard": (
        metadata(part=part_document(files=[{"path": "../../x", "size": 1, "sha256": ""}])),
        "broken shard provenance",
    ),
    "of another shard": (metadata(part=part_document(shard=5)), "shard 5"),
    "without a column": (rewrite(lambda table: table.drop_columns(["spec"])), "columns"),
    "with a column of another type": (
        rewrite(lambda table: table.set_column(1, "index", table["index"].cast(pa.string()))),
        "columns",
    ),
}


@pytest.mark.parametrize(("damage", "expected"), DAMAGES.values(), ids=DAMAGES)
def test_a_broken_part_is_one_message_with_file_and_remedy(
    dataset: Path, damage: Callable[[Path], None], expected: str
) -> None:
    commit_part(open_store(dataset), make_part(), [make_row(0)])
    file = dataset / part_name(0)
    damage(file)
    with pytest.raises(InputError, match=expected) as caught:
        read_part(open_store(dataset), 0)
    message = str(caught.value)
    assert str(file) in message
    assert "phantumor generate" in message or "the phantumor that" in message  # what to do
    assert "\n" not in message


WHOLE_DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (cut, "not a readable manifest file"),
    "of a later version": (metadata(manifest_version=b"4"), "version 4"),
    "without provenance": (metadata(parts=None), "lacks"),
    "with a provenance of another kind": (metadata(parts=b'["a"]'), "broken shard provenance"),
}


@pytest.mark.parametrize(("damage", "expected"), WHOLE_DAMAGES.values(), ids=WHOLE_DAMAGES)
def test_a_broken_whole_manifest_is_one_message(dataset: Path, damage: Callable[[Path], None], expected: str) -> None:
    file = write_whole(dataset, 1)
    damage(file)
    with pytest.raises(InputError, match=expected) as caught:
        open_whole(open_store(file.parent)).parts()
    assert str(file) in str(caught.value)


def page_bytes(file: Path) -> range:
    """Where the pages of a Parquet file lie: behind the magic number, before the footer."""
    group = pq.ParquetFile(file).metadata.row_group(0)
    columns = [group.column(k) for k in range(group.num_columns)]
    starts = [c.dictionary_page_offset or c.data_page_offset for c in columns]
    return range(min(starts), max(start + c.total_compressed_size for start, c in zip(starts, columns, strict=True)))


def test_a_flipped_bit_in_the_rows_is_never_silent(dataset: Path) -> None:
    commit_part(open_store(dataset), make_part(), [make_row(k, row=k, tumors=k) for k in range(4)])
    file = dataset / part_name(0)
    data, rows = file.read_bytes(), read_part(open_store(dataset), 0)[1]
    silent = []
    for at in page_bytes(file)[::23]:
        broken = bytearray(data)
        broken[at] ^= 1 << at % 8
        file.write_bytes(broken)
        try:
            silent += [at] if not read_part(open_store(dataset), 0)[1].equals(rows) else []
        except InputError:
            continue
    assert silent == []


def test_a_flipped_bit_in_the_footer_fails_with_a_message_if_it_fails(dataset: Path) -> None:
    commit_part(open_store(dataset), make_part(), [make_row(0)])
    file = dataset / part_name(0)
    data = file.read_bytes()
    refused = 0
    for at in range(page_bytes(file).stop, len(data), 47):
        broken = bytearray(data)
        broken[at] ^= 1 << at % 8
        file.write_bytes(broken)
        try:
            read_part(open_store(dataset), 0)
        except InputError:
            refused += 1
    assert refused


def test_a_row_with_an_unknown_column_is_not_committed(dataset: Path) -> None:
    with pytest.raises(ValueError, match="tumour_voxels"):
        commit_part(open_store(dataset), make_part(), [make_row(0) | {"tumour_voxels": 3}])


def test_a_part_is_a_value() -> None:
    assert make_part() == make_part()
    assert make_part() != dataclasses.replace(make_part(), host="another")
    assert Part.from_json(json.loads(json.dumps(make_part().to_json()))) == make_part()
    assert manifest.SCHEMA_VERSION == 3
