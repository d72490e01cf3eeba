"""The machine observer: the two-sample classifier of the realism report on the very crops that the readers saw."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.study.cases import read_crop
from pipeline.study.design import Answers, Study
from pipeline.study.lesions import LESION, ORGAN
from training.intervals import FEW_GROUPS
from training.realism.classifier import Side, two_sample_auc
from training.realism.definitions import MIN_PARENCHYMA_MM3
from training.realism.examine import Examined, examine
from training.realism.features import FEATURES
from training.realism.lesions import Scan, lesion_in
from training.realism.regions import KINDS, Kind


def machine_observer(folder: Path, study: Study, truth: Answers) -> dict[str, Any]:
    """By kind of box (`border`, `inside`) the record of `two_sample_auc`; and how many lesions could be measured.

    It sees 16 mm boxes and is asked again and again, a reader sees a lesion once: its AUC is not that of a reader.
    """
    shown = {number for trial in study.trials for number in trial.cases}
    lesions: dict[str, list[Examined]] = {"real": [], "synthetic": []}
    for number, one in _examined(folder, study, truth, sorted(shown)):
        lesions[truth.cases[number].truth].append(one)
    real, synthetic = lesions["real"], lesions["synthetic"]
    aucs = {
        kind: _of_enough(two_sample_auc(_side(real, kind), _side(synthetic, kind), FEATURES[kind])) for kind in KINDS
    }
    return {"lesions": len(shown), "measured": sum(map(len, lesions.values())), "auc": aucs}


def _of_enough(record: dict[str, Any]) -> dict[str, Any]:
    """Without an AUC where a class has too few lesions: held-out boxes of two lesions may well give 0 or 1."""
    if min(record[side]["lesions"] for side in ("real", "synthetic")) >= FEW_GROUPS:
        return record
    note = f"no AUC: fewer than {FEW_GROUPS} real or synthetic lesions could be measured"
    return record | {"auc": None, "low": None, "high": None, "notes": [note], "features": []}


def _examined(folder: Path, study: Study, truth: Answers, numbers: list[str]) -> Iterator[tuple[str, Examined]]:
    """Lesions with enough parenchyma around them."""
    for number in numbers:
        image, label = read_crop(folder, number)
        scan = Scan(number, truth.cases[number].source, image, label, study.spacing_mm)
        lesion = lesion_in(scan, (label == ORGAN) | (label == LESION), label == LESION, number)
        if np.count_nonzero(lesion.parenchyma) * study.spacing_mm**3 >= MIN_PARENCHYMA_MM3:
            yield number, examine(lesion)


def _side(lesions: list[Examined], kind: Kind) -> Side:
    vectors = [np.empty((0, len(FEATURES[kind]))), *(one.features[kind] for one in lesions)]
    names, cases = (
        tuple(getattr(one, field) for one in lesions for _ in one.features[kind]) for field in ("name", "case_id")
    )
    return Side(np.concatenate(vectors), names, cases)
