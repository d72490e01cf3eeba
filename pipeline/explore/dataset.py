"""The samples of a dataset as the page looks through them. Loads torch only to make samples from recipes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.catalog import Dataset, Home, Sample, has_bank
from pipeline.errors import InputError
from pipeline.explore.collection import Layer
from pipeline.explore.facts import Facts, dataset_facts
from pipeline.explore.kept import Kept
from pipeline.manifest import sample_id
from pipeline.where import ExpressionError, Matches, matches

_KEPT_SAMPLES = 6
_INT16 = (-(2**15), 2**15 - 1)


class Samples:
    """Samples of a dataset."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._samples: Kept[Sample] = Kept(_KEPT_SAMPLES)
        self._healthy: Kept[npt.NDArray[np.int16]] = Kept(_KEPT_SAMPLES)
        self._banks: Kept[frozenset[str] | None] = Kept(len(dataset.homes))
        self._reading = Lock()

    @cached_property
    def facts(self) -> Facts:
        with self._reading:
            return self.__dict__.get("facts") or dataset_facts(self._dataset)

    def about(self) -> dict[str, Any]:
        dataset, info = self._dataset, self._dataset.info
        shape = "whole cases" if info.config.whole_cases else f"{'×'.join(map(str, info.patch_shape))} voxels"
        state = "complete" if dataset.complete else f"{len(dataset.parts)} of {info.shards} shards so far"
        return {
            "kind": "dataset",
            "title": dataset.path,
            "lines": [f"{shape} at {info.spacing_mm:g} mm", f"store {info.config.store}", state],
            "labels": {"label": "label"},
            "extra": {"tumor_voxels": "tumor voxels"},
            "where": True,
        }

    def where(self, expression: str) -> Matches:
        try:
            return matches(self._dataset, expression)
        except ExpressionError as error:
            raise InputError(f"Filter box: {error.reason}") from error

    def name(self, position: int) -> str:
        return sample_id(int(self.facts.ids[position]))

    def position(self, name: str) -> int:
        digits = name.removeprefix("s")
        if not digits.isdecimal() or len(digits) > 18:
            raise InputError(f"sample {name!r}: give an index such as 42 or an id such as s000000042")
        return self._dataset.position(int(digits))

    def document(self, position: int) -> dict[str, Any]:
        row = self._row(position)
        spec = json.loads(row.pop("spec"))
        tumors = row.pop("tumors")
        home = self._dataset.home(row["shard"])
        stored = {name: row[name] for name in ("shard", "row", "image_crc32c", "label_crc32c", "generator")}
        measured = {name: value for name, value in row.items() if name not in (*stored, "affine") and value is not None}
        return {
            "sections": {"measured": measured, "stored": stored | {"store": home.info.config.store}},
            "tumors": tumors,
            "focus_mm": max(tumors, key=lambda tumor: float(tumor["diameter_mm"]))["center_mm"] if tumors else None,
            "drawn": spec,
            "commands": self._commands(home, row["index"]),
            "layers": [
                "image",
                "label",
                *(("healthy", "difference") if self._has_twin(home, measured["case_id"]) else ()),
            ],
        }

    def _row(self, position: int) -> dict[str, Any]:
        return self._dataset.row(int(self.facts.ids[position]))

    def _has_twin(self, home: Home, case_id: str) -> bool:
        """Whether the bank is there, and the case in it healthy: an annotated one has no twin."""
        annotated = self._banks.get(home.store.url, lambda: _annotated_cases(home))
        return annotated is not None and case_id not in annotated

    def _commands(self, home: Home, index: int) -> dict[str, str]:
        """What to type to have this sample again."""
        place, name = shlex.quote(self._dataset.path), sample_id(index)
        source, local = shlex.quote(home.store.url), index - home.first_index
        replay = (
            "from pipeline.catalog import open_dataset as o; from pipeline.reader import make_sample as m; "
            f"d = o({home.store.url!r}); print(m(d.bank, d.info.config, {local})[2].model_dump_json(indent=1))"
        )
        commands = {
            "look at it in the terminal": f"phantumor inspect {place} --sample {name} --figures {name}",
            "write it as NIfTI": f"phantumor export {place} --format nifti --where 'index = {index}' --out {name}",
        }
        if home.info.config.store == "recipe":
            commands["make it again from its recipe"] = commands.pop("look at it in the terminal")
        else:
            commands["make it again from bank and settings"] = f"python -c {shlex.quote(replay)}"
            commands["make some again and compare every byte"] = f"phantumor verify {source} --replay 0.01"
        return commands

    def layers(self, position: int, names: Sequence[str]) -> Mapping[str, Layer]:
        index = int(self.facts.ids[position])
        sample = self._samples.get(index, lambda: self._dataset.sample(index))
        affine = np.array(sample.row["affine"], np.float64).reshape(4, 4)
        return {name: Layer(self._layer(name, index, sample), affine) for name in names}

    def _layer(self, name: str, index: int, sample: Sample) -> npt.NDArray[Any]:
        if name == "image":
            return sample.image
        if name == "label":
            return sample.label
        if name not in ("healthy", "difference"):
            raise InputError(f"{name}: a sample has image, label, healthy and difference")
        healthy = self._healthy.get(index, lambda: self._dataset.healthy(index))
        if name == "healthy":
            return healthy
        difference: npt.NDArray[np.int16] = np.clip(np.subtract(sample.image, healthy, dtype=np.int32), *_INT16).astype(
            np.int16
        )
        return difference


def _annotated_cases(home: Home) -> frozenset[str] | None:
    """The cases of a bank that have no healthy twin; None where there is no bank."""
    if not has_bank(home.store, home.info):
        return None
    return frozenset(record.case_id for record in home.bank.records if record.annotated)
