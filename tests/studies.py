"""Small studies for tests: written straight from arrays, or made by `study create` from phantoms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.study import design
from pipeline.study.cases import common_range, write_cases
from pipeline.study.design import Answers, Lesion, Mode, Study, Trial
from pipeline.study.lesions import LESION, ORGAN, Crop

EDGE = 24


def make_study(folder: Path, mode: Mode = "yes-no", trials: int = 20, practice: int = 2, seed: int = 0) -> Path:
    """A study of balls in noise at 2 mm: real ones 60 HU below the organ, synthetic ones 60 HU above it."""
    rng = np.random.default_rng(np.random.SeedSequence((seed, 5)))
    sides = 2 if mode == "2afc" else 1
    truths = [("real", "synthetic")[k % 2] for k in range((trials + practice) * sides)]
    crops = {f"{k + 1:03d}": make_crop(truth == "synthetic", rng) for k, truth in enumerate(truths)}
    numbers = sorted(crops)
    asked = [
        Trial(id=f"t{k:03d}", cases=tuple(numbers[sides * k : sides * (k + 1)][:: -1 if k % 2 else 1]))
        for k in range(trials + practice)
    ]
    of = dict(zip(numbers, truths, strict=True))
    right = {trial.id: ("left" if of[trial.cases[0]] == "synthetic" else "right") for trial in asked}
    if mode == "yes-no":
        right = {trial.id: of[trial.cases[0]] for trial in asked}
    folder.mkdir(parents=True)
    range_hu = common_range(list(crops.values()))
    write_cases(folder, crops, 2.0, range_hu)
    study = Study(
        mode=mode,
        organ="liver",
        spacing_mm=2.0,
        shape_vox=(EDGE,) * 3,
        range_hu=range_hu,
        places_vox={number: crop.place for number, crop in crops.items()},
        order_seed=seed,
        practice=tuple(asked[:practice]),
        trials=tuple(asked[practice:]),
    )
    truth = Answers(
        seed=seed,
        dataset="data",
        config_digest="0" * 64,
        real="real",
        cases={number: _lesion(name, k) for k, (number, name) in enumerate(of.items())},
        trials=right,
        balance=({"fact": "diameter_mm", "real": 16.0, "synthetic": 16.0, "smd": 0.0},),
        notes=(),
    )
    (folder / design.INFO).write_text(study.model_dump_json())
    (folder / design.TRUTH).write_text(truth.model_dump_json())
    (folder / design.PRACTICE).write_text(json.dumps({"trials": {t.id: right[t.id] for t in study.practice}}))
    (folder / design.LEAKS).write_text(json.dumps([{"name": "header", "how": "same", "passed": True, "detail": "all"}]))
    (folder / design.ANSWERS).mkdir()
    return folder


def make_crop(synthetic: bool, rng: np.random.Generator) -> Crop:
    """A ball of 16 mm in the middle of noisy organ, with a corner of fat and one of bone."""
    middle = EDGE // 2
    distance = np.sqrt(((np.indices((EDGE,) * 3) - middle) ** 2).sum(axis=0))
    ball = distance <= 4
    image = 90 + 60 * np.where(synthetic, 1, -1) * ball + rng.normal(0, 12, ball.shape)
    image[0, 0], image[-1, -1] = -300, 500
    label = np.where(ball, LESION, ORGAN).astype(np.uint8)
    return Crop(np.rint(image).astype(np.int16), label, (middle,) * 3)


def _lesion(truth: str, k: int) -> Lesion:
    facts = {"diameter_mm": 16.0, "parenchyma_hu": 90.0, "noise_hu": 12.0, "slice_grain": 0.0, "others": 0}
    return Lesion(truth=truth, name=f"n{k}", source=f"{truth}{k % 7}", pair=k // 2, **facts)
