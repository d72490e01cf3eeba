"""Generated datasets of every kind, and ways to break them as disks, tools and people do."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.catalog import Dataset, compact, open_dataset
from pipeline.config import GenerateConfig
from pipeline.delta import delta_of
from pipeline.grid import slices3
from pipeline.manifest import Part, commit_part, part_name, read_part, shard_name
from pipeline.shard import ShardWriter, array_crc32c, object_path
from pipeline.store import Store, open_store
from tests.cases import make_bank
from workers.generate import generate

CONFIG = GenerateConfig(samples=10, patch_shape=(16, 16, 16), shard_samples=4, seed=5)
SHARDS = 3  # with samples 0-3, 4-7 and 8-9
KINDS = ("full", "delta", "recipe")


def make_home(folder: Path, **settings: object) -> Path:
    """A folder with `bank` and the dataset `data` made from it."""
    make_bank(folder / "bank")
    config = GenerateConfig.model_validate(CONFIG.model_dump() | settings)
    generate(folder / "bank", folder / "data", config, log=lambda _: None)
    return folder


def make_homes(folder: Path) -> dict[str, Path]:
    """A home of each kind of store; they hold the same samples."""
    return {kind: make_home(folder / kind, store=kind) for kind in KINDS}


def copy_home(home: Path, to: Path) -> Path:
    """The dataset of a copy to break, beside the same bank."""
    to.mkdir(exist_ok=True)
    (to / "bank").symlink_to(home / "bank")
    return Path(shutil.copytree(home / "data", to / "data"))


def copy_to_store(dataset: Path, place: str) -> Store:
    """The objects of a dataset, and the bank beside it, in another store."""
    copy_bank(dataset, place)
    return copy_data(dataset, place, f"{place}/bank")


def copy_data(dataset: Path, place: str, bank: str) -> Store:
    """The objects of a dataset in another store, made from the bank there."""
    to = open_store(f"{place}/data")
    for entry in open_store(dataset).entries():
        to.replace(entry.key, (dataset / entry.key).read_bytes())
    document = json.loads(to.read("dataset.json"))
    to.replace("dataset.json", json.dumps(document | {"bank": bank}).encode())
    return to


def copy_bank(dataset: Path, place: str) -> None:
    """The bank beside a dataset, as `bank` in another store."""
    bank = open_store(f"{place}/bank")
    for entry in open_store((dataset.parent / "bank").resolve()).entries():
        bank.replace(entry.key, (dataset.parent / "bank" / entry.key).read_bytes())


def attempt_folder(dataset: Path, shard: int) -> Path:
    return dataset / shard_name(shard, part_of(dataset, shard).attempt)


def shard_object(dataset: Path, shard: int, name: str = "image") -> Path:
    return attempt_folder(dataset, shard) / object_path(name)


def flip(file: Path, position: int) -> None:
    """Change one bit; negative positions count from the end."""
    data = bytearray(file.read_bytes())
    data[position] ^= 0x10
    file.write_bytes(data)


def cut(file: Path, missing: int = 1) -> None:
    file.write_bytes(file.read_bytes()[:-missing])


def flip_object(store: Store, key: str) -> None:
    data = bytearray(store.read(key))
    data[len(data) // 2] ^= 0x10
    store.replace(key, bytes(data))


def contents(store: Store) -> dict[str, bytes]:
    """By key, but for the names of attempts; parts and the whole manifest tell of those and of times."""
    keys = [entry.key for entry in store.entries() if entry.key.startswith("shards/")]
    return {f"{key[:13]}{key.partition('.zarr')[2]}": store.read(key) for key in keys}


def rewrite_part(
    dataset: Path,
    shard: int,
    change_row: Callable[[dict[str, Any]], None] = lambda row: None,
    whole: bool = True,
    **of_part: object,
) -> None:
    """Write a part anew with valid checksums: each row through `change_row`, fields of the part replaced."""
    part, rows = read_part(open_store(dataset), shard)
    documents = rows.to_pylist()
    for row in documents:
        change_row(row)
    (dataset / part_name(shard)).unlink()
    assert commit_part(open_store(dataset), dataclasses.replace(part, **of_part), documents)  # type: ignore[arg-type]
    if whole:
        compact(open_store(dataset))


def rewrite_whole(dataset: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write `manifest.parquet` anew with changed rows, valid checksums and the provenance it had."""
    _edit_table(dataset / "manifest.parquet", change)


def edit_part(dataset: Path, shard: int, change: Callable[[pa.Table], pa.Table]) -> None:
    """The same for a part, and the whole manifest made from it."""
    _edit_table(dataset / part_name(shard), change)
    compact(open_store(dataset))


def _edit_table(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    table, metadata = pq.read_table(file), dict(pq.read_metadata(file).metadata)
    metadata.pop(b"ARROW:schema")  # is written anew
    changed = change(table).replace_schema_metadata(metadata)
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
    store, (part, table) = open_store(dataset), read_part(open_store(dataset), shard)
    rows, kind = table.to_pylist(), opened.info.config.store
    writer = None if kind == "recipe" else ShardWriter(store, shard_name(shard, attempt), len(rows), _shape(rows), kind)
    for row in rows:
        image, label, _ = opened.sample(row["index"])
        change(row["index"], image, label)
        row |= {"image_crc32c": array_crc32c(image), "label_crc32c": array_crc32c(label)}
        if writer is not None:
            ranges = writer.append(writer.encode(_stored(opened, row, {"image": image, "label": label})))
            row |= {f"{name}_range": list(where) for name, where in ranges.items()}
    files = tuple(writer.finish()) if writer is not None else ()
    shutil.rmtree(attempt_folder(dataset, shard), ignore_errors=True)
    (dataset / part_name(shard)).unlink()
    assert commit_part(store, dataclasses.replace(part, attempt=attempt, files=files), rows)
    compact(store)


def _shape(rows: list[dict[str, Any]]) -> tuple[int, int, int]:
    x, y, z = rows[0]["shape_vox"]
    return x, y, z


def _stored(opened: Dataset, row: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """What the dataset's kind keeps of a sample."""
    if opened.info.config.store != "delta":
        return arrays
    anywhere = slices3((0, 0, 0), row["shape_vox"])
    case, organs = opened.case(row), opened.info.config.organs
    return delta_of(case, tuple(row["origin_vox"]), organs, arrays, [anywhere], "a forged sample")


def assert_same(folder: Path, reference: Path) -> None:
    """Identical rows and identical bytes of every shard object, and no attempt beside the committed ones."""
    dataset, wanted = open_dataset(folder), open_dataset(reference)
    assert dataset.complete
    assert dataset.manifest.equals(wanted.manifest)
    assert _objects(dataset) == _objects(wanted)
    assert {shard: part_of(folder, shard) for shard in dataset.parts} == dict(dataset.parts)
    kept = 0 if dataset.info.config.store == "recipe" else len(wanted.parts)
    assert len(open_store(folder).groups("shards")) == kept


def _objects(dataset: Dataset) -> list[bytes]:
    if dataset.info.config.store == "recipe":
        return []
    keys = [dataset.object_key(shard, name) for shard in dataset.parts for name in ("image", "label")]
    return [store.read(key) for store, key in keys]


def part_of(dataset: Path, shard: int) -> Part:
    return read_part(open_store(dataset), shard)[0]
