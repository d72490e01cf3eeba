"""Fixtures that several test modules share."""

from __future__ import annotations

import faulthandler
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Tests run beside each other: threads of numerical libraries would only wait for a core. They read it when imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from pipeline.bank import Bank
from tests.estimates import estimate_of_one
from tests.s3_server import S3Server, running_server
from tests.specs import make_abdomens

HANG_S = 120
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script; the tests are of commands that people start, and stop by Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("suite", deadline=None)  # how long an example takes is the machine's matter
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="session")
def quick_estimates() -> Iterator[None]:
    """What a run will cost is told from one sample, as it would else make most small datasets twice.

    `workers.estimate` itself, and commands in processes of their own, are as ever.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workers.generate.estimate_cost", estimate_of_one)
        yield


@pytest.fixture
def no_hang() -> Iterator[None]:
    """A test that hangs ends the whole run, with the stacks of all threads."""
    faulthandler.dump_traceback_later(HANG_S, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Ray on this machine, two CPUs, with a token of its own: the module `ray`, connected."""
    from ray._private.authentication_test_utils import reset_auth_token_state

    from workers import ray_cluster

    before = dict(os.environ)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    reset_auth_token_state()  # Ray reads this when it is imported, which another test may have done
    ray_cluster.connect("local", 2)
    import ray

    yield ray
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


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
