"""The verb `stress`: a run and a bank in, `stress.json`, `tumors.parquet`, `stress.png` and `report.html` out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.bank import Bank, open_bank
from pipeline.errors import InputError
from pipeline.files import replace_file, writing_to
from pipeline.grid import shifted_affine
from pipeline.organs import CLASS_NAMES, tumor_id
from pipeline.progress import Progress
from pipeline.resample import SAME_SPACING
from pipeline.store import Location
from pipeline.versions import software
from pipeline.volume import write_nifti
from training.predict import Segmenter, load_segmenter
from training.stress.base import Request, check_cases
from training.stress.document import document_of
from training.stress.levels import stressed
from training.stress.page import headline, page
from training.stress.picture import SHOWN_MM, Shown, picture, step_text, value_text
from training.stress.plan import Plan, places, plan_of
from training.stress.rows import parquet, tumor_rows
from training.stress.score import Outcome, Scored, Slice, predicted, slice_of
from training.stress.suites import SUITES, Variant

_RESUME = "Free the space or choose another --out, then run the same command again"


def stress(
    run: Path,
    bank: Location,
    out: Path,
    *,
    organ: str = "liver",
    suites: Sequence[str] = tuple(SUITES),
    samples: int = 50,
    seed: int = 0,
    split: str = "test",
    keep: bool = False,
    device: str = "auto",
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Test a run's network on graded synthetic tumors in the cases of a bank; the document of `stress.json`.

    `samples` tumors a level; `keep` writes them as NIfTI. The same arguments give the same files. Raises InputError.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out takes a folder")
    numbers = stressed(organ)
    names = _chosen(suites)
    segmenter, opened = load_segmenter(run, device), open_bank(bank).healthy()
    _check_fit(run, segmenter, opened, organ)
    request = Request(opened, organ, numbers, split, segmenter.patch_shape, seed)
    check_cases(request)
    plan = plan_of(request, names, samples)
    kept = places(plan, out / "samples") if keep else {}
    with writing_to(out, _RESUME):
        out.mkdir(parents=True, exist_ok=True)
        outcomes, slices = _predict(opened, segmenter, plan, kept)
        document = document_of(request, plan, outcomes, samples)
        document["context"] = {"run": str(run), "bank": str(bank), "bank fingerprint": opened.fingerprint} | {
            f"version of {name}": version for name, version in software().items()
        }
        _write(out, document, plan, outcomes, slices, opened)
    log(f"wrote {out / 'report.html'}")
    return document


def _chosen(suites: Sequence[str]) -> list[str]:
    """The suites in their own order; InputError for an unknown one."""
    unknown = [name for name in suites if name not in SUITES]
    if unknown or not suites:
        raise InputError(f"--suites: no suite {', '.join(unknown) or 'is named'}; choose from {', '.join(SUITES)}")
    return [name for name in SUITES if name in suites]


def _check_fit(run: Path, segmenter: Segmenter, bank: Bank, organ: str) -> None:
    """The network has to know the tumor and the grid."""
    if tumor_id(organ) not in segmenter.classes.ids:
        known = ", ".join(CLASS_NAMES[i] for i in segmenter.classes.ids[1:])
        raise InputError(
            f"{run}: the network does not know {organ}_tumor, it was trained on {known}. Choose another --organ, or a "
            f"run that was trained with --organs {organ}"
        )
    if abs(bank.spacing_mm / segmenter.spacing_mm - 1) > SAME_SPACING:
        raise InputError(
            f"{bank.place} has {bank.spacing_mm:g} mm voxels, {run} was trained at {segmenter.spacing_mm:g} mm. "
            f"Prepare the cases into a bank of that: phantumor prepare SOURCE --spacing {segmenter.spacing_mm:g}"
        )


# ---- prediction ----


def _predict(
    bank: Bank, segmenter: Segmenter, plan: Plan, kept: Mapping[Variant, Sequence[Path]]
) -> tuple[dict[Variant, Outcome], dict[Variant, Slice | None]]:
    """The outcome of every variant, and the slices of those that the picture shows."""
    shown = {step.variants[0] for planned in plan.suites for step in planned.steps}
    edge = round(SHOWN_MM / bank.spacing_mm)
    outcomes: dict[Variant, Outcome] = {}
    slices: dict[Variant, Slice | None] = {}
    variants = plan.variants()
    progress = Progress(len(variants), "samples")
    try:
        for scored in predicted(bank, segmenter, variants, progress.advance):
            outcomes[scored.variant] = scored.outcome
            if scored.variant in shown:
                slices[scored.variant] = slice_of(scored, edge)
            for place in kept.get(scored.variant, ()):
                _keep(place, scored, bank)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("stopped; no report was written, the same command starts from the beginning") from stop
    finally:
        progress.end()
    return outcomes, slices


def _keep(place: Path, scored: Scored, bank: Bank) -> None:
    spec = scored.variant.spec
    affine = shifted_affine(bank.load(spec.case_id).affine, spec.origin_vox)
    place.parent.mkdir(parents=True, exist_ok=True)
    for name, data in (("ct", scored.image), ("label", scored.truth), ("prediction", scored.prediction)):
        write_nifti(place.with_name(f"{place.name}_{name}.nii.gz"), data, affine)


def _write(
    out: Path,
    document: Mapping[str, Any],
    plan: Plan,
    outcomes: Mapping[Variant, Outcome],
    slices: Mapping[Variant, Slice | None],
    bank: Bank,
) -> None:
    cases = {name: bank.load(name) for name in document["case_ids"]}
    rows = [row for p in plan.suites for row in tumor_rows(p.suite.name, p.steps, outcomes, cases)]
    shown = {
        p.suite.name: {s.k: Shown(s.levels[0], outcomes[v].found, slices[v]) for s in p.steps for v in s.variants[:1]}
        for p in plan.suites
    }
    png = picture(document["suites"], shown)
    replace_file(out / "stress.json", (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())
    replace_file(out / "tumors.parquet", parquet(rows))
    replace_file(out / "stress.png", png)
    replace_file(out / "report.html", page(document, png).encode())


def describe(document: Mapping[str, Any], out: Path) -> list[str]:
    """What was found, in a few lines."""
    lines = [f"note: {note}" for note in document["notes"]]
    for suite in document["suites"]:
        lines.append(f"{suite['name']}:")
        for level in suite["levels"]:
            share, dice = level["sensitivity"], level["dice"]["mean"]
            overlap = "" if dice is None else f", Dice {dice:.2f}"
            where = f"{step_text(level['k'])}, {value_text(level, suite)}"
            lines.append(f"  {where}: {share['count']} of {share['n']} found{overlap}")
    return [*lines, headline(document), f"report: {out / 'report.html'}"]
