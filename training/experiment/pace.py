"""How long an optimizer step takes here, measured on an empty batch."""

from __future__ import annotations

import time

import torch

from pipeline.description import dataset_classes
from pipeline.train_config import TrainConfig
from training.arithmetic import training_device
from training.distributed import ranks_here
from training.loss import SegmentationLoss
from training.network import ClassTable, Shape3, build_network, check_shape, levels

_STEPS = 3  # after one that does not count


def step_seconds(config: TrainConfig, organ: str, patch_shape: Shape3) -> float:
    """Seconds of one step: network and loss, forward and backward; reading and augmentation go beside it."""
    shape = config.crop_shape or patch_shape
    check_shape(shape, patch_shape, config.network, "--patch-shape")
    device = training_device(config.device, ranks_here())
    classes = ClassTable(dataset_classes((organ,)))
    network = build_network(config.network, len(classes), shape).to(device).train()
    loss = SegmentationLoss(config.loss, classes).to(device)
    image = torch.zeros((config.batch_size, 1, *shape), device=device)
    target = torch.zeros((config.batch_size, 1, *shape), dtype=torch.int64, device=device)
    times = []
    for _ in range(1 + _STEPS):
        started = time.perf_counter()
        found = loss(levels(network(image)), target)
        found.backward()
        float(found.detach())  # waits for a GPU
        times.append(time.perf_counter() - started)
    return min(times[1:]) * config.accumulate
