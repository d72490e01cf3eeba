"""A page of phantumor under test: its application in this process, or its command with a headless browser."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.routing import BaseRoute
from starlette.testclient import TestClient

from pipeline.pages.server import application

TOKEN, PORT = "the-token", 8000
CHROMIUM = Path("/usr/bin/chromium")
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def client(routes: Sequence[BaseRoute], token: str | None = TOKEN, **options: Any) -> TestClient:
    """A client of guarded routes, with the token unless told otherwise."""
    app = application(routes, TOKEN, PORT, **options)
    headers = {} if token is None else {"x-phantumor-token": token}
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", headers=headers, follow_redirects=False)


@contextlib.contextmanager
def served(*words: object) -> Iterator[str]:
    """The address that a serving command prints; it must end quietly with Ctrl-C."""
    command = [sys.executable, "-m", "pipeline.cli", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        address = re.search(r"http://\S+", line)
        assert address, line + process.stderr.read()
        assert process.stderr.readline() == "End with Ctrl-C.\n"
        yield address[0]
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
        assert (process.returncode, told) == (0, "")
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Chromium with WebGL 2 in software; skips the test where it is not installed."""
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=_FLAGS)
        yield opened
        opened.close()


class Watched:
    """What a page asked for and complained about."""

    def __init__(self, page: Any) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)

    def check(self) -> None:
        """No error, and nothing left this machine."""
        foreign = [url for url in self.requests if not url.startswith(("http://127.0.0.1:", "data:", "blob:"))]
        assert (foreign, self.errors) == ([], [])
