"""Verbs that show what a network can do: stress."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from pipeline.verbs.app import Local, app, ours, print_json, say

SuiteName = Literal["size", "contrast", "location", "shape", "texture", "noise", "slice-thickness"]
_ALL: tuple[SuiteName, ...] = ("size", "contrast", "location", "shape", "texture", "noise", "slice-thickness")


@app.command
def stress(
    run: Local,
    *,
    bank: str,
    out: Local,
    organ: str = "liver",
    suites: tuple[SuiteName, ...] = _ALL,
    samples: Annotated[int, Parameter(validator=Number(gte=1, lte=10_000))] = 50,
    seed: Annotated[int, Parameter(validator=Number(gte=0, lt=2**32))] = 0,
    split: Literal["train", "val", "test", "all"] = "test",
    keep: bool = False,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Find where a network fails: synthetic tumors graded by size, contrast, place, shape, texture, noise, slices.

    Examples: phantumor stress run --bank bank --out stress
    phantumor stress run --bank bank --suites size contrast --samples 100 --out stress

    Parameters
    ----------
    run
        Made by `phantumor train`: a run's folder (its best checkpoint) or a .pt file of it.
    bank
        Healthy cases that get the tumors, at the spacing of the run.
    out
        Folder for report.html, stress.json, stress.png and tumors.parquet.
    organ
        liver, pancreas or kidney.
    suites
        What is varied, one factor at a time.
    samples
        Tumors at each level of each suite.
    seed
        Decides the places and all that is drawn.
    split
        Which cases of the bank.
    keep
        Write every sample and its prediction as NIfTI below OUT/samples.
    device
        auto, cpu, cuda, cuda:1, ...
    json
        Print the figures as JSON.
    """
    ours("training")
    from training.stress import describe
    from training.stress import stress as test

    result = test(
        run,
        bank,
        out,
        organ=organ,
        suites=suites,
        samples=samples,
        seed=seed,
        split=split,
        keep=keep,
        device=device,
        log=say,
    )
    if json:
        print_json(result)
    else:
        print("\n".join(describe(result, out)))
