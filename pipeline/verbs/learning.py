"""Verbs of training and of using what it made: train, predict, realism."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from pipeline.errors import InputError
from pipeline.settings import resolve
from pipeline.train_config import TrainConfig
from pipeline.verbs.app import Flatten, Local, app, given, ours, print_json, say


def _some(_: Any, given: Any) -> None:
    if not given:
        raise ValueError("name one dataset or more")


@app.command
def train(
    *,
    data: Annotated[tuple[str, ...], Parameter(validator=_some)],
    out: Local,
    config: Local | None = None,
    resume: bool = False,
    ray: str | None = None,
    workers: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    insecure: bool = False,
    json: bool = False,
    settings: Annotated[TrainConfig | None, Flatten] = None,
) -> None:
    """Train a segmentation network on one or more datasets, streamed from their shards.

    Examples: phantumor train --data data --out run --steps 20000 --batch-size 4
    torchrun --nproc-per-node 4 -m pipeline.cli train --data data --out run
    phantumor train --data liver_a liver_b --mix 0.7 0.3 --out run --ray auto --workers 8
    phantumor train --data few_masks many_scribbles --labels mask scribble --out run

    Parameters
    ----------
    data
        Made by `phantumor generate`, `merge` or `select`; several are mixed.
    out
        The run: a new folder, or with --resume one to go on with.
    config
        YAML file with any of the settings below; flags go before it.
    resume
        Go on from the run's last checkpoint, with the run's settings where no others are given.
    ray
        Train in --workers processes of a Ray cluster: local starts one here, auto or an address joins a running one.
    workers
        Processes that train together through Ray, each on its own GPU where there are any.
    insecure
        Also join a Ray cluster that anybody may use without a token.
    json
        Print what came out as JSON at the end; progress goes to standard error.
    """
    ours("training", "workers")
    if resume and config is None and (out / "config.yaml").is_file():
        config = out / "config.yaml"
    resolved = resolve(TrainConfig, config, given(settings))
    if ray is None and (workers > 1 or insecure):
        raise InputError(
            "--workers and --insecure go with --ray; without Ray start several processes with torchrun "
            "(--threads sets how many threads read samples)"
        )
    if ray is not None:
        from workers.train_on_ray import train_on_ray

        line = say if json else print
        result = train_on_ray(
            data, out, resolved, address=ray, workers=workers, resume=resume, insecure=insecure, log=line
        )
    else:
        result = _train_here(data, out, resolved, resume, quiet=json)
    if json and result is not None:
        print_json(result)


def _train_here(data: tuple[str, ...], out: Path, config: TrainConfig, resume: bool, quiet: bool) -> Any:
    """In this process, which may be one of several that torchrun started; None in all but the first."""
    from training.distributed import ranks_here
    from training.train import train as run
    from training.view import open_view

    ranks = ranks_here()
    if not ranks.first or quiet:
        result = run(data, out, config, resume=resume, log=say, ranks=ranks)
        return result if ranks.first else None
    with open_view(config.steps, partial(print, flush=True)) as view:
        return run(data, out, config, resume=resume, log=view.say, show=view.show, ranks=ranks)


@app.command
def predict(
    *runs: Local,
    images: Local,
    out: Local,
    mirror: bool = False,
    overlap: Annotated[float, Parameter(validator=Number(gte=0, lt=1))] = 0.5,
    within_organ_mm: Annotated[float | None, Parameter(validator=Number(gte=0))] = None,
    min_tumor_mm3: Annotated[float | None, Parameter(validator=Number(gte=0))] = None,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Segment CTs with trained networks: NIfTI or DICOM in, NIfTI out on the same grid.

    Examples: phantumor predict run --images ct/ --out predictions
    phantumor predict fold0 fold1/last.pt --images dicom/ --out predictions --mirror --min-tumor-mm3 30

    Parameters
    ----------
    runs
        Made by `phantumor train`: a run's folder (its best checkpoint) or a .pt file of it. Several of the
        same classes, spacing and patch shape are averaged.
    images
        A NIfTI file, a case folder (ct.nii.gz or dicom/), a folder with the slices of one DICOM series, or a
        folder of any of these.
    out
        Folder for the label maps (class ids of `phantumor inspect`).
    mirror
        Average over all 8 flips, as nnU-Net does; takes 8 times as long.
    overlap
        Of neighbouring windows, as a share of their edge.
    within_organ_mm
        Remove tumor voxels farther than this from their organ: its largest component with the tumors that touch
        it, both kidneys, every piece of colon.
    min_tumor_mm3
        Give smaller tumors back: to the organ that surrounds them, or to the background.
    device
        auto, cpu, cuda, cuda:1, ...
    json
        Print what was found in each CT as JSON.
    """
    ours("training")
    from training.prediction.files import predict_folder
    from training.prediction.postprocess import Rules

    rules = Rules(within_organ_mm, min_tumor_mm3)
    done = predict_folder(runs, images, out, say, device, overlap=overlap, mirror=mirror, rules=rules)
    if json:
        print_json([one.to_json() for one in done])
    else:
        print("\n".join(str(one.out) for one in done))


@app.command
def realism(
    dataset: str,
    *,
    real: Local,
    out: Local,
    labels: str | None = None,
    organ: str = "liver",
    statistics: Local | None = None,
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
    ours("training")
    from training.realism import describe
    from training.realism import realism as run

    result = run(dataset, real, out, labels=labels, organ=organ, statistics=statistics, limit=limit, log=say)
    if json:
        print_json(result)
    else:
        print("\n".join(describe(result, out)))
