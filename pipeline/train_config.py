"""The settings of a training: network, loss, augmentation, data and schedule; validated on construction."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Count, Range, Seed, Shape, Share, Weight
from pipeline.settings import Settings

NetworkName = Literal["unet", "segresnet", "dynunet", "swinunetr", "mednext"]
Heads = Literal["softmax", "sigmoid"]
LabelKind = Literal["mask", "scribble", "box", "recist", "circle", "point", "tag", "report"]
Factor = Annotated[float, Field(gt=0)]


class NetworkConfig(Settings):
    """A MONAI network by name. What is not given is the network's own default."""

    name: NetworkName = "unet"
    channels: Annotated[tuple[Count, ...], Field(min_length=1)] | None = None
    """Feature maps of each level, of unet (16 32 64 128) and dynunet (32 64 128 256 320); of the others one number,
    the first level's, doubled from level to level (segresnet 32, swinunetr 24, mednext 32)."""
    strides: tuple[Count, ...] | None = None
    """Down-sampling between levels, one less than channels; of unet and dynunet."""
    res_units: Annotated[int, Field(ge=0)] | None = None
    """Residual units of each level of unet."""
    deep_supervision: bool = False
    """Train the coarser levels of the decoder as well; dynunet, segresnet and mednext have that."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of MONAI's class, e.g. --network.options.dropout_prob 0.1."""
    heads: Heads = "softmax"
    """softmax: one class a voxel; sigmoid: each class by itself, trained only where it is annotated."""

    @model_validator(mode="after")
    def _one_stride_between_levels(self) -> Self:
        if self.channels and self.strides and len(self.strides) != len(self.channels) - 1:
            raise ValueError(
                f"{len(self.channels)} channel levels need {len(self.channels) - 1} strides, got {len(self.strides)}"
            )
        return self


class LossConfig(Settings):
    """Loss of a region (overlap) plus loss of voxels, each class alike unless weighted."""

    region: Literal["dice", "tversky", "none"] = "dice"
    """Overlap, background left out."""
    voxel: Literal["ce", "focal", "none"] = "ce"
    """Mean over voxels, background included."""
    region_weight: Weight = 1.0
    voxel_weight: Weight = 1.0
    class_weights: dict[str, Weight] = Field(default_factory=dict)
    """Weight of a class by its name, 1 for the others, e.g. --loss.class-weights.liver_tumor 3."""
    tversky_alpha: Share = 0.3
    """What a false positive costs."""
    tversky_beta: Share = 0.7
    """What a false negative costs."""
    focal_gamma: Weight = 2.0
    batch: bool = False
    """Overlap over the whole batch of a process instead of each sample."""

    @model_validator(mode="after")
    def _there_is_a_loss(self) -> Self:
        parts = ((self.region, self.region_weight), (self.voxel, self.voxel_weight))
        if not any(name != "none" and weight > 0 for name, weight in parts):
            raise ValueError("region and voxel are both off: nothing would be learnt")
        return self


class SupervisionConfig(Settings):
    """How partial and weak labels are learnt from. Organ masks are always given; a weak kind speaks of tumors only."""

    partial: Literal["marginal", "background"] = "marginal"
    """Of a class that a sample does not annotate: marginal, its voxels may be it or background; background, they are
    trained as background."""
    exclusion_weight: Weight = 0.0
    """Of the overlap of classes that are not annotated with those that are (Shi et al. 2021)."""
    box_weight: Weight = 1.0
    """Of tightness and size inside boxes, by the log barrier (Kervadec et al. 2020)."""
    box_slab_vox: Count = 5
    """Width of the slabs across a box of which each holds tumor."""
    box_size: Range = (0.3, 0.9)
    """Least and largest share of a box that is tumor; an ellipsoid in its box fills 0.52."""
    barrier_start: Factor = 5.0
    """t of the log barrier at the first step."""
    barrier_growth: Factor = 10.0
    """How many times larger t is at the last step."""
    tag_weight: Weight = 1.0
    """Of what is pooled over an organ against the tag."""
    tag_decay: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """Share of the pooled weight that the most probable `tag_voxels` voxels hold."""
    tag_voxels: Count = 1000
    report_volume_weight: Weight = 0.1
    """Of the reported against the predicted volume of an organ's tumors."""
    report_ball_weight: Weight = 0.1
    """Of the balls of reported diameter at the most probable places."""
    point_core_mm: Factor = 2.0
    """Radius about a point within which all is tumor."""
    point_reach_mm: Factor = 25.0
    """Radius about a point beyond which nothing is of its tumor."""
    recist_core: Share = 0.6
    """Semi-axes of the ellipsoid that is tumor for sure, as a share of the measured ones; of recist and circle."""
    recist_ring: Annotated[float, Field(ge=1)] = 1.2
    """Semi-axes beyond which there is no tumor for sure, as a share of the measured ones."""


class AugmentConfig(Settings):
    """Augmentation of training batches, drawn per sample, on the device. Intensities in HU.

    Shares are chances of a sample to be changed so; `scale`, `shift_hu`, `organ_shift_hu` and `noise_hu` change every
    sample.
    """

    flip: Share = 0.5
    """Chance of a flip, for each axis."""
    rotate_share: Share = 0.2
    rotate_deg: Annotated[float, Field(ge=0, le=180)] = 15.0
    """Angle about each axis ± U(0, this)."""
    zoom_share: Share = 0.2
    zoom: Range = (0.85, 1.2)
    """Magnification, log-uniform between the two ends."""
    elastic_share: Share = 0.0
    elastic_vox: Weight = 2.0
    """SD of the displacement, in voxels."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Contrast factor 1 ± U(0, this) about the window's centre."""
    shift_hu: Weight = 15.0
    """Offset ± U(0, this)."""
    organ_shift_hu: Weight = 0.0
    """Offset of each organ, with its tumors, against what surrounds it ± U(0, this): other phases, other livers."""
    gamma_share: Share = 0.15
    gamma: Range = (0.75, 1.4)
    """Exponent of the grey values inside the window, log-uniform between the two ends."""
    noise_hu: Weight = 5.0
    """SD of added white noise, U(0, this)."""
    blur_share: Share = 0.1
    blur_vox: Range = (0.5, 1.0)
    """SD of a Gaussian blur, in voxels."""
    low_resolution_share: Share = 0.1
    low_resolution: Range = (0.5, 1.0)
    """Resolution of the simulated coarser scan, relative to the patch's."""

    @model_validator(mode="after")
    def _factors_are_positive(self) -> Self:
        for name in ("zoom", "gamma", "low_resolution"):
            if getattr(self, name)[0] <= 0:
                raise ValueError(f"{name} {getattr(self, name)}: must be more than 0")
        if self.low_resolution[1] > 1:
            raise ValueError(f"low_resolution {self.low_resolution}: at most 1, the resolution of the patch")
        if self.blur_vox[0] < 0:
            raise ValueError(f"blur_vox {self.blur_vox}: an SD is not negative")
        return self


class TrainConfig(Settings):
    """Everything that decides a training, apart from the datasets."""

    steps: Count = 2000
    batch_size: Count = 2
    """Samples of a step, in each process."""
    accumulate: Count = 1
    """Batches whose gradients are added up for one step."""
    lr: Factor = 1e-3
    """Peak learning rate of AdamW, after a linear warm-up."""
    schedule: Literal["cosine", "poly"] = "cosine"
    """How the rate falls to 0 after the warm-up: half a cosine, or (1 - done)^0.9 as in nnU-Net."""
    weight_decay: Weight = 1e-5
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    clip_norm: Factor = 12.0
    """Largest norm of the gradient."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay of a moving average of the weights, which is then validated and used, e.g. 0.999; 0: none."""
    seed: Seed = 0
    window: Range = (-175.0, 250.0)
    """HU that become -1 and 1."""
    crop_shape: Shape | None = None
    """Train on random crops of this many voxels; default: the whole patch."""
    crop_tumor_share: Share = 0.67
    """Share of crops centred on a tumor, where the sample has one."""
    where: str | None = None
    """Train only on samples that fulfil this, e.g. "n_tumors > 0" (see `inspect`); each dataset needs some."""
    sample_weights: dict[str, Weight] = Field(default_factory=dict)
    """How much more often samples that fulfil a condition come, e.g. '{"diameter_mm < 10": 4}'."""
    labels: tuple[LabelKind, ...] | None = None
    """What is seen of the tumors: one kind for all --data or one for each, e.g. --labels mask box; default: masks."""
    mix: tuple[Factor, ...] | None = None
    """Shares of several --data; default: by their numbers of samples."""
    endless: Share = 0.0
    """Share of samples that are made on the fly from the bank, by the first dataset's recipe, and never repeat."""
    shuffle: Literal["full", "shard"] = "full"
    """full: any sample may be next; shard: few shards at a time, read whole, for S3 and spinning disks."""
    on_broken: Literal["raise", "skip"] = "raise"
    """Of a sample that cannot be read: stop, or leave it out and count it (in one process)."""
    cache_gb: Weight = 0.0
    """Keep shards of datasets in S3 on the local disk ($PHANTUMOR_CACHE), up to so many GB."""
    network: NetworkConfig = NetworkConfig()
    loss: LossConfig = LossConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    augment: AugmentConfig = AugmentConfig()
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    """Of the network's arithmetic; auto: bf16 on GPUs that have it, float32 elsewhere."""
    compile: bool = False
    """Compile the network with torch.compile."""
    channels_last: bool = False
    """Keep feature maps channels last."""
    deterministic: bool = False
    """Only algorithms that give the same result every time, also on a GPU; slower there."""
    log_every: Count = 20
    """Steps between log lines."""
    validate_every: Count = 250
    """Steps between validations."""
    validate_samples: Count = 32
    """Samples of the fixed validation set."""
    checkpoint_every: Count = 250
    """Steps between checkpoints."""
    keep: Count = 1
    """How many of the last checkpoints stay, beside the best one."""
    tensorboard: bool = False
    """Also write TensorBoard logs; needs pip install 'phantumor[tensorboard]'."""
    threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Threads that read and decode samples."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""

    @model_validator(mode="after")
    def _window_has_width(self) -> Self:
        if self.window[0] == self.window[1]:
            raise ValueError(f"window {self.window} has no width")
        return self

    @model_validator(mode="after")
    def _nothing_is_asked_of_samples_that_are_not_there(self) -> Self:
        if self.endless > 0 and self.where is not None:
            raise ValueError("endless goes without where: samples that are made on the fly cannot be filtered")
        if self.endless == 1 and (self.mix or self.sample_weights):
            raise ValueError("endless 1 takes no sample of a dataset: leave mix and sample_weights out")
        return self
