"""What `phantumor annotate` says it has derived."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.annotations.records import SampleAnnotation
from pipeline.annotations.settings import AnnotationSettings


@dataclass(frozen=True)
class AnnotationSummary:
    """The annotations of a dataset, and one of them."""

    dataset: str
    samples: int
    made: int  # in this run
    tumors: int
    settings: AnnotationSettings
    with_cases: bool  # whether reports name regions and phase
    example: SampleAnnotation | None  # None where the dataset holds no sample

    def to_json(self) -> dict[str, Any]:
        """For `--json`; of scribbles, only how many voxels each class has."""
        document = {name: value for name, value in vars(self).items() if name not in ("example", "settings")}
        document["settings"] = self.settings.model_dump(mode="json")
        return document | {"example": None if self.example is None else _document(self.example)}

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.dataset}: annotations of {self.samples} samples, {self.made} of them derived in this run"
        yield f"settings: {', '.join(f'{name} {value:g}' for name, value in self.settings.model_dump().items())}"
        yield f"{self.tumors} tumors with box, point and RECIST axes; tags, scribbles and a report of every sample"
        if self.example is not None:
            drawn = sum(map(len, self.example.scribbles.values()))
            yield f"{self.example.sample_id}, with {drawn} scribbled voxels, reads:"
            yield from (f"  {line}" for line in self.example.report.splitlines())


def _document(example: SampleAnnotation) -> dict[str, Any]:
    return vars(example) | {
        "tags": dict(example.tags),
        "tumors": [asdict(tumor) for tumor in example.tumors],
        "scribbles": {str(class_id): len(voxels) for class_id, voxels in example.scribbles.items()},
        "findings": [asdict(finding) for finding in example.findings],
    }
