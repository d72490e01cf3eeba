"""The command line: one verb, one small function over a library call. Each verb loads its room only when called."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number
from pydantic import ValidationError

from pipeline import __version__
from pipeline.config import GenerateConfig, TrainConfig, explain, resolve
from pipeline.engine_names import EngineName
from pipeline.errors import InputError, PhantumorError
from pipeline.presets import PresetSet

_ROOT = Path(__file__).resolve().parents[1]
_HELP = """Label-free tumor segmentation: put synthetic tumors into healthy CT, stream-train on them, find real ones.

Research software, not for clinical use. Every verb has --help with an example; `phantumor demo` shows all of them.
"""

app = App(
    name="phantumor",
    help=_HELP,
    version=__version__,
    help_format="plaintext",
    # A list flag takes all its values, and a number that follows one never becomes a positional by accident.
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main says what is kept and how to go on
)
Flatten = Parameter(name="*")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def _given(settings: GenerateConfig | TrainConfig | None) -> dict[str, Any]:
    """Only what the command line named, so that a YAML file can set the rest."""
    return settings.model_dump(exclude_unset=True) if settings is not None else {}


def _ours(*names: str) -> None:
    """The packages have generic names: refuse to run when another installed package hides one of ours."""
    for name in names:
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found is None or _ROOT not in found.parents:
            raise PhantumorError(
                f"the package {name!r} is found at {found}, not in the phantumor checkout {_ROOT}: another package "
                "of that name hides ours. Install phantumor in an environment of its own (`make setup`)"
            )


@app.command
def demo(*, out: Path = Path("demo")) -> None:
    """Run everything once on built-in phantoms: bank, dataset, training, evaluation, report. Minutes on 2 cores.

    Example: phantumor demo --out demo

    Parameters
    ----------
    out
        Folder for everything the demo makes; emptied of an earlier demo first.
    """
    from pipeline.demo import run_demo

    run_demo(out)


@app.command
def prepare(
    *sources: Path,
    out: Path,
    image: Path | None = None,
    mask: Path | None = None,
    labels: str | None = None,
    spacing: float = 1.0,
    split: Literal["auto", "train", "val", "test"] = "auto",
    allow_tumors: bool = False,
    allow_implausible: bool = False,
) -> None:
    """Turn healthy CT with organ masks into a bank of cases. Run again with more sources to add cases.

    Example: phantumor prepare healthy_ct/ --labels totalsegmentator --out bank

    Parameters
    ----------
    sources
        Case folders, folders of case folders, or MONAI datalist JSON files.
    out
        The bank: a new folder, or one to add cases to.
    image
        One CT (with --mask) instead of a source.
    mask
        The mask of --image.
    labels
        Label map of multi-organ masks: totalsegmentator, lits, phantumor, or name=value,...
    spacing
        Isotropic voxel size of the bank in mm.
    split
        Put all these cases into one split; auto spreads cases over train, val and test.
    allow_tumors
        Take cases that hold tumor labels; their tumors stay labelled.
    allow_implausible
        Take cases whose organ volumes or HU are out of the plausible range.
    """
    from pipeline.prepare import prepare as run

    bank = run(
        sources,
        out,
        image=image,
        mask=mask,
        labels=labels,
        spacing_mm=spacing,
        split=split,
        allow_tumors=allow_tumors,
        allow_implausible=allow_implausible,
        progress=_say,
    )
    print(f"{out}: {len(bank.records)} case{'s' if len(bank.records) != 1 else ''} at {bank.spacing_mm:g} mm")


@app.command
def preview(
    bank: Path,
    *,
    out: Path,
    organ: str = "liver",
    kind: str | None = None,
    diameter_mm: float | None = None,
    seed: int = 0,
    case: str | None = None,
    engine: EngineName | None = None,
    presets: PresetSet = "clinical",
    series: Annotated[int, Parameter(validator=Number(gte=1, lte=64))] = 1,
    interval_days: Annotated[float, Parameter(validator=Number(gt=0))] = 90.0,
    without: tuple[str, ...] = (),
) -> None:
    """Look at one synthetic tumor: before, after, label, as a picture or as NIfTI volumes.

    Examples: phantumor preview bank --out tumor.png --kind hcc --diameter-mm 25
    phantumor preview bank --out growth.png --kind metastasis --diameter-mm 30 --series 5

    Parameters
    ----------
    bank
        Made by `phantumor prepare`.
    out
        FILE.png, or FILE.nii.gz (with FILE_healthy and FILE_label beside it).
    organ
        Organ to put the tumor into.
    kind
        Tumor kind, such as metastasis, or look-alike, such as focal_fat; default: by the presets' weights.
    diameter_mm
        Volume-equivalent diameter; default: drawn.
    seed
        Another seed, another tumor.
    case
        Case of the bank; default: drawn.
    engine
        How solid tumors get their form; default: ellipsoid, or growth for a series.
    presets
        Set of kinds: clinical, or seed-paper (Hu et al. 2023, liver only).
    series
        Show one lesion at this many times, the last one at its diameter; NIfTI as FILE_day000 and so on.
    interval_days
        With --series: days from one time to the next.
    without
        Steps or parts of them to leave out, such as mass_effect or rim.
    """
    from pipeline.preview import Wish
    from pipeline.preview import preview as run

    if diameter_mm is not None and not 0 < diameter_mm < 500:
        raise InputError(f"--diameter-mm {diameter_mm:g}: a tumor's diameter is more than 0 and less than 500 mm")
    if not 0 <= seed < 2**32:
        raise InputError(f"--seed {seed}: must be 0 or more and below 2^32")
    wish = Wish(organ, kind, diameter_mm, seed, case, engine, presets, series, interval_days, without)
    files, times = run(bank, out, wish)
    for line in (*times, *files):
        print(line)


@app.command
def gallery(*, out: Path, bank: Path | None = None, seed: int = 0) -> None:
    """A page of pictures: every tumor kind and look-alike by contrast phase, and every part on and off. Minutes.

    Example: phantumor gallery --out look

    Parameters
    ----------
    out
        Folder for gallery.md and gallery/*.png.
    bank
        Made by `phantumor prepare`; or a new folder to keep the built-in phantoms in, which are shown without it.
    seed
        Another seed, other tumors.
    """
    from pipeline.gallery import gallery as run

    if not 0 <= seed < 2**31:
        raise InputError(f"--seed {seed}: must be 0 or more and below 2^31")
    for path in run(out, bank, seed, _say):
        print(path)


@app.command
def generate(
    *,
    bank: Path,
    out: Path,
    config: Path | None = None,
    workers: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    ray: str | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    dry_run: bool = False,
    json: bool = False,
    settings: Annotated[GenerateConfig | None, Flatten] = None,
) -> None:
    """Generate a dataset of synthetic tumor samples. The same command again resumes an interrupted one.

    Example: phantumor generate --bank bank --out data --samples 10000 --workers 8

    Parameters
    ----------
    bank
        Made by `phantumor prepare`.
    out
        The dataset: a new folder, or one to resume.
    config
        YAML file with any of the settings below; flags go before it.
    workers
        Processes on this machine; with --ray local, CPUs of the Ray cluster that is started.
    ray
        Use Ray: local starts a cluster here, auto or an address joins a running one.
    device
        auto (the GPU where a worker has one), cpu or cuda.
    dry_run
        Only say what it would make, how large and how long.
    json
        Print the result as JSON.
    """
    _ours("workers")
    from workers.generate import generate as run

    summary = run(
        bank,
        out,
        resolve(GenerateConfig, config, _given(settings)),
        workers=workers,
        ray=ray,
        device=device,
        dry_run=dry_run,
        log=_say,
    )
    if json:
        _print_json(summary.to_json())
    elif not dry_run:
        print(f"{out}: {summary.samples} samples, {summary.made} made in this run")


@app.command
def status(dataset: Path, *, json: bool = False) -> None:
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
        _print_json(found)
    else:
        print("\n".join(describe_status(found)))


@app.command
def inspect(
    dataset: Path,
    *,
    where: str | None = None,
    sample: str | None = None,
    figures: Path | None = None,
    json: bool = False,
) -> None:
    """What a dataset holds: counts, sizes, contrasts; one sample in detail; pictures.

    Example: phantumor inspect data --where "kind = 'hcc' and diameter_mm < 10" --figures figures

    Parameters
    ----------
    dataset
        Made by `phantumor generate`.
    where
        Only samples that meet this, e.g. "split = 'test' and n_tumors > 0".
    sample
        One sample in detail, by index or id.
    figures
        Folder for histograms and sample pictures (PNG).
    json
        Print the result as JSON.
    """
    from pipeline import inspection
    from pipeline.catalog import open_dataset

    opened = open_dataset(dataset)
    if sample is not None:
        document = inspection.sample_document(opened.sample(inspection.parse_sample(opened, sample)))
        lines = inspection.describe_sample(document)
    else:
        document = inspection.summarise(opened, where)
        lines = inspection.describe(document)
    if json:
        _print_json(document)
    else:
        print("\n".join(lines))
    if figures is not None:
        for path in inspection.write_figures(opened, figures, where):
            _say(f"wrote {path}")


@app.command
def verify(
    dataset: Path,
    *,
    replay: float | None = None,
    repair: bool = False,
    gc: bool = False,
    gc_age_minutes: float = 60.0,
    json: bool = False,
) -> None:
    """Check every byte of a dataset; on request make samples again and compare, remake what is broken, clean up.

    Example: phantumor verify data --replay 0.01 --repair

    Parameters
    ----------
    dataset
        Made, or being made, by `phantumor generate`.
    replay
        Make this share of the samples again from the bank (0.01: one in a hundred) and compare every byte.
    repair
        Make broken shards again, to the same bytes; needs the bank.
    gc
        Remove what killed processes left: attempts that no manifest names, temporary files.
    gc_age_minutes
        With --gc: only what nobody has written to for so long; 0 only when no generate is running.
    json
        Print the result as JSON.
    """
    _ours("workers")
    from workers.verify import verify as run

    report = run(dataset, replay=replay, repair=repair, gc=gc, gc_age_minutes=gc_age_minutes)
    if json:
        _print_json(report.to_json())
    else:
        print("".join(f"{line}\n" for line in report.lines()), end="")
    if not report.ok:
        raise PhantumorError(report.summary())
    if not json:
        print(report.summary())


@app.command
def export(
    dataset: Path,
    *,
    format: Literal["nifti", "nnunet"],
    out: Path,
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

    summary = run(dataset, out, format, where=where, split=split, limit=limit, log=_say)
    if json:
        _print_json(summary.to_json())
    else:
        print(summary.line())


@app.command
def train(
    *,
    data: Path,
    out: Path,
    config: Path | None = None,
    resume: bool = False,
    settings: Annotated[TrainConfig | None, Flatten] = None,
) -> None:
    """Train a segmentation network on a dataset, streamed from its shards.

    Example: phantumor train --data data --out run --steps 20000 --batch-size 4

    Parameters
    ----------
    data
        Made by `phantumor generate`.
    out
        The run: a new folder, or with --resume one to go on with.
    config
        YAML file with any of the settings below; flags go before it.
    resume
        Go on from the run's last checkpoint.
    """
    _ours("training")
    from training.train import train as run

    run(data, out, resolve(TrainConfig, config, _given(settings)), resume=resume, log=print)


@app.command
def predict(run: Path, *, images: Path, out: Path) -> None:
    """Segment CT files with a trained network: NIfTI in, NIfTI out on the same grid.

    Example: phantumor predict run --images ct/ --out predictions

    Parameters
    ----------
    run
        Made by `phantumor train`.
    images
        Folder of .nii.gz files, or of case folders with ct.nii.gz.
    out
        Folder for the label maps (class ids of `phantumor inspect`).
    """
    _ours("training")
    from training.predict import predict_folder

    for path in predict_folder(run, images, out, log=_say):
        print(path)


@app.command
def evaluate(
    *,
    out: Path,
    run: Path | None = None,
    data: Path | None = None,
    truth: Path | None = None,
    predictions: Path | None = None,
    split: Literal["train", "val", "test", "all"] = "test",
    labels: str | None = None,
    healthy: bool = False,
    limit: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    json: bool = False,
) -> None:
    """Score a network against the truth: Dice, surface Dice, tumors found by size, false positives; with a report.

    Examples: phantumor evaluate --run run --data data --out report
    phantumor evaluate --truth labels/ --predictions predictions/ --out report

    Parameters
    ----------
    out
        Folder for report.html, metrics.json, cases.parquet and lesions.parquet.
    run
        Made by `phantumor train`.
    data
        With --run: a dataset, or a folder of real cases with masks.
    truth
        Folder of true label maps (NIfTI).
    predictions
        Folder of predicted label maps with the same names.
    split
        Which samples of a dataset.
    labels
        Label map of true masks (lits, totalsegmentator, name=value,...); default: our class ids.
    healthy
        The real cases have no tumors: every predicted one is false.
    limit
        Score at most this many samples or cases.
    json
        Print the metrics as JSON.
    """
    _ours("training")
    from training.evaluate import describe, evaluate_folders, evaluate_run

    if truth is not None and predictions is not None and run is None and data is None:
        result = evaluate_folders(truth, predictions, out, labels=labels, limit=limit, log=_say)
    elif run is not None and data is not None and truth is None and predictions is None:
        result = evaluate_run(run, data, out, split=split, labels=labels, healthy=healthy, limit=limit, log=_say)
    else:
        raise InputError("evaluate takes either --run and --data, or --truth and --predictions")
    if json:
        _print_json(result)
    else:
        print("\n".join(describe(result, out)))


@app.command
def realism(
    dataset: Path,
    *,
    real: Path,
    out: Path,
    labels: str | None = None,
    organ: str = "liver",
    statistics: Path | None = None,
    limit: Annotated[int, Parameter(validator=Number(gte=1))] = 200,
    json: bool = False,
) -> None:
    """How far synthetic lesions are from real ones, beside healthy tissue from healthy tissue; with a report.

    Example: phantumor realism data --real real_cases/ --labels lits --out realism

    Parameters
    ----------
    dataset
        Made by `phantumor generate`; with its bank, whose healthy tissue is the floor of the comparison.
    real
        A real case with lesion masks, or a folder of them.
    out
        Folder for report.html and realism.json.
    labels
        Label map of the real masks (lits, totalsegmentator, name=value,...); default: masks named after organs.
    organ
        Organ whose lesions are compared.
    statistics
        Folder with published lesion sizes: uls23_lesions.csv, kits19_components.csv.
    limit
        Read at most this many samples, spread over the dataset.
    json
        Print the figures as JSON.
    """
    _ours("training")
    from training.realism import describe
    from training.realism import realism as run

    result = run(dataset, real, out, labels=labels, organ=organ, statistics=statistics, limit=limit, log=_say)
    if json:
        _print_json(result)
    else:
        print("\n".join(describe(result, out)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code: 0 done, 1 failed, 2 bad input."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(_usage(error, words), 2)
    except ValidationError as error:
        return _fail(explain(error), 2)
    except PhantumorError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "stopped; what was finished is kept, the same command goes on from there", 1)
    except BrokenPipeError:  # `phantumor inspect | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    return 0


def _usage(error: CycloptsError, words: Sequence[str]) -> str:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        return explain(cause)
    verb = next((word for word in words[:1] if not word.startswith("-")), "")
    text = str(error).strip().replace("requires an argument", "is required")
    text = text.replace("positional arguments", "values, separated by blanks")
    return f"{text} See `phantumor {verb + ' ' if verb else ''}--help`."


def _fail(message: str, code: int) -> int:
    print(f"phantumor: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
