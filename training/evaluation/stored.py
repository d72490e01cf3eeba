"""Samples of a dataset, predicted by a network and scored as they are stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.case import UInt8Array
from pipeline.catalog import Dataset
from training.evaluation.facts import facts_of_row
from training.evaluation.pairs import Pair
from training.evaluation.predictor import Answer, Predictor
from training.report import Example

_BATCH = 2


class StoredSamples:
    """Samples of a dataset by index, ascending; the group is the source case, which several samples share."""

    def __init__(self, dataset: Dataset, predictor: Predictor, indices: Sequence[int]) -> None:
        self._dataset, self._predictor, self._indices = dataset, predictor, indices
        self._index_of: dict[str, int] = {}  # of the samples that `pairs` gave

    def __len__(self) -> int:
        return len(self._indices)

    def pairs(self) -> Iterator[Pair]:
        """The samples with what the manifest says of their tumors."""
        for start in range(0, len(self._indices), _BATCH):
            for index, truth, answer in self._predictor.samples(self._dataset, self._indices[start : start + _BATCH]):
                yield self._pair(index, truth, answer)

    def _pair(self, index: int, truth: UInt8Array, answer: Answer) -> Pair:
        row = self._dataset.row(index)
        self._index_of[row["sample_id"]] = index
        known = self._predictor.segmenter.classes.classes
        here = {
            name: number
            for name, number in self._dataset.info.classes.items()
            if name in known and number in row["annotated_classes"]
        }
        return Pair(
            row["sample_id"],
            row["case_id"],
            row["split"],
            truth,
            answer.labels,
            (float(row["spacing_mm"]),) * 3,
            here,
            facts_of_row(row),
            answer.probabilities,
        )

    def example(self, case_id: str, caption: str) -> Example:
        """The sample again, with its CT."""
        index = self._index_of[case_id]
        sample = self._dataset.sample(index)
        ((_, truth, answer),) = self._predictor.samples(self._dataset, [index])
        return Example(case_id, sample.image, truth, answer.labels, float(sample.row["spacing_mm"]), caption)
