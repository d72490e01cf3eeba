"""Training: samples from shards, augmented on the device, Dice + cross-entropy, AdamW.

In: datasets and `TrainConfig`. Out: a run folder (`training.checkpoint`, `training.journal`) that `--resume` goes on
with: a run that is killed at any step and resumed ends, on the CPU, with bit for bit the weights of one that was not.
Several processes (`training.distributed`) each take their share of every global batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.errors import InputError, PhantumorError
from pipeline.files import writing_to
from pipeline.object_cache import ObjectCache
from pipeline.train_config import TrainConfig
from pipeline.versions import software
from training.arithmetic import arithmetic, precision_of, seed_dropout, training_device
from training.augment import augment, random_crop, to_window
from training.checkpoint import (
    BEST,
    LAST,
    RESUME,
    Checkpoint,
    RunMeta,
    load_state,
    read_checkpoint,
    save_checkpoint,
    save_last,
    write_config,
)
from training.clock import Clock, memory_mb, stall_line
from training.data import Data, TrainingData, open_data
from training.distributed import Ranks, gathered, mean_over, process_group, ranks_here, wait_for_all
from training.interrupts import Interrupts
from training.journal import Journal, Record, SilentJournal
from training.loss import SegmentationLoss
from training.network import build_network, check_shape, levels
from training.order import IntArray
from training.predict import Segmenter, predict_samples
from training.same_run import check_same_run
from training.stream import ShardStream
from training.validation import sample_scores, scores_line, validation_scores
from training.view import View

POLY_POWER = 0.9  # nnU-Net
LOWEST_SCALE = 1.0  # of the loss in fp16; below it even a gradient of normal size overflows


class TrainingInterrupted(PhantumorError):  # noqa: N818, being stopped is no error
    """Ctrl-C or SIGTERM; the checkpoint is written."""


def train(
    data: Data,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    log: Callable[[str], None] = print,
    show: Callable[[Record], None] | None = None,
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Train, or with `resume` go on training, the run `out` on the datasets' split `train`; returns what came out.

    Lines for people go to `log`, records of steps and validations to `show` (default: lines to `log`). `ranks` says
    which of the processes that train together this one is (default: as torchrun says). Raises InputError for settings
    that do not fit the datasets or the run, PhantumorError when the loss is no longer finite or the disk fails,
    TrainingInterrupted after Ctrl-C.
    """
    ranks = ranks_here() if ranks is None else ranks
    device = training_device(config.device, ranks)
    show = show or View(config.steps, log, None).show
    out = Path(out)
    journal = Journal(out, log, show, config.tensorboard) if ranks.first else SilentJournal(out)
    with process_group(ranks, device), arithmetic(config.deterministic, device):
        run = Training(open_data(data, config), out, config, journal, device, ranks)
        with contextlib.closing(journal), run.open_stream() as stream, run.interrupts:
            if resume:
                run.restore(stream)
            else:
                run.begin(stream)
            try:
                run.to_the_end(stream)
            except KeyboardInterrupt:
                run.interrupts.ignore()
                run.save_last()
                journal.draw()
                stopped = f"stopped after step {run.step} of {config.steps}, {run.out / LAST} is written"
                raise TrainingInterrupted(f"{stopped}. {RESUME}") from None
            except torch.OutOfMemoryError as error:
                raise PhantumorError(
                    f"the GPU's memory is full at step {run.step + 1}: lower --batch-size (now {config.batch_size}; "
                    f"--accumulate makes up for it) or set --crop-shape to less than {run.shape}, with another --out"
                ) from error
    return run.summary()


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rate of the update after `step` finished ones: linear warm-up, then cosine or poly to 0 at `config.steps`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    if config.schedule == "poly":
        return float(config.lr * (1 - done) ** POLY_POWER)
    return config.lr * (1 + math.cos(math.pi * done)) / 2


class Training:
    """One training between two steps, and how to make the next one."""

    def __init__(
        self, data: TrainingData, out: Path, config: TrainConfig, journal: Journal, device: torch.device, ranks: Ranks
    ) -> None:
        self.data, self.out, self.config, self.journal = data, out, config, journal
        self.device, self.ranks = device, ranks
        self.shape = config.crop_shape or data.patch_shape
        self._check_shape()
        self.precision = precision_of(config.precision, device)
        self.network = build_network(config.network, len(data.classes), self.shape, config.seed).to(device)
        if config.channels_last:
            self.network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.forward = self._forward()
        self.averaged = _averaged(self.network, config.ema) if config.ema > 0 else None
        self.optimizer = torch.optim.AdamW(self.network.parameters(), config.lr, weight_decay=config.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == torch.float16)
        self.loss = SegmentationLoss(config.loss, data.classes).to(device)
        self.step = 0
        self.saved_step = 0  # of last.pt
        self.stream_state: dict[str, Any] = {}
        self.best_score: float | None = None
        self.validated_step = 0
        self.last_loss: float | None = None
        self.last_scores: dict[str, Any] | None = None
        # Processes that train together must stop after the same step, which they agree on in `_update`.
        self.clock, self.interrupts = Clock(), Interrupts(wait_to_be_asked=ranks.together)

    def _check_shape(self) -> None:
        patch, crop, paths = self.data.patch_shape, self.config.crop_shape, self.data.paths
        if crop and any(edge > limit for edge, limit in zip(crop, patch, strict=True)):
            raise InputError(f"crop_shape {crop} is larger than the patches of {paths}, {patch}: set a smaller one")
        what = "crop_shape" if crop else f"{paths}: the patch shape"
        check_shape(self.shape, patch, self.config.network, what)

    def _forward(self) -> Callable[[Tensor], Any]:
        network: torch.nn.Module = self.network
        if self.ranks.together:
            gpus = [self.device.index] if self.device.type == "cuda" else None
            network = DistributedDataParallel(network, device_ids=gpus)
        return torch.compile(network) if self.config.compile else network

    def open_stream(self) -> ShardStream:
        """The training samples, from the start."""
        stream = ShardStream(
            self.data.source,
            self.config.batch_size,
            seed=self.config.seed,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            device=self.device,
            threads=self.config.threads,
            shuffle=self.config.shuffle,
            on_broken=self.config.on_broken,
            cache=ObjectCache(limit_bytes=int(self.config.cache_gb * 1e9)) if self.config.cache_gb > 0 else None,
        )
        if stream.samples is not None and stream.samples < self.config.batch_size:
            stream.close()
            raise InputError(
                f"--batch-size {self.config.batch_size}: {self.data.paths} has {stream.samples} training samples, so "
                "one would come twice in a batch: use a smaller --batch-size and --accumulate, or make more samples"
            )
        return stream

    # -- start and resume ---------------------------------------------------------------------------------------------

    def begin(self, stream: ShardStream) -> None:
        """Make the run's folder. A checkpoint lies in it from the start, so that any run can be resumed."""
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: is a file; --out takes a folder")
        if (self.out / LAST).exists():
            raise InputError(f"{self.out} already holds a run. Add --resume to go on with it, or choose another --out")
        self._look_at_validation()
        wait_for_all(self.ranks)  # all have looked: now the first one may write
        self.stream_state = stream.state_dict()
        if self.ranks.first:
            with writing_to(self.out, RESUME):
                self.out.mkdir(parents=True, exist_ok=True)
                write_config(self.out, self.config, self.data.paths)
        self.journal.open(-1)
        self.save_last()
        self._describe("training", stream)

    def restore(self, stream: ShardStream) -> None:
        """Take up the run's last checkpoint."""
        file = self.out / LAST
        if not file.is_file():
            raise InputError(f"{self.out}: no checkpoint to resume, {LAST} is not there. Leave --resume out to begin")
        checkpoint = read_checkpoint(file)
        check_same_run(self.out, checkpoint.meta, self.data, self.config, self.ranks.world_size)
        load_state(self.network, checkpoint.model, file)
        if self.averaged is not None and checkpoint.averaged is not None:
            load_state(self.averaged.module, checkpoint.averaged, file)
            self.averaged.n_averaged.fill_(checkpoint.meta.step)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        if checkpoint.scaler:
            self.scaler.load_state_dict(checkpoint.scaler)
        stream.load_state_dict(checkpoint.stream)
        self.stream_state, self.step = checkpoint.stream, checkpoint.meta.step
        self.saved_step = self.step
        self.best_score, self.validated_step = checkpoint.best_score, checkpoint.validated_step
        self._look_at_validation()
        wait_for_all(self.ranks)  # all have read: now the first one may write
        for record in self.journal.open(self.step):
            self.last_loss = record.get("loss", self.last_loss)
            self.last_scores = record.get("val", self.last_scores)
        if self.ranks.first:
            with writing_to(self.out, RESUME):
                write_config(self.out, self.config, self.data.paths)
        self._describe(f"resuming at step {self.step} of", stream)

    def _look_at_validation(self) -> None:
        """Read its rows: a damaged manifest is told of now, not after hours."""
        for dataset, index in self.data.validation:
            dataset.row(index)

    def _describe(self, doing: str, stream: ShardStream) -> None:
        say, config = self.journal.say, self.config
        weights = sum(p.numel() for p in self.network.parameters())
        held = "endless" if stream.samples is None else stream.samples
        processes = f" in {self.ranks.world_size} processes" if self.ranks.together else ""
        say(
            f"{doing} {config.steps} steps on {self.device}{processes}: {config.network.name} with {weights:,} "
            f"weights, {held} samples of {'x'.join(map(str, self.shape))} voxels of {self.data.spacing_mm:g} mm, "
            f"classes {', '.join(self.data.classes.names)}"
        )
        for line in self.data.lines():
            say(line)
        for dataset in self.data.datasets:
            if not dataset.complete:
                say(f"{dataset.path} is not complete: {len(dataset.parts)} of {dataset.info.shards} shards are used")
        if not self.data.validation:
            say(f"{self.data.paths} has no samples of split 'val': no validation, {BEST} is the last checkpoint")

    # -- the loop -----------------------------------------------------------------------------------------------------

    def to_the_end(self, stream: ShardStream) -> None:
        """Steps until all are done, with what is due between them."""
        batches = iter(stream)
        while True:
            self._validate_if_due()
            self._save_if_due()
            if self.step == self.config.steps:
                break
            loss, samples = self._update(batches, stream)
            self.clock.finish(loss, samples)
            if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                self._log_metrics(stream)
        self.journal.draw()
        if stream.skipped:
            self.journal.say(
                f"{stream.skipped} samples could not be read and were left out. `phantumor verify DATASET --repair` "
                "makes broken shards again"
            )
        if self.clock.total_s:
            self.journal.say(stall_line(self.clock, self.config.threads))

    def _update(self, batches: Iterator[dict[str, Tensor]], stream: ShardStream) -> tuple[float, int]:
        """One optimizer step; its loss, and the samples of this process."""
        self.network.train()
        seed_dropout(self.device, self.config.seed, self.step, self.ranks.rank)
        total, seen = 0.0, []
        self.clock.start()
        for part in range(self.config.accumulate):
            self.clock.wait()
            batch = next(batches)
            self.clock.got_data()
            last = part == self.config.accumulate - 1
            with contextlib.nullcontext() if last else self._no_exchange():
                total += self._add_gradient(batch, stream.positions)
            seen += batch["index"].tolist()
            del batch  # gives its buffer back before the next one is waited for
        return self._apply(total / self.config.accumulate, seen, stream), len(seen)

    def _no_exchange(self) -> contextlib.AbstractContextManager[None]:
        """Gradients of all but the last batch of a step stay in this process."""
        network = getattr(self.forward, "_orig_mod", self.forward)
        return network.no_sync() if isinstance(network, DistributedDataParallel) else contextlib.nullcontext()

    def _add_gradient(self, batch: dict[str, Tensor], positions: IntArray) -> float:
        """Forward and backward of one batch, whose samples have these places in the global order; its loss."""
        image, target = self._prepare(batch, positions)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            outputs = levels(self.forward(image))
        loss = self.loss(outputs, target) / self.config.accumulate
        self.scaler.scale(loss).backward()
        return float(loss.detach()) * self.config.accumulate

    def _prepare(self, batch: dict[str, Tensor], positions: IntArray) -> tuple[Tensor, Tensor]:
        """Network input float32 and target channels int64, both (B, 1, X, Y, Z), cropped and augmented."""
        config = self.config
        image, label = batch["image"].to(self.device), batch["label"].to(self.device)
        if config.crop_shape:
            tumors = self.data.classes.tumors.values()
            share = config.crop_tumor_share
            image, label = random_crop(image, label, config.crop_shape, share, tumors, config.seed, positions)
        image, label = augment(image, label, config.augment, config.seed, positions, config.window)
        image = to_window(image, config.window)
        if config.channels_last:
            image = image.to(memory_format=torch.channels_last_3d)
        return image, self.data.classes.to_channels(label)

    def _apply(self, loss: float, samples: list[int], stream: ShardStream) -> float:
        """Move the weights along the gradient, unless it is not finite; the loss over all processes."""
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        stop = float(self.interrupts.asked)
        loss, norm_value, stop = mean_over(self.ranks, (loss, float(norm), stop), self.device)
        # In fp16 a gradient that is not finite only means that the scale was too high: the scaler skips the step.
        if not math.isfinite(loss) or not (math.isfinite(norm_value) or self.scaler.is_enabled()):
            raise self._diverged(loss, samples)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        with self.interrupts.held():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            if self.scaler.is_enabled() and self.scaler.get_scale() < LOWEST_SCALE:
                raise self._diverged(loss, samples)
            if self.averaged is not None:
                self.averaged.update_parameters(self.network)
            self.stream_state = stream.state_dict()
            self.step += 1
        self.optimizer.zero_grad(set_to_none=True)
        if stop > 0:
            raise KeyboardInterrupt
        return loss

    def _diverged(self, loss: float, samples: list[int]) -> PhantumorError:
        return PhantumorError(
            f"the loss or its gradient is no longer finite at step {self.step + 1} (loss {loss}, samples {samples}). "
            f"Try a lower --lr than {self.config.lr:g}, more --warmup-steps than {self.config.warmup_steps} or a lower "
            f"--clip-norm than {self.config.clip_norm:g}, with another --out; {self.out / LAST} is from before"
        )

    # -- between steps ------------------------------------------------------------------------------------------------

    def _validate_if_due(self) -> None:
        due = self.step == self.config.steps or self.step % self.config.validate_every == 0
        if not self.data.validation or not due or self.validated_step == self.step:
            return
        network = self.network if self.averaged is None else self.averaged.module
        segmenter = Segmenter(
            network.eval(), self.data.classes, self.config.window, self.shape, self.data.spacing_mm, self.device
        )
        mine = self.data.validation[self.ranks.rank :: self.ranks.world_size]
        scored = [
            score
            for dataset in self.data.datasets
            for score in sample_scores(
                predict_samples(
                    segmenter, dataset, [index for of, index in mine if of is dataset], self.config.batch_size
                ),
                self.data.classes,
            )
        ]
        scores = validation_scores(gathered(self.ranks, scored), self.data.classes)
        with self.interrupts.held():
            self.journal.add({"step": self.step, "val": scores})
            self.validated_step, self.last_scores = self.step, scores
            if self.best_score is None or scores["score"] >= self.best_score:
                self.best_score = scores["score"]
                self._save_best()
        self.journal.say(f"step {self.step}: validation {scores_line(scores)}")

    def _save_if_due(self) -> None:
        if self.step > 0 and (self.step == self.config.steps or self.step % self.config.checkpoint_every == 0):
            self.save_last()

    def save_last(self) -> None:
        """Write the training as it stands; without validation it is the best one as well."""
        if self.ranks.first:
            with writing_to(self.out, RESUME):
                save_last(self.out, self._checkpoint(), self.config.keep, self.saved_step)
        self.saved_step = self.step
        if not self.data.validation:
            self._save_best()

    def _save_best(self) -> None:
        if self.ranks.first:
            with writing_to(self.out, RESUME):
                save_checkpoint(self.out / BEST, self._checkpoint())

    def _checkpoint(self) -> Checkpoint:
        meta = RunMeta(
            step=self.step,
            config=self.config,
            classes=dict(self.data.classes.classes),
            spacing_mm=self.data.spacing_mm,
            patch_shape=self.shape,
            dataset=self.data.paths,
            dataset_digest=self.data.digest,
            processes=self.ranks.world_size,
            software=software(),
        )
        return Checkpoint(
            meta,
            self.network.state_dict(),
            None if self.averaged is None else self.averaged.module.state_dict(),
            self.optimizer.state_dict(),
            self.scaler.state_dict() or None,
            self.stream_state,
            self.best_score,
            self.validated_step,
        )

    def _log_metrics(self, stream: ShardStream) -> None:
        record: Record = {"step": self.step, "lr": learning_rate(self.step - 1, self.config)}
        record |= self.clock.record(math.prod(self.shape), self.config.steps - self.step) | memory_mb(self.device)
        if stream.skipped:
            record["skipped_samples"] = stream.skipped
        self.last_loss = record["loss"]
        self.journal.add(record)

    def summary(self) -> dict[str, Any]:
        """What came out, as a record for people's scripts."""
        return {
            "out": str(self.out),
            "steps": self.step,
            "loss": self.last_loss,
            "val": self.last_scores,
            "best_score": self.best_score,
            "input_stall": self.clock.stall,
        }


def _averaged(network: torch.nn.Module, decay: float) -> AveragedModel:
    """A moving average of the weights: each step it keeps `decay` of itself."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]
