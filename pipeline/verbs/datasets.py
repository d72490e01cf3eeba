"""Verbs that look at what there is: status, inspect, verify, export."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pipeline.errors import InputError, PhantumorError
from pipeline.verbs.app import Local, app, ours, print_json, say


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
        Folder for histograms and sample pictures (PNG); with --sample, a picture of that sample.
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
        chosen = opened.sample(inspection.parse_sample(opened, sample))
        document = inspection.sample_document(chosen)
        lines = inspection.describe_sample(document)
    else:
        document = inspection.summarise(opened, where)
        lines = inspection.describe(document)
    if json:
        print_json(document)
    else:
        print("\n".join(lines))
    if figures is not None:
        written = (
            inspection.write_sample_figure(chosen, figures)
            if sample is not None
            else inspection.write_figures(opened, figures, where)
        )
        for path in written:
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
    source: str,
    *,
    format: Literal["nifti", "nnunet", "torch", "onnx"],
    out: Local,
    where: str | None = None,
    split: Literal["train", "val", "test", "all"] = "all",
    limit: int | None = None,
    json: bool = False,
) -> None:
    """Write samples as NIfTI files or as a dataset of nnU-Net v2, or a trained network for other programs.

    Examples: phantumor export data --format nnunet --out Dataset501_Tumors --where "n_tumors > 0"
    phantumor export run --format onnx --out network.onnx

    Parameters
    ----------
    source
        A dataset made by `phantumor generate`; of torch and onnx a run made by `phantumor train`, its folder or a
        .pt file of it.
    format
        Of a dataset, nifti: image.nii.gz and label.nii.gz of each sample; nnunet: imagesTr, labelsTr, dataset.json.
        Of a run, torch: a program of torch.export (.pt2); onnx: an ONNX file. Both are compared with the network.
    out
        Of a dataset a new or an empty folder, its dataset.json is written last; of a run a file.
    where
        Only samples that meet this, e.g. "kind = 'hcc' and diameter_mm < 10".
    split
        Only samples of this split.
    limit
        At most this many samples, the first ones.
    json
        Print the result as JSON.
    """
    if format == "torch" or format == "onnx":
        if where is not None or split != "all" or limit is not None:
            raise InputError("--where, --split and --limit choose samples of a dataset; a run's network has none")
        _export_run(source, format, out, json)
        return
    if _is_run(source):
        raise InputError(
            f"{source}: --format {format} writes the samples of a dataset, this is a run. Its network is exported with "
            "--format torch or --format onnx"
        )
    from pipeline.export import export as run

    summary = run(source, out, format, where=where, split=split, limit=limit, log=say)
    if json:
        print_json(summary.to_json())
    else:
        print(summary.line())


def _export_run(run: str, format: Literal["torch", "onnx"], out: Path, json: bool) -> None:
    from pipeline.description import INFO
    from pipeline.store import open_store

    if not _is_run(run) and open_store(run).exists(INFO):
        raise InputError(
            f"{run}: --format {format} writes the network of a run, this is a dataset. Its samples are exported with "
            "--format nifti or --format nnunet"
        )
    ours("training")
    from training.export_network import export_network

    result = export_network(Path(run), out, format, say)
    if json:
        print_json(result)
    else:
        print(out)


def _is_run(source: str) -> bool:
    """Whether this is what `phantumor train` makes, told by names: the folder of a run, or a checkpoint."""
    path = Path(source)
    return path.suffix == ".pt" or any((path / name).is_file() for name in ("best.pt", "last.pt"))
