"""A shard: the bytes that every Zarr reader agrees on, and the damage that none may overlook."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import blosc

from pipeline.shard import (
    DTYPES,
    SLAB,
    ByteRange,
    ChunkError,
    FileDigest,
    ShardWriter,
    StoredKind,
    array_crc32c,
    array_metadata,
    chunk_edge,
    crc32c,
    decode_chunk,
    decode_sample,
    describes,
    encode_chunk,
    group_metadata,
    object_path,
)
from pipeline.store import FolderStore

Shape = tuple[int, int, int]
Arrays = dict[str, npt.NDArray[Any]]


def random_arrays(samples: int, shape: Shape, seed: int = 0) -> Arrays:
    """Image and label (n, X, Y, Z); the first sample is all 0, which is also the fill value."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, samples, *shape)))
    image = rng.integers(-1024, 3072, (samples, *shape)).astype(np.int16)
    label = rng.integers(0, 9, (samples, *shape)).astype(np.uint8)
    image[0] = label[0] = 0
    return {"image": image, "label": label}


def writer_of(folder: Path, samples: int, shape: Shape | None, **options: Any) -> ShardWriter:
    return ShardWriter(FolderStore(folder.parent), folder.name, samples, shape, **options)


def write_shard(
    folder: Path, arrays: Arrays, kind: StoredKind = "full", slabs: bool = False
) -> tuple[list[dict[str, ByteRange]], list[FileDigest]]:
    samples, *shape = arrays["image"].shape
    with writer_of(folder, samples, (shape[0], shape[1], shape[2]), kind=kind, slabs=slabs) as writer:
        ranges = []
        for k in range(samples):
            ranges.append(writer.append(writer.encode({name: array[k] for name, array in arrays.items()})))
        return ranges, writer.finish()


# -- other readers ----------------------------------------------------------------------------------------------------

# Samples, their shape, what is kept of them, whether a sample is in several chunks.
SHARDS: dict[str, tuple[int, Shape, StoredKind, bool]] = {
    "one sample": (1, (8, 8, 8), "full", False),
    "several": (5, (6, 7, 9), "full", False),
    "flat": (3, (4, 1, 3), "full", False),
    "one voxel": (2, (1, 1, 1), "full", False),
    "several blosc blocks": (2, (40, 40, 40), "full", False),
    "differences": (5, (6, 7, 9), "delta", False),
    "large differences": (2, (40, 40, 40), "delta", False),
    "slabs": (2, (2 * SLAB, 5, 6), "full", True),
    "slabs, the last one cut": (1, (2 * SLAB + 3, 5, 6), "full", True),
    "differences in slabs": (1, (SLAB + 1, 5, 6), "delta", True),
}
READERS = ("zarr", "tensorstore", "zarrs")
# In a process of its own: zarrs and tensorstore start thread pools that a later fork of the test process would hang on.
READ_ALL = """
import sys
from pathlib import Path
import numpy as np, tensorstore, zarr

def with_tensorstore(folder, name):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / name)}}
    return tensorstore.open(spec, read=True).result().read().result()

def with_zarrs(folder, name):
    # strict: without it zarrs hands what it cannot do to zarr-python, and nothing would be tested
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "codec_pipeline.strict": True}):
        return with_zarr(folder, name)

def with_zarr(folder, name):
    return zarr.open_group(folder, mode="r")[name][:]

for folder in Path(sys.argv[1]).glob("*.zarr"):
    for reader, read in {"zarr": with_zarr, "tensorstore": with_tensorstore, "zarrs": with_zarrs}.items():
        for name in ("image", "label"):
            np.save(folder.parent / f"{folder.stem}-{reader}-{name}.npy", read(folder, name))
"""


@pytest.fixture(scope="module")
def read_by_others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readers")
    for name, (samples, shape, kind, slabs) in SHARDS.items():
        write_shard(folder / f"{name}.zarr", random_arrays(samples, shape), kind, slabs)
    subprocess.run([sys.executable, "-c", READ_ALL, str(folder)], check=True)
    return folder


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("shard", SHARDS)
def test_every_zarr_reader_sees_the_arrays_that_were_written(read_by_others: Path, shard: str, reader: str) -> None:
    for name, expected in random_arrays(*SHARDS[shard][:2]).items():
        found = np.load(read_by_others / f"{shard}-{reader}-{name}.npy")
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["full", "delta"])
def test_a_shard_tells_what_it_keeps(tmp_path: Path, kind: StoredKind) -> None:
    """Whoever opens the shard of another kind with a Zarr reader must not take differences for HU."""
    write_shard(tmp_path / "s.zarr", random_arrays(2, (4, 4, 4)), kind)
    attributes = dict(zarr.open_group(tmp_path / "s.zarr", mode="r").attrs)
    assert attributes == ({"phantumor_store": "delta"} if kind == "delta" else {})


def test_zarr_decodes_each_sample_alone(tmp_path: Path) -> None:
    arrays = random_arrays(4, (5, 4, 3))
    write_shard(tmp_path / "s.zarr", arrays)
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    for name, array in arrays.items():
        assert group[name].chunks == (1, 5, 4, 3)
        assert group[name].shards == (4, 5, 4, 3)
        np.testing.assert_array_equal(group[name][2], array[2])


# -- format -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data_type", "itemsize", "shuffle", "bytes_codec"),
    [
        ("image", "int16", 2, "bitshuffle", {"name": "bytes", "configuration": {"endian": "little"}}),
        ("label", "uint8", 1, "noshuffle", {"name": "bytes"}),
    ],
)
def test_the_metadata_is_the_format(
    tmp_path: Path, name: str, data_type: str, itemsize: int, shuffle: str, bytes_codec: dict[str, Any]
) -> None:
    write_shard(tmp_path / "s.zarr", random_arrays(3, (8, 4, 2)))
    document = json.loads((tmp_path / "s.zarr" / name / "zarr.json").read_text())
    assert document["zarr_format"] == 3
    assert document["shape"] == [3, 8, 4, 2]
    assert document["data_type"] == data_type
    assert document["chunk_grid"] == {"name": "regular", "configuration": {"chunk_shape": [3, 8, 4, 2]}}
    blosc = {"cname": "lz4", "clevel": 5, "shuffle": shuffle, "typesize": itemsize, "blocksize": 0}
    sharding = {
        "chunk_shape": [1, 8, 4, 2],
        "codecs": [bytes_codec, {"name": "blosc", "configuration": blosc}, {"name": "crc32c"}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    assert document["codecs"] == [{"name": "sharding_indexed", "configuration": sharding}]


@pytest.mark.parametrize(
    ("name", "codec", "level", "shuffle"),
    [("label", "lz4", 5, blosc.BITSHUFFLE), ("image", "zstd", 3, blosc.SHUFFLE), ("label", "zstd", 3, blosc.SHUFFLE)],
)
def test_chunks_that_are_shuffled_otherwise_are_read_as_well(name: str, codec: str, level: int, shuffle: int) -> None:
    """As they were written before: a dataset outlives the software that made it."""
    array = random_arrays(2, (40, 40, 40))[name][1]
    out = np.zeros_like(array)
    decode_chunk(sealed(blosc.compress(array, codec.encode(), level, shuffle, 0)), out)
    np.testing.assert_array_equal(out, array)


@pytest.mark.parametrize(
    ("written", "changes", "found"),
    [
        ("label", {}, True),
        ("label", {"noshuffle": "bitshuffle"}, True),
        ("label", {"noshuffle": "other"}, False),
        ("label", {"noshuffle": "bitshuffle", "uint8": "int8"}, False),
        ("image", {}, True),
        ("image", {"bitshuffle": "noshuffle"}, False),
        ("group", {}, False),
    ],
)
def test_metadata_is_the_one_of_now_or_of_before(written: str, changes: dict[str, str], found: bool) -> None:
    name = "image" if written == "group" else written
    text = json.dumps(group_metadata() if written == "group" else array_metadata(name, (3, 8, 4, 2)))
    for old, new in changes.items():
        text = text.replace(f'"{old}"', f'"{new}"')
    assert describes(json.loads(text), array_metadata(name, (3, 8, 4, 2))) == found


@pytest.mark.parametrize("shuffle", ["shuffle", "noshuffle"])
def test_metadata_of_differences_may_be_those_of_before(shuffle: str) -> None:
    now = array_metadata("image", (3, 8, 4, 2), kind="delta")
    before = json.dumps(now).replace('"lz4"', '"zstd"').replace('"clevel": 5', '"clevel": 3')
    assert describes(json.loads(before.replace('"noshuffle"', f'"{shuffle}"')), now)
    assert not describes(json.loads(before.replace('"int16"', '"int8"')), now)


def test_differences_are_not_shuffled(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.zarr", random_arrays(3, (8, 4, 2)), "delta")
    document = json.loads((tmp_path / "s.zarr/image/zarr.json").read_text())
    blosc = {"cname": "lz4", "clevel": 5, "shuffle": "noshuffle", "typesize": 2, "blocksize": 0}
    assert document["codecs"][0]["configuration"]["codecs"][1] == {"name": "blosc", "configuration": blosc}


def test_a_shard_is_one_object_an_array_and_three_metadata_files(tmp_path: Path) -> None:
    write_shard(tmp_path / "s.zarr", random_arrays(3, (4, 4, 4)))
    files = {path.relative_to(tmp_path / "s.zarr").as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    objects = {object_path(name) for name in DTYPES}
    assert objects == {"image/c/0/0/0/0", "label/c/0/0/0/0"}
    assert files == objects | {"zarr.json", "image/zarr.json", "label/zarr.json"}


def test_digests_are_those_of_the_files(tmp_path: Path) -> None:
    _, digests = write_shard(tmp_path / "s.zarr", random_arrays(3, (4, 4, 4)))
    assert [digest.path for digest in digests] == [object_path("image"), object_path("label")]
    for digest in digests:
        data = (tmp_path / "s.zarr" / digest.path).read_bytes()
        assert (digest.size, digest.sha256) == (len(data), hashlib.sha256(data).hexdigest())


@settings(max_examples=15, deadline=None)
@given(
    samples=st.integers(1, 5),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    seed=st.integers(0, 9),
    kind=st.sampled_from(["full", "delta"]),
)
def test_ranges_lead_to_the_samples_and_are_the_index(
    tmp_path_factory: pytest.TempPathFactory, samples: int, shape: Shape, seed: int, kind: StoredKind
) -> None:
    folder = tmp_path_factory.mktemp("ranges") / "s.zarr"
    arrays = random_arrays(samples, shape, seed)
    ranges, _ = write_shard(folder, arrays, kind)
    for name, array in arrays.items():
        data = (folder / object_path(name)).read_bytes()
        for row, expected in zip(ranges, array, strict=True):
            offset, length = row[name]
            out = np.full(shape, 77, DTYPES[name])
            decode_chunk(data[offset : offset + length], out)
            np.testing.assert_array_equal(out, expected)
        stored, checksum = data[-16 * samples - 4 : -4], data[-4:]
        assert np.frombuffer(stored, "<u8").reshape(-1, 2).tolist() == [list(row[name]) for row in ranges]
        assert crc32c(stored).to_bytes(4, "little") == checksum
        assert sum(row[name].length for row in ranges) == len(data) - 16 * samples - 4
        np.testing.assert_array_equal(zarr.open_group(folder, mode="r")[name][:], array)


@settings(max_examples=15, deadline=None)
@given(samples=st.integers(1, 3), planes=st.integers(1, 3 * SLAB), seed=st.integers(0, 9))
def test_ranges_of_samples_in_slabs_hold_all_their_chunks(
    tmp_path_factory: pytest.TempPathFactory, samples: int, planes: int, seed: int
) -> None:
    folder, shape = tmp_path_factory.mktemp("slabs") / "s.zarr", (planes, 3, 2)
    arrays = random_arrays(samples, shape, seed)
    ranges, _ = write_shard(folder, arrays, slabs=True)
    edge = chunk_edge(shape, whole_cases=True)
    for name, array in arrays.items():
        data = (folder / object_path(name)).read_bytes()
        for row, expected in zip(ranges, array, strict=True):
            offset, length = row[name]
            out = np.full(shape, 77, DTYPES[name])
            decode_sample(data[offset : offset + length], out, edge)
            np.testing.assert_array_equal(out, expected)
        assert len(data) == sum(row[name].length for row in ranges) + 16 * samples * -(-planes // edge) + 4


@pytest.mark.parametrize("kind", ["full", "delta"])
def test_what_follows_a_samples_chunks_is_refused(kind: StoredKind) -> None:
    chunk = encode_chunk(TINY, kind)
    with pytest.raises(ChunkError):
        decode_sample(chunk + chunk, np.empty_like(TINY))
    with pytest.raises(ChunkError):
        decode_sample(chunk, np.empty((4, 3, 4), np.int16), edge=2)


def test_the_same_samples_make_the_same_bytes(tmp_path: Path) -> None:
    arrays = random_arrays(3, (8, 8, 8))
    first, second = (write_shard(tmp_path / name, arrays) for name in ("a.zarr", "b.zarr"))
    assert first == second


# -- damage -----------------------------------------------------------------------------------------------------------

TINY = np.arange(-12, 12, dtype=np.int16).reshape(2, 3, 4)


def sealed(body: bytes) -> bytes:
    return body + crc32c(body).to_bytes(4, "little")


@pytest.mark.parametrize("kind", ["full", "delta"])
def test_every_flipped_bit_of_a_chunk_is_refused(kind: StoredKind) -> None:
    chunk = encode_chunk(TINY, kind)
    for bit in range(8 * len(chunk)):
        broken = bytearray(chunk)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ChunkError):
            decode_chunk(bytes(broken), np.empty_like(TINY))


@pytest.mark.parametrize("kind", ["full", "delta"])
def test_every_cut_of_a_chunk_is_refused(kind: StoredKind) -> None:
    chunk = encode_chunk(TINY, kind)
    for length in range(len(chunk)):
        with pytest.raises(ChunkError):
            decode_chunk(chunk[:length], np.empty_like(TINY))
    with pytest.raises(ChunkError):
        decode_chunk(chunk + b"\0", np.empty_like(TINY))


@pytest.mark.parametrize("shape", [(2, 3, 3), (2, 3, 5), (1, 1, 1), (20, 30, 40)])
def test_a_chunk_of_another_size_is_refused(shape: Shape) -> None:
    with pytest.raises(ChunkError, match=f"holds 48 bytes, expected {2 * np.prod(shape)}"):
        decode_chunk(encode_chunk(TINY), np.empty(shape, np.int16))


@pytest.mark.parametrize("cut", [17, 30, 3000])
def test_a_cut_blosc_body_with_a_valid_checksum_is_refused(cut: int) -> None:
    image = random_arrays(2, (20, 20, 20))["image"][1]
    with pytest.raises(ChunkError):
        decode_chunk(sealed(encode_chunk(image)[:cut]), np.empty_like(image))


@pytest.mark.parametrize("name", ["image", "label"])
@pytest.mark.parametrize("where", ["first chunk", "last chunk", "index", "index checksum"])
def test_zarr_python_sees_the_damage_as_well(tmp_path: Path, name: str, where: str) -> None:
    ranges, _ = write_shard(tmp_path / "s.zarr", random_arrays(3, (8, 8, 8)))
    file = tmp_path / "s.zarr" / object_path(name)
    data = bytearray(file.read_bytes())
    last = ranges[-1][name]
    at = {"first chunk": 20, "last chunk": last.offset + last.length - 9, "index": -30, "index checksum": -1}[where]
    data[at] ^= 0x10
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"(?i)checksum"):
        zarr.open_group(tmp_path / "s.zarr", mode="r")[name][:]


# -- checksums --------------------------------------------------------------------------------------------------------


def test_crc32c_is_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C in RFC 3720 and every CRC catalogue


@pytest.mark.parametrize(
    "stored",
    [TINY, np.asfortranarray(TINY), np.repeat(TINY, 2, axis=2)[:, :, ::2], TINY[::-1][::-1], TINY.astype(">i2")],
    ids=["C order", "Fortran order", "strided", "reversed twice", "big endian"],
)
def test_an_arrays_checksum_does_not_depend_on_its_memory(stored: npt.NDArray[np.int16]) -> None:
    assert (stored == TINY).all()
    assert array_crc32c(stored) == crc32c(TINY.astype("<i2").tobytes())


# -- writing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("appended", [0, 1, 3])
def test_a_shard_with_another_number_of_samples_is_not_finished(tmp_path: Path, appended: int) -> None:
    arrays = random_arrays(3, (4, 4, 4))
    with writer_of(tmp_path / "s.zarr", 2, (4, 4, 4)) as writer:
        for k in range(appended):
            writer.append(writer.encode({name: array[k] for name, array in arrays.items()}))
        with pytest.raises(ValueError, match=f"{appended} of 2 samples"):
            writer.finish()
    assert not list(tmp_path.rglob("zarr.json"))


def test_an_abandoned_shard_is_no_zarr_group(tmp_path: Path) -> None:
    arrays = random_arrays(2, (4, 4, 4))

    def fail_half_way() -> None:
        with writer_of(tmp_path / "s.zarr", 2, (4, 4, 4)) as writer:
            writer.append(writer.encode({name: array[0] for name, array in arrays.items()}))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert not list(tmp_path.rglob("zarr.json"))


def test_without_a_shape_all_samples_have_that_of_the_first(tmp_path: Path) -> None:
    arrays = random_arrays(2, (4, 5, 6))
    with writer_of(tmp_path / "s.zarr", 2, None) as writer:
        for k in range(2):
            writer.append(writer.encode({name: array[k] for name, array in arrays.items()}))
        with pytest.raises(ValueError, match=r"image: .*expected int16 \(4, 5, 6\)"):
            writer.encode({name: array[0, 1:] for name, array in arrays.items()})
        writer.finish()
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "s.zarr", mode="r")["image"][:], arrays["image"])


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("image", np.zeros((4, 4, 5), np.int16)),
        ("image", np.zeros((4, 4, 4), np.float32)),
        ("image", np.zeros((4, 4, 4), np.uint16)),
        ("image", np.zeros((4, 4, 4), ">i2")),
        ("label", np.zeros((1, 4, 4, 4), np.uint8)),
        ("label", np.zeros((4, 4, 4), np.bool_)),
        ("label", np.zeros((4, 4, 4), np.int8)),
    ],
)
def test_a_wrong_array_is_refused_and_nothing_is_written(tmp_path: Path, name: str, array: npt.NDArray[Any]) -> None:
    good = {"image": np.ones((4, 4, 4), np.int16), "label": np.ones((4, 4, 4), np.uint8)}
    with writer_of(tmp_path / "s.zarr", 1, (4, 4, 4)) as writer:
        with pytest.raises(ValueError, match=rf"{name}: .*expected"):
            writer.encode(good | {name: array})
        assert writer.append(writer.encode(good))["image"].offset == 0
        writer.finish()
