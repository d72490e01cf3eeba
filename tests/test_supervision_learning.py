"""From masks, partial labels, scribbles, boxes and diameters a small network learns tumors, by a stated margin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.train_config import LossConfig, SupervisionConfig
from training.network import ClassTable
from training.supervision.loss import SupervisedLoss
from training.supervision.targets import Box, Targets

CLASSES = ClassTable({"background": 0, "liver": 1, "liver_tumor": 2, "spleen": 9})
LIVER, TUMOR, SPLEEN = 1, 2, 3
ORGAN_OR_TUMOR, NOT_ANNOTATED, ANYTHING = 4, 5, 6
SETS = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 1], [1, 1, 1, 1]], dtype=torch.bool)
EDGE = 16
GRID = torch.stack(torch.meshgrid(*[torch.arange(EDGE)] * 3, indexing="ij")).float()
CENTRES = ((5, 6, 8), (9, 5, 6), None, None)  # of each sample's tumor; two show none
RADIUS = 2.5


def ball(centre: tuple[float, ...], radius: float) -> Tensor:
    return (GRID - torch.tensor(centre)[:, None, None, None]).norm(dim=0) <= radius


def masks() -> Tensor:
    """Channels (4, 1, 16, 16, 16): a liver, a spleen beside it, and in the first two samples a tumor."""
    truth = torch.zeros(4, 1, EDGE, EDGE, EDGE, dtype=torch.int64)
    truth[:, 0, ball((7, 7, 7), 6)] = LIVER
    truth[:, 0, ball((13, 13, 13), 3)] = SPLEEN
    for sample, centre in zip(truth, CENTRES, strict=True):
        if centre:
            sample[0, ball(centre, RADIUS)] = TUMOR
    return truth


def images(truth: Tensor) -> Tensor:
    """The classes in grey values 0, 1, 0.3 and 0.6 with noise of SD 0.1."""
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    return torch.tensor([0.0, 1.0, 0.3, 0.6])[truth] + 0.1 * noise


def masked(truth: Tensor) -> Targets:
    return Targets(truth, SETS, spacing_mm=1.0)


def partial(truth: Tensor) -> Targets:
    """The first and third sample annotate the liver and its tumors, the others the spleen."""
    codes = truth.clone()
    codes[::2][(truth[::2] == 0) | (truth[::2] == SPLEEN)] = NOT_ANNOTATED
    liver = torch.tensor([[1, 1, 1, 0]], dtype=torch.bool)
    codes[1::2][truth[1::2] != SPLEEN] = ANYTHING + 1
    return Targets(codes, torch.cat((SETS, liver)), spacing_mm=1.0)


def scribble(truth: Tensor) -> Targets:
    """Every 16th voxel is known."""
    codes = torch.full_like(truth, ANYTHING)
    codes[:, :, ::4, ::2, ::2] = truth[:, :, ::4, ::2, ::2]
    return Targets(codes, SETS, spacing_mm=1.0)


def in_liver(truth: Tensor, where: Callable[[tuple[int, ...]], Tensor], code: int, codes: Tensor) -> Tensor:
    """`code` at the voxels of liver and tumor that `where` finds around each centre."""
    for sample, of, centre in zip(codes, truth, CENTRES, strict=True):
        if centre:
            sample[((of == LIVER) | (of == TUMOR)) & where(centre)] = code
    return codes


def boxed(truth: Tensor) -> Targets:
    boxes = [
        () if centre is None else (Box(TUMOR, tuple(c - 2 for c in centre), tuple(c + 3 for c in centre)),)  # type: ignore[arg-type]
        for centre in CENTRES
    ]
    codes = truth.clone()

    def in_box(centre: tuple[int, ...]) -> Tensor:
        return ((GRID - torch.tensor(centre)[:, None, None, None]).abs().amax(0) < 3)[None]

    in_liver(truth, in_box, ORGAN_OR_TUMOR, codes)
    return Targets(codes, SETS, boxes=tuple(boxes), spacing_mm=1.0)


def recist(truth: Tensor) -> Targets:
    codes = torch.where(truth == TUMOR, LIVER, truth)
    in_liver(truth, lambda c: ball(c, 1.2 * RADIUS)[None], ORGAN_OR_TUMOR, codes)
    in_liver(truth, lambda c: ball(c, 0.6 * RADIUS)[None], TUMOR, codes)
    return Targets(codes, SETS, spacing_mm=1.0)


def dice(network: nn.Module, channel: int) -> float:
    """Of all four samples together, decoded by the largest logit; channel 0 of a sigmoid network is 0."""
    truth = masks()
    with torch.no_grad():
        found = network(images(truth)).argmax(dim=1, keepdim=True)
    common = ((found == channel) & (truth == channel)).sum()
    return float(2 * common / ((found == channel).sum() + (truth == channel).sum()))


class ZeroBackground(nn.Module):
    def forward(self, logits: Tensor) -> Tensor:
        return torch.cat((torch.zeros_like(logits[:, :1]), logits[:, 1:]), dim=1)


def network_of(heads: str) -> nn.Module:
    torch.manual_seed(0)
    last = [ZeroBackground()] if heads == "sigmoid" else []
    return nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, len(CLASSES), 3, padding=1), *last)


def train(make: Callable[[Tensor], Targets], steps: int, heads: Any = "softmax", **given: Any) -> tuple[float, float]:
    """Dice of the tumor before and after."""
    targets = make(masks())
    image, network = images(masks()), network_of(heads)
    loss = SupervisedLoss(LossConfig(), SupervisionConfig(**given), CLASSES, heads)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    before = dice(network, TUMOR)
    for step in range(steps):
        loss.done = step / steps
        optimizer.zero_grad()
        loss([network(image)], targets).backward()
        optimizer.step()
    return before, dice(network, TUMOR)


@pytest.mark.parametrize(
    ("make", "given", "heads", "steps", "margin"),
    [
        (masked, {}, "softmax", 60, 0.5),
        (masked, {}, "sigmoid", 60, 0.5),
        (partial, {}, "softmax", 60, 0.5),
        (partial, {"exclusion_weight": 0.5}, "softmax", 60, 0.5),
        (scribble, {}, "softmax", 60, 0.5),
        (scribble, {}, "sigmoid", 60, 0.5),
        (boxed, {"box_slab_vox": 1}, "softmax", 60, 0.4),
        (boxed, {"box_slab_vox": 1}, "sigmoid", 200, 0.3),
        (recist, {}, "softmax", 60, 0.4),
        (recist, {}, "sigmoid", 200, 0.4),
    ],
)
def test_a_network_learns_tumors(
    make: Callable[[Tensor], Targets], given: dict[str, Any], heads: str, steps: int, margin: float
) -> None:
    before, after = train(make, steps, heads, **given)
    assert after > before + margin
