"""An HTTP proxy in front of the S3 server of the tests that fails on purpose, counts requests, and adds latency."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from pipeline import s3_client

# What a fault does: a status is answered without asking the server; `drop` closes the connection; `lose` asks the
# server and closes the connection without the answer; `cut` closes it in the middle of the answer; `hang` never
# answers; `wait` asks the server when the test lets it; `blind` asks without the condition; `pass` is no fault.
Fault = int | str


@dataclass
class FaultyProxy:
    """Passes requests on. `faults` are (method, part of the path, faults to come), the first that fits is used up."""

    upstream: str
    endpoint: str = ""
    faults: list[tuple[str, str, list[Fault]]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # "GET /bucket/key?query", in the order of arrival
    latency_s: float = 0.0
    most_at_once: int = 0
    held: threading.Event = field(default_factory=threading.Event)  # a request hangs or waits
    let_go: threading.Event = field(default_factory=threading.Event)
    _running: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: threading.Event = field(default_factory=threading.Event)

    def script(self, method: str, part: str, *faults: Fault) -> None:
        """The next requests of this method whose path has `part` fail, one after another."""
        self.faults.append((method, part, list(faults)))

    @property
    def used_up(self) -> bool:
        return not any(left for _, _, left in self.faults)

    def count(self, method: str, part: str = "") -> int:
        return sum(line.startswith(method) and part in line for line in self.requests)

    @contextlib.contextmanager
    def _counted(self, method: str, path: str) -> Iterator[Fault | None]:
        with self._lock:
            self.requests.append(f"{method} {path}")
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
            fits = (left for verb, part, left in self.faults if verb == method and part in path and left)
            fault = next((left.pop(0) for left in fits), None)
        try:
            yield fault
        finally:
            with self._lock:
                self._running -= 1


class _Handler(BaseHTTPRequestHandler):
    proxy: FaultyProxy

    def handle_one_request(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client gave up
            super().handle_one_request()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.proxy._counted(self.command, self.path) as fault:
            if self.proxy.latency_s:
                time.sleep(self.proxy.latency_s)
            if fault in ("hang", "wait"):
                self.proxy.held.set()
                (self.proxy._closed if fault == "hang" else self.proxy.let_go).wait()
            if isinstance(fault, int):
                self._answer(fault, {"Content-Length": "0"}, b"")
            elif fault not in ("drop", "hang"):
                status, headers, content = self._ask(body, fault == "blind")
                if fault == "cut":
                    content = content[: len(content) // 2]
                if fault != "lose":
                    self._answer(status, headers, content)
        self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

    def _ask(self, body: bytes, blind: bool) -> tuple[int, dict[str, str], bytes]:
        server = urlsplit(self.proxy.upstream)
        headers = {k: v for k, v in self.headers.items() if not (blind and k.lower() == "if-none-match")}
        connection = http.client.HTTPConnection(server.hostname or "", server.port)
        with contextlib.closing(connection):
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def _answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...


def retry_at_once(patch: pytest.MonkeyPatch) -> None:
    """Make the pauses between the tries of clients that are made from now on as good as none."""
    short = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 2}
    for name in ("_HASTY", "_PATIENT"):
        patch.setattr(s3_client, name, getattr(s3_client, name) | {"backoff": short})
    patch.setattr("pipeline.s3._PAUSES_S", (0.001, 0.001, 0.001))


@contextlib.contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """A proxy in front of `upstream`, on a free port of this machine."""
    proxy = FaultyProxy(upstream)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy._closed.set()
        proxy.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
