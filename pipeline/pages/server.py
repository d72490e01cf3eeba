"""Serving a page: the socket, the address to open, the browser, and a quiet end with Ctrl-C.

    serve(routes, host="127.0.0.1", port=0, browser=True, say=print)

`routes` are starlette routes; `page_routes` makes those of a folder of static files and of NiiVue.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from pipeline.errors import InputError, PhantumorError
from pipeline.pages.security import TOKEN_PARAMETER, Guard, check_host, new_token

SHARED_FILES = Path(__file__).parent / "static"
_GOODBYE_S = 1  # for requests under way when the server ends
_ANY = ("0.0.0.0", "::")  # every address of this machine, and nothing that a browser elsewhere can open
_CACHED = {"cache-control": "private, max-age=3600"}


def page_routes(page: Path, files: Path) -> list[BaseRoute]:
    """`/` is the HTML file `page`, `/static` its files, `/shared` NiiVue."""

    def index(_: Request) -> Response:
        return FileResponse(page, media_type="text/html")

    return [
        Route("/", index),
        Mount("/static", _Files(directory=files)),
        Mount("/shared", _Files(directory=SHARED_FILES, headers=_CACHED)),
    ]


class _Files(StaticFiles):
    """Files with headers of their own."""

    def __init__(self, *, directory: Path, headers: dict[str, str] | None = None) -> None:
        super().__init__(directory=directory)
        self._headers = headers or {}

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


def application(
    routes: Sequence[BaseRoute],
    token: str,
    port: int,
    *,
    host: str = "127.0.0.1",
    writes: Iterable[str] = (),
    started: Callable[[], None] | None = None,
) -> Starlette:
    """The guarded ASGI application. A PhantumorError becomes `{"error": message}`; `started` runs beside the server."""

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if started is not None:
            threading.Thread(target=started, daemon=True).start()
        yield

    guard = Middleware(Guard, token=token, port=port, host=host, writes=tuple(writes))
    handlers = {PhantumorError: _explain}
    return Starlette(routes=list(routes), middleware=[guard], exception_handlers=handlers, lifespan=lifespan)


def _explain(_: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400 if isinstance(error, InputError) else 500)


def serve(
    routes: Sequence[BaseRoute],
    *,
    host: str,
    port: int,
    i_know: bool,
    browser: bool,
    what: str,
    say: Callable[[str], None],
    writes: Iterable[str] = (),
    started: Callable[[], None] | None = None,
) -> None:
    """Serve until Ctrl-C or SIGTERM. `port` 0: any free one; `what` is said before the address.

    InputError for an address that others reach without `i_know`, and for one that is taken or not this machine's.
    """
    check_host(host, i_know)
    listening = bound(host, port)
    token, port = new_token(), int(listening.getsockname()[1])
    name = socket.gethostname() if host in _ANY else f"[{host}]" if ":" in host else host
    url = f"http://{name}:{port}/?{TOKEN_PARAMETER}={token}"

    def begun() -> None:
        say(f"{what}: {url}\nEnd with Ctrl-C.")
        if browser:
            open_browser(url)
        if started is not None:
            started()

    app = application(routes, token, port, host=host, writes=writes, started=begun)
    config = uvicorn.Config(
        app,
        log_level="error",
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=_GOODBYE_S,
    )
    with contextlib.suppress(KeyboardInterrupt), listening:  # uvicorn raises what ended it once more
        uvicorn.Server(config).run(sockets=[listening])


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(
            f"--host {host} --port {port}: cannot be served there ({reason}); choose another --port, or leave it out "
            "for any free one"
        ) from error


def open_browser(url: str) -> None:
    """Show the page where there is a screen: a text browser would take the terminal."""
    screen = sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if screen or os.environ.get("BROWSER"):
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(url)
