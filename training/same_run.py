"""Whether a run that is to go on is the one that was begun."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import InputError
from pipeline.settings import differences
from pipeline.train_config import TrainConfig
from training.checkpoint import RunMeta
from training.data import TrainingData

# Settings that change neither the weights nor which of them are best, and so may differ on resume.
FREE = {"threads", "log_every", "checkpoint_every", "keep", "tensorboard", "device", "cache_gb"}
_BATCH = {"batch_size", "accumulate"}  # their product with the number of processes is what counts


def check_same_run(out: Path, old: RunMeta, data: TrainingData, config: TrainConfig, processes: int) -> None:
    """InputError that names every difference to what the run `out` was trained with so far."""
    before, now = (c.model_dump(mode="json", exclude=FREE | _BATCH) for c in (old.config, config))
    changed = differences(before, now)
    samples = _samples_of_a_step(old.config, old.processes), _samples_of_a_step(config, processes)
    if samples[0] != samples[1]:
        changed.append(f"samples of a step (batch_size x accumulate x processes): {samples[0]} -> {samples[1]}")
    if old.dataset_digest != data.digest:
        changed.append(f"dataset: {old.dataset} -> {data.paths} (another one, or it has grown)")
    if changed:
        raise InputError(
            f"{out} was trained with other settings: {'; '.join(changed)}. Resume with the old ones, which its "
            "config.yaml holds, or choose another --out"
        )


def _samples_of_a_step(config: TrainConfig, processes: int) -> int:
    """In all processes together."""
    return config.batch_size * config.accumulate * processes
