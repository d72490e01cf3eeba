"""`study serve`: the page for readers on loopback. Sends crops and takes answers; the truth file is never opened.

POST /api/begin     {name, role, years} -> state, with `known` where somebody of this name has begun
GET  /api/state     ?reader= -> state
GET  /api/case      ?reader=&number=&side= -> NIfTI, of the present and the next screen only
POST /api/answer    see `reading.Given` -> state, with `right` after a practice trial; 409 if it is not kept
GET  /api/answers.csv   ?reader= -> what a reader who has finished has answered
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from pipeline.errors import InputError
from pipeline.pages.server import page_routes
from pipeline.pages.server import serve as serve_page
from pipeline.settings import explain
from pipeline.study.answers import Reader, answers_csv
from pipeline.study.design import ANSWERS
from pipeline.study.reading import Given, Reading

STATIC = Path(__file__).parent / "static"
WRITES = ("/api/begin", "/api/answer")
Model = TypeVar("Model", bound=BaseModel)


def serve(folder: Path, *, host: str, port: int, i_know: bool, browser: bool, say: Callable[[str], None]) -> None:
    """Serve a study until Ctrl-C. InputError for a folder without one, or one that is served already."""
    reading = Reading(folder)
    with (folder / ANSWERS / ".served").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: is served already, and two servers would mix the answers of a reader; end the other one, "
                "or open its address for all readers"
            ) from error
        serve_page(
            routes(reading),
            host=host,
            port=port,
            i_know=i_know,
            browser=browser,
            what=f"reader study {folder}, the same address for every reader",
            say=say,
            writes=WRITES,
        )


def routes(reading: Reading) -> list[BaseRoute]:
    """The page and its questions. Endpoints that touch the disk run in threads."""

    async def begin(request: Request) -> Response:
        reader = await _body(request, Reader)
        return JSONResponse(await run_in_threadpool(reading.begin, reader))

    def state(request: Request) -> Response:
        return JSONResponse(reading.state(request.query_params.get("reader", "")))

    async def answer(request: Request) -> Response:
        given = await _body(request, Given)
        kept, now = await run_in_threadpool(reading.answer, given)
        return JSONResponse(now, 200 if kept else 409)

    def case(request: Request) -> Response:
        asked = request.query_params
        number, side = (_whole(asked.get(name, "")) for name in ("number", "side"))
        path = reading.case_file(asked.get("reader", ""), number, side)
        if path is None:
            return PlainTextResponse("phantumor: this case is not on the screen\n", 404)
        # Not as a file response, which would send the time and a digest of size and time.
        return Response(path.read_bytes(), media_type="application/octet-stream")

    def answers(request: Request) -> Response:
        reader = request.query_params.get("reader", "")
        if reading.state(reader)["next"] is not None:
            raise InputError("answers can be taken home when all cases are answered")
        return PlainTextResponse(answers_csv(reading.book, [reader]), media_type="text/csv")

    return [
        Route("/api/begin", begin, methods=["POST"]),
        Route("/api/state", state),
        Route("/api/answer", answer, methods=["POST"]),
        Route("/api/case", case),
        Route("/api/answers.csv", answers),
        *page_routes(STATIC / "index.html", STATIC),
    ]


async def _body(request: Request, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        raise InputError(f"the page sent something else than it should: {explain(error)}; reload it") from error


def _whole(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 9 else -1
