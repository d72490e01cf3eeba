"""How annotations are derived: the settings of `phantumor annotate`, stored beside what they gave."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.settings import Settings


class AnnotationSettings(Settings):
    """A dataset's labels and these settings decide every annotation."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Of box jitter, strokes and phrases; those of a sample follow from seed and index alone."""

    box_jitter_mm: Annotated[float, Field(ge=0, le=100)] = 0.0
    """How far each face of a box may lie from the tumor's own, to either side; 0 for tight boxes."""

    scribble_length: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of a class's border, and of the longest way through its middle, that is drawn in a scribbled slice."""

    scribble_every_mm: Annotated[float, Field(gt=0)] = 10.0
    """From one scribbled axial slice to the next; each tumor and each class has one at least."""
