"""An S3 server for tests: moto in a process of its own, on a free port of this machine, so that any number of test
processes can talk to it. The fixtures are in `tests.conftest`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "tests"
_HOST = "127.0.0.1"
_OTHER_SETTINGS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION")


class S3Server:
    """A running server. `environment` is what makes every S3 client of this process and its children talk to it."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    @property
    def environment(self) -> dict[str, str]:
        local = ",".join(filter(None, [os.environ.get("NO_PROXY"), _HOST, "localhost"]))
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": local,
            "no_proxy": local,
        }

    def use(self, patch: pytest.MonkeyPatch) -> None:
        """Make clients talk to this server until `patch` is undone."""
        for name in _OTHER_SETTINGS:
            patch.delenv(name, raising=False)
        for name, value in self.environment.items():
            patch.setenv(name, value)

    def new_url(self) -> str:
        """A place that nobody else uses."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex[:12]}"

    def make_bucket(self, name: str) -> None:
        request = urllib.request.Request(f"{self.endpoint}/{name}", method="PUT")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30):
            pass


@contextlib.contextmanager
def running_server() -> Iterator[S3Server]:
    """Start a server, and end it however the block ends; it also ends when this process dies."""
    command = [sys.executable, "-m", "tests.s3_server"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        endpoint = process.stdout.readline().strip()
        if not endpoint:
            raise RuntimeError(f"the S3 server ended at once, exit code {process.wait()}")
        server = S3Server(endpoint)
        server.make_bucket(BUCKET)
        yield server
    finally:
        process.terminate()
        process.communicate(timeout=30)


class _OneWriterAtATime:
    """S3 decides a conditional PUT in one step; moto looks first and writes then, which threads can get between."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._lock if "HTTP_IF_NONE_MATCH" in environ else contextlib.nullcontext():
            return self._application(environ, start_response)


def _serve() -> None:
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = _OneWriterAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server(_HOST, 0, application, threaded=True)
    print(f"http://{_HOST}:{server.server_port}", flush=True)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    server.serve_forever()


def _end_with_parent() -> None:
    sys.stdin.read()  # ends when the other end of the pipe does
    os._exit(0)


if __name__ == "__main__":
    _serve()
