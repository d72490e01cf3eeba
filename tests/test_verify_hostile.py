"""Datasets that were made to do harm: what they claim is refused or found, and never followed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.manifest import SCHEMA, part_name
from pipeline.shard import encode_sample
from pipeline.store import open_store
from tests.damage import (
    assert_same,
    copy_home,
    cut,
    edit_json,
    make_home,
    part_of,
    rewrite_part,
    rewrite_whole,
    shard_object,
)
from workers.verify import verify

PART, WHOLE = "manifest/000001.parquet", "manifest.parquet"


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("hostile")
    return {kind: make_home(folder / kind, store=kind) for kind in ("full", "delta")}


def claim(**fields: object) -> Callable[[Path], object]:
    """Change of `dataset.json`."""
    return lambda d: edit_json(d / "dataset.json", lambda document: document.update(fields))


def claim_config(**fields: object) -> Callable[[Path], object]:
    return lambda d: edit_json(d / "dataset.json", lambda document: document["config"].update(fields))


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        (claim_config(samples=10**12), "samples: .* 1000000000"),
        (claim_config(patch_shape=[10**6, 10**6, 10**6]), "patch_shape"),
        (claim_config(patch_shape=[-16, 16, 16]), "patch_shape"),
        (claim_config(shard_samples=10**9), "shard_samples"),
        (claim(shards=-1), "shards"),
        (claim(grown=[5, 3]), "only grows"),
        (claim(grown=[10]), "only grows"),
        (claim(spacing_mm=-1), "spacing_mm"),
        (claim(spacing_mm=float("inf")), "spacing_mm"),
        (claim(classes={"liver": 10**6}), "classes"),
        (claim(sources=[{"place": "x", "config_digest": "", "first_index": -1, "first_shard": 0}]), "first_index"),
        (lambda d: (d / "dataset.json").write_text("[" * 10**5), "not a readable dataset description"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_description_that_claims_too_much_is_refused(
    homes: dict[str, Path], tmp_path: Path, claims: Callable[[Path], object], says: str
) -> None:
    dataset = copy_home(homes["full"], tmp_path)
    claims(dataset)
    with pytest.raises(InputError, match=says):
        verify(dataset)


def of_row(column: str, value: object) -> Callable[[Path], object]:
    return lambda d: rewrite_part(d, 1, lambda row: row.update({column: value}))


def provenance(**fields: object) -> Callable[[Path], None]:
    """Change what a part says of its shard, whatever Python's own types would hold against it."""

    def change(dataset: Path) -> None:
        table, metadata = pq.read_table(dataset / PART), dict(pq.read_metadata(dataset / PART).metadata)
        metadata.pop(b"ARROW:schema")
        document = json.loads(metadata[b"phantumor.part"]) | fields
        metadata[b"phantumor.part"] = json.dumps(document).encode()
        pq.write_table(table.replace_schema_metadata(metadata), dataset / PART)

    return change


def many_rows(dataset: Path) -> None:
    """A billion rows that take a few kB."""
    metadata = dict(pq.read_metadata(dataset / PART).metadata)
    metadata.pop(b"ARROW:schema")
    with pq.ParquetWriter(dataset / PART, SCHEMA.with_metadata(metadata), compression="zstd") as writer:
        table = pa.Table.from_batches([pa.RecordBatch.from_pylist([{}] * 2048, schema=SCHEMA)])
        for _ in range(4):
            writer.write_table(table)


def large_chunk(dataset: Path) -> None:
    """A chunk that unpacks to more than its sample: every checksum fits."""
    bomb = encode_sample(np.zeros((512, 256, 256), np.int16))[0]
    file = shard_object(dataset, 1)
    file.write_bytes(bomb + file.read_bytes())
    digests = tuple(
        dataclasses.replace(f, size=f.size + len(bomb)) if f.path.startswith("image") else f
        for f in part_of(dataset, 1).files
    )
    rewrite_part(dataset, 1, lambda row: row.update(image_range=_moved(row, len(bomb))), files=digests)


def _moved(row: dict[str, Any], by: int) -> list[int]:
    offset, length = row["image_range"]
    return [offset + by, length] if row["row"] else [0, length + by]


HOSTILE: dict[str, Callable[[Path], object]] = {
    "range beyond the object": of_row("image_range", [0, 10**12]),
    "range that overflows": of_row("image_range", [2**63 - 1, 2**63 - 1]),
    "negative range": of_row("image_range", [-5, 10]),
    "range with a hole": of_row("image_range", [None, 10]),
    "huge shape": of_row("shape_vox", [2**31 - 1] * 3),
    "negative shape": of_row("shape_vox", [-16, -16, 16]),
    "huge index": of_row("index", 2**63 - 1),
    "negative row": of_row("row", -1),
    "origin far away": of_row("origin_vox", [2**31 - 1, -(2**31), 0]),
    "deep spec": of_row("spec", "[" * 10**5),
    "long number": of_row("spec", "1" * 10**5),
    "path outside": provenance(attempt="../../../etc"),
    "files outside": provenance(files=[{"path": "../x", "size": 1, "sha256": "0" * 64}]),
    "files of nothing": provenance(files=5),
    "shard that is none": provenance(shard=[1]),
    "fraction of a shard": provenance(shard=1.0),
    "versions that are none": provenance(versions=3),
    "deep provenance": provenance(timings_s={"a": {"b": [[]] * 100}}),
    "more rows than any part": many_rows,
    "chunk that unpacks to more": large_chunk,
    "empty part": lambda d: (d / PART).write_bytes(b""),
}


@pytest.mark.parametrize(
    ("kind", "attack"),
    [*(("full", attack) for attack in HOSTILE), ("delta", "origin far away"), ("delta", "chunk that unpacks to more")],
)
def test_what_a_part_claims_is_a_finding_and_never_more(
    homes: dict[str, Path], tmp_path: Path, kind: str, attack: str
) -> None:
    dataset = copy_home(homes[kind], tmp_path)
    HOSTILE[attack](dataset)
    report = verify(dataset)
    assert {finding.shard for finding in report.findings} <= {1, None}
    if attack != "deep provenance":
        assert report.findings
    assert verify(dataset, repair=True, replay=1.0, gc=True).ok
    assert_same(dataset, homes[kind] / "data")


@pytest.mark.parametrize("column", ["index", "shard", "row", "shape_vox", "image_range"])
def test_what_the_whole_manifest_claims_is_a_finding_and_never_more(
    homes: dict[str, Path], tmp_path: Path, column: str
) -> None:
    dataset = copy_home(homes["full"], tmp_path)
    field = SCHEMA.field(column)
    most = 2**31 - 1 if column in ("row", "shape_vox") else 2**63 - 1
    value = [most] * field.type.list_size if pa.types.is_fixed_size_list(field.type) else most
    place = SCHEMA.get_field_index(column)
    rewrite_whole(dataset, lambda table: table.set_column(place, field, pa.array([value] * 10, field.type)))
    report = verify(dataset)
    assert {finding.file for finding in report.findings} >= {WHOLE}
    assert verify(dataset, repair=True).ok
    assert_same(dataset, homes["full"] / "data")


def test_a_whole_manifest_of_more_rows_than_samples_is_not_read(homes: dict[str, Path], tmp_path: Path) -> None:
    dataset = copy_home(homes["full"], tmp_path)
    rewrite_whole(dataset, lambda table: pa.concat_tables([table] * 50))
    found = verify(dataset).findings
    assert [finding.what for finding in found] == ["is damaged: it holds 500 rows, the dataset has 10 samples"]


def test_a_million_shards_that_are_none_are_not_made(homes: dict[str, Path], tmp_path: Path) -> None:
    """Parts of shards that the dataset does not plan are named, never followed."""
    dataset = copy_home(homes["full"], tmp_path)
    for shard in (999_999, 10**15):
        shutil.copy(dataset / PART, dataset / part_name(shard))
    report = verify(dataset, repair=True)
    assert [finding.shard for finding in report.left] == [999_999, 10**15]
    assert report.repairs == []


def test_a_repair_in_a_store_asks_nothing_of_other_places(homes: dict[str, Path], tmp_path: Path) -> None:
    """A dataset names its bank; one that is not there is told, nothing is made up."""
    dataset = copy_home(homes["full"], tmp_path)
    cut(shard_object(dataset, 1))
    claim(bank="../nowhere")(dataset)
    report = verify(dataset, repair=True)
    assert "no such bank" in report.repairs[0].note
    assert open_store(dataset).exists(PART)
