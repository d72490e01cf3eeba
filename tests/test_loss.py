from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss, FocalLoss, TverskyLoss
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import InputError
from pipeline.train_config import LossConfig, NetworkConfig
from training.loss import SegmentationLoss
from training.network import ClassTable, build_network, levels

CLASSES = ClassTable({"background": 0, "liver": 1, "liver_tumor": 2})
ONLY_REGION: dict[str, Any] = {"voxel": "none"}
ONLY_VOXEL: dict[str, Any] = {"region": "none"}


def loss_of(outputs: list[Tensor], target: Tensor, **given: Any) -> Tensor:
    loss: Tensor = SegmentationLoss(LossConfig(**given), CLASSES)(outputs, target)
    return loss


def batch(size: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits (B, 3, 6, 5, 4) and target channels (B, 1, 6, 5, 4), with more of each class in each next sample."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(size, 3, 6, 5, 4, generator=generator)
    target = torch.stack([torch.randint(0, 2 + k % 2, (1, 6, 5, 4), generator=generator) for k in range(size)])
    return logits, target


# Two voxels, in truth liver and background, and the probabilities that they are given.
PROBABILITIES = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
LOGITS = PROBABILITIES.log().T.reshape(1, 3, 2, 1, 1)
TARGET = torch.tensor([1, 0]).reshape(1, 1, 2, 1, 1)
CE = -(math.log(0.5) + math.log(0.6)) / 2
# Liver: true positive 0.5, false positive 0.1, false negative 0.5; tumor, of which there is none: false positive 0.6.
DICE = ((1 - 1 / 1.6) + 1) / 2
TVERSKY = ((1 - 0.5 / (0.5 + 0.3 * 0.1 + 0.7 * 0.5)) + 1) / 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, DICE + CE),
        (ONLY_REGION, DICE),
        (ONLY_VOXEL, CE),
        ({"region_weight": 0.5, "voxel_weight": 2}, 0.5 * DICE + 2 * CE),
        ({"region_weight": 0}, CE),
        ({"voxel_weight": 0}, DICE),
        ({"region": "tversky", **ONLY_REGION}, TVERSKY),
        ({"region": "tversky", "tversky_alpha": 0.5, "tversky_beta": 0.5, **ONLY_REGION}, DICE),
        ({"voxel": "focal", **ONLY_VOXEL}, -(0.5**2 * math.log(0.5) + 0.4**2 * math.log(0.6)) / 2),
        ({"voxel": "focal", "focal_gamma": 0, **ONLY_VOXEL}, CE),
        ({"class_weights": {"liver": 3}, **ONLY_VOXEL}, -(3 * math.log(0.5) + math.log(0.6)) / 2),
        ({"class_weights": {"background": 0}, **ONLY_VOXEL}, -math.log(0.5) / 2),
        ({"class_weights": {"liver": 3, "background": 9}, **ONLY_REGION}, (3 * (1 - 1 / 1.6) + 1) / 2),
        ({"class_weights": {"liver_tumor": 0}, "region": "tversky", **ONLY_REGION}, TVERSKY - 0.5),
        (
            {"class_weights": {"liver": 3}, "voxel": "focal", **ONLY_VOXEL},
            -(3 * 0.5**2 * math.log(0.5) + 0.4**2 * math.log(0.6)) / 2,
        ),
    ],
)
def test_values_by_hand(given: dict[str, Any], expected: float) -> None:
    # MONAI adds 1e-5 above and below the line of an overlap.
    assert float(loss_of([LOGITS], TARGET, **given)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("over_batch", [False, True])
def test_the_losses_are_monai_s(over_batch: bool) -> None:
    logits, target = batch()
    common: dict[str, Any] = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": over_batch}
    for given, theirs in (
        ({}, DiceCELoss(**common)),
        (ONLY_REGION, DiceLoss(**common)),
        (ONLY_REGION | {"class_weights": {"liver_tumor": 3}}, DiceLoss(**common, weight=[1.0, 3.0])),
        (ONLY_REGION | {"region": "tversky"}, TverskyLoss(**common, alpha=0.3, beta=0.7)),
    ):
        found = loss_of([logits], target, batch=over_batch, **given)
        assert float(found) == pytest.approx(float(theirs(logits, target)), abs=1e-6)


def test_focal_is_monai_s_without_the_division_by_classes() -> None:
    logits, target = batch()
    theirs = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=1.5)(logits, target)
    found = loss_of([logits], target, voxel="focal", focal_gamma=1.5, **ONLY_VOXEL)
    assert float(found) == pytest.approx(3 * float(theirs), rel=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"class_weights": {"liver_tumor": 5, "background": 0.1}},
        {"region": "tversky", "voxel": "focal", "class_weights": {"liver": 0}},
    ],
)
def test_the_mean_over_two_halves_is_the_whole(given: dict[str, Any]) -> None:
    logits, target = batch(4)
    coarse = batch(4, seed=1)[0][:, :, ::2, :, ::2]
    whole = loss_of([logits, coarse], target, **given)
    halves = [loss_of([logits[half], coarse[half]], target[half], **given) for half in (slice(0, 2), slice(2, 4))]
    assert float(sum(halves)) / 2 == pytest.approx(float(whole), abs=1e-6)
    assert abs(float(halves[0] - halves[1])) > 1e-3


def test_coarser_levels_count_half_of_the_finer_and_see_every_second_voxel() -> None:
    target = torch.randint(0, 3, (2, 1, 8, 4, 4), generator=torch.Generator().manual_seed(3))
    outputs = [torch.randn(2, 3, 8 // n, 4 // n, 4 // n) for n in (1, 2, 4)]
    coarser = [F.interpolate(target.float(), output.shape[2:], mode="nearest").long() for output in outputs]
    each = [float(loss_of([output], level)) for output, level in zip(outputs, coarser, strict=True)]
    expected = (each[0] + each[1] / 2 + each[2] / 4) / 1.75
    assert float(loss_of(outputs, target)) == pytest.approx(expected, abs=1e-6)


def test_an_axis_that_keeps_its_resolution_is_not_thinned_out() -> None:
    target = torch.arange(24).reshape(1, 1, 4, 2, 3) % 3
    output = 20 * F.one_hot(target[0, 0, ::2], 3).permute(3, 0, 1, 2)[None].float()
    assert float(loss_of([output], target, **ONLY_VOXEL)) < 1e-6


@pytest.mark.parametrize(("region", "voxel"), [("dice", "ce"), ("tversky", "focal")])
def test_gradients_are_finite_and_the_loss_float32_under_bf16_autocast(region: str, voxel: str) -> None:
    config = NetworkConfig(name="dynunet", channels=(2, 4, 4, 4), deep_supervision=True)
    network = build_network(config, 3, (16, 8, 8)).train()
    loss = SegmentationLoss(LossConfig(region=region, voxel=voxel, class_weights={"liver": 2}), CLASSES)  # type: ignore[arg-type]
    image, target = torch.rand(1, 1, 16, 8, 8), torch.randint(0, 3, (1, 1, 16, 8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        outputs = levels(network(image))
        value = loss(outputs, target)
    assert outputs[0].dtype == torch.bfloat16
    assert value.dtype == torch.float32
    value.backward()
    gradients = [weight.grad for weight in network.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
    # bf16 values of this size are 1/128 apart.
    exact = loss([output.detach().float() for output in outputs], target)
    assert float(value.detach()) == pytest.approx(float(exact), abs=1e-6)


@pytest.mark.parametrize("given", [{}, {"voxel": "focal", "focal_gamma": 0.5}, {"region": "tversky"}])
def test_gradients_are_finite_where_the_network_is_sure(given: dict[str, Any]) -> None:
    target = torch.randint(0, 3, (1, 1, 4, 4, 4))
    logits = (500.0 * F.one_hot(target[:, 0], 3).movedim(-1, 1)).requires_grad_()
    loss_of([logits], target, **given).backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"class_weights": {"liver_tumour": 3}},
            "names liver_tumour, but the classes are background, liver, liver_tumor",
        ),
        ({"class_weights": {"liver": 0, "liver_tumor": 0}, **ONLY_REGION}, "leave no class a weight"),
        ({"class_weights": dict.fromkeys(CLASSES.names, 0.0)}, "leave no class a weight"),
        ({"region": "tversky", "tversky_alpha": 0, "tversky_beta": 0}, "are both 0"),
    ],
)
def test_losses_that_teach_nothing_or_name_no_class_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SegmentationLoss(LossConfig(**given), CLASSES)
