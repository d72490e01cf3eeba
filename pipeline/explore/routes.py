"""The page's questions and answers: JSON of table, histograms and samples; NIfTI of their images.

    GET /api/about                            what is shown, and its facts
    GET /api/table?FILTERS&sort=&offset=&limit=&at=     a page of the table; `at`: the page that holds this sample
    GET /api/charts?FILTERS                   histograms
    GET /api/sample/NAME                      all that is known of a sample
    GET /api/sample/NAME/LAYER.nii            for the viewer, class ids without gaps
    GET /api/sample/NAME/LAYER.nii.gz         to keep, class ids as they are

FILTERS: see `pipeline.explore.filters`. Everything is read only.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pipeline.errors import InputError
from pipeline.explore.collection import Collection, Layer, classes_of
from pipeline.explore.facts import Fact, Names
from pipeline.explore.filters import expression, parse_filters
from pipeline.explore.selection import Selection
from pipeline.pages.nifti import dense_labels, nifti_bytes
from pipeline.pages.server import page_routes
from pipeline.where import Positions

PAGE = Path(__file__).parent / "static"
_MOST_ROWS = 500
_LABELS = {
    "organ": "organ",
    "kind": "kind",
    "diameter_mm": "diameter (mm)",
    "contrast_hu": "contrast (HU)",
    "n_tumors": "tumors",
    "split": "split",
    "case_id": "case",
    "class_name": "tumor of",
    "found": "found",
    "dice": "tumor Dice",
    "group": "source case",
}


def explore_routes(collection: Collection) -> list[BaseRoute]:
    """All routes of the page."""
    answers = Answers(collection)
    return [
        Route("/api/about", answers.about),
        Route("/api/table", answers.table),
        Route("/api/charts", answers.charts),
        Route("/api/sample/{name}", answers.sample),
        Route("/api/sample/{name}/{file}", answers.file),
        *page_routes(PAGE / "index.html", PAGE),
    ]


class Answers:
    """One method an address. Starlette runs them in threads."""

    def __init__(self, collection: Collection) -> None:
        self._collection = collection
        self._opening = Lock()

    @cached_property
    def selection(self) -> Selection:
        """Over all samples; reads the facts when first asked for."""
        with self._opening:
            return self.__dict__.get("selection") or Selection(self._collection.facts, self._collection.where)

    def about(self, _: Request) -> Response:
        facts = self._collection.facts
        described = [{"name": name, **_described(name, fact)} for name, fact in facts.facts.items()]
        return JSONResponse({**self._collection.about(), "samples": facts.samples, "facts": described})

    def table(self, request: Request) -> Response:
        query = request.query_params
        filters = parse_filters(self._collection.facts, query.multi_items())
        found = self.selection.ordered(filters, query.get("sort", "index"))
        limit = min(_number(query.get("limit"), 100, "limit"), _MOST_ROWS)
        offset = _number(query.get("offset"), 0, "offset")
        if query.get("at"):
            offset = _page_of(found, self._collection.position(query["at"]), limit, offset)
        shown = found[offset : offset + limit].tolist()
        rows = [{"id": self._collection.name(at), **self.selection.row(at, filters)} for at in shown]
        where = expression(self._collection.facts, filters)
        answer = {"total": len(found), "offset": offset, "rows": rows, "where": where}
        return JSONResponse(answer | {"by_tumor": self.selection.by_tumor(filters)})

    def charts(self, request: Request) -> Response:
        filters = parse_filters(self._collection.facts, request.query_params.multi_items())
        return JSONResponse(self.selection.charts(filters))

    def sample(self, request: Request) -> Response:
        position = self._collection.position(request.path_params["name"])
        return JSONResponse({"id": self._collection.name(position), **self._collection.document(position)})

    def file(self, request: Request) -> Response:
        layer, _, ending = request.path_params["file"].partition(".")
        if ending not in ("nii", "nii.gz"):
            raise InputError(f"{request.path_params['file']}: ask for .nii or .nii.gz")
        position = self._collection.position(request.path_params["name"])
        found = self._collection.layers(position, [layer])[layer]
        if ending == "nii":
            return _for_viewer(found)
        content = nifti_bytes(found.data, found.affine, compress=True)
        name = f"{self._collection.name(position)}_{layer}.nii.gz"
        headers = {
            "content-disposition": f"attachment; filename*=utf-8''{quote(name)}"
        }  # a case may be called anything
        return Response(content, media_type="application/gzip", headers=headers)


def _for_viewer(layer: Layer) -> Response:
    """NIfTI; of labels with classes numbered without gaps, which a header explains."""
    if not layer.is_label:
        return Response(nifti_bytes(layer.data, layer.affine), media_type="application/octet-stream")
    dense, classes = dense_labels(layer.data)
    listed = ",".join(f"{entry['id']}={entry['color']}={entry['name']}" for entry in classes_of(classes))
    headers = {"x-classes": listed}
    return Response(nifti_bytes(dense, layer.affine), media_type="application/octet-stream", headers=headers)


def _described(name: str, fact: Fact) -> dict[str, Any]:
    label = _LABELS.get(name, name.replace("_", " "))
    return {"label": label, "level": fact.level, "names": isinstance(fact, Names)}


def _page_of(found: Positions, position: int, limit: int, otherwise: int) -> int:
    """Where the page of the table starts that holds a sample; `otherwise` when the filters leave it out."""
    place = np.flatnonzero(found == position)
    return int(place[0]) // max(limit, 1) * limit if place.size else otherwise


def _number(text: str | None, default: int, name: str) -> int:
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 9:
        raise InputError(f"{name}={text}: must be a whole number, 0 or more")
    return int(text)
