"""Networks and runs for tests of prediction, whose answers are known without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from pipeline.train_config import NetworkConfig, TrainConfig
from training.checkpoint import Checkpoint, RunMeta, save_checkpoint
from training.network import ClassTable, build_network
from training.predict import Segmenter

CLASSES = {"background": 0, "kidney": 5, "kidney_tumor": 6}
LIVER = {"background": 0, "liver": 1, "liver_tumor": 2}
KIDNEY_HU, TUMOR_HU = 100, 200
Shape = tuple[int, int, int]


class Thresholds(torch.nn.Module):
    """Class 1 above 0 and class 2 above 0.5 of the window -200..200 HU, voxel by voxel; remembers its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.seen.append(image.clone())
        return torch.cat((torch.zeros_like(image), image * 4, image * 8 - 2.6), 1)


class Mixed(torch.nn.Module):
    """Three classes from two random convolutions: what a voxel gets depends on its neighbours and on direction."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv3d(1, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv3d(4, 3, 3, padding=1)
        )
        generator = torch.Generator().manual_seed(seed)
        for weights in self.layers.parameters():
            torch.nn.init.normal_(weights, std=0.7, generator=generator)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.layers(image)  # type: ignore[no-any-return]


def make_segmenter(
    patch_shape: Shape = (8, 8, 8),
    spacing_mm: float = 1.0,
    network: torch.nn.Module | None = None,
    window: tuple[float, float] = (-200.0, 200.0),
    others: tuple[Segmenter, ...] = (),
    mirror: bool = False,
) -> Segmenter:
    network = Thresholds() if network is None else network
    cpu = torch.device("cpu")
    return Segmenter(network, ClassTable(CLASSES), window, patch_shape, spacing_mm, cpu, others, mirror=mirror)


def make_ct(shape: Shape) -> npt.NDArray[np.int16]:
    """Air, and a kidney box with an off-centre tumor box."""
    ct = np.full(shape, -1000, np.int16)
    x, y, z = shape
    ct[x // 4 : -2, y // 3 : -3, 2 : z - z // 4] = KIDNEY_HU
    ct[x // 4 : x // 2, y // 3 : y // 3 + 4, 2 : z // 2] = TUMOR_HU
    return ct


def expected(ct: npt.NDArray[np.int16]) -> npt.NDArray[np.uint8]:
    """What `Thresholds` makes of `make_ct`."""
    return np.select([ct == TUMOR_HU, ct == KIDNEY_HU], [6, 5], 0).astype(np.uint8)


def make_run(
    run: Path,
    classes: dict[str, int] = CLASSES,
    spacing_mm: float = 1.0,
    patch_shape: Shape = (8, 8, 8),
    window: tuple[float, float] = (-175.0, 250.0),
    seed: int = 3,
) -> Path:
    """The folder of a run with an untrained network of its own `seed` as its best."""
    config = TrainConfig(network=NetworkConfig(channels=(2, 4), strides=(2,)), window=window)
    network = build_network(config.network, len(classes), patch_shape, seed)
    meta = RunMeta(5, config, classes, spacing_mm, patch_shape, "data", "digest", 1, {})
    run.mkdir()
    save_checkpoint(run / "best.pt", Checkpoint(meta, network.state_dict(), None, {}, None, {}, None, 0))
    return run
