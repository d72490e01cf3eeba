"""Opening what a user names, and serving its page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pipeline.catalog import open_dataset
from pipeline.description import INFO
from pipeline.errors import InputError
from pipeline.explore.collection import Collection
from pipeline.explore.dataset import Samples
from pipeline.explore.evaluation import CASES, METRICS, ScoredCases, is_evaluation
from pipeline.explore.routes import explore_routes
from pipeline.explore.scored_images import FromTraining
from pipeline.pages.security import check_host
from pipeline.pages.server import serve
from pipeline.store import open_store

# Other folders of phantumor, by a file that they hold.
_OTHERS = {
    "comparison.json": "compares two evaluations, its report.html shows both; open the folder of one of them",
    "bank.json": "is a bank; `phantumor generate` makes a dataset from it",
    "study.json": "is of a reader study, which `phantumor study serve` and `phantumor study report` show",
}


def explore(
    place: str,
    training: FromTraining,
    *,
    labels: str | None = None,
    prediction_labels: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    i_know: bool = False,
    browser: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Serve the page of a dataset or an evaluation until Ctrl-C. InputError for what is neither.

    `labels` and `prediction_labels`: label maps of evaluated masks, where not those that they were scored with.
    """
    check_host(host, i_know)
    collection = open_collection(place, training, labels, prediction_labels)
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


def open_collection(
    place: str, training: FromTraining, labels: str | None = None, prediction_labels: str | None = None
) -> Collection:
    """What lies at a place, ready to be looked through."""
    if is_evaluation(place):
        return ScoredCases(Path(place), training, labels, prediction_labels)
    for flag, given in (("--labels", labels), ("--prediction-labels", prediction_labels)):
        if given is not None:
            raise InputError(f"{place}: {flag} is for evaluated masks, and there is no {CASES} here; leave it out")
    if any((Path(place) / name).is_file() for name in ("best.pt", "last.pt")):
        raise InputError(
            f"{place}: is a run; `phantumor evaluate --run {place} --data DATA --out REPORT` scores it, and "
            "`phantumor explore REPORT` shows its predictions beside the truth"
        )
    store = open_store(place)
    if store.folder is not None and not store.exists(INFO):
        raise InputError(_nothing_here(place, store.folder))
    return Samples(open_dataset(store))


def _nothing_here(place: str, folder: Path) -> str:
    other = next((what for name, what in _OTHERS.items() if (folder / name).is_file()), None)
    there = f"it holds neither {INFO} nor {CASES} with {METRICS}" if folder.is_dir() else "no such folder"
    return (
        f"{place}: {other or there}. `explore` opens a dataset that `phantumor generate` made, or a folder that "
        "`phantumor evaluate --out` wrote; a run is evaluated first"
    )


def _warm_up(collection: Collection) -> None:
    """Have ready what the page asks for first."""
    assert collection.facts is not None
    import nibabel  # noqa: F401  (the first image needs it)
