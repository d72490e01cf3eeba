"""What decides an experiment, apart from its cases and the settings of generation and training."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import WHOLE_CASES, Count, PatchShape, Seed, Weight
from pipeline.errors import InputError
from pipeline.organs import tumor_organ
from pipeline.settings import Settings

ArmName = Literal["synthetic", "on-the-fly", "seed-paper", "no-shape", "no-edge", "no-small", "real", "mixed"]
LABEL_FREE: tuple[ArmName, ...] = ("synthetic", "on-the-fly", "seed-paper", "no-shape", "no-edge", "no-small")
ANNOTATED: tuple[ArmName, ...] = ("real", "mixed")
SEED_PAPER_ORGAN = "liver"  # the only organ of that preset set
HoldOut = Literal["auto", "always", "never"]
Inside = Annotated[float, Field(gt=0, lt=1)]


class Common(Settings):
    """What all experiments have: how long each arm is trained, and how it is scored."""

    # Lists that may grow in later calls: each of their entries is an arm or a run of its own.
    growing: ClassVar[tuple[str, ...]] = ("annotation", "seeds")

    labels: str | None = None
    """Label map of the healthy cases: totalsegmentator, lits, name=value,...; default: masks named after organs."""
    real_labels: str | None = None
    """Label map of the real cases' masks."""
    annotated_labels: str | None = None
    """Label map of the annotated cases' masks; default: that of the real cases."""
    annotation: tuple[Count, ...] = ()
    """Also train on so many of the annotated cases each, with and without synthetic samples."""
    steps: Count | None = None
    """Optimizer steps of every arm."""
    minutes: Annotated[float, Field(gt=0)] | None = None
    """Instead of steps: as many for every arm as fit into so many minutes, measured on a short training."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Of the trainings; each arm is trained once for each."""
    samples: Count = 2000
    """Samples of every stored dataset, but for those of the diversity curve."""
    organ: str = "liver"
    """Whose tumors."""
    spacing: Annotated[float, Field(gt=0)] = 1.5
    """Isotropic voxel size of training and network, mm."""
    patch_shape: PatchShape = (64, 64, 64)
    """Voxels (X, Y, Z) of a sample."""
    annotated_share: Inside = 0.5
    """Share of annotated samples where they are mixed with synthetic ones."""
    hold_out: HoldOut = "auto"
    """Keep healthy cases out of training, to validate or score: always, never, auto (of five or more)."""
    within_organ_mm: Weight | None = None
    """Remove predicted tumor farther than this from its organ, see `predict`."""
    min_tumor_mm3: Weight | None = None
    """Remove smaller predicted tumors, see `predict`."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError("give either --steps (repeatable to the bit on a CPU) or --minutes (of each arm)")
        if self.patch_shape == WHOLE_CASES:
            raise ValueError("patch_shape full: trainings need patches; give three numbers of voxels")
        for name in self.growing:
            given = getattr(self, name) or ()
            if len(set(given)) < len(given):
                raise ValueError(f"{name}: something is named twice: {' '.join(map(str, given))}")
        try:
            tumor_organ(self.organ)
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    def check_annotation(self, annotated: int) -> None:
        """InputError where --annotation asks for more annotated cases than there are."""
        if self.annotation and max(self.annotation) > annotated:
            raise InputError(
                f"--annotation {max(self.annotation)}: there are {annotated} annotated cases; give at most that many"
            )


class LabelFree(Common):
    """The arms of a label-free experiment."""

    growing: ClassVar[tuple[str, ...]] = ("arms", "diversity", *Common.growing)

    arms: tuple[ArmName, ...] | None = None
    """What to train on; default: every arm that the cases allow."""
    diversity: tuple[Count, ...] = ()
    """Also train on so many unique synthetic samples each, at equal steps."""

    @model_validator(mode="after")
    def _arms_have_tumors(self) -> Self:
        if "seed-paper" in (self.arms or ()) and self.organ != SEED_PAPER_ORGAN:
            raise ValueError(f"the arm seed-paper has {SEED_PAPER_ORGAN} tumors only; leave it out for {self.organ}")
        return self

    def chosen(self, annotated: int) -> tuple[ArmName, ...]:
        """The arms to train where there are so many annotated cases; InputError for one that they do not allow."""
        needing = [name for name in self.arms or () if name in ANNOTATED]
        if not annotated and (needing or self.annotation):
            what = ", ".join([*(f"the arm {name}" for name in needing), *(["--annotation"] if self.annotation else [])])
            raise InputError(f"{what}: needs annotated cases for training; name them with --annotated, or leave it out")
        self.check_annotation(annotated)
        if self.arms is not None:
            return self.arms
        free = tuple(name for name in LABEL_FREE if name != "seed-paper" or self.organ == SEED_PAPER_ORGAN)
        return (*free, *ANNOTATED) if annotated else free
