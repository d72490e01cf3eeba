"""One optimizer step: batches in, augmented on the device, loss, gradient, and the weights moved along it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.errors import PhantumorError
from pipeline.train_config import TrainConfig
from training.arithmetic import seed_dropout
from training.augment import augment, random_crop, to_window
from training.checkpoint import LAST
from training.clock import Clock
from training.distributed import mean_over
from training.order import IntArray
from training.state import RunState, Setting
from training.stream import ShardStream
from training.supervision.loss import SupervisedLoss
from training.supervision.targets import Targets
from training.weights import Weights

POLY_POWER = 0.9  # nnU-Net


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rate of the update after `step` finished ones: linear warm-up, then cosine or poly to 0 at `config.steps`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    if config.schedule == "poly":
        return float(config.lr * (1 - done) ** POLY_POWER)
    return config.lr * (1 + math.cos(math.pi * done)) / 2


class Step:
    """Makes one optimizer step after another."""

    def __init__(self, setting: Setting, weights: Weights, state: RunState, clock: Clock) -> None:
        config, data = setting.config, setting.data
        self.setting, self.weights, self.state, self.clock = setting, weights, state, clock
        self.loss = SupervisedLoss(config.loss, config.supervision, data.classes, config.network.heads).to(
            setting.device
        )

    def make(self, batches: Iterator[dict[str, Tensor]], stream: ShardStream) -> tuple[float, int]:
        """One step; its loss over all processes, and the samples of this one."""
        setting, config = self.setting, self.setting.config
        self.weights.network.train()
        seed_dropout(setting.device, config.seed, self.state.step, setting.ranks.rank)
        self.loss.done = self.state.step / config.steps
        total, seen = 0.0, []
        self.clock.start()
        for part in range(config.accumulate):
            self.clock.wait()
            batch = next(batches)
            self.clock.got_data()
            last = part == config.accumulate - 1
            with contextlib.nullcontext() if last else self.weights.no_exchange():
                total += self._add_gradient(batch, stream.positions)
            seen += batch["index"].tolist()
            del batch  # gives its buffer back before the next one is waited for
        return self._apply(total / config.accumulate, seen, stream), len(seen)

    def _add_gradient(self, batch: dict[str, Tensor], positions: IntArray) -> float:
        """Forward and backward of one batch, whose samples have these places in the global order; its loss."""
        config = self.setting.config
        image, targets = self._prepare(batch, positions)
        outputs = self.weights.outputs(image)
        loss = self.loss(outputs, targets) / config.accumulate
        self.weights.add_gradient(loss)
        return float(loss.detach()) * config.accumulate

    def _prepare(self, batch: dict[str, Tensor], positions: IntArray) -> tuple[Tensor, Targets]:
        """Network input float32 (B, 1, X, Y, Z), cropped and augmented, and what it is trained towards."""
        config, device, labels = self.setting.config, self.setting.device, self.setting.data.labels
        image, label = batch["image"].to(device), batch["label"].to(device)
        if config.crop_shape:
            share = config.crop_tumor_share
            image, label = random_crop(image, label, config.crop_shape, share, labels.tumors, config.seed, positions)
        image, label = augment(image, label, config.augment, config.seed, positions, config.window, shown=labels.shown)
        image = to_window(image, config.window)
        if config.channels_last:
            image = image.to(memory_format=torch.channels_last_3d)
        return image, labels.targets(label, batch, positions)

    def _apply(self, loss: float, samples: list[int], stream: ShardStream) -> float:
        """Move the weights along the gradient, unless it is not finite; the loss over all processes."""
        setting, weights, state = self.setting, self.weights, self.state
        norm = weights.clip(setting.config.clip_norm)
        stop = float(setting.interrupts.asked)
        loss, norm, stop = mean_over(setting.ranks, (loss, norm, stop), setting.device)
        # In fp16 a gradient that is not finite only means that the scale was too high: the scaler skips the step.
        if not math.isfinite(loss) or not (math.isfinite(norm) or weights.scaler.is_enabled()):
            raise self._diverged(loss, samples)
        with setting.interrupts.held():
            if not weights.move(learning_rate(state.step, setting.config)):
                raise self._diverged(loss, samples)
            state.stream = stream.state_dict()
            state.step += 1
        weights.forget_gradient()
        if stop > 0:
            raise KeyboardInterrupt
        return loss

    def _diverged(self, loss: float, samples: list[int]) -> PhantumorError:
        config = self.setting.config
        return PhantumorError(
            f"the loss or its gradient is no longer finite at step {self.state.step + 1} (loss {loss}, samples "
            f"{samples}). Try a lower --lr than {config.lr:g}, more --warmup-steps than {config.warmup_steps} or a "
            f"lower --clip-norm than {config.clip_norm:g}, with another --out; {self.setting.out / LAST} is from before"
        )
