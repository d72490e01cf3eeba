"""Verbs on datasets: status, inspect, verify, export, select, merge, convert, copy."""

from __future__ import annotations

from typing import Annotated, Literal

from pipeline.errors import InputError, PhantumorError
from pipeline.verbs.app import ALONE, Flatten, Local, Workforce, app, ours, print_json, say


@app.command
def status(dataset: str, *, json: bool = False) -> None:
    """How far a dataset has come, from what is on disk.

    Example: phantumor status data

    Parameters
    ----------
    dataset
        Made, or being made, by `phantumor generate`.
    json
        Print the result as JSON.
    """
    from pipeline.status import dataset_status, describe_status

    found = dataset_status(dataset)
    if json:
        print_json(found)
    else:
        print("\n".join(describe_status(found)))


@app.command
def inspect(
    dataset: str,
    *,
    where: str | None = None,
    sample: str | None = None,
    diff: str | None = None,
    figures: Local | None = None,
    json: bool = False,
) -> None:
    """What a dataset holds: counts, sizes, contrasts; one sample in detail; pictures; how it differs from another.

    Example: phantumor inspect data --where "kind = 'hcc' and diameter_mm < 10" --figures figures

    Parameters
    ----------
    dataset
        Made by `phantumor generate`.
    where
        Only samples that meet this, e.g. "split = 'test' and n_tumors > 0".
    sample
        One sample in detail, by index or id.
    diff
        What differs between DATASET (A) and this one (B): settings, samples, distributions.
    figures
        Folder for histograms and sample pictures (PNG).
    json
        Print the result as JSON.
    """
    from pipeline import inspection
    from pipeline.catalog import open_dataset

    opened = open_dataset(dataset)
    if diff is not None:
        from pipeline.comparison import compare, describe_difference

        if where is not None or sample is not None or figures is not None:
            raise InputError("--diff stands alone; `phantumor select` makes a view of a part, which can be compared")
        document = compare(opened, open_dataset(diff))
        lines = describe_difference(document)
    elif sample is not None:
        document = inspection.sample_document(opened.sample(inspection.parse_sample(opened, sample)))
        lines = inspection.describe_sample(document)
    else:
        document = inspection.summarise(opened, where)
        lines = inspection.describe(document)
    if json:
        print_json(document)
    else:
        print("\n".join(lines))
    if figures is not None:
        for path in inspection.write_figures(opened, figures, where):
            say(f"wrote {path}")


@app.command
def verify(
    dataset: str,
    *,
    replay: float | None = None,
    repair: bool = False,
    gc: bool = False,
    gc_age_minutes: float = 60.0,
    json: bool = False,
) -> None:
    """Check every byte of a dataset; on request make samples again and compare, remake what is broken, clean up.

    Example: phantumor verify data --replay 0.01 --repair

    Of a view (`phantumor select`, `phantumor merge`), its rows and the shards that it uses in its sources are checked.

    Parameters
    ----------
    dataset
        Made, or being made, by `phantumor generate`: a folder, or s3://bucket/prefix. Pixels of a
        `delta` dataset are compared where its bank is; a `recipe` dataset has none, --replay compares.
    replay
        Make this share of the samples again from the bank (0.01: one in a hundred) and compare every byte.
    repair
        Make broken shards again, to the same bytes; needs the bank. Of a view, repair its sources.
    gc
        Remove what killed processes left: attempts that no manifest names, start records, temporary files.
    gc_age_minutes
        With --gc: only what nobody has written to for so long; 0 only when no generate is running.
    json
        Print the result as JSON.
    """
    ours("workers")
    from workers.verify import verify as run

    report = run(dataset, replay=replay, repair=repair, gc=gc, gc_age_minutes=gc_age_minutes)
    if json:
        print_json(report.to_json())
    else:
        print("".join(f"{line}\n" for line in report.lines()), end="")
    if not report.ok:
        raise PhantumorError(report.summary())
    if not json:
        print(report.summary())


@app.command
def export(
    dataset: str,
    *,
    format: Literal["nifti", "nnunet"],
    out: Local,
    where: str | None = None,
    split: Literal["train", "val", "test", "all"] = "all",
    limit: int | None = None,
    json: bool = False,
) -> None:
    """Write samples as NIfTI files: one folder a sample, or a dataset of nnU-Net v2.

    Example: phantumor export data --format nnunet --out Dataset501_Tumors --where "n_tumors > 0"

    Parameters
    ----------
    dataset
        Made by `phantumor generate`.
    format
        nifti: image.nii.gz and label.nii.gz of each sample; nnunet: imagesTr, labelsTr, dataset.json.
    out
        A new or an empty folder; its dataset.json is written last.
    where
        Only samples that meet this, e.g. "kind = 'hcc' and diameter_mm < 10".
    split
        Only samples of this split.
    limit
        At most this many samples, the first ones.
    json
        Print the result as JSON.
    """
    from pipeline.export import export as run

    summary = run(dataset, out, format, where=where, split=split, limit=limit, log=say)
    if json:
        print_json(summary.to_json())
    else:
        print(summary.line())


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
