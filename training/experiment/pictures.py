"""A few real cases of one run as pictures: CT, truth and prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.experiments.cases import CASE_FOLDER
from pipeline.intake import read_native
from pipeline.organs import label_map
from pipeline.sources import find_cases
from pipeline.volume import read_nifti
from training.evaluation.results import Evaluation
from training.records import CaseScore
from training.report.content import Picture
from training.report.examples import Example, picture

SHOWN = 5


def pictures_of(out: Path, evaluation: Evaluation, organ: str, labels: str | None) -> list[Picture]:
    """Real cases from the worst to the best tumor outline, evenly spread where there are many."""
    known = label_map(labels) if labels else None
    sources = {case.case_id: case for case in find_cases(out / CASE_FOLDER / "real", None, None, known).cases}
    shown = []
    for case_id, caption in chosen([s for s in evaluation.scores if s.class_name == f"{organ}_tumor"]).items():
        image, truth = read_native(sources[case_id], known)
        prediction = read_nifti(evaluation.folder / "predictions" / f"{case_id}.nii.gz", "mask")
        example = Example(case_id, image.data, truth, prediction.data, image.spacing_mm, caption)
        shown.append(picture(example))
    return shown


def chosen(scores: Sequence[CaseScore]) -> dict[str, str]:
    """Ids and captions of up to `SHOWN` cases with tumor, by rising Dice, the first and the last among them."""
    ranked = sorted((s for s in scores if s.dice is not None and s.truth_voxels), key=lambda s: (s.dice, s.case_id))
    last, count = len(ranked) - 1, min(SHOWN, len(ranked))
    places = [round(k * last / max(1, count - 1)) for k in range(count)]
    return {ranked[k].case_id: f"Tumor Dice {ranked[k].dice:.2f}, case {k + 1} of {len(ranked)}" for k in places}
