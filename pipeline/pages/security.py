"""Who may ask a local page for what: whoever knows the token, under a name of this machine, without scripts of others.

A page on 127.0.0.1 can be reached by every program of this machine and, through the browser, by every page that its
user opens. The token keeps out the programs and other users, the Host check keeps out names that somebody let point
here (DNS rebinding), and the content security policy lets nothing in from elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import InputError

TOKEN_PARAMETER = "token"
TOKEN_HEADER = "x-phantumor-token"
_READS = ("GET", "HEAD")
_MOST_BODY_BYTES = 1 << 16  # of a write: an answer takes a few hundred
# NiiVue's fonts and color maps are part of its script, as data: URLs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; font-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def new_token() -> str:
    """192 random bits, fit for a URL."""
    return secrets.token_urlsafe(24)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str, i_know: bool) -> None:
    """InputError for an address that others reach, unless the user says that he knows."""
    if not is_loopback(host) and not i_know:
        raise InputError(
            f"--host {host}: others could reach the page, and whoever reads the network sees its token and images, as "
            "it is not encrypted. Leave --host out and use `ssh -L`, or add --i-know"
        )


class Guard:
    """ASGI middleware: Host, token, method and origin of each request are checked, each response gets the headers.

    `writes`: the paths that take POST; everything else is read only.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, *, host: str, writes: Iterable[str] = ()) -> None:
        self._app, self._token = app, token
        self._cookie = f"phantumor_{port}"  # browsers do not keep the cookies of ports apart
        self._names = _own_names(host)
        self._writes = frozenset(writes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        request = Request(scope, receive)
        answer = self._refusal(request) or self._welcome(request) or self._app
        await answer(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        """Why a request is not answered; None when only its token is still to be looked at."""
        if not self._is_ours(request.headers.get("host", "")):
            return _refused("this page is only served under the name of its machine; open the address it printed", 421)
        writes = request.method == "POST" and request.url.path in self._writes
        if request.method not in _READS and not writes:
            return _refused("this page is read only", 405)
        if writes and not _small(request):
            return _refused("too long", 413)
        origin = request.headers.get("origin")
        site = request.headers.get("sec-fetch-site", "none")
        navigation = request.headers.get("sec-fetch-mode") == "navigate" and not writes
        foreign = origin is not None and origin.partition("://")[2] != request.headers.get("host")
        if foreign or (site in ("cross-site", "same-site") and not navigation):
            return _refused("a page from elsewhere asked for this", 403)
        return None

    def _welcome(self, request: Request) -> Response | None:
        """The token of an address becomes a cookie, and the address is written without it; None for who has it."""
        given = request.query_params.get(TOKEN_PARAMETER)
        if given is not None and self._fits(given):
            rest = [pair for pair in parse_qsl(request.url.query) if pair[0] != TOKEN_PARAMETER]
            there = f"{request.url.path}?{urlencode(rest)}" if rest else request.url.path
            response = RedirectResponse(re.sub("^/{2,}", "/", there), 303)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
            return response
        if self._fits(request.headers.get(TOKEN_HEADER)) or self._fits(request.cookies.get(self._cookie)):
            return None
        return _refused("open the address with the token that phantumor printed in the terminal", 403)

    def _fits(self, given: str | None) -> bool:
        return given is not None and secrets.compare_digest(given.encode(), self._token.encode())

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this machine; addresses in numbers cannot be made to point elsewhere."""
        name = re.sub(r":\d{1,5}$", "", host).lower()
        if self._names is not None:
            return name in self._names
        try:
            ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in _machine_names()
        return True


def _own_names(host: str) -> frozenset[str] | None:
    """The names that a page on loopback goes by; None where others may reach it."""
    return frozenset({"127.0.0.1", "localhost", "[::1]", host}) if is_loopback(host) else None


@lru_cache(maxsize=1)  # asks a name server
def _machine_names() -> frozenset[str]:
    return frozenset({"localhost", socket.gethostname().lower(), socket.getfqdn().lower()})


def _small(request: Request) -> bool:
    """Whether a request says that its body is short; one that does not say is not."""
    length = request.headers.get("content-length", "")
    return (
        "transfer-encoding" not in request.headers
        and length.isdecimal()
        and len(length) < 10
        and int(length) <= _MOST_BODY_BYTES
    )


def _refused(reason: str, status: int) -> Response:
    return PlainTextResponse(f"phantumor: {reason}\n", status)
