"""Training: samples from shards, augmented on the device, Dice + cross-entropy, AdamW.

In: datasets and `TrainConfig`. Out: a run folder (`training.checkpoint`, `training.journal`) that `--resume` goes on
with: a run that is killed at any step and resumed ends, on the CPU, with bit for bit the weights of one that was not.
Several processes (`training.distributed`) each take their share of every global batch.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import InputError, PhantumorError
from pipeline.files import writing_to
from pipeline.object_cache import ObjectCache
from pipeline.train_config import TrainConfig
from training.arithmetic import arithmetic, training_device
from training.between_steps import BetweenSteps
from training.checkpoint import BEST, LAST, RESUME, read_checkpoint, write_config
from training.clock import Clock, memory_mb, stall_line
from training.data import Data, open_data
from training.distributed import Ranks, process_group, ranks_here, wait_for_all
from training.interrupts import Interrupts
from training.journal import Journal, Record, SilentJournal
from training.network import check_shape
from training.same_run import check_same_run
from training.state import RunState, Setting
from training.step import Step, learning_rate
from training.stream import ShardStream
from training.view import View
from training.weights import Weights


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
    # Processes that train together must stop after the same step, which they agree on in each step.
    interrupts = Interrupts(wait_to_be_asked=ranks.together)
    with process_group(ranks, device), arithmetic(config.deterministic, device):
        run = Training(Setting(open_data(data, config), out, config, journal, device, ranks, interrupts))
        with contextlib.closing(journal), run.open_stream() as stream, interrupts:
            if resume:
                run.restore(stream)
            else:
                run.begin(stream)
            try:
                run.to_the_end(stream)
            except KeyboardInterrupt:
                interrupts.ignore()
                run.between.save_last()
                journal.draw()
                stopped = f"stopped after step {run.state.step} of {config.steps}, {out / LAST} is written"
                raise TrainingInterrupted(f"{stopped}. {RESUME}") from None
            except torch.OutOfMemoryError as error:
                raise PhantumorError(
                    f"the GPU's memory is full at step {run.state.step + 1}: lower --batch-size (now "
                    f"{config.batch_size}; --accumulate makes up for it) or set --crop-shape to less than "
                    f"{run.setting.shape}, with another --out"
                ) from error
    return run.summary()


class Training:
    """One training between two steps, and how to make the next one."""

    def __init__(self, setting: Setting) -> None:
        self.setting, self.state, self.clock = setting, RunState(), Clock()
        _check_shape(setting)
        self.weights = Weights(setting)
        self.step = Step(setting, self.weights, self.state, self.clock)
        self.between = BetweenSteps(setting, self.weights, self.state)

    def open_stream(self) -> ShardStream:
        """The training samples, from the start."""
        config, ranks, data = self.setting.config, self.setting.ranks, self.setting.data
        stream = ShardStream(
            data.source,
            config.batch_size,
            seed=config.seed,
            rank=ranks.rank,
            world_size=ranks.world_size,
            device=self.setting.device,
            threads=config.threads,
            shuffle=config.shuffle,
            on_broken=config.on_broken,
            cache=ObjectCache(limit_bytes=int(config.cache_gb * 1e9)) if config.cache_gb > 0 else None,
            relabel=data.labels.relabel,
        )
        if stream.samples is not None and stream.samples < config.batch_size:
            stream.close()
            raise InputError(
                f"--batch-size {config.batch_size}: {data.paths} has {stream.samples} training samples, so "
                "one would come twice in a batch: use a smaller --batch-size and --accumulate, or make more samples"
            )
        return stream

    # -- start and resume ---------------------------------------------------------------------------------------------

    def begin(self, stream: ShardStream) -> None:
        """Make the run's folder. A checkpoint lies in it from the start, so that any run can be resumed."""
        out = self.setting.out
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: is a file; --out takes a folder")
        if (out / LAST).exists():
            raise InputError(f"{out} already holds a run. Add --resume to go on with it, or choose another --out")
        self._look_at_validation()
        wait_for_all(self.setting.ranks)  # all have looked: now the first one may write
        self.state.stream = stream.state_dict()
        self._write_config()
        self.setting.journal.open(-1)
        self.between.save_last()
        self._describe("training", stream)

    def restore(self, stream: ShardStream) -> None:
        """Take up the run's last checkpoint."""
        setting, state = self.setting, self.state
        file = setting.out / LAST
        if not file.is_file():
            raise InputError(
                f"{setting.out}: no checkpoint to resume, {LAST} is not there. Leave --resume out to begin"
            )
        checkpoint = read_checkpoint(file)
        check_same_run(setting.out, checkpoint.meta, setting.data, setting.config, setting.ranks.world_size)
        self.weights.restore(checkpoint, file)
        stream.load_state_dict(checkpoint.stream)
        state.stream, state.step, state.saved_step = checkpoint.stream, checkpoint.meta.step, checkpoint.meta.step
        state.best_score, state.validated_step = checkpoint.best_score, checkpoint.validated_step
        self._look_at_validation()
        wait_for_all(setting.ranks)  # all have read: now the first one may write
        for record in setting.journal.open(state.step):
            state.last_loss = record.get("loss", state.last_loss)
            state.last_scores = record.get("val", state.last_scores)
        self._write_config()
        self._describe(f"resuming at step {state.step} of", stream)

    def _write_config(self) -> None:
        setting = self.setting
        if setting.ranks.first:
            with writing_to(setting.out, RESUME):
                setting.out.mkdir(parents=True, exist_ok=True)
                write_config(setting.out, setting.config, setting.data.paths)

    def _look_at_validation(self) -> None:
        """Read its rows: a damaged manifest is told of now, not after hours."""
        for dataset, index in self.setting.data.validation:
            self.setting.data.annotated(dataset, index)

    def _describe(self, doing: str, stream: ShardStream) -> None:
        setting, config, data = self.setting, self.setting.config, self.setting.data
        say = setting.journal.say
        weights = sum(p.numel() for p in self.weights.network.parameters())
        held = "endless" if stream.samples is None else stream.samples
        processes = f" in {setting.ranks.world_size} processes" if setting.ranks.together else ""
        say(
            f"{doing} {config.steps} steps on {setting.device}{processes}: {config.network.name} with {weights:,} "
            f"weights, {held} samples of {'x'.join(map(str, setting.shape))} voxels of {data.spacing_mm:g} mm, "
            f"classes {', '.join(data.classes.names)}"
        )
        for line in data.lines():
            say(line)
        for dataset in data.datasets:
            if not dataset.complete:
                say(f"{dataset.path} is not complete: {len(dataset.parts)} of {dataset.info.shards} shards are used")
        if not data.validation:
            say(f"{data.paths} has no samples of split 'val': no validation, {BEST} is the last checkpoint")

    # -- the loop -----------------------------------------------------------------------------------------------------

    def to_the_end(self, stream: ShardStream) -> None:
        """Steps until all are done, with what is due between them."""
        config, state, say = self.setting.config, self.state, self.setting.journal.say
        batches = iter(stream)
        while True:
            self.between.do_what_is_due()
            if state.step == config.steps:
                break
            loss, samples = self.step.make(batches, stream)
            self.clock.finish(loss, samples)
            if state.step % config.log_every == 0 or state.step == config.steps:
                self._log_metrics(stream)
        self.setting.journal.draw()
        if stream.skipped:
            say(
                f"{stream.skipped} samples could not be read and were left out. `phantumor verify DATASET --repair` "
                "makes broken shards again"
            )
        if self.clock.total_s:
            say(stall_line(self.clock, config.threads))

    def _log_metrics(self, stream: ShardStream) -> None:
        setting, state = self.setting, self.state
        record: Record = {"step": state.step, "lr": learning_rate(state.step - 1, setting.config)}
        left = setting.config.steps - state.step
        record |= self.clock.record(math.prod(setting.shape), left) | memory_mb(setting.device)
        if stream.skipped:
            record["skipped_samples"] = stream.skipped
        state.last_loss = record["loss"]
        setting.journal.add(record)

    def summary(self) -> dict[str, Any]:
        """What came out, as a record for people's scripts."""
        return {
            "out": str(self.setting.out),
            "steps": self.state.step,
            "loss": self.state.last_loss,
            "val": self.state.last_scores,
            "best_score": self.state.best_score,
            "input_stall": self.clock.stall,
        }


def _check_shape(setting: Setting) -> None:
    """InputError unless the network can train on the patches, or on crops of them."""
    patch, crop, paths = setting.data.patch_shape, setting.config.crop_shape, setting.data.paths
    if crop and any(edge > limit for edge, limit in zip(crop, patch, strict=True)):
        raise InputError(f"crop_shape {crop} is larger than the patches of {paths}, {patch}: set a smaller one")
    what = "crop_shape" if crop else f"{paths}: the patch shape"
    check_shape(setting.shape, patch, setting.config.network, what)
