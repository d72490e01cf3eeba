"""One reader, the same pixels whatever is kept of them; what no longer fits is refused, never handed out."""

from __future__ import annotations

import errno
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

import pipeline.reader as reading
import pipeline.shard as shard
import pipeline.shard_objects as shard_objects
import pipeline.synthesis as synthesis
from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.case import AIR_HU
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.errors import InputError, PhantumorError
from pipeline.manifest import WHOLE
from pipeline.reader import EndlessReader, SampleReader, column_names, located
from pipeline.shard import object_path
from pipeline.shard_objects import BrokenSampleError
from pipeline.spec import SampleSpec
from pipeline.views import merge
from tests.cases import make_bank, make_case
from tests.datasets import open_files_below
from workers.generate import generate

KINDS = ("full", "delta", "recipe")
SHAPE = (24, 20, 16)
SAMPLES = 10


def make(bank: Bank, out: Path, kind: str, **settings: Any) -> Path:
    asked = {"samples": SAMPLES, "patch_shape": SHAPE, "shard_samples": 4, "seed": 3, "store": kind}
    generate(bank.path, out, GenerateConfig.model_validate(asked | settings), log=lambda _: None)
    return out


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a bank and the same samples in every kind."""
    folder = tmp_path_factory.mktemp("home")
    bank = make_bank(folder / "bank")
    for kind in KINDS:
        make(bank, folder / kind, kind)
    return folder


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    shutil.copytree(home, tmp_path / "home")
    return tmp_path / "home"


def reader_of(dataset: Dataset, table: pa.Table | None = None, **options: Any) -> SampleReader:
    rows = located(dataset, dataset.columns(column_names(dataset)) if table is None else table)
    return SampleReader(dataset, rows, **options)


def read(reader: SampleReader, k: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Into arrays that hold something else before."""
    shape = reader.rows.shape_of(k)
    image, label = np.full(shape, 77, np.int16), np.full(shape, 77, np.uint8)
    reader.read(k, image, label)
    return image, label


# -- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_what_the_spec_gives(home: Path, kind: str) -> None:
    dataset = open_dataset(home / kind)
    reader, bank = reader_of(dataset), open_bank(home / "bank")
    for k, row in enumerate(dataset.manifest.to_pylist()):
        spec = SampleSpec.model_validate_json(row["spec"])
        expected = synthesis.synthesise(bank.load(spec.case_id), spec)
        for found, wanted in zip(read(reader, k), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_may_be_any_in_any_order(home: Path, kind: str) -> None:
    dataset = open_dataset(home / kind)
    order = [7, 2, 2, 9]
    reader = reader_of(dataset, dataset.columns(column_names(dataset)).take(order))
    for k, index in enumerate(order):
        np.testing.assert_array_equal(read(reader, k)[0], dataset.sample(index).image)


def test_recipes_need_no_ranges_and_others_do(home: Path) -> None:
    assert not any(name.endswith("_range") for name in column_names(open_dataset(home / "recipe")))
    assert {"image_range", "label_range"} <= set(column_names(open_dataset(home / "delta")))


@pytest.mark.parametrize("kind", ["delta", "recipe"])
def test_a_patch_larger_than_its_case_is_filled_with_air(tmp_path: Path, kind: str) -> None:
    with create_or_open_bank(tmp_path / "bank", 3.0) as writer:
        writer.add_case(make_case(shape=(40, 36, 30)))
    bank, large = open_bank(tmp_path / "bank"), {"patch_shape": (48, 40, 32), "samples": 4}
    full = open_dataset(make(bank, tmp_path / "full", "full", **large))
    reader = reader_of(open_dataset(make(bank, tmp_path / kind, kind, **large)))
    for k in range(4):
        sample = full.sample(k)
        assert min(sample.row["origin_vox"]) < 0
        image, label = read(reader, k)
        np.testing.assert_array_equal(image, sample.image)
        np.testing.assert_array_equal(label, sample.label)


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_reads_from_its_sources(home: Path, tmp_path: Path, kind: str) -> None:
    """Shards and indices are numbered on there; what is drawn and where it lies goes by the source's own numbers."""
    other = make(open_bank(home / "bank"), tmp_path / "other", kind, seed=4)
    merge([home / kind, other], tmp_path / "view")
    view, sources = open_dataset(tmp_path / "view"), [open_dataset(home / kind), open_dataset(other)]
    reader = reader_of(view)
    for k in range(2 * SAMPLES):
        sample = sources[k // SAMPLES].sample(k % SAMPLES)
        image, label = read(reader, k)
        np.testing.assert_array_equal(image, sample.image)
        np.testing.assert_array_equal(label, sample.label)


# -- healthy twins and endless samples --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_healthy_twin_is_the_patch_of_the_case(home: Path, kind: str) -> None:
    dataset = open_dataset(home / kind)
    reader = reader_of(dataset)
    for k in range(SAMPLES):
        image, label = read(reader, k)
        healthy = np.full(SHAPE, 77, np.int16)
        assert reader.read(k, image, label, healthy) == k
        np.testing.assert_array_equal(healthy, dataset.healthy(k))
        assert (healthy != image).any() == bool(dataset.row(k)["n_tumors"])


def test_the_healthy_twin_has_air_beyond_its_case(tmp_path: Path) -> None:
    with create_or_open_bank(tmp_path / "bank", 3.0) as writer:
        writer.add_case(make_case(shape=(40, 36, 30)))
    shape = (48, 40, 32)
    dataset = open_dataset(make(open_bank(tmp_path / "bank"), tmp_path / "data", "full", patch_shape=shape, samples=2))
    healthy = np.full(shape, 77, np.int16)
    reader_of(dataset).read(1, np.empty(shape, np.int16), np.empty(shape, np.uint8), healthy)
    np.testing.assert_array_equal(healthy, dataset.healthy(1))
    assert (healthy == AIR_HU).any()


def test_endless_samples_are_those_that_are_stored(home: Path) -> None:
    """Under the index that a dataset of this config has them, or would have them: there is no last one."""
    dataset = open_dataset(home / "full")
    reader = EndlessReader(open_bank(home / "bank"), dataset.info.config)
    image, label, healthy = (np.full(SHAPE, 77, dtype) for dtype in (np.int16, np.uint8, np.int16))
    for k in (0, 7, 3):
        assert reader.read(k, image, label, healthy) == k
        np.testing.assert_array_equal(image, dataset.sample(k).image)
        np.testing.assert_array_equal(label, dataset.sample(k).label)
        np.testing.assert_array_equal(healthy, dataset.healthy(k))
    assert reader.read(10**9, image, label) == 10**9


# -- files and threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_threads_share_a_reader(home: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where files and cases are dropped and opened again all the time."""
    monkeypatch.setattr(shard_objects, "OPEN_FILES", 1)
    monkeypatch.setattr(reading, "OPEN_CASES", 1)
    dataset = open_dataset(home / kind)
    expected = [dataset.sample(index).image for index in range(SAMPLES)]
    reader, wrong = reader_of(dataset), []

    def work(first: int) -> None:
        for k in range(3 * SAMPLES):
            at = (first + k) % SAMPLES
            if not np.array_equal(read(reader, at)[0], expected[at]):
                wrong.append(at)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 3, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_few_files_are_open_and_none_after_closing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_objects, "OPEN_FILES", 2)
    reader = reader_of(open_dataset(home / "delta"))
    for k in range(SAMPLES):
        read(reader, k)
    assert len(open_files_below(home / "delta/shards")) == 2
    reader.close()
    assert open_files_below(home / "delta/shards") == []


def test_a_closed_reader_may_go_on(home: Path) -> None:
    reader = reader_of(open_dataset(home / "delta"))
    before = read(reader, 0)
    reader.close()
    np.testing.assert_array_equal(read(reader, 0)[0], before[0])


# -- what does not fit any more ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "delta"])
@pytest.mark.parametrize("damage", ["flipped bit", "cut", "removed"])
def test_a_broken_shard_is_named_with_its_remedy(copy: Path, kind: str, damage: str) -> None:
    dataset = open_dataset(copy / kind)
    file = next((copy / kind / "shards").glob("000001-*")) / object_path("image")
    data = bytearray(file.read_bytes())
    data[25] ^= 1
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(data if damage == "flipped bit" else data[:10])
    reader = reader_of(dataset)
    read(reader, 0)
    with pytest.raises(
        InputError, match=rf"broken shard 000001: .*{file.parent.parent.parent.parent.parent.name}.*--repair"
    ):
        read(reader, 4)


@pytest.mark.parametrize(
    ("kind", "array"), [("delta", "ct"), ("delta", "organs"), ("recipe", "ct"), ("recipe", "organs")]
)
def test_a_bank_whose_bytes_changed_is_noticed(copy: Path, kind: str, array: str) -> None:
    """Its table still tells the old digests, so the fingerprint is the same: only the pixels know."""
    for file in (copy / "bank/cases").glob(f"*/{array}/c/*/*/*"):
        data = np.fromfile(file, np.int16 if array == "ct" else np.uint8)
        changed = data + 1 if array == "ct" else np.where(data == 1, 2, data).astype(np.uint8)
        file.chmod(0o644)
        changed.tofile(file)
    with pytest.raises(InputError, match=rf"sample 0: the \w+ put together from the bank .*{kind} store.*--replay"):
        read(reader_of(open_dataset(copy / kind)), 0)


def test_recipes_notice_another_generator(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthesise = synthesis.synthesise

    def other(*given: Any) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
        image, label = synthesise(*given)
        image[3, 3, 3] += 1
        return image, label

    monkeypatch.setattr(synthesis, "synthesise", other)
    with pytest.raises(InputError, match=r"sample 2: the image put together .*bank or software changed"):
        read(reader_of(open_dataset(home / "recipe")), 2)


def test_a_bank_of_another_state_is_refused(copy: Path) -> None:
    with create_or_open_bank(copy / "bank", 3.0) as writer:
        writer.add_case(make_case("one_more"))
    for kind in ("delta", "recipe"):
        with pytest.raises(InputError, match="another state of the bank"):
            read(reader_of(open_dataset(copy / kind)), 0)
    read(reader_of(open_dataset(copy / "full")), 0)


def test_without_its_bank_only_full_can_be_read(copy: Path) -> None:
    shutil.rmtree(copy / "bank")
    full = reader_of(open_dataset(copy / "full"))
    image, label = read(full, 0)
    for kind in ("delta", "recipe"):
        with pytest.raises(InputError, match="its bank is needed here"):
            read(reader_of(open_dataset(copy / kind)), 0)
    with pytest.raises(InputError, match=r"its bank is needed here.*no such bank") as caught:
        full.read(0, image, label, np.empty(SHAPE, np.int16))
    assert not isinstance(caught.value, BrokenSampleError)  # it is not the sample's fault


@pytest.mark.parametrize("kind", [*KINDS, "endless"])
def test_a_bank_that_does_not_answer_is_named_with_a_remedy(
    home: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def away(*_: object) -> None:
        raise OSError(errno.EIO, "http://there cannot be reached", "s3://b/bank/cases/tiny_0.zarr/ct")

    dataset = open_dataset(home / ("full" if kind == "endless" else kind))
    reader = EndlessReader(dataset.bank, dataset.info.config) if kind == "endless" else reader_of(dataset)
    monkeypatch.setattr(Bank, "load", away)
    arrays = np.empty(SHAPE, np.int16), np.empty(SHAPE, np.uint8), np.empty(SHAPE, np.int16)
    with pytest.raises(PhantumorError, match=r"the bank .*bank cannot be read: s3://.*reached\. See that") as caught:
        reader.read(0, *arrays)
    assert not isinstance(caught.value, BrokenSampleError)


@pytest.mark.parametrize("kind", KINDS)
def test_checksums_can_be_left_out(home: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is not done then, so whoever leaves them out gains something."""
    dataset = open_dataset(home / kind)
    expected = dataset.sample(4)
    asked: list[str] = []
    monkeypatch.setattr(shard, "crc32c", lambda data: asked.append("chunk") or 0)
    monkeypatch.setattr(reading, "array_crc32c", lambda data: asked.append("pixels") or 0)
    image, label = read(reader_of(dataset, checksums=False), 4)
    np.testing.assert_array_equal(image, expected.image)
    np.testing.assert_array_equal(label, expected.label)
    assert asked == []
    with pytest.raises(BrokenSampleError):
        read(reader_of(dataset), 4)
    assert asked


@pytest.mark.parametrize("kind", KINDS)
def test_the_parts_alone_are_enough(copy: Path, kind: str) -> None:
    expected = open_dataset(copy / kind).sample(5).image
    (copy / kind / WHOLE).unlink()
    np.testing.assert_array_equal(open_dataset(copy / kind).sample(5).image, expected)


# -- without phantumor ------------------------------------------------------------------------------------------------


def test_any_zarr_reader_can_put_differences_together(home: Path) -> None:
    """The lines of docs/storage.md."""
    import zarr

    full, dataset = open_dataset(home / "full"), open_dataset(home / "delta")
    for row in dataset.manifest.to_pylist():
        store, key = dataset.object_key(row["shard"], "image")
        shard = zarr.open_group(f"{store.url}/{key.partition('/image/')[0]}", mode="r")
        case = zarr.open_group(home / f"bank/cases/{row['case_id']}.zarr", mode="r")
        classes = dataset.info.classes

        box = tuple(slice(o, o + n) for o, n in zip(row["origin_vox"], row["shape_vox"], strict=True))
        organs = case["organs"][box]
        image = shard["image"][row["row"]] + case["ct"][box]
        label = shard["label"][row["row"]] + np.where(np.isin(organs, list(classes.values())), organs, 0)

        sample = full.sample(row["index"])
        np.testing.assert_array_equal(image, sample.image)
        np.testing.assert_array_equal(label, sample.label)
        assert (image.dtype, label.dtype) == (np.int16, np.uint8)
