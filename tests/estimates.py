"""A quick estimate in place of `workers.estimate.estimate_cost`."""

from __future__ import annotations

from pipeline.bank import Bank
from pipeline.config import GenerateConfig
from workers.estimate import Estimate, probed, stored_bytes


def estimate_of_one(bank: Bank, config: GenerateConfig, samples: int) -> Estimate:
    """What `samples` will cost, from the first alone."""
    return probed(lambda index: stored_bytes(bank, config, index), 1, samples)
