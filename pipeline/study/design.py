"""A study as files, and the order in which a reader meets its trials.

    STUDY/study.json      what is shown: mode, grid, trials. All that the server reads, but for
    STUDY/practice.json   the truth of the practice trials
    STUDY/cases/007.nii   crops of the CT, uncompressed, as they are sent
    STUDY/leaks.json      the leak check
    STUDY/truth.json      the truth of every case and how it was matched; only `study report` opens it
    STUDY/masks/007.npy   0 background, 1 organ, 2 the lesion, 3 other lesions; only `study report` opens them
    STUDY/answers/        one file a reader

Truth and masks are for their owner's eyes only (mode 0600).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pipeline.errors import InputError
from pipeline.settings import explain

FORMAT_VERSION = 1
INFO, PRACTICE, TRUTH, LEAKS, CASES, MASKS, ANSWERS = (
    "study.json",
    "practice.json",
    "truth.json",
    "leaks.json",
    "cases",
    "masks",
    "answers",
)
REPEATED_SHARE = 0.1  # of the trials, shown to each reader a second time

Mode = Literal["yes-no", "2afc"]
Side = Literal["left", "right"]
Index = Annotated[int, Field(ge=0)]
Truth = Literal["real", "synthetic"]
CaseNumber = Annotated[str, StringConstraints(pattern=r"^\d{3,6}$")]  # becomes a file name
Model = TypeVar("Model", bound=BaseModel)


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Trial(_Record):
    """One question: about one case, or about two side by side (left, right)."""

    id: str
    cases: tuple[CaseNumber, ...] = Field(min_length=1, max_length=2)


class Study(_Record):
    """`study.json`. Nothing in it tells the truth of a case."""

    format_version: Literal[1] = 1
    mode: Mode
    organ: str
    spacing_mm: float
    shape_vox: tuple[int, int, int]
    range_hu: tuple[int, int]  # every case holds values from the first to the second, both occur in each
    places_vox: Mapping[CaseNumber, tuple[Index, Index, Index]]  # of the lesion in question, in its crop
    order_seed: int
    practice: tuple[Trial, ...]
    trials: tuple[Trial, ...]

    def trial(self, trial_id: str) -> Trial:
        """A trial by its id; KeyError without one."""
        return {trial.id: trial for trial in (*self.practice, *self.trials)}[trial_id]


class Lesion(_Record):
    """One case in `truth.json`: what it is, where it comes from, and the facts it was matched by."""

    truth: Truth
    name: str  # the real case, or the sample id
    source: str  # the scan it lies in
    pair: int
    diameter_mm: float
    parenchyma_hu: float
    noise_hu: float
    slice_grain: float
    others: int  # other lesions in the crop


class Answers(_Record):
    """`truth.json`: by case, and by trial the answer that is right (`real`, `synthetic`, or the synthetic side)."""

    seed: int
    dataset: str
    config_digest: str
    real: str
    cases: Mapping[CaseNumber, Lesion]
    trials: Mapping[str, Truth | Side]
    balance: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Presentation:
    """One screen of a reader: `cases` from left to right; a repeated pair has its sides changed."""

    number: int
    trial: str
    cases: tuple[str, ...]
    practice: bool
    repeat: bool


def read_study(folder: Path) -> Study:
    """The study of a folder; InputError when there is none."""
    return read_record(folder / INFO, Study, "make a study with `phantumor study create`")


def read_record(path: Path, model: type[Model], remedy: str) -> Model:
    """A JSON file as a record; InputError, with the remedy, when it is missing or not what it should be."""
    try:
        return model.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {remedy}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise InputError(f"{path}: damaged, or of another version: {explain(error)}; {remedy}") from error


def reader_id(name: str) -> str:
    """The id of a reader, which names a file, from the name that was typed; InputError for a name that has none."""
    shown = " ".join(name.split())
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9 ._-]{0,39}", shown):
        raise InputError("a reader's name has 1 to 40 letters, digits, blanks, '.', '_' and '-', a letter first")
    return shown.lower().replace(" ", "-")


def order(study: Study, reader: str) -> tuple[Presentation, ...]:
    """What a reader (by id) sees, from the first screen to the last: practice, then the trials with some repeated.

    Depends on the study's seed and the reader alone. A repeated trial was seen in the first half, and at least one
    other lies between.
    """
    rng = np.random.default_rng(np.random.SeedSequence((study.order_seed, zlib.crc32(reader.encode()))))
    n = len(study.trials)
    shown = [(study.trials[k], False) for k in rng.permutation(n)]
    count = max(1, round(REPEATED_SHARE * n)) if n > 1 else 0
    again = [shown[k][0] for k in rng.permutation(max(1, n // 2))[:count]]
    for trial in again:
        shown.insert(int(rng.integers(n // 2 + 1, len(shown) + 1)), (trial, True))
    practice = [Presentation(k, trial.id, trial.cases, True, False) for k, trial in enumerate(study.practice)]
    reading = [
        Presentation(k, trial.id, trial.cases[::-1] if repeat else trial.cases, False, repeat)
        for k, (trial, repeat) in enumerate(shown, len(practice))
    ]
    return (*practice, *reading)
