"""How fast masks are scored, next to the tools that people score with today, at equal values.

    python -m benchmarks.metrics [--edge 256 --rounds 3 --json FILE]

Two pairs of masks of edge³ voxels of 0.8 x 0.8 x 2.5 mm: an organ (a ball, and the same moved by some voxels), and
twelve lesions of 2 to 10 voxels' radius, nine of them found, with three false ones. Rows by figure:
  surface Dice 2 mm and HD95   `training.metrics`; surface-distance (Nikolov et al. 2021); MONAI with use_subvoxels,
                               surface Dice only (its HD95 counts voxels, so it is another figure)
  Dice                         `training.metrics`, surface-distance, MONAI
  lesion matching              `training.lesions`; the same counts by scipy.ndimage.label, a loop over lesions within
Values must agree to 1e-3, or it stops. In rounds that take turns, after one to warm up; one thread; medians of wall and
of CPU time, and the median of each round's ratio to ours.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import surface_distance
import torch
from monai.metrics import compute_dice, compute_surface_dice
from scipy import ndimage

from training.lesions import lesion_table
from training.metrics import dice, surface_distances

SPACING_MM = (0.8, 0.8, 2.5)
TOLERANCE_MM = 2.0
AGREE = 1e-3
OURS = "ours"

Mask = npt.NDArray[np.bool_]
Values = tuple[float, ...]
Figure = Callable[[Mask, Mask], Values]


@dataclass(frozen=True)
class Row:
    """One tool on one pair of masks."""

    masks: str
    figure: str
    tool: str
    values: Values
    wall_ms: float
    cpu_ms: float
    ratio: float  # CPU time of the tool over ours, median over rounds


# -- masks ------------------------------------------------------------------------------------------------------------


def balls(edge: int, centers: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]) -> Mask:
    """A mask that holds the balls, in voxels."""
    out = np.zeros((edge,) * 3, np.bool_)
    for center, radius in zip(centers, radii, strict=True):
        low = np.maximum(np.floor(center - radius), 0).astype(int)
        high = np.minimum(np.ceil(center + radius) + 1, edge).astype(int)
        x, y, z = np.ogrid[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        inside = (x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2 <= radius**2
        out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] |= inside
    return out


def organ(edge: int) -> tuple[Mask, Mask]:
    middle, radius = np.full((1, 3), edge / 2), np.array([0.3 * edge])
    return balls(edge, middle, radius), balls(edge, middle + np.array([3.0, 2.0, 1.0]), radius)


def lesions(edge: int) -> tuple[Mask, Mask]:
    """Twelve true balls on a grid that keeps them apart; nine of them predicted nearby, and three elsewhere."""
    rng = np.random.default_rng(np.random.SeedSequence((0,)))
    cells = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3)
    centers = (rng.permutation(cells)[:15] + 0.5) * edge / 3
    radii = np.linspace(2, 10, 15)[rng.permutation(15)] * edge / 256
    moved = centers + rng.uniform(-0.4, 0.4, centers.shape) * radii[:, None]
    return balls(edge, centers[:12], radii[:12]), balls(edge, moved[3:], radii[3:])


# -- tools ------------------------------------------------------------------------------------------------------------


def our_surfaces(truth: Mask, prediction: Mask) -> Values:
    found = surface_distances(truth, prediction, SPACING_MM)
    if found is None:
        raise ValueError("a mask is empty: there is nothing to measure")
    return found.dice(TOLERANCE_MM), found.hausdorff_mm(0.95)


def deepmind_surfaces(truth: Mask, prediction: Mask) -> Values:
    found = surface_distance.compute_surface_distances(truth, prediction, SPACING_MM)
    nsd = surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE_MM)
    return float(nsd), float(surface_distance.compute_robust_hausdorff(found, 95))


def batch(mask: Mask) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None]


def monai_surfaces(truth: Mask, prediction: Mask) -> Values:
    found = compute_surface_dice(
        batch(prediction),
        batch(truth),
        [TOLERANCE_MM],
        include_background=True,
        spacing=SPACING_MM,
        use_subvoxels=True,
    )
    return (float(found),)


def our_lesions(truth: Mask, prediction: Mask) -> Values:
    table = lesion_table(truth, prediction, SPACING_MM)
    return counts([t.iou for t in table.truth], [p.matched for p in table.predicted])


def scipy_lesions(truth: Mask, prediction: Mask) -> Values:
    """As most evaluation scripts go about it: label, then one comparison of whole masks a lesion."""
    everywhere = np.ones((3, 3, 3))
    (true, n_true), (found, n_found) = (ndimage.label(mask, everywhere) for mask in (truth, prediction))
    ious = []
    for number in range(1, n_true + 1):
        lesion = true == number
        touching = np.isin(found, np.setdiff1d(np.unique(found[lesion]), [0]))
        ious.append(np.count_nonzero(lesion & touching) / np.count_nonzero(lesion | touching))
    right = [bool(truth[found == number].any()) for number in range(1, n_found + 1)]
    return counts(ious, right)


def counts(ious: list[float], right: list[bool]) -> Values:
    """True, found and predicted lesions, those predicted that are right, and the mean IoU of the found."""
    found = [iou for iou in ious if iou > 0]
    return len(ious), len(found), len(right), sum(right), statistics.fmean(found)


FIGURES: dict[str, dict[str, Figure]] = {
    "surface Dice 2 mm, HD95": {OURS: our_surfaces, "surface-distance": deepmind_surfaces, "MONAI": monai_surfaces},
    "Dice": {
        OURS: lambda truth, prediction: (dice(truth, prediction) or 0.0,),
        "surface-distance": lambda truth, prediction: (
            float(surface_distance.compute_dice_coefficient(truth, prediction)),
        ),
        "MONAI": lambda truth, prediction: (float(compute_dice(batch(prediction), batch(truth))),),
    },
    "lesion matching": {OURS: our_lesions, "scipy.ndimage": scipy_lesions},
}


# -- timing -----------------------------------------------------------------------------------------------------------


def timed(tool: Figure, truth: Mask, prediction: Mask) -> tuple[float, float, Values]:
    """Wall and CPU ms, and what came out."""
    wall, cpu = time.perf_counter(), time.process_time()
    values = tool(truth, prediction)
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu), values


def compare(masks: str, truth: Mask, prediction: Mask, figure: str, rounds: int) -> list[Row]:
    tools = FIGURES[figure]
    spent: dict[str, list[tuple[float, float, Values]]] = {name: [] for name in tools}
    for _ in range(rounds + 1):
        for name, tool in tools.items():
            spent[name].append(timed(tool, truth, prediction))
    ours = [cpu for _, cpu, _ in spent[OURS][1:]]
    rows = []
    for name, runs in spent.items():
        wall, cpu = [run[0] for run in runs[1:]], [run[1] for run in runs[1:]]
        ratio = statistics.median(theirs / own for theirs, own in zip(cpu, ours, strict=True))
        rows.append(Row(masks, figure, name, runs[0][2], statistics.median(wall), statistics.median(cpu), ratio))
    check(rows)
    return rows


def check(rows: list[Row]) -> None:
    """ValueError unless every tool gives our values, as far as it has them."""
    ours = rows[0].values
    for row in rows:
        pairs = zip(row.values, ours, strict=False)
        if not all(math.isclose(theirs, own, abs_tol=AGREE) for theirs, own in pairs):
            raise ValueError(f"{row.masks}, {row.figure}: {row.tool} gives {row.values}, ours {ours}")


def parse() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=256, help="voxels along each axis, 96 or more")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    return parser.parse_args()


def main() -> None:
    asked = parse()
    torch.set_num_threads(1)
    print(f"{asked.edge}^3 voxels of {SPACING_MM} mm, {asked.rounds} rounds, load {os.getloadavg()}")
    print(f"{'masks':8} {'figure':24} {'tool':17} {'wall ms':>8} {'CPU ms':>8} {'CPU / ours':>10}  values")
    rows = []
    for masks, make in (("organ", organ), ("lesions", lesions)):
        truth, prediction = make(asked.edge)
        for figure in FIGURES:
            for row in compare(masks, truth, prediction, figure, asked.rounds):
                values = ", ".join(f"{value:.4g}" for value in row.values)
                print(
                    f"{row.masks:8} {row.figure:24} {row.tool:17} {row.wall_ms:8.1f} {row.cpu_ms:8.1f} "
                    f"{row.ratio:10.2f}  {values}",
                    flush=True,
                )
                rows.append(row)
    if asked.json:
        asked.json.write_text(json.dumps([vars(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
