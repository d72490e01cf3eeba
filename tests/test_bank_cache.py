"""A bank in an object store: its cases are copied to this node once, whole, and only as they were prepared."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline import bank_cache
from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.bank_cache import bank_folder
from pipeline.errors import InputError, PhantumorError
from pipeline.node_cache import cache_folder
from pipeline.store import open_store
from pipeline.transfer import copy
from tests.cases import make_bank, make_case
from tests.faulty_proxy import FaultyProxy, faulty_proxy
from tests.s3_server import ROOT, S3Server


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """On a disk."""
    return make_bank(tmp_path_factory.mktemp("bank") / "bank", 2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("PHANTUMOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def url(bank: Bank, s3_url: str) -> str:
    """The bank in an object store, which a test may change."""
    copy(bank.path, s3_url)
    return s3_url


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """Between clients and the object store, from now on."""
    with faulty_proxy(s3.endpoint) as between:
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
        yield between


def digests(bank: Bank, case_id: str) -> dict[str, str]:
    """sha256 of every volume of a case as it is mapped into memory."""
    case = bank.load(case_id)
    names = ("ct", "organs", "vessels", "noise")
    return {name: hashlib.sha256(getattr(case, name).tobytes()).hexdigest() for name in names}


def _digests_at(url: str) -> dict[str, str]:
    return digests(open_bank(url), "tiny_0")


def test_a_case_is_what_it_is_on_a_disk(bank: Bank, url: str, cache: Path) -> None:
    remote = open_bank(url)
    assert (remote.place, remote.fingerprint) == (url, bank.fingerprint)
    assert digests(remote, "tiny_0") == digests(bank, "tiny_0")
    remote.check("tiny_1")
    assert remote.path == bank_folder(bank.fingerprint)
    assert cache in remote.path.parents


def test_a_case_is_fetched_when_it_is_asked_for_and_once(url: str, proxy: FaultyProxy) -> None:
    remote = open_bank(url)
    for _ in range(3):
        remote.load("tiny_0")
    open_bank(url).load("tiny_0")
    assert proxy.count("GET", "tiny_0.zarr/ct") == 1
    assert proxy.count("GET", "tiny_1.zarr") == 0


def test_of_many_processes_one_fetches(bank: Bank, url: str, proxy: FaultyProxy) -> None:
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(_digests_at, [url] * 3))
    assert found == [digests(bank, "tiny_0")] * 3
    assert proxy.count("GET", "tiny_0.zarr/ct") == 1


def test_of_many_threads_one_fetches(bank: Bank, url: str, proxy: FaultyProxy) -> None:
    remote = open_bank(url)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: digests(remote, "tiny_0"), range(8)))
    assert found == [digests(bank, "tiny_0")] * 8
    assert proxy.count("GET", "tiny_0.zarr/ct") == 1


def test_a_copier_that_was_killed_leaves_nothing_harmful(bank: Bank, url: str, proxy: FaultyProxy, cache: Path) -> None:
    proxy.script("GET", "tiny_0.zarr/voxels", "hang")
    code = f"from pipeline.bank import open_bank; open_bank({url!r}).load('tiny_0')"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    assert proxy.held.wait(60)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (left,) = cache.rglob("*.tmp")
    assert not any(bank_folder(bank.fingerprint).rglob("*"))
    os.utime(left, (0, 0))
    assert digests(open_bank(url), "tiny_0") == digests(bank, "tiny_0")
    assert not list(cache.rglob("*.tmp"))


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: bytes([data[0] ^ 1]) + data[1:]])
def test_other_bytes_are_refused_and_not_kept(url: str, cache: Path, change: Callable[[bytes], bytes]) -> None:
    store, key = open_store(url), "cases/tiny_0.zarr/organs/c/0/0/0"
    store.replace(key, change(store.read(key)))
    for _ in range(2):
        with pytest.raises(InputError, match=rf"{url}/{key}: not the bytes that were prepared"):
            open_bank(url).load("tiny_0")
    assert not list(cache.rglob("*.zarr"))
    open_bank(url).load("tiny_1")


def test_a_missing_array_is_named(url: str) -> None:
    open_store(url).remove(["cases/tiny_0.zarr/ct/c/0/0/0"])
    with pytest.raises(InputError, match=r"tiny_0.zarr/ct/c/0/0/0: missing"):
        open_bank(url).load("tiny_0")


def test_a_bank_that_is_away_is_no_damaged_bank(url: str, proxy: FaultyProxy) -> None:
    remote = open_bank(url)
    proxy.script("GET", "tiny_0.zarr/ct", 403)
    with pytest.raises(PermissionError, match="access denied"):
        remote.load("tiny_0")
    remote.load("tiny_0")


def test_banks_share_cases(bank: Bank, url: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    larger = Path(shutil.copytree(bank.path, tmp_path / "larger"))
    with create_or_open_bank(larger, 3.0) as writer:
        writer.add_case(make_case("another", seed=9))
    open_bank(url).load("tiny_0")
    copy(larger, url)
    grown = open_bank(url)
    assert grown.path != bank_folder(bank.fingerprint)
    assert digests(grown, "tiny_0") == digests(bank, "tiny_0")
    assert digests(grown, "another") == digests(open_bank(larger), "another")
    assert proxy.count("GET", "tiny_0.zarr/ct") == 1


def test_banks_with_cases_of_the_same_name_do_not_mix(bank: Bank, url: str, s3: S3Server, tmp_path: Path) -> None:
    with create_or_open_bank(tmp_path / "other", 3.0) as writer:
        writer.add_case(make_case("tiny_0", seed=7))
    other = s3.new_url()
    copy(tmp_path / "other", other)
    assert digests(open_bank(url), "tiny_0") == digests(bank, "tiny_0")
    assert digests(open_bank(other), "tiny_0") == digests(open_bank(tmp_path / "other"), "tiny_0")
    assert digests(open_bank(other), "tiny_0") != digests(bank, "tiny_0")


def test_what_a_cleaner_took_is_fetched_again(bank: Bank, url: str, cache: Path, proxy: FaultyProxy) -> None:
    open_bank(url).load("tiny_0")
    next(cache.glob("cases/tiny_0-*.zarr/organs/c/0/0/0")).unlink()
    bank_cache._whole.clear()  # as in a new process
    assert digests(open_bank(url), "tiny_0") == digests(bank, "tiny_0")
    shutil.rmtree(cache)
    assert digests(open_bank(url), "tiny_0") == digests(bank, "tiny_0")
    assert proxy.count("GET", "tiny_0.zarr/ct") == 3


def test_the_cache_is_where_the_environment_says(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.setenv("PHANTUMOR_CACHE", "~/scratch")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/scratch")
    monkeypatch.delenv("PHANTUMOR_CACHE")
    assert cache_folder() == Path("/home/someone/.cache/phantumor")


def test_a_cache_that_cannot_be_written_to_is_said(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PhantumorError, match=rf"cannot write to {cache}/cases: Read-only file system. Set PHANTUMOR_"):
        open_bank(url).load("tiny_0")


def test_a_file_in_the_way_of_the_cache_is_named(url: str, cache: Path) -> None:
    cache.write_text("")
    with pytest.raises(InputError, match=rf"{cache}/cases.* is in the way|cannot write to {cache}"):
        open_bank(url).load("tiny_0")


def test_a_full_cache_is_said_and_keeps_nothing(url: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(bank_cache.os, "fsync", full)
    with pytest.raises(PhantumorError, match=r"No space left on device. Set PHANTUMOR_CACHE"):
        open_bank(url).load("tiny_0")
    assert not list(cache.rglob("*.tmp")) + list(cache.rglob("*.zarr"))
