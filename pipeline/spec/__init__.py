"""The recipe of a sample, and the only place that draws: `draw_sample(bank, config, index)`.

Everything random about a sample is decided here, from `SeedSequence((seed, index))`, and kept in a `SampleSpec`.
How the record of an engine's form is drawn stands in the engine's module, beside what the record means; it is called
from here only, with the generator passed in. Applying a spec (`pipeline.synthesis`) is a pure function. Small-scale
randomness (deformation, texture) is a hash of a tumor's `key`.
"""

from pipeline.spec.distributions import draw
from pipeline.spec.limits import check_bank
from pipeline.spec.records import SampleSpec, TumorSpec
from pipeline.spec.sample import draw_sample

__all__ = ["SampleSpec", "TumorSpec", "check_bank", "draw", "draw_sample"]
