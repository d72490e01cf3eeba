"""What a dataset keeps of a sample, by its kind of store."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from pipeline.case import Case
from pipeline.config import GenerateConfig
from pipeline.delta import delta_of
from pipeline.spec import SampleSpec
from pipeline.synthesis import confined_to

Arrays = dict[str, npt.NDArray[Any]]


def kept_arrays(config: GenerateConfig, case: Case, spec: SampleSpec, arrays: Arrays) -> Arrays:
    """The arrays that a shard holds of a sample whose `image` and `label` these are.

    InputError when it is to be kept as a difference and its change is not confined.
    """
    if config.store != "delta":
        return arrays
    where = f"sample {spec.index}"
    return delta_of(case, spec.origin_vox, spec.organs, arrays, confined_to(case, spec), where)
