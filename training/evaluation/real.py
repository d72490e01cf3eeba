"""Real cases with true masks, predicted on the CT's own grid; predictions are kept as NIfTI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.files import writing_to
from pipeline.intake import read_native
from pipeline.organs import LabelMap, is_tumor, label_map
from pipeline.sources import CaseSource, find_cases
from pipeline.volume import read_nifti, write_nifti
from training.evaluation.facts import facts_of_case
from training.evaluation.pairs import Pair
from training.evaluation.predictor import Predictor
from training.report import Example

_RESUME = "Run the same command again"


class RealCases:
    """Case folders with a CT and a true mask, in the order found."""

    def __init__(
        self,
        data: Path,
        predictor: Predictor,
        kept: Path,
        labels: str | None,
        healthy: bool,
        limit: int | None,
        connectivity: int,
        log: Callable[[str], None],
    ) -> None:
        """`kept` is where predictions go; `healthy` vouches that cases whose mask names no tumor have none."""
        self._labels: LabelMap | None = label_map(labels) if labels else None
        found = find_cases(data, None, None, self._labels)
        self._cases = {case.case_id: case for case in found.cases[:limit]}
        self._predictor, self._kept = predictor, kept
        self._healthy, self._connectivity = healthy, connectivity
        for note in found.notes:
            log(f"note: {note}")
        unjudged = ", ".join(self._unjudged())
        if unjudged:
            log(f"note: no tumor mask, so tumors are not judged (--healthy says that there are none): {unjudged}")

    def __len__(self) -> int:
        return len(self._cases)

    def _unjudged(self) -> list[str]:
        """Cases whose masks name no tumor class of the network."""
        scored = {case_id: self._classes(source).values() for case_id, source in self._cases.items()}
        return [case_id for case_id, ids in scored.items() if not any(map(is_tumor, ids))]

    def pairs(self) -> Iterator[Pair]:
        """The cases, each predicted when its turn comes."""
        for case_id, source in self._cases.items():
            image, truth = read_native(source, self._labels)
            answer = self._predictor.case(image, case_id)
            with writing_to(self._kept, _RESUME):
                self._kept.mkdir(parents=True, exist_ok=True)
                write_nifti(self._kept / f"{case_id}.nii.gz", answer.labels, image.affine)
            facts = facts_of_case(image, truth, self._connectivity)
            spacing, classes = image.spacing_mm, self._classes(source)
            del image
            yield Pair(case_id, case_id, None, truth, answer.labels, spacing, classes, facts, answer.probabilities)

    def _classes(self, source: CaseSource) -> dict[str, int]:
        """Classes of the network that this case's mask can judge: those that it can hold."""
        ids = set(self._labels.classes.values() if source.label_file and self._labels else source.masks.values())
        if self._healthy:
            ids |= {i + 1 for i in ids if i and not is_tumor(i)}
        return {name: i for name, i in self._predictor.segmenter.classes.classes.items() if i in ids}

    def example(self, case_id: str, caption: str) -> Example:
        """The case again, with the prediction that was kept."""
        image, truth = read_native(self._cases[case_id], self._labels)
        kept = read_nifti(self._kept / f"{case_id}.nii.gz", "mask")
        return Example(case_id, image.data, truth, kept.data, image.spacing_mm, caption)
