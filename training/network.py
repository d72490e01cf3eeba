"""The network by name, its classes, the shapes it takes and the device it runs on.

In: `NetworkConfig` and the classes of `dataset.json`. Out: a torch module from (B, 1, X, Y, Z) float32 in [-1, 1] to
(B, n_classes, X, Y, Z) logits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.organs import BACKGROUND, is_tumor
from pipeline.train_config import Heads, NetworkConfig
from training.networks.architectures import construct, factor_of

Shape3 = tuple[int, int, int]
_NO_CHANNEL = -1


def build_network(config: NetworkConfig, n_classes: int, patch_shape: Shape3, seed: int = 0) -> torch.nn.Module:
    """The MONAI network of the settings; its weights depend on `config`, `n_classes` and `seed` alone.

    In evaluation mode it gives logits (B, n_classes, X, Y, Z), in training mode the same or, with deep supervision, a
    list of them: see `levels`. InputError for a field or an option that the network does not take, and for options
    with which it cannot take patches of `patch_shape` (X, Y, Z) voxels.
    """
    # torch initialises layers from its global CPU generator: set it here, give it back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = construct(config, n_classes, patch_shape)
    return SigmoidHeads(network) if config.heads == "sigmoid" else network


def levels(output: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    """A network's output level by level, the full resolution first; one level without deep supervision."""
    return (output,) if isinstance(output, Tensor) else tuple(output)


class SigmoidHeads(nn.Module):
    """A network whose classes are each by themselves. The background's logit is 0, so the largest logit is the class.

    A voxel is of the class that is most probable, and of none where all are less probable than not.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Logits of one level or of several, as the network gives them."""
        output = self.network(image)
        if isinstance(output, Tensor):
            return _without_background(output)
        return [_without_background(level) for level in output]


def _without_background(logits: Tensor) -> Tensor:
    return torch.cat((torch.zeros_like(logits[:, :1]), logits[:, 1:]), 1)


def class_probabilities(logits: Tensor, heads: Heads) -> Tensor:
    """Probabilities float32 (B, C, X, Y, Z) of logits; sigmoid heads give the background 1/2, as its logit is 0."""
    return logits.float().sigmoid() if heads == "sigmoid" else logits.float().softmax(1)


@dataclass(frozen=True)
class ClassTable:
    """Class ids of a dataset and the network's output channels: channel k is the k-th smallest id."""

    classes: Mapping[str, int]  # name -> class id, as in `dataset.json`

    def __post_init__(self) -> None:
        ids = sorted(self.classes.values())
        if len(ids) < 2 or len(set(ids)) != len(ids) or ids[0] != BACKGROUND or ids[-1] > 255:
            raise ValueError(f"classes are background 0 and others with ids of their own in 1..255, got {self.classes}")

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """The class id of each channel."""
        return tuple(sorted(self.classes.values()))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The class name of each channel."""
        return tuple(sorted(self.classes, key=lambda name: self.classes[name]))

    @cached_property
    def tumors(self) -> dict[str, int]:
        """Name and class id of the tumor classes."""
        return {name: number for name, number in self.classes.items() if is_tumor(number)}

    def __len__(self) -> int:
        return len(self.classes)

    @cached_property
    def _channel_of_id(self) -> Tensor:
        table = torch.full((256,), _NO_CHANNEL, dtype=torch.int64)
        table[list(self.ids)] = torch.arange(len(self.ids))
        return table

    def to_channels(self, label: Tensor) -> Tensor:
        """Channel indices (int64, same shape and device) of a uint8 label; InputError when it holds another class."""
        table = self._channel_of_id.to(label.device)
        channels = table.index_select(0, label.flatten().int()).view(label.shape)
        if bool((channels == _NO_CHANNEL).any()):
            found = sorted(set(torch.unique(label).tolist()) - set(self.ids))
            raise InputError(
                f"a label holds the class ids {found}, which dataset.json does not list (it lists {list(self.ids)}). "
                "`phantumor verify` finds broken shards"
            )
        return channels

    def to_ids(self, channels: Tensor) -> Tensor:
        """Class ids (uint8, same shape and device) of channel indices in 0..n-1."""
        table = torch.tensor(self.ids, dtype=torch.uint8, device=channels.device)
        return table.index_select(0, channels.flatten()).view(channels.shape)


def check_shape(shape: Shape3, limit: Shape3, config: NetworkConfig, what: str) -> None:
    """InputError with the nearest valid shape unless the network can train on (X, Y, Z) `shape` voxels.

    Every edge must be a multiple of what the network divides it by, and the deepest level must hold two voxels or
    more: instance normalisation has no spread over one. The shape that is proposed fits into `limit`.
    """
    factor = factor_of(config)
    if all(edge % factor == 0 for edge in shape) and math.prod(shape) > factor**3:
        return
    nearest = nearest_valid_shape(shape, limit, factor)
    remedy = (
        f"The nearest valid shape is {nearest}: set crop_shape to it, or generate patches of it"
        if nearest
        else f"No valid shape fits into {limit}: use a network with fewer levels or smaller strides, or larger patches"
    )
    raise InputError(
        f"{what} {shape} does not fit network {config.name}: each edge must be a multiple of {factor}, and at least "
        f"one a larger one. {remedy}"
    )


def nearest_valid_shape(shape: Shape3, limit: Shape3, factor: int) -> Shape3 | None:
    """The multiple of `factor` nearest to each edge that fits into `limit`, or None when no shape that trains does."""
    multiples = [max(1, (edge + factor // 2) // factor) for edge in shape]
    if math.prod(multiples) == 1:
        multiples = [2, 2, 2]
    x, y, z = (min(m, most // factor) for m, most in zip(multiples, limit, strict=True))
    return (x * factor, y * factor, z * factor) if x * y * z > 1 else None


def resolve_device(text: str) -> torch.device:
    """The torch device of a setting: `auto` is cuda where there is one, else cpu; InputError when it cannot be used."""
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        if text.partition(":")[0] not in ("cpu", "cuda"):
            raise RuntimeError("phantumor runs on cpu or cuda")
        device = torch.device(text)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises AssertionError
        reason = str(error).strip().splitlines()[0]
        usable = "auto, cpu or cuda" if torch.cuda.is_available() else "auto or cpu: torch finds no GPU here"
        raise InputError(f"device {text!r} cannot be used here: {reason}. Use {usable}") from error
    return device
