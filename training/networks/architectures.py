"""MONAI's networks by name: the constructor arguments that a `NetworkConfig` means, and the shapes that they take.

In: the settings of `pipeline.train_config`, checked before anything is built. Out: a module from (B, 1, X, Y, Z) to
logits (B, n_classes, X, Y, Z). The defaults stand in the small functions below, each with its source.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, get_type_hints

import torch
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from pipeline.errors import InputError
from pipeline.train_config import NetworkConfig, NetworkName

Arguments = dict[str, Any]
_OF_THE_DATA = frozenset({"self", "spatial_dims", "in_channels", "out_channels"})


@dataclass(frozen=True)
class Architecture:
    """One network: its class, the settings that it takes, and what they mean."""

    signature: str  # the class of `monai.networks.nets` whose arguments the options are
    fields: tuple[str, ...]  # of NetworkConfig, beside name and options
    fixed: tuple[str, ...]  # arguments that no option sets: fields decide them, or the rule on shapes hangs on them
    arguments: Callable[[NetworkConfig, Arguments], Arguments]  # of the fields and the checked options
    factor: Callable[[Arguments], int]  # each edge of a patch is a multiple of it
    least_levels: int | None = None  # where channels are given for each level; None: for the first alone
    module: str = "monai.networks.nets"  # where the class to build is found
    needs: str | None = None  # a package that MONAI does not install


# -- the networks and their defaults ----------------------------------------------------------------------------------


def _unet(config: NetworkConfig, options: Arguments) -> Arguments:
    # Ours: with stride 2 in the first level a step costs a seventh of that of a net with a full-resolution level.
    channels = config.channels or (16, 32, 64, 128)
    return {
        "channels": channels,
        "strides": _strides(config, channels),
        "num_res_units": config.res_units or 0,
    } | options


def _dynunet(config: NetworkConfig, options: Arguments) -> Arguments:
    # The plain U-Net of nnU-Net (Isensee et al. 2021): 32 channels, doubled up to 320, kernel 3.
    channels = config.channels or (32, 64, 128, 256, 320)
    strides = _strides(config, channels)
    return {
        "filters": channels,
        "strides": (1, *strides),
        "upsample_kernel_size": strides,
        "kernel_size": (3,) * len(channels),
        "deep_supervision": config.deep_supervision,
        "deep_supr_num": len(channels) - 2,  # all levels of the decoder
    } | options


def _segresnet(config: NetworkConfig, options: Arguments) -> Arguments:
    # MONAI's blocks and filters. Instance norm for its batch norm: the statistics of the few patches that fit on a
    # GPU are noise, and would make the result depend on the number of processes.
    blocks = options.get("blocks_down", (1, 2, 2, 4))
    return {
        "init_filters": _first(config, 32),
        "blocks_down": blocks,
        "norm": "instance",
        "dsdepth": len(blocks) - 1 if config.deep_supervision else 1,
    } | options


def _swinunetr(config: NetworkConfig, options: Arguments) -> Arguments:
    return {"feature_size": _first(config, 24)} | options  # MONAI's default


def _mednext(config: NetworkConfig, options: Arguments) -> Arguments:
    # MedNeXt-S with kernel 3 (Roy et al. 2023).
    return {
        "init_filters": _first(config, 32),
        "blocks_down": (2, 2, 2, 2),
        "blocks_up": (2, 2, 2, 2),
        "kernel_size": 3,
        "use_residual_connection": True,
        "deep_supervision": config.deep_supervision,
    } | options


def _strides(config: NetworkConfig, channels: tuple[int, ...]) -> tuple[int, ...]:
    strides = (2,) * (len(channels) - 1) if config.strides is None else config.strides
    if len(strides) != len(channels) - 1:
        raise InputError(
            f"network {config.name}: {len(channels)} levels need {len(channels) - 1} strides, got {strides}. "
            "Give channels and strides together"
        )
    return strides


def _first(config: NetworkConfig, default: int) -> int:
    return config.channels[0] if config.channels else default


ARCHITECTURES: dict[NetworkName, Architecture] = {
    "unet": Architecture(
        signature="UNet",
        fields=("channels", "strides", "res_units"),
        fixed=("channels", "strides", "num_res_units"),
        arguments=_unet,
        factor=lambda arguments: math.prod(arguments["strides"]),
        least_levels=2,
    ),
    "segresnet": Architecture(
        signature="SegResNetDS",
        fields=("channels", "deep_supervision"),
        fixed=("init_filters", "dsdepth", "resolution", "preprocess"),
        arguments=_segresnet,
        factor=lambda arguments: 2 ** max(0, len(arguments["blocks_down"]) - 1),
    ),
    "dynunet": Architecture(
        signature="DynUNet",
        fields=("channels", "strides", "deep_supervision"),
        fixed=("filters", "strides", "upsample_kernel_size", "deep_supervision", "deep_supr_num"),
        arguments=_dynunet,
        factor=lambda arguments: math.prod(arguments["strides"]),
        least_levels=3,
        module="training.networks.dynunet",
    ),
    "swinunetr": Architecture(
        signature="SwinUNETR",
        fields=("channels",),
        fixed=("feature_size", "patch_size", "norm_layer"),
        arguments=_swinunetr,
        factor=lambda arguments: 2**5,  # tokens of 2 voxels an edge, then four mergings
        needs="einops",
    ),
    "mednext": Architecture(
        signature="MedNeXt",
        fields=("channels", "deep_supervision"),
        fixed=("init_filters", "deep_supervision"),
        arguments=_mednext,
        factor=lambda arguments: 2 ** len(arguments["blocks_down"]),
    ),
}


# -- from settings to a network ---------------------------------------------------------------------------------------


def construct(config: NetworkConfig, n_classes: int, patch_shape: tuple[int, int, int]) -> nn.Module:
    """The network, weights from torch's global generator; InputError for settings that it does not take.

    Options go to MONAI, so with them the network is tried on `patch_shape` (X, Y, Z) voxels.
    """
    arguments, architecture = arguments_of(config), ARCHITECTURES[config.name]
    if architecture.needs and find_spec(architecture.needs) is None:
        raise InputError(f"network {config.name} needs a package that is not here: pip install {architecture.needs}")
    network_class = getattr(importlib.import_module(architecture.module), architecture.signature)
    try:
        network: nn.Module = network_class(spatial_dims=3, in_channels=1, out_channels=n_classes, **arguments)
        if config.options:
            _pass_without_arithmetic(network, patch_shape)
    except Exception as error:  # MONAI raises a dozen types for arguments that do not go together
        reason = str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
        given = config.model_dump(mode="json", exclude_defaults=True) or "its defaults"
        raise InputError(
            f"network {config.name} cannot be built with {given} for patches of {patch_shape}: {reason}. Change these"
        ) from error
    return network


def _pass_without_arithmetic(network: nn.Module, patch_shape: tuple[int, int, int]) -> None:
    """Raises where arguments do not go together, which many classes find out only when they are called."""
    # Two samples: normalisation over a batch has no spread over one.
    copy.deepcopy(network).to("meta")(torch.empty(2, 1, *patch_shape, device="meta"))


def factor_of(config: NetworkConfig) -> int:
    """Each edge of a patch must be a multiple of this many voxels."""
    return ARCHITECTURES[config.name].factor(arguments_of(config))


def arguments_of(config: NetworkConfig) -> Arguments:
    """The constructor's arguments; InputError for a field or an option that the network does not take."""
    architecture = ARCHITECTURES[config.name]
    _check_fields(config, architecture)
    options = {name: _checked(config.name, name, value) for name, value in config.options.items()}
    return architecture.arguments(config, options)


def _check_fields(config: NetworkConfig, architecture: Architecture) -> None:
    given = config.model_dump(exclude={"name", "options", "heads"}, exclude_defaults=True)
    for field in (field for field in given if field not in architecture.fields):
        others = ", ".join(name for name, other in ARCHITECTURES.items() if field in other.fields)
        raise InputError(
            f"network {config.name} takes no {field}; it takes {', '.join(architecture.fields)} and options. "
            f"{field} is of {others}"
        )
    channels = config.channels
    if channels and architecture.least_levels is None and len(channels) != 1:
        raise InputError(
            f"network {config.name} takes one number of channels, its first level's, got {channels}. "
            "Give the first alone; the others double from level to level"
        )
    if channels and len(channels) < (architecture.least_levels or 1):
        raise InputError(
            f"network {config.name} takes channels for {architecture.least_levels} levels or more, got {channels}. "
            "Give one number for each level"
        )


def _checked(network: NetworkName, option: str, value: Any) -> Any:
    """An option's value as its class takes it: tuples for lists, what text from a command line means for text."""
    hints = _hints(network)
    if option not in hints:
        close = difflib.get_close_matches(option.replace("-", "_"), list(hints), n=1)
        suggestion = f" (did you mean {close[0]!r}?)" if close else ""
        raise InputError(f"network {network} has no option {option!r}{suggestion}; it takes {', '.join(hints)}")
    value = _plain(_read(value) if isinstance(value, str) else value)
    hint = hints[option]
    try:
        # Strict: True is no number here, nor 1 a yes.
        TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value, strict=True)
    except ValidationError as error:
        text = hint.__name__ if isinstance(hint, type) else str(hint).replace("collections.abc.", "")
        raise InputError(
            f"network {network}: option {option} is {value!r}, but takes {text}. "
            "Give such a value; lists are written [1, 2]"
        ) from error
    return value


def _hints(network: NetworkName) -> dict[str, Any]:
    """The options of a network with their types."""
    import monai.networks.nets as nets

    architecture = ARCHITECTURES[network]
    init = getattr(nets, architecture.signature).__init__
    hidden = _OF_THE_DATA | set(architecture.fixed)
    hints = get_type_hints(init)
    return {name: hints[name] for name in inspect.signature(init).parameters if name not in hidden}


def _read(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _plain(value: Any) -> Any:
    """A copy with tuples for lists: MONAI adds to the dictionaries that it is given."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return value
