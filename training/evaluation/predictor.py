"""A trained network as evaluations use it: post-processed class ids, and probabilities where FROC needs them.

In: stored samples, or a CT on its own grid. Out: what `phantumor predict` writes for it, and tumor probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.case import UInt8Array
from pipeline.catalog import Dataset
from pipeline.image import Volume
from training.evaluation.pairs import Spacing
from training.predict import Segmenter, predict_grid, predict_samples
from training.prediction.postprocess import Rules, postprocess
from training.prediction.probabilities import (
    Probabilities,
    TumorProbabilities,
    predict_with_probabilities,
    within_rules,
)


@dataclass(frozen=True)
class Predictor:
    """A network (or several that vote), the rules for what it predicts, and whether probabilities are kept."""

    segmenter: Segmenter
    rules: Rules
    probabilities: bool

    def __post_init__(self) -> None:
        self.rules.check(self.segmenter.classes)

    def samples(self, dataset: Dataset, indices: Sequence[int]) -> Iterator[tuple[int, UInt8Array, Answer]]:
        """Index, truth and answer of stored samples, predicted as one batch."""
        seen = TumorProbabilities(self.segmenter.classes)
        predicted = predict_samples(self.segmenter, dataset, indices, len(indices), seen)
        for k, (index, truth, labels) in enumerate(predicted):
            spacing = (float(dataset.info.spacing_mm),) * 3
            yield index, truth, self._finished(labels, seen.of(k) if self.probabilities else None, spacing)

    def case(self, ct: Volume, name: str | None = None) -> Answer:
        """The answer to a whole CT, on its own grid. With a `name`, progress is shown."""
        if self.probabilities:
            return self._finished(*predict_with_probabilities(self.segmenter, ct, name), ct.spacing_mm)
        return self._finished(predict_grid(self.segmenter, ct, ct.shape, ct.affine, name), None, ct.spacing_mm)

    def _finished(self, labels: UInt8Array, found: Probabilities | None, spacing: Spacing) -> Answer:
        kept = None if found is None else within_rules(found, labels, spacing, self.rules)
        if self.rules != Rules():
            labels, _ = postprocess(labels, spacing, self.segmenter.classes, self.rules)
        return Answer(labels, kept)


@dataclass(frozen=True)
class Answer:
    """Class ids (X, Y, Z) after the rules, and float16 probabilities (X, Y, Z) by tumor class."""

    labels: UInt8Array
    probabilities: Probabilities | None
