"""What decides a label-kinds experiment: kinds of labels, mixtures of them, and what each costs an annotator."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, NamedTuple, Self, get_args

from pydantic import Field, model_validator

from pipeline.annotations.settings import AnnotationSettings
from pipeline.config import Count, Weight
from pipeline.errors import InputError
from pipeline.experiments.settings import Common, Inside
from pipeline.settings import Settings
from pipeline.train_config import LabelKind

KINDS: tuple[LabelKind, ...] = get_args(LabelKind)
_MIXTURE = re.compile(rf"({'|'.join(KINDS)}):([1-9][0-9]*)\+({'|'.join(KINDS)})")


class Mixture(NamedTuple):
    """So many samples seen as one kind, the others as another."""

    first: LabelKind
    samples: int
    second: LabelKind


class MinutesPer(Settings):
    """Minutes of an annotator: for a tumor, of tags for a sample. Organ masks are not counted.

    mask: 2.89 min a lesion with a semi-automatic tool and 45.7 min a patient (64 outlines each) for the radiologist
    who checks them (Fenerty et al. 2016, J Digit Imaging, PMC4879033). No times of the other kinds in CT were found:
    they have their share of a mask's time in photographs. box: 7 of 79.2 s (Papadopoulos et al. 2017; Lin et al.
    2014); scribble, point, tag: 34.9, 22.1, 20.0 of 239.7 s an image (Bearman et al. 2016). recist and circle: assumed
    to take as long as a box, which has as many clicks. report: it is written anyway.
    """

    mask: Weight = 3.6
    scribble: Weight = 0.52
    box: Weight = 0.32
    recist: Weight = 0.32
    circle: Weight = 0.32
    point: Weight = 0.33
    tag: Weight = 0.30
    report: Weight = 0.0


class LabelKinds(Common):
    """The arms of a label-kinds experiment."""

    growing: ClassVar[tuple[str, ...]] = ("kinds", "mixtures", *Common.growing)

    kinds: Annotated[tuple[LabelKind, ...], Field(min_length=1)] = KINDS
    """As what the training samples are seen, an arm each."""
    mixtures: tuple[str, ...] = ()
    """Also so many samples as one kind and the others as another, e.g. mask:16+box."""
    annotation: tuple[Count, ...] = ()
    """Also train on so many samples as masks and no others; with --annotated, on so many of those cases, with and
    without synthetic samples."""
    mask_share: Inside = 0.5
    """Share of the batches' samples that a mixture's first kind has."""
    test_samples: Count = 200
    """Samples to score on, in a dataset of their own."""
    minutes_per: MinutesPer = MinutesPer()
    """What each kind costs an annotator, minutes a tumor (tag: a sample)."""
    annotate: AnnotationSettings = AnnotationSettings()
    """How weak labels are derived from the masks, see `annotate`."""

    @model_validator(mode="after")
    def _mixtures_are_some_of_each(self) -> Self:
        for text, mixture in zip(self.mixtures, self.parsed_mixtures(), strict=True):
            if mixture.first == mixture.second:
                raise ValueError(f"mixtures: {text} is {mixture.first} alone; name it in kinds")
            if mixture.samples >= self.samples:
                raise ValueError(f"mixtures: {text} leaves none of the {self.samples} samples for {mixture.second}")
        return self

    def parsed_mixtures(self) -> list[Mixture]:
        """The mixtures, read."""
        found = []
        for text in self.mixtures:
            match = _MIXTURE.fullmatch(text)
            if not match:
                raise ValueError(
                    f"mixtures: {text!r} is none; write KIND:SAMPLES+KIND, e.g. mask:16+box, of {', '.join(KINDS)}"
                )
            first, count, second = match.groups()
            found.append(Mixture(first, int(count), second))  # type: ignore[arg-type]
        return found

    def check_amounts(self, annotated: int) -> None:
        """InputError where --annotation asks for more than there is."""
        if annotated:
            self.check_annotation(annotated)
        elif self.annotation and max(self.annotation) >= self.samples:
            raise InputError(
                f"--annotation {max(self.annotation)}: of {self.samples} samples; give fewer, all of them are the kind "
                "mask. It counts real cases only with --annotated"
            )
