"""Which synthetic lesion stands against which real one. Pure: facts in, pairs and their balance out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

from pipeline.study.lesions import Candidate, Facts, common_place

CALIPER = 1.25  # in diameter, at most: beyond it two lesions are of different size (choice)
# A difference as large as these costs as much as one of the caliper in diameter (choices): HU of the parenchyma between
# neighbouring phases, noise of a dose half as large, grain of slices twice as thick.
PHASE_HU, NOISE_FACTOR, GRAIN = 30.0, 1.4, 0.25
OTHERS_COST = 4.0  # one shows other lesions as well, the other does not
SAME_SCAN_GAIN = 1.0  # both lie in one scan, so nothing but the lesion can tell them apart
_NEVER = 1e9
NOTICED_SMD = 0.5  # standardised mean difference from which a note warns (choice: Cohen's medium effect)


def cost(real: Facts, synthetic: Facts) -> float:
    """How unlike two lesions are in what must not tell them apart, from 0; infinite beyond the caliper in diameter."""
    size = abs(math.log(real.diameter_mm / synthetic.diameter_mm)) / math.log(CALIPER)
    if size > 1:
        return math.inf
    phase = (real.parenchyma_hu - synthetic.parenchyma_hu) / PHASE_HU
    noise = math.log(max(real.noise_hu, 1.0) / max(synthetic.noise_hu, 1.0)) / math.log(NOISE_FACTOR)
    grain = (real.slice_grain - synthetic.slice_grain) / GRAIN
    others = OTHERS_COST * (bool(real.others) != bool(synthetic.others))
    return size**2 + phase**2 + noise**2 + grain**2 + others


def match(real: Sequence[Candidate], synthetic: Sequence[Candidate], edge_vox: int) -> list[tuple[int, int]]:
    """Pairs of indices in the order of `real`: as many as can be, then the cheapest. No lesion is in two pairs."""
    if not real or not synthetic:
        return []
    costs = np.array([[_pair_cost(a, b, edge_vox) for b in synthetic] for a in real])
    rows, columns = optimize.linear_sum_assignment(np.where(np.isfinite(costs), costs, _NEVER))
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if math.isfinite(costs[r, c])]


def in_turns(sources: Sequence[str], rng: np.random.Generator) -> list[int]:
    """Indices in random order, one of each source before a second of any: few scans shall not make up a study."""
    left: dict[str, list[int]] = {}
    for k in rng.permutation(len(sources)):
        left.setdefault(sources[k], []).append(int(k))
    rounds = max((len(indices) for indices in left.values()), default=0)
    return [indices[turn] for turn in range(rounds) for indices in left.values() if len(indices) > turn]


def balance(real: Sequence[Candidate], synthetic: Sequence[Candidate]) -> list[dict[str, Any]]:
    """A row a fact: medians of both sides, and the standardised mean difference (synthetic minus real)."""
    sides = [np.array([astuple(one.facts) for one in side], float) for side in (real, synthetic)]
    return [
        {
            "fact": field.name,
            "real": float(np.median(sides[0][:, k])),
            "synthetic": float(np.median(sides[1][:, k])),
            "smd": _smd(sides[0][:, k], sides[1][:, k]),
        }
        for k, field in enumerate(fields(Facts))
    ]


def _smd(real: npt.NDArray[np.float64], synthetic: npt.NDArray[np.float64]) -> float | None:
    """None where both sides are constant, but not alike."""
    difference = float(synthetic.mean() - real.mean())
    spread = math.sqrt((float(real.var()) + float(synthetic.var())) / 2)
    return difference / spread if spread > 0 else (0.0 if difference == 0 else None)


def warnings(real: Sequence[Candidate], synthetic: Sequence[Candidate], rows: Sequence[dict[str, Any]]) -> list[str]:
    """What differs beside the lesions, and so may be what readers recognise."""
    scans = [{one.source for one in side} for side in (real, synthetic)]
    notes = []
    apart = [row["fact"] for row in rows if row["smd"] is None or abs(row["smd"]) >= NOTICED_SMD]
    if apart:
        notes.append(
            f"real and synthetic cases differ in {', '.join(apart)} by {NOTICED_SMD:g} standard deviations or more: "
            "readers may recognise the scans, not the lesions"
        )
    if not scans[0] & scans[1]:
        notes.append(
            f"real lesions lie in {len(scans[0])} scan(s), synthetic ones in {len(scans[1])} other(s): a reader who "
            "learns to know the scans can tell them apart without the lesion. A bank that holds the real cases as well "
            "(`phantumor prepare --allow-tumors`) gives synthetic lesions in the same scans"
        )
    return notes


def _pair_cost(real: Candidate, synthetic: Candidate, edge_vox: int) -> float:
    """Infinite where the two cannot lie at the same place of their crops, which would tell them apart."""
    if common_place(real, synthetic, edge_vox) is None:
        return math.inf
    return cost(real.facts, synthetic.facts) - SAME_SCAN_GAIN * (real.source == synthetic.source)
