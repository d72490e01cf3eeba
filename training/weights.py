"""The weights of a training and what moves them: network, moving average, optimizer, scale of the loss."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.arithmetic import precision_of
from training.checkpoint import Checkpoint, load_state
from training.network import build_network, levels
from training.state import Setting

LOWEST_SCALE = 1.0  # of the loss in fp16; below it even a gradient of normal size overflows


class Weights:
    """A network that is trained, from one step to the next."""

    def __init__(self, setting: Setting) -> None:
        config, device = setting.config, setting.device
        self.device = device
        self.precision = precision_of(config.precision, device)
        self.network = build_network(config.network, len(setting.data.classes), setting.shape, config.seed).to(device)
        if config.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._forward = self._wrapped(setting)
        self.averaged = _averaged(self.network, config.ema) if config.ema > 0 else None
        self.optimizer = torch.optim.AdamW(self.network.parameters(), config.lr, weight_decay=config.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)

    def _wrapped(self, setting: Setting) -> Callable[[Tensor], Any]:
        network: torch.nn.Module = self.network
        if setting.ranks.together:
            gpus = [self.device.index] if self.device.type == "cuda" else None
            network = DistributedDataParallel(network, device_ids=gpus)
        return torch.compile(network) if setting.config.compile else network

    @property
    def used(self) -> torch.nn.Module:
        """The network that is validated and used: the moving average where there is one."""
        return self.network if self.averaged is None else self.averaged.module

    def outputs(self, image: Tensor) -> tuple[Tensor, ...]:
        """Logits of each level, in the training's precision."""
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            return levels(self._forward(image))

    def no_exchange(self) -> contextlib.AbstractContextManager[None]:
        """Gradients of all but the last batch of a step stay in this process."""
        network = getattr(self._forward, "_orig_mod", self._forward)
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def add_gradient(self, loss: Tensor) -> None:
        """Add the gradient of a loss to what there is."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def clip(self, most: float) -> float:
        """Bring the gradient to its true size, then to a norm of `most` at most; its norm before."""
        self.scaler.unscale_(self.optimizer)
        return float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), most))

    def move(self, rate: float) -> bool:
        """One step along the gradient. False when in fp16 no scale is low enough for it to be finite."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled() and self.scaler.get_scale() < LOWEST_SCALE:
            return False
        if self.averaged is not None:
            self.averaged.update_parameters(self.network)
        return True

    def forget_gradient(self) -> None:
        """Before the next step."""
        self.optimizer.zero_grad(set_to_none=True)

    def restore(self, checkpoint: Checkpoint, file: Path) -> None:
        """Take up what a checkpoint holds; InputError when it is of another network."""
        load_state(self.network, checkpoint.model, file)
        if self.averaged is not None and checkpoint.averaged is not None:
            load_state(self.averaged.module, checkpoint.averaged, file)
            self.averaged.n_averaged.fill_(checkpoint.meta.step)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        if checkpoint.scaler:
            self.scaler.load_state_dict(checkpoint.scaler)


def _averaged(network: torch.nn.Module, decay: float) -> AveragedModel:
    """A moving average of the weights: each step it keeps `decay` of itself."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
