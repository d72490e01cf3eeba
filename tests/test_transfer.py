"""Copies of banks and datasets: between disks and object stores, cut off and resumed, refused when they do not fit."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline import bank_format, sending
from pipeline.bank import create_or_open_bank, open_bank
from pipeline.catalog import Dataset, open_dataset
from pipeline.config import GenerateConfig
from pipeline.description import INFO, Source, create_info
from pipeline.errors import InputError, PhantumorError
from pipeline.manifest import WHOLE, shard_name
from pipeline.sending import Sender
from pipeline.shard import object_path
from pipeline.store import FolderStore, open_store
from pipeline.transfer import copy
from tests.cases import make_bank, make_case
from tests.command import run
from tests.damage import forge
from tests.s3_server import S3Server
from workers.generate import generate, job_for, new_info
from workers.shard_task import make_shard

CONFIG = GenerateConfig(samples=10, patch_shape=(16, 16, 16), shard_samples=4, seed=5)
SHARDS, CASES = 3, 3


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `bank` and the dataset `data` made from it; nobody writes to it."""
    home = tmp_path_factory.mktemp("home")
    make_bank(home / "bank", CASES)
    generate(home / "bank", home / "data", CONFIG, log=lambda _: None)
    return home


@pytest.fixture
def copy_of_home(home: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(home, tmp_path / "home"))


NewPlace = Callable[[str], str]


@pytest.fixture(params=["folder", "s3"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> NewPlace:
    """Makes places of one kind by name, beside each other."""
    top = str(tmp_path / "copies") if request.param == "folder" else request.getfixturevalue("s3_url")
    return lambda name: f"{top}/{name}"


@contextlib.contextmanager
def cut_off_after(sent: int) -> Iterator[None]:
    """Copying ends, as by Ctrl-C, before object number `sent`."""
    counted, send = itertools.count(), Sender.send

    def send_or_stop(self: Sender, parcel: sending.Parcel) -> None:
        if next(counted) >= sent:
            raise KeyboardInterrupt
        send(self, parcel)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sending, "THREADS", 1)
        patch.setattr(Sender, "send", send_or_stop)
        yield


def objects(place: str | Path, but: tuple[str, ...] = ()) -> dict[str, bytes]:
    """Everything that lies somewhere."""
    store = open_store(place)
    return {entry.key: store.read(entry.key) for entry in store.entries() if not entry.key.startswith((".", *but))}


def assert_copy(there: str, dataset: Dataset) -> None:
    """The same objects byte for byte, but for what dataset.json says of the bank."""
    assert objects(there, (INFO,)) == objects(dataset.path, (INFO,))
    copied = open_dataset(there)
    assert copied.complete
    assert copied.info.model_copy(update={"bank": dataset.info.bank}) == dataset.info
    assert all((a == b).all() for a, b in zip(copied.sample(7)[:2], dataset.sample(7)[:2], strict=True))


# ---- what is copied ----


def test_a_bank_goes_there_and_back(home: Path, new_place: NewPlace, tmp_path: Path) -> None:
    done = copy(home / "bank", new_place("bank"))
    assert (done.kind, done.units, done.copied) == ("bank", CASES, CASES)
    assert objects(new_place("bank"), (bank_format.TABLE,)) == objects(home / "bank", (bank_format.TABLE,))
    copy(new_place("bank"), tmp_path / "back")
    back, bank = open_bank(tmp_path / "back"), open_bank(home / "bank")
    assert back.fingerprint == open_bank(new_place("bank")).fingerprint == bank.fingerprint
    back.check("tiny_1")
    np.testing.assert_array_equal(back.load("tiny_1").ct, bank.load("tiny_1").ct)


def test_a_dataset_goes_there_and_back(home: Path, new_place: NewPlace, tmp_path: Path) -> None:
    done = copy(home / "data", new_place("data"))
    assert (done.kind, done.units, done.copied) == ("dataset", SHARDS, SHARDS)
    assert done.bytes == sum(f.size for part in open_dataset(home / "data").parts.values() for f in part.files)
    assert_copy(new_place("data"), open_dataset(home / "data"))
    copy(new_place("data"), tmp_path / "back")
    assert_copy(str(tmp_path / "back"), open_dataset(home / "data"))


@pytest.mark.parametrize("kind", ["delta", "recipe"])
def test_differences_and_recipes_are_copied(home: Path, new_place: NewPlace, tmp_path: Path, kind: str) -> None:
    config = CONFIG.model_copy(update={"store": kind})
    generate(home / "bank", tmp_path / "data", config, log=lambda _: None)
    copy(tmp_path / "data", new_place("data"))
    assert_copy(new_place("data"), open_dataset(tmp_path / "data"))


def test_objects_in_object_stores_are_copied_among_them(home: Path, s3: S3Server) -> None:
    first, second = s3.new_url(), s3.new_url()
    copy(home / "data", first)
    copy(first, second)
    assert_copy(second, open_dataset(home / "data"))


def test_notes_of_the_making_come_along(copy_of_home: Path, new_place: NewPlace) -> None:
    (copy_of_home / "data/runs/a").mkdir(parents=True, exist_ok=True)
    (copy_of_home / "data/runs/a/run.json").write_text("{}")
    copy(copy_of_home / "data", new_place("data"))
    assert open_store(new_place("data")).read("runs/a/run.json") == b"{}"


# ---- resuming ----


@pytest.mark.parametrize("sent", [0, 3, 7, 11])
def test_a_dataset_that_was_cut_off_is_not_complete_and_goes_on(home: Path, new_place: NewPlace, sent: int) -> None:
    with cut_off_after(sent), pytest.raises(KeyboardInterrupt):
        copy(home / "data", new_place("data"))
    half = open_dataset(new_place("data"))
    committed = sent // 5  # image, label and three pieces of metadata of each shard
    assert (len(half.parts), half.complete) == (committed, False)
    assert half.manifest["index"].to_pylist() == list(range(4 * committed))
    assert copy(home / "data", new_place("data")).copied == SHARDS - committed
    assert_copy(new_place("data"), open_dataset(home / "data"))


@pytest.mark.parametrize("sent", [0, 5, 20, 40])
def test_a_bank_that_was_cut_off_holds_whole_cases_and_goes_on(home: Path, new_place: NewPlace, sent: int) -> None:
    with cut_off_after(sent), pytest.raises(KeyboardInterrupt):
        copy(home / "bank", new_place("bank"))
    each = len(objects(home / "bank/cases/tiny_0.zarr"))
    if sent >= each:
        assert [record.case_id for record in open_bank(new_place("bank")).records] == ["tiny_0", "tiny_1"][
            : sent // each
        ]
    else:
        with pytest.raises(InputError, match="holds no case yet"):
            open_bank(new_place("bank"))
    assert copy(home / "bank", new_place("bank")).copied == CASES - sent // each
    assert objects(new_place("bank"), (bank_format.TABLE,)) == objects(home / "bank", (bank_format.TABLE,))
    assert open_bank(new_place("bank")).fingerprint == open_bank(home / "bank").fingerprint


def test_what_is_there_is_not_copied_again(home: Path, new_place: NewPlace) -> None:
    for name in ("bank", "data"):
        copy(home / name, new_place(name))
        again = copy(home / name, new_place(name))
        assert (again.copied, again.bytes) == (0, 0)


def test_what_was_lost_there_is_copied_again(home: Path, new_place: NewPlace) -> None:
    for name in ("bank", "data"):
        copy(home / name, new_place(name))
    part = open_dataset(home / "data").parts[1]
    open_store(new_place("data")).remove([f"{shard_name(1, part.attempt)}/{object_path('label')}"])
    open_store(new_place("bank")).replace("cases/tiny_1.zarr/ct/c/0/0/0", b"cut")
    assert copy(home / "data", new_place("data")).copied == 1
    assert copy(home / "bank", new_place("bank")).copied == 1
    assert_copy(new_place("data"), open_dataset(home / "data"))
    open_bank(new_place("bank")).check("tiny_1")


def test_a_bank_that_got_more_cases_is_followed(copy_of_home: Path, new_place: NewPlace) -> None:
    copy(copy_of_home / "bank", new_place("bank"))
    with create_or_open_bank(copy_of_home / "bank", 3.0) as writer:
        writer.add_case(make_case("another", seed=9))
        writer.set_split("tiny_0", "val")
    assert copy(copy_of_home / "bank", new_place("bank")).copied == 1
    assert open_bank(new_place("bank")).fingerprint == open_bank(copy_of_home / "bank").fingerprint


def test_a_dataset_that_grows_is_followed(copy_of_home: Path, new_place: NewPlace) -> None:
    copy(copy_of_home / "data", new_place("data"))
    larger = CONFIG.model_copy(update={"samples": 13})
    generate(copy_of_home / "bank", copy_of_home / "data", larger, log=lambda _: None)
    assert copy(copy_of_home / "data", new_place("data")).copied == 1
    assert_copy(new_place("data"), open_dataset(copy_of_home / "data"))
    assert open_dataset(new_place("data")).info.grown == (10,)


def begun(folder: Path, bank: Path, shards: tuple[int, ...]) -> None:
    """A dataset of which some shards are made."""
    store, opened = FolderStore(folder), open_bank(bank)
    info = new_info(store, opened, CONFIG)
    create_info(store, info)
    for shard in shards:
        make_shard(job_for(store, opened, info, shard))


def test_a_dataset_in_the_making_is_copied_as_far_as_it_is(home: Path, new_place: NewPlace, tmp_path: Path) -> None:
    begun(tmp_path / "data", home / "bank", (0, 2))
    done = copy(tmp_path / "data", new_place("data"))
    assert (done.copied, "2 of 3 shards" in done.note) == (2, True)
    assert sorted(open_dataset(new_place("data")).parts) == [0, 2]


def test_shards_that_were_made_there_stay(home: Path, tmp_path: Path) -> None:
    begun(tmp_path / "data", home / "bank", (1,))
    before = open_dataset(tmp_path / "data").parts[1]
    assert copy(home / "data", tmp_path / "data").copied == 2
    copied = open_dataset(tmp_path / "data")
    assert copied.parts[1] == before != open_dataset(home / "data").parts[1]
    assert copied.manifest.equals(open_dataset(home / "data").manifest)
    assert copied.store.exists(WHOLE)
    assert copied.sample(5).image.tobytes() == open_dataset(home / "data").sample(5).image.tobytes()


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_broken_shard_that_was_made_there_is_replaced(home: Path, tmp_path: Path, damage: str) -> None:
    generate(home / "bank", tmp_path / "data", CONFIG, log=lambda _: None)
    there = open_dataset(tmp_path / "data")
    store, key = there.object_key(1, "label")
    store.remove([key])
    if damage == "cut":
        store.replace(key, b"cut")
    assert copy(home / "data", tmp_path / "data").copied == 1
    copied, source = open_dataset(tmp_path / "data"), open_dataset(home / "data")
    assert copied.complete
    assert copied.manifest.equals(source.manifest)
    assert [copied.parts[k] == source.parts[k] for k in range(SHARDS)] == [False, True, False]
    assert len(copied.store.groups("shards")) == SHARDS
    assert copied.sample(5).label.tobytes() == source.sample(5).label.tobytes()


def test_a_replacement_that_is_cut_off_claims_nothing_and_goes_on(home: Path, tmp_path: Path) -> None:
    generate(home / "bank", tmp_path / "data", CONFIG, log=lambda _: None)
    store, key = open_dataset(tmp_path / "data").object_key(1, "label")
    store.remove([key])
    with cut_off_after(2), pytest.raises(KeyboardInterrupt):
        copy(home / "data", tmp_path / "data")
    assert sorted(open_dataset(tmp_path / "data").parts) == [0, 2]
    assert copy(home / "data", tmp_path / "data").copied == 1
    assert open_dataset(tmp_path / "data").complete


# ---- refusals ----


def test_a_shard_of_other_pixels_there_is_not_taken_for_this_one(home: Path, copy_of_home: Path) -> None:
    def brighter(index: int, image: np.ndarray, label: np.ndarray) -> None:  # type: ignore[type-arg]
        image[0, 0, 0] += 1

    forge(copy_of_home / "data", 1, brighter)
    before = objects(copy_of_home / "data")
    with pytest.raises(InputError, match=r"its shard 1 was made to other pixels than that of .*copy to another place"):
        copy(home / "data", copy_of_home / "data")
    assert objects(copy_of_home / "data") == before


@pytest.mark.parametrize("name", ["image", "label"])
def test_a_damaged_shard_is_not_copied(copy_of_home: Path, new_place: NewPlace, name: str) -> None:
    dataset = open_dataset(copy_of_home / "data")
    store, key = dataset.object_key(1, name)
    data = bytearray(store.read(key))
    data[100] ^= 1
    store.replace(key, bytes(data))
    with pytest.raises(InputError, match=rf"shards/000001-.*{name}.*damaged.*--repair"):
        copy(copy_of_home / "data", new_place("data"))
    assert 1 not in open_dataset(new_place("data")).parts


def test_a_damaged_case_is_not_copied(copy_of_home: Path, new_place: NewPlace) -> None:
    file = copy_of_home / "bank/cases/tiny_1.zarr/organs/c/0/0/0"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(InputError, match=r"tiny_1.zarr/organs.*damaged"):
        copy(copy_of_home / "bank", new_place("bank"))
    assert [record.case_id for record in open_bank(new_place("bank")).records] == ["tiny_0"]


def test_a_missing_object_is_named(copy_of_home: Path, new_place: NewPlace) -> None:
    store, key = open_dataset(copy_of_home / "data").object_key(0, "label")
    store.remove([key])
    with pytest.raises(InputError, match=r"label/c/0/0/0/0: missing\. Mend the source"):
        copy(copy_of_home / "data", new_place("data"))


@pytest.mark.parametrize("change", [{"seed": 6}, {"store": "delta"}, {"samples": 11}])
def test_another_dataset_is_not_mixed_in(
    home: Path, new_place: NewPlace, tmp_path: Path, change: dict[str, object]
) -> None:
    other = FolderStore(tmp_path / "other")
    create_info(other, new_info(other, open_bank(home / "bank"), CONFIG.model_copy(update=change)))
    copy(other.folder, new_place("data"))
    before = objects(new_place("data"))
    with pytest.raises(InputError, match=f"holds another dataset: .*{next(iter(change))}.*copy to another place"):
        copy(home / "data", new_place("data"))
    assert objects(new_place("data")) == before


def test_another_bank_is_not_mixed_in(home: Path, new_place: NewPlace, tmp_path: Path) -> None:
    with create_or_open_bank(tmp_path / "other", 3.0) as writer:
        writer.add_case(make_case("tiny_1", seed=7))
    copy(tmp_path / "other", new_place("bank"))
    with pytest.raises(InputError, match="another state of case 'tiny_1'; copy to another place"):
        copy(home / "bank", new_place("bank"))
    with pytest.raises(InputError, match="besides case 'tiny_0'"):
        copy(tmp_path / "other", copied(home / "bank", new_place("full")))
    with create_or_open_bank(tmp_path / "coarse", 6.0) as writer:
        writer.add_case(make_case("tiny_1", shape=(30, 26, 22), spacing_mm=6.0))
    with pytest.raises(InputError, match="a bank of 3 mm, not 6 mm"):
        copy(tmp_path / "coarse", new_place("bank"))


def copied(source: Path, destination: str) -> str:
    copy(source, destination)
    return destination


@pytest.mark.parametrize("name", ["bank", "data"])
def test_nothing_is_copied_into_something_else(home: Path, new_place: NewPlace, name: str) -> None:
    open_store(new_place("x")).create("thesis.txt", b"")
    with pytest.raises(InputError, match="something else lies there"):
        copy(home / name, new_place("x"))


@pytest.mark.parametrize("destination", ["data", "data/inside", "."])
def test_a_copy_lies_apart(home: Path, destination: str) -> None:
    with pytest.raises(InputError, match="cannot lie at, in or around"):
        copy(home / "data", home / destination)


def test_only_banks_and_datasets_are_copied(home: Path, new_place: NewPlace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither a bank nor a dataset: no bank.json, no dataset.json"):
        copy(new_place("nothing"), tmp_path / "x")
    with pytest.raises(InputError, match="is a bank itself"):
        copy(home / "bank", tmp_path / "x", bank=home / "bank")


def test_a_view_is_not_copied(home: Path, new_place: NewPlace, tmp_path: Path) -> None:
    info = open_dataset(home / "data").info
    digests = {"config_digest": info.config_digest, "bank_fingerprint": info.bank_fingerprint}
    source = Source(place=str(home / "data"), first_index=0, first_shard=0, **digests)
    view = FolderStore(tmp_path / "view")
    create_info(view, info.model_copy(update={"sources": (source,)}))
    view.replace(WHOLE, open_store(home / "data").read(WHOLE))
    with pytest.raises(InputError, match=f"is a view of {home}/data: copy those"):
        copy(view.folder, new_place("view"))


def test_a_full_disk_is_seen_beforehand(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderStore, "free_bytes", lambda self: 1000)
    with pytest.raises(PhantumorError, match=r"to copy, its disk has 1.0 kB free"):
        copy(home / "bank", tmp_path / "bank")
    assert not (tmp_path / "bank").exists()


# ---- where the copy finds its bank ----


def test_a_copy_finds_the_bank_that_was_copied_beside_it(home: Path, new_place: NewPlace) -> None:
    copy(home / "bank", new_place("bank"))
    done = copy(home / "data", new_place("data"))
    dataset = open_dataset(new_place("data"))
    assert dataset.bank.place == open_bank(new_place("bank")).place
    assert done.bank == ("../bank" if dataset.store.folder else new_place("bank"))
    assert done.note == ""


def test_a_copy_beside_no_bank_looks_where_the_source_does(home: Path, new_place: NewPlace) -> None:
    done = copy(home / "data", new_place("data"))
    dataset = open_dataset(new_place("data"))
    assert dataset.bank.place == str(home / "bank")
    assert ("--bank PLACE" in done.note) == (dataset.store.folder is None)
    assert (dataset.healthy(3) == open_dataset(home / "data").healthy(3)).all()


def test_a_copy_may_be_told_where_the_bank_is(home: Path, new_place: NewPlace, s3: S3Server) -> None:
    bank = s3.new_url()
    copy(home / "bank", bank)
    copy(home / "data", new_place("data"))
    done = copy(home / "data", new_place("data"), bank=bank)
    assert (done.copied, done.bank, done.note) == (0, bank, "")
    assert open_dataset(new_place("data")).bank.place == bank


def test_a_bank_that_was_chosen_once_stays(home: Path, new_place: NewPlace, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    copy(home / "bank", chosen)
    copy(home / "bank", new_place("bank"))  # beside it, where a copy looks otherwise
    copy(home / "data", new_place("data"), bank=chosen)
    assert open_bank(copy_bank_of(new_place("data"))).place == str(chosen)
    copy(home / "data", new_place("data"))
    assert open_bank(copy_bank_of(new_place("data"))).place == str(chosen)
    shutil.rmtree(chosen)
    copy(home / "data", new_place("data"))
    assert open_dataset(new_place("data")).bank.place == open_bank(new_place("bank")).place


def copy_bank_of(place: str) -> str:
    return open_dataset(place).bank.place


def test_a_bank_in_an_object_store_is_found_from_a_disk(home: Path, s3: S3Server, tmp_path: Path) -> None:
    top = s3.new_url()
    copy(home / "bank", f"{top}/bank")
    copy(home / "data", f"{top}/data")
    assert copy(f"{top}/data", tmp_path / "data").bank == f"{top}/bank"
    assert copy(f"{top}/data", f"{s3.new_url()}/data").bank == f"{top}/bank"
    copy(f"{top}/bank", tmp_path / "bank")
    assert copy(f"{top}/data", tmp_path / "data").bank == "../bank"


def test_another_bank_is_refused(home: Path, new_place: NewPlace, tmp_path: Path) -> None:
    make_bank(tmp_path / "bank", 2)
    with pytest.raises(InputError, match=r"not the bank that .* was made from"):
        copy(home / "data", new_place("data"), bank=tmp_path / "bank")
    assert objects(new_place("data")) == {}


# ---- as a user types it ----


def test_the_verb_copies_and_tells(home: Path, new_place: NewPlace, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "copy", home / "bank", new_place("bank"))
    assert (code, out.splitlines()[0]) == (0, f"{new_place('bank')}:")
    assert "3 of 3 cases copied" in out
    code, out, _ = run(capsys, "copy", home / "data", new_place("data"), "--bank", new_place("bank"), "--json")
    document = json.loads(out)
    assert (code, document["units"], document["copied"]) == (0, SHARDS, SHARDS)
    code, _, error = run(capsys, "copy", home / "data", new_place("bank"))
    assert (code, error.count("\n")) == (2, 1)


def test_progress_is_in_megabytes(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, error = run(capsys, "copy", home / "bank", tmp_path / "bank")
    total = sum(len(data) for data in objects(home / "bank/cases").values()) // 1_000_000
    assert f"{total}/{total} MB, " in error
