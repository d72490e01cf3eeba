"""The annotations of a dataset: read where `phantumor annotate` has been, else derived as samples are read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from pipeline.annotations.derive import annotate_sample
from pipeline.annotations.records import SampleAnnotation
from pipeline.annotations.settings import AnnotationSettings
from pipeline.annotations.table import has_annotations, read_annotations
from pipeline.case import UInt8Array
from pipeline.catalog import Dataset

ROWS_IN_MEMORY = 20_000  # manifest rows, with their specs about 5 kB each


class AnnotationSource:
    """The annotations of a dataset: as stored, or derived with default settings where none are."""

    def __init__(self, dataset: Dataset, scribbles: bool = True) -> None:
        """Without `scribbles`, which take most of the time, none are derived."""
        self._dataset, self._scribbles = dataset, scribbles
        self._stored = read_annotations(dataset) if has_annotations(dataset) else None
        self.settings = AnnotationSettings() if self._stored is None else self._stored.settings
        if self._stored is None and dataset.rows <= ROWS_IN_MEMORY:
            _ = dataset.manifest  # from now on rows come from memory, not from a file that is opened for each

    @property
    def stored(self) -> bool:
        """Whether they lie beside the manifest."""
        return self._stored is not None

    def of(self, index: int, label: UInt8Array) -> SampleAnnotation:
        """The annotations of a sample, whose label is class ids (X, Y, Z)."""
        if self._stored is not None:
            return self._stored.of(index)
        return annotate_sample(label, self._row(index), self.settings, scribbles=self._scribbles)

    def _row(self, index: int) -> Mapping[str, Any]:
        if self._dataset.rows > ROWS_IN_MEMORY:
            return self._dataset.row(index)
        row: dict[str, Any] = self._dataset.manifest.slice(self._dataset.position(index), 1).to_pylist()[0]
        return row

    @property
    def digest(self) -> str:
        """What the annotations depend on beside the samples."""
        return hashlib.sha256(self.settings.model_dump_json().encode()).hexdigest()[:8]
