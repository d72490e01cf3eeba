"""Verbs of the blinded reader study: study create, study serve, study report."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number

from pipeline.verbs.app import Local, app, ours, print_json, say, told_when_stopped

study = App(name="study", help="A blinded reader study: can readers tell synthetic lesions from real ones?")
app.command(study)


@study.command
def create(
    *,
    real: Local,
    synthetic: str,
    out: Local,
    labels: str | None = None,
    organ: str = "liver",
    mode: Literal["yes-no", "2afc"] = "yes-no",
    cases: Annotated[int, Parameter(validator=Number(gte=2))] = 20,
    practice: Annotated[int, Parameter(validator=Number(gte=0, lte=20))] = 4,
    crop_mm: Annotated[float, Parameter(validator=Number(gte=20, lte=400))] = 96.0,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    json: bool = False,
) -> None:
    """Make a study of real and synthetic lesions, matched and checked so that nothing but the lesion differs.

    Example: phantumor study create --real real_cases/ --labels lits --synthetic data --out study

    Parameters
    ----------
    real
        A real case with lesion masks, or a folder of them.
    synthetic
        A dataset made by `phantumor generate`; its bank must be there.
    out
        The study: a new folder.
    labels
        Label map of the real masks (lits, totalsegmentator, name=value,...); default: masks named after organs.
    organ
        Organ whose lesions are shown.
    mode
        yes-no: one lesion, real or synthetic. 2afc: a real and a synthetic one side by side, which is synthetic?
    cases
        Questions to each reader, practice and repeats not counted; half of yes-no are real.
    practice
        Questions before them, with the right answer shown and no place in the statistics.
    crop_mm
        Edge of the cube around a lesion that is shown.
    seed
        Of every draw; another seed makes another study.
    json
        Print what was made as JSON.
    """
    from pipeline.study.create import Plan, describe
    from pipeline.study.create import create as run

    plan = Plan(organ=organ, mode=mode, cases=cases, practice=practice, crop_mm=crop_mm, seed=seed)
    with told_when_stopped("no study was made; the same command begins again"):
        made = run(real, synthetic, out, plan, labels=labels, log=say)
    if json:
        print_json(made)
    else:
        print("\n".join(describe(made)))


@study.command
def serve(
    folder: Local,
    /,
    *,
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 0,
    browser: bool = True,
    host: str = "127.0.0.1",
    i_know: bool = False,
) -> None:
    """Ask readers in the browser. Each answer is on disk before the next case; stop and serve again at any time.

    Example: phantumor study serve study

    Parameters
    ----------
    folder
        Made by `phantumor study create`.
    port
        Where to serve the page; 0: any free port.
    browser
        Open the page; with --no-browser only its address is printed.
    host
        Address to serve on. Anything but this machine's own needs --i-know: images and token are not encrypted.
    i_know
        Let readers at other machines reach the page.
    """
    from pipeline.study.server import serve as run

    run(folder, host=host, port=port, i_know=i_know, browser=browser, say=say)


@study.command
def report(
    folder: Local,
    /,
    *,
    out: Local,
    margin: Annotated[float, Parameter(validator=Number(gt=0, lt=50))] = 10.0,
    seed: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    json: bool = False,
) -> None:
    """What the readers' answers say: accuracy, AUC, d', agreement, equivalence with chance, and what may be claimed.

    Example: phantumor study report study --out report

    Parameters
    ----------
    folder
        A study that readers have answered, in part or whole.
    out
        Folder for report.html, study.json and answers.csv; an earlier report in it is written anew.
    margin
        Of the equivalence test: accuracy within 50 % plus or minus so many points counts as chance. State it before
        anybody reads.
    seed
        Of the bootstrap.
    json
        Print the figures as JSON.
    """
    ours("training")
    from training.study import describe
    from training.study import report as run

    with told_when_stopped("answers are as they were; the same command writes the whole report"):
        result = run(folder, out, margin=margin / 100, seed=seed, log=say)
    if json:
        print_json(result)
    else:
        print("\n".join(describe(result, out)))
