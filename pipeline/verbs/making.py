"""Verbs that make things: demo, prepare, preview, gallery, generate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from pipeline.config import GenerateConfig
from pipeline.engine_names import EngineName
from pipeline.errors import InputError
from pipeline.presets import PresetSet
from pipeline.settings import resolve
from pipeline.verbs.app import ALONE, Flatten, Local, Workforce, app, given, ours, print_json, say


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
    *sources: Local,
    out: str,
    image: Local | None = None,
    mask: Local | None = None,
    labels: str | None = None,
    spacing: float = 1.0,
    split: Literal["auto", "train", "val", "test"] = "auto",
    annotated: bool = False,
    allow_tumors: bool = False,
    allow_implausible: bool = False,
) -> None:
    """Turn healthy CT with organ masks into a bank of cases. Run again with more sources to add cases.

    Examples: phantumor prepare healthy_ct/ --labels totalsegmentator --out bank
    phantumor prepare Task03_Liver/ --labels lits --annotated --out real_bank

    Parameters
    ----------
    sources
        Case folders, folders of case folders, MONAI datalist JSON files, or the folders of public datasets (MSD,
        nnU-Net, KiTS, LiTS).
    out
        The bank: a new folder, or one to add cases to.
    image
        One CT (with --mask) instead of a source.
    mask
        The mask of --image.
    labels
        Label map of multi-organ masks: totalsegmentator, lits, kits, msd-pancreas, phantumor, or name=value,...
    spacing
        Isotropic voxel size of the bank in mm.
    split
        Put all these cases into one split; auto spreads cases over train, val and test.
    annotated
        The masks show all of the patients' tumors: keep them, and never put synthetic ones into these cases.
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
        annotated=annotated,
        allow_tumors=allow_tumors,
        allow_implausible=allow_implausible,
        progress=say,
    )
    print(f"{out}: {len(bank.records)} case{'s' if len(bank.records) != 1 else ''} at {bank.spacing_mm:g} mm")


@app.command
def preview(
    bank: str,
    *,
    out: Local,
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
    for path in run(out, bank, seed, say):
        print(path)


@app.command
def generate(
    *,
    bank: str,
    out: str,
    config: Local | None = None,
    who: Annotated[Workforce, Flatten] = ALONE,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    slice: str | None = None,
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
    device
        auto (the GPU where a worker has one), cpu or cuda.
    slice
        K/N: make only every N-th shard from the K-th on, for array jobs; the last job to finish completes the dataset.
    dry_run
        Only say what it would make, how large and how long.
    json
        Print the result as JSON.
    """
    ours("workers")
    from workers.execution import How
    from workers.generate import generate as run
    from workers.plan import Slice

    part = Slice.parse(slice)
    summary = run(
        bank,
        out,
        resolve(GenerateConfig, config, given(settings)),
        how=How(**vars(who)),
        device=device,
        part=part,
        dry_run=dry_run,
        log=say,
    )
    if json:
        print_json(summary.to_json())
    elif not dry_run:
        print(summary.line(out, part))
