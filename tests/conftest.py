"""Fixtures that several test modules share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pipeline.bank import Bank
from tests.s3_server import S3Server, running_server
from tests.specs import make_abdomens

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script; the tests are of commands that people start, and stop by Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("suite", deadline=None)  # how long an example takes is the machine's matter
settings.load_profile("suite")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real CT for tests, kept beside the checkout and never copied into it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real CT not available: {folder} is missing")
    return folder


@pytest.fixture(scope="session")
def abdomens(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank of one abdomen in each contrast phase."""
    return make_abdomens(tmp_path_factory.mktemp("abdomens") / "bank")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server on this machine; nobody's environment names it yet."""
    with running_server() as server:
        yield server


@pytest.fixture(scope="module")
def s3(s3_server: S3Server) -> Iterator[S3Server]:
    """The S3 server, and the environment of this process set to use it for one module of tests."""
    with pytest.MonkeyPatch.context() as patch:
        s3_server.use(patch)
        yield s3_server


@pytest.fixture
def s3_url(s3: S3Server) -> str:
    """A fresh `s3://bucket/prefix`."""
    return s3.new_url()
