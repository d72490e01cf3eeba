"""Verbs that make a dataset of another: convert, copy, select, merge."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.verbs.app import ALONE, Flatten, Workforce, app, ours, print_json, say


@app.command
def convert(
    dataset: str,
    *,
    store: Literal["full", "delta", "recipe"],
    out: str,
    who: Annotated[Workforce, Flatten] = ALONE,
    json: bool = False,
) -> None:
    """Keep the samples of a dataset in another way: all pixels, differences from the bank, or recipes only.

    Example: phantumor convert data --store delta --out small --workers 4

    Parameters
    ----------
    dataset
        Made by `phantumor generate`; what is broken in it is refused.
    store
        full: all pixels; delta: what differs from the bank case; recipe: nothing, made when read.
    out
        The new dataset; run the same command again to resume, or to follow a dataset that has grown.
    json
        Print the result as JSON.
    """
    ours("workers")
    from workers.convert import convert as run
    from workers.execution import How

    summary = run(dataset, out, store, how=How(**vars(who)), log=say)
    if json:
        print_json(summary.to_json())
    else:
        print(f"{out}: {summary.made} samples converted in this run{'' if summary.complete else ', more to come'}")


@app.command
def copy(source: str, destination: str, *, bank: str | None = None, json: bool = False) -> None:
    """Copy a bank or a dataset between folders and object stores. The same command again resumes a broken copy.

    Example: phantumor copy data s3://bucket/data

    Parameters
    ----------
    source
        A bank or a dataset, which may still be growing.
    destination
        A new place, or an earlier copy of the same to complete.
    bank
        Where the copy of a dataset shall look for its bank, if not where the source does.
    json
        Print the result as JSON.
    """
    from pipeline.transfer import copy as run

    done = run(source, destination, bank)
    if json:
        print_json(done.to_json())
    else:
        print("\n".join([f"{destination}:", *done.lines()]))


@app.command
def select(
    dataset: str,
    *,
    out: str,
    where: str | None = None,
    split: Literal["train", "val", "test", "all"] = "all",
    limit: int | None = None,
    json: bool = False,
) -> None:
    """Make a view of some samples of a dataset: a dataset of its own for every other verb, without a copy of a pixel.

    Example: phantumor select data --where "kind = 'hcc' and diameter_mm < 10" --out small-hcc

    Parameters
    ----------
    dataset
        Made by `phantumor generate`, or a view. What is committed now is taken.
    out
        A new folder or prefix for the view; it needs the dataset to stay where it is.
    where
        Only samples that meet this.
    split
        Only samples of this split.
    limit
        At most this many samples, the first ones.
    json
        Print the result as JSON.
    """
    from pipeline.views import select as run

    summary = run(dataset, out, where=where, split=split, limit=limit)
    if json:
        print_json(summary.to_json())
    else:
        print(summary.line())


@app.command
def merge(*datasets: str, out: str, json: bool = False) -> None:
    """Make a view of all samples of several datasets, without a copy of a pixel.

    Example: phantumor merge livers kidneys --out abdomen

    Parameters
    ----------
    datasets
        Two or more, alike in spacing, patch shape and store. What is committed now is taken.
    out
        A new folder or prefix for the view; it needs the datasets to stay where they are.
    json
        Print the result as JSON.
    """
    from pipeline.views import merge as run

    summary = run(datasets, out, log=say)
    if json:
        print_json(summary.to_json())
    else:
        print(summary.line())
