"""Opening what a user names, and serving its page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.catalog import open_dataset
from pipeline.errors import InputError
from pipeline.explore.collection import Collection
from pipeline.explore.dataset import Samples
from pipeline.explore.evaluation import CASES, Predict, ScoredCases, is_evaluation
from pipeline.explore.routes import explore_routes
from pipeline.pages.security import check_host
from pipeline.pages.server import serve


def explore(
    place: str,
    predict: Predict,
    *,
    labels: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    i_know: bool = False,
    browser: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the page of a dataset or an evaluation until Ctrl-C. InputError for what is neither.

    `predict` predicts a sample of an evaluated dataset again; `labels`: the label map of real cases' masks.
    """
    check_host(host, i_know)
    collection = open_collection(place, predict, labels)
    serve(
        explore_routes(collection),
        host=host,
        port=port,
        i_know=i_know,
        browser=browser,
        what=place,
        say=say,
        started=lambda: _warm_up(collection),
    )


def open_collection(place: str, predict: Predict, labels: str | None = None) -> Collection:
    """What lies at a place, ready to be looked through."""
    if is_evaluation(place):
        return ScoredCases(Path(place), predict, labels)
    if labels is not None:
        raise InputError(f"{place}: --labels is for masks of real cases that were evaluated; there is no {CASES} here")
    if any((Path(place) / name).is_file() for name in ("best.pt", "last.pt")):
        raise InputError(
            f"{place}: is a run; `phantumor evaluate --run {place} --data DATA --out REPORT` scores it, and "
            "`phantumor explore REPORT` shows its predictions beside the truth"
        )
    return Samples(open_dataset(place))


def _warm_up(collection: Collection) -> None:
    """Have ready what the page asks for first."""
    assert collection.facts is not None
    import nibabel  # noqa: F401  (the first image needs it)
