"""Liver tumors as the training generator of Hu et al. draws them, for comparison: its distributions, our renderer.

Sources
  [Hu 2023]  Hu et al., CVPR 2023 (arXiv 2303.14869), the released training generator at 1 mm, so its voxels are mm:
             radii 4, 8, 16, 32; half axes U(0.75, 1.25) r; SD of the deformation's lattice by class; blur of the edge
             with SD U(1, 2); the CT is lowered by texture * blurred mask * U(65, 145); counts by class; five mixes of
             weight 0.2.
  [measured] its textures: mean .51 to .55, SD .02 to .09.

How its numbers become ours
  diameter    2 r (u v w)^(1/3) with u, v, w from U(0.75, 1.25). Mean and SD of log u are -0.01062 and 0.14651, so the
              log of the diameter has mean log(2 r) - 0.01062 and SD 0.14651 / sqrt(3) = 0.0846.
  deformation SD of the lattice over r.
  edge        the share of tumor across a surface blurred with SD s rises like the integral of a normal of SD s; ours is
              a smoothstep of width w, whose derivative has SD w sqrt(0.05): w = s / 0.2236.
  contrast    mean over the hard mask, which is the label: -U(65, 145) * 0.525 (mean of the texture, U(0.5, 0.55)) * the
              mean of the blurred mask over the hard one. That mean, simulated for each class with ellipsoids of half
              axes U(0.75, 1.25) r and blurs of SD U(1, 2), is .565, .778, .881, .949.
  texture     SD .02 to .09 times the middle of U(65, 145) times that same mean. Grain: its noise is white noise under a
              Gaussian of SD 4 or 7; ours a cubic B-spline on a lattice of constant h, a kernel of SD h / sqrt(3).

As it does: tumors in the whole liver between 30 and 70 % of its height, then half of the patches at one of them.
What differs: it draws one contrast per case, ours is one per tumor; its tumors may overlap; its label may hold crumbs.
"""

from __future__ import annotations

from math import log, sqrt

from pipeline.presets.kinds import (
    Choice,
    Distribution,
    Ellipsoidal,
    LogNormal,
    Mixture,
    OrganPreset,
    Place,
    Relative,
    SampleMix,
    TumorKind,
    Uniform,
)


def _one_of(*values: float) -> Mixture:
    return Mixture(tuple((1.0 / len(values), Uniform(value, value)) for value in values))  # each as likely


def _kind(radius_mm: float, deformation: Distribution, blurred: float) -> TumorKind:
    """The kind of one class; `blurred` is the mean of the blurred mask over the hard one."""
    return TumorKind(
        diameter_mm=LogNormal(log(2 * radius_mm) - 0.01062, 0.0846, 1.5 * radius_mm, 2.5 * radius_mm),  # see above
        form=Ellipsoidal(
            axis_ratio=Uniform(0.75, 1.25),  # [Hu 2023]
            lobulation=Uniform(0.0, 0.0),  # [Hu 2023] none
            deformation=deformation,
        ),
        edge_mm=Uniform(1.0 / sqrt(0.05), 2.0 / sqrt(0.05)),  # see above
        level=Relative(Uniform(-145.0 * 0.525 * blurred, -65.0 * 0.525 * blurred)),  # see above
        texture_sd_hu=Uniform(0.02 * 105.0 * blurred, 0.09 * 105.0 * blurred),  # [measured]
        texture_grain_mm=_one_of(4.0 * sqrt(3.0), 7.0 * sqrt(3.0)),  # see above
        lowest_hu=-1000.0,  # [Hu 2023] no limit
        base="donor",  # [Hu 2023] lowers the CT as it is
        place=Place(vessel_clearance=0.0),  # [Hu 2023] vessels are not avoided in training
    )


PRESET = OrganPreset(
    kinds={  # radius, deformation over radius [Hu 2023], mean of the blurred mask (see above)
        "tiny": _kind(4.0, Uniform(0.5 / 4, 1.0 / 4), 0.565),
        "small": _kind(8.0, _one_of(1 / 8, 2 / 8), 0.778),
        "medium": _kind(16.0, _one_of(3 / 16, 4 / 16, 5 / 16, 6 / 16), 0.881),
        "large": _kind(32.0, _one_of(5 / 32, 6 / 32, 7 / 32, 8 / 32, 9 / 32, 10 / 32), 0.949),
    },
    # Where a user asks for one tumor, or sets the number: every class alike, as the mixes do [Hu 2023].
    weights={"tiny": 0.25, "small": 0.25, "medium": 0.25, "large": 0.25},
    count=Choice({1: 1.0}),  # (choice) not used by the mixes
    mixes=(  # [Hu 2023]
        SampleMix(0.2, {"tiny": (3, 10)}),
        SampleMix(0.2, {"small": (3, 10)}),
        SampleMix(0.2, {"medium": (2, 5)}),
        SampleMix(0.2, {"large": (1, 3)}),
        SampleMix(0.2, {"tiny": (3, 10), "small": (5, 10), "medium": (2, 5), "large": (1, 3)}),
    ),
    whole_organ=True,  # [Hu 2023] tumors in the whole liver, patches cut later
)
