"""A generated dataset, and ways to break it as disks, tools and people do."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog import Dataset, compact, open_dataset
from pipeline.config import GenerateConfig
from pipeline.manifest import Part, commit_part, part_name, read_part, shard_name
from pipeline.shard import ShardWriter, array_crc32c, object_path
from tests.cases import make_bank
from workers.generate import generate

CONFIG = GenerateConfig(samples=10, patch_shape=(16, 16, 16), shard_samples=4, seed=5)
SHARDS = 3  # with samples 0-3, 4-7 and 8-9


def make_home(folder: Path) -> Path:
    """A folder with `bank` and the dataset `data` made from it."""
    make_bank(folder / "bank")
    generate(folder / "bank", folder / "data", CONFIG, log=lambda _: None)
    return folder


def copy_home(home: Path, to: Path) -> Path:
    """The dataset of a copy to break, beside the same bank."""
    (to / "bank").symlink_to(home / "bank")
    return Path(shutil.copytree(home / "data", to / "data"))


def attempt_folder(dataset: Path, shard: int) -> Path:
    return dataset / shard_name(shard, read_part(dataset, shard)[0].attempt)


def shard_object(dataset: Path, shard: int, name: str = "image") -> Path:
    return attempt_folder(dataset, shard) / object_path(name)


def flip(file: Path, position: int) -> None:
    """Change one bit; negative positions count from the end."""
    data = bytearray(file.read_bytes())
    data[position] ^= 0x10
    file.write_bytes(data)


def cut(file: Path, missing: int = 1) -> None:
    file.write_bytes(file.read_bytes()[:-missing])


def rewrite_part(
    dataset: Path,
    shard: int,
    change_row: Callable[[dict[str, Any]], None] = lambda row: None,
    whole: bool = True,
    **of_part: object,
) -> None:
    """Write a part anew with valid checksums: each row through `change_row`, fields of the part replaced."""
    part, rows = read_part(dataset, shard)
    documents = rows.to_pylist()
    for row in documents:
        change_row(row)
    (dataset / part_name(shard)).unlink()
    assert commit_part(dataset, dataclasses.replace(part, **of_part), documents)  # type: ignore[arg-type]
    if whole:
        compact(dataset)


def rewrite_whole(dataset: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write `manifest.parquet` anew with changed rows, valid checksums and the provenance it had."""
    _edit_table(dataset / "manifest.parquet", change)


def edit_part(dataset: Path, shard: int, change: Callable[[pa.Table], pa.Table]) -> None:
    """The same for a part, and the whole manifest made from it."""
    _edit_table(dataset / part_name(shard), change)
    compact(dataset)


def _edit_table(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table = pq.read_table(file)
    changed = change(table).replace_schema_metadata(table.schema.metadata)
    pq.write_table(changed, file, write_page_checksum=True)


def with_value(column: str, row: int, value: Any) -> Callable[[pa.Table], pa.Table]:
    """A change of one cell."""

    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value
        field = table.schema.field(column)
        return table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))

    return change


def edit_json(file: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def forge(dataset: Path, shard: int, change: Callable[[int, Any, Any], None], attempt: str = "f0" * 6) -> None:
    """Replace a shard by one whose samples went through `change(index, image, label)`, every checksum made to fit."""
    opened = open_dataset(dataset)
    part, table = read_part(dataset, shard)
    rows = table.to_pylist()
    with ShardWriter(dataset / shard_name(shard, attempt), len(rows), opened.info.patch_shape) as writer:
        for row in rows:
            image, label, _ = opened.sample(row["index"])
            change(row["index"], image, label)
            ranges = writer.append({"image": image, "label": label})
            row |= {f"{name}_range": list(where) for name, where in ranges.items()}
            row |= {"image_crc32c": array_crc32c(image), "label_crc32c": array_crc32c(label)}
        files = tuple(writer.finish())
    shutil.rmtree(attempt_folder(dataset, shard))
    (dataset / part_name(shard)).unlink()
    assert commit_part(dataset, dataclasses.replace(part, attempt=attempt, files=files), rows)
    compact(dataset)


def assert_same(folder: Path, reference: Path) -> None:
    """Identical rows and identical bytes of every shard object, and no attempt beside the committed ones."""
    dataset, wanted = open_dataset(folder), open_dataset(reference)
    assert dataset.complete
    assert dataset.manifest.equals(wanted.manifest)
    assert _objects(dataset) == _objects(wanted)
    assert {shard: read_part(folder, shard)[0] for shard in dataset.parts} == dict(dataset.parts)
    assert len(list((folder / "shards").iterdir())) == len(wanted.parts)


def _objects(dataset: Dataset) -> list[bytes]:
    return [dataset.object_file(shard, name).read_bytes() for shard in dataset.parts for name in ("image", "label")]


def part_of(dataset: Path, shard: int) -> Part:
    return read_part(dataset, shard)[0]
