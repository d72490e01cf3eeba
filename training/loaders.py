"""Samples for the loaders that people have: torch's `DataLoader`, MONAI's `ThreadDataLoader`, torchdata's.

`ShardBatches` is a `ShardStream` that loader processes share; `ShardSamples` is a list of samples to pick from.
"""

from training.shard_batches import ShardBatches
from training.shard_samples import ShardSamples

__all__ = ["ShardBatches", "ShardSamples"]
