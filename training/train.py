"""The training loop: shards in, a run folder with checkpoints and metrics out. Plain PyTorch, read top to bottom.

Between two steps a training is its weights, optimizer, step and position in the stream; all else (learning rate,
augmentation) follows from the settings and the step. So a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.losses import DiceCELoss
from torch import Tensor

from pipeline.catalog import Dataset, open_dataset
from pipeline.errors import InputError, PhantumorError
from pipeline.files import writing_to
from pipeline.settings import differences
from pipeline.store import Location
from pipeline.train_config import TrainConfig
from pipeline.versions import software
from training.augment import augment, random_crop, step_generator, to_window
from training.checkpoint import (
    BEST,
    LAST,
    Checkpoint,
    RunMeta,
    append_metrics,
    load_state,
    read_checkpoint,
    save_checkpoint,
    trim_metrics,
    write_config,
)
from training.clock import Clock, memory_mb, metrics_line, stall_line
from training.interrupts import Interrupts
from training.network import ClassTable, build_network, check_shape, resolve_device
from training.predict import Segmenter, predict_samples
from training.stream import ShardStream
from training.validation import scores_line, validation_scores

# Settings that change neither the weights nor which of them are best, and so may differ on resume.
FREE_ON_RESUME = {"threads", "log_every", "checkpoint_every", "device"}
_RESUME = "Run the same command with --resume to go on from the last checkpoint"


class TrainingInterrupted(PhantumorError):  # noqa: N818, being stopped is no error
    """Ctrl-C or SIGTERM; the checkpoint is written."""


def train(
    data: Location | Dataset,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train, or with `resume` go on training, the run `out` on the dataset's split `train`; returns what came out.

    Raises InputError for settings that do not fit the dataset or the run, PhantumorError when the loss is no longer
    finite or the disk fails, TrainingInterrupted after Ctrl-C.
    """
    dataset = data if isinstance(data, Dataset) else open_dataset(data)
    run = Training(dataset, Path(out), config, log)
    with writing_to(run.out, _RESUME), run.open_stream() as stream, run.interrupts:
        if resume:
            run.restore(stream)
        else:
            run.begin(stream)
        try:
            run.to_the_end(stream)
        except KeyboardInterrupt:
            run.interrupts.ignore()
            run.save_last()
            stopped = f"stopped after step {run.step} of {config.steps}, {run.out / LAST} is written"
            raise TrainingInterrupted(f"{stopped}. {_RESUME}") from None
        except torch.OutOfMemoryError as error:
            raise PhantumorError(
                f"the GPU's memory is full at step {run.step + 1}: lower --batch-size (now {config.batch_size}) or set "
                f"--crop-shape to less than {run.shape}, with another --out"
            ) from error
    return run.summary()


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rate of the update after `step` finished ones: linear warm-up, then cosine to 0 at `config.steps`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * (1 + math.cos(math.pi * done)) / 2


class Training:
    """One training between two steps, and how to make the next one."""

    def __init__(self, dataset: Dataset, out: Path, config: TrainConfig, log: Callable[[str], None]) -> None:
        self.dataset, self.out, self.config, self.log = dataset, out, config, log
        self.shape = config.crop_shape or dataset.info.patch_shape
        self._check_shape()
        self.device = resolve_device(config.device)
        self.classes = ClassTable(dataset.info.classes)
        self.network = build_network(config.network, len(self.classes), config.seed).to(self.device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), config.lr, weight_decay=config.weight_decay)
        self.loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
        self.validation = dataset.indices_of("val")[: config.validate_samples]
        self.step = 0
        self.stream_state: dict[str, Any] = {}
        self.best_score: float | None = None
        self.validated_step = 0
        self.last_loss: float | None = None
        self.last_scores: dict[str, Any] | None = None
        self.clock, self.interrupts = Clock(), Interrupts()

    def _check_shape(self) -> None:
        patch, crop, network = self.dataset.info.patch_shape, self.config.crop_shape, self.config.network
        if crop and any(edge > limit for edge, limit in zip(crop, patch, strict=True)):
            raise InputError(f"crop_shape {crop} is larger than the patches of {self.dataset.path}, {patch}")
        check_shape(self.shape, patch, network, "crop_shape" if crop else f"{self.dataset.path}: the patch shape")

    def open_stream(self) -> ShardStream:
        """The training samples, from the start."""
        held = len(self.dataset.indices_of("train"))
        if 0 < held < self.config.batch_size:
            raise InputError(f"--batch-size {self.config.batch_size}: {self.dataset.path} has {held} training samples")
        return ShardStream(
            self.dataset,
            self.config.batch_size,
            split="train",
            seed=self.config.seed,
            device=self.device,
            threads=self.config.threads,
        )

    # -- start and resume ---------------------------------------------------------------------------------------------

    def begin(self, stream: ShardStream) -> None:
        """Make the run's folder. A checkpoint lies in it from the start, so that any run can be resumed."""
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out}: is a file; --out takes a folder")
        if (self.out / LAST).exists():
            raise InputError(f"{self.out} already holds a run. Add --resume to go on with it, or choose another --out")
        self.out.mkdir(parents=True, exist_ok=True)
        self.stream_state = stream.state_dict()
        trim_metrics(self.out, -1)
        write_config(self.out, self.config, self.dataset.path)
        self.save_last()
        self._describe("training")

    def restore(self, stream: ShardStream) -> None:
        """Take up the run's last checkpoint."""
        file = self.out / LAST
        if not file.is_file():
            raise InputError(f"{self.out}: no checkpoint to resume, {LAST} is not there. Leave --resume out to begin")
        checkpoint = read_checkpoint(file)
        self._check_same_run(checkpoint.meta)
        load_state(self.network, checkpoint.model, file)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        stream.load_state_dict(checkpoint.stream)
        self.stream_state, self.step = checkpoint.stream, checkpoint.meta.step
        self.best_score, self.validated_step = checkpoint.best_score, checkpoint.validated_step
        for record in trim_metrics(self.out, self.step):
            self.last_loss = record.get("loss", self.last_loss)
            self.last_scores = record.get("val", self.last_scores)
        write_config(self.out, self.config, self.dataset.path)
        self._describe(f"resuming at step {self.step} of")

    def _check_same_run(self, old: RunMeta) -> None:
        before, now = (c.model_dump(mode="json", exclude=FREE_ON_RESUME) for c in (old.config, self.config))
        changed = differences(before, now)
        if old.dataset_digest != _digest(self.dataset):
            changed.append(f"dataset: {old.dataset} -> {self.dataset.path} (another one, or it has grown)")
        if changed:
            raise InputError(
                f"{self.out} was trained with other settings: {'; '.join(changed)}. Resume with the old ones, "
                "which its config.yaml holds, or choose another --out"
            )

    def _describe(self, doing: str) -> None:
        counts, info = self.dataset.split_counts(), self.dataset.info
        weights = sum(p.numel() for p in self.network.parameters())
        self.log(
            f"{doing} {self.config.steps} steps on {self.device}: {self.config.network.name} with {weights:,} weights, "
            f"{counts['train']} samples of {'x'.join(map(str, self.shape))} voxels of {info.spacing_mm:g} mm, "
            f"classes {', '.join(self.classes.names)}"
        )
        if not self.dataset.complete:
            self.log(f"{self.dataset.path} is not complete: {len(self.dataset.parts)} of {info.shards} shards are used")
        if not self.validation:
            self.log(f"{self.dataset.path} has no samples of split 'val': no validation, {BEST} is the last checkpoint")

    # -- the loop -----------------------------------------------------------------------------------------------------

    def to_the_end(self, stream: ShardStream) -> None:
        """Steps until all are done, with what is due between them."""
        batches = iter(stream)
        while True:
            self._validate_if_due()
            self._save_if_due()
            if self.step == self.config.steps:
                break
            self.clock.start()
            batch = next(batches)
            self.clock.got_data()
            loss = self._update(batch, stream)
            self.clock.finish(loss, len(batch["index"]))
            del batch  # gives its buffer back before the next one is waited for
            if self.step % self.config.log_every == 0 or self.step == self.config.steps:
                self._log_metrics()
        if self.clock.total_s:
            self.log(stall_line(self.clock, self.config.threads))

    def _update(self, batch: dict[str, Tensor], stream: ShardStream) -> float:
        """One optimizer step; its loss."""
        self.network.train()
        image, target = self._prepare(batch)
        loss = self.loss(self.network(image), target)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(float(norm))):
            raise self._diverged(value, batch["index"].tolist())
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.config)
        with self.interrupts.held():
            self.optimizer.step()
            self.stream_state = stream.state_dict()
            self.step += 1
        self.optimizer.zero_grad(set_to_none=True)
        return value

    def _prepare(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Network input float32 and target channels int64, both (B, 1, X, Y, Z), cropped and augmented."""
        config = self.config
        image, label = batch["image"].to(self.device), batch["label"].to(self.device)
        generator = step_generator(config.seed, self.step, self.device)
        if config.crop_shape:
            tumors = self.classes.tumors.values()
            image, label = random_crop(image, label, config.crop_shape, config.crop_tumor_share, tumors, generator)
        image, label = augment(image, label, config.augment, generator, sum(config.window) / 2)
        return to_window(image, config.window), self.classes.to_channels(label)

    def _diverged(self, loss: float, samples: list[int]) -> PhantumorError:
        return PhantumorError(
            f"the loss or its gradient is no longer finite at step {self.step + 1} (loss {loss}, samples {samples}). "
            f"Try a lower --lr than {self.config.lr:g}, more --warmup-steps than {self.config.warmup_steps} or a lower "
            f"--clip-norm than {self.config.clip_norm:g}, with another --out; {self.out / LAST} is from before"
        )

    # -- between steps ------------------------------------------------------------------------------------------------

    def _validate_if_due(self) -> None:
        due = self.step == self.config.steps or self.step % self.config.validate_every == 0
        if not self.validation or not due or self.validated_step == self.step:
            return
        segmenter = Segmenter(
            self.network.eval(),
            self.classes,
            self.config.window,
            self.shape,
            self.dataset.info.spacing_mm,
            self.device,
        )
        predictions = predict_samples(segmenter, self.dataset, self.validation, self.config.batch_size)
        scores = validation_scores(predictions, self.classes)
        with self.interrupts.held():
            append_metrics(self.out, {"step": self.step, "val": scores})
            self.validated_step, self.last_scores = self.step, scores
            if self.best_score is None or scores["score"] >= self.best_score:
                self.best_score = scores["score"]
                self._save(BEST)
        self.log(f"step {self.step}: validation {scores_line(scores)}")

    def _save_if_due(self) -> None:
        if self.step > 0 and (self.step == self.config.steps or self.step % self.config.checkpoint_every == 0):
            self.save_last()

    def save_last(self) -> None:
        """Write the training as it stands; without validation it is the best one as well."""
        self._save(LAST)
        if not self.validation:
            self._save(BEST)

    def _save(self, name: str) -> None:
        info = self.dataset.info
        meta = RunMeta(
            step=self.step,
            config=self.config,
            classes=dict(self.classes.classes),
            spacing_mm=info.spacing_mm,
            patch_shape=self.shape,
            dataset=str(self.dataset.path),
            dataset_digest=_digest(self.dataset),
            software=software(),
        )
        state, optimizer = self.network.state_dict(), self.optimizer.state_dict()
        checkpoint = Checkpoint(meta, state, optimizer, self.stream_state, self.best_score, self.validated_step)
        save_checkpoint(self.out / name, checkpoint)

    def _log_metrics(self) -> None:
        record = {"step": self.step, "lr": learning_rate(self.step - 1, self.config)}
        record |= self.clock.record(math.prod(self.shape), self.config.steps - self.step) | memory_mb(self.device)
        self.last_loss = record["loss"]
        append_metrics(self.out, record)
        self.log(metrics_line(record, self.config.steps))

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


def _digest(dataset: Dataset) -> str:
    """Which samples a dataset holds, wherever it lies: its recipe, its bank, and how much of it is there."""
    info = dataset.info
    return f"{info.config_digest}-{info.bank_fingerprint}-{dataset.rows}"
