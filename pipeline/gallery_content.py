"""What the gallery shows: sizes, what each kind is known for, parts that are switched off. Data only.

Sources of what kinds are known for are in `pipeline.presets`.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.preview import Wish

_SIZES: dict[str, tuple[float, ...]] = {"liver": (10, 20, 40), "kidney": (12, 25, 45), "pancreas": (10, 16, 25)}
_COLON_SIZES: dict[str, tuple[float, ...]] = {"annular": (22, 32, 42), "asymmetric": (15, 25, 40)}
_OTHER_SIZES = (10.0, 18.0, 28.0)


def sizes_mm(organ: str, kind: str) -> tuple[float, ...]:
    """Diameters of the rows of a kind."""
    return _COLON_SIZES.get(kind, _OTHER_SIZES) if organ == "colon" else _SIZES.get(organ, _OTHER_SIZES)


# What a radiologist looks for.
LOOK: dict[tuple[str, str], str] = {
    ("liver", "metastasis"): "Darker than liver, clearest in the portal venous phase; a faint rim, blurred margins.",
    ("liver", "hcc"): "Brighter than liver in the arterial phase, washed out in the portal venous one; mosaic.",
    ("liver", "icc"): "Ill-defined, lobulated, darker than liver; touches vessels instead of pushing them aside.",
    ("liver", "hemangioma"): "Bright nodules along the border, as bright as blood; the middle fills in late.",
    ("liver", "cyst"): "Fluid: the same dark grey in every phase, sharp and round.",
    ("kidney", "clear_cell"): "Bulges out of the kidney; brighter than the other carcinomas after contrast agent.",
    ("kidney", "papillary"): "Enhances little: dark beside the bright kidney, homogeneous.",
    ("kidney", "chromophobe"): "Between papillary and oncocytoma.",
    ("kidney", "oncocytoma"): "Enhances strongly; a third has a central scar.",
    ("kidney", "angiomyolipoma"): "Fat: darker than water in every phase.",
    ("kidney", "cyst"): "Fluid: sharp, round, the same in every phase.",
    (
        "pancreas",
        "pdac",
    ): "Darker than the gland, ill-defined; behind it, towards the tail, a wide duct and a thinner gland.",
    ("pancreas", "pnet"): "Sharp, mostly brighter than the gland in the arterial phase.",
    ("pancreas", "cyst"): "Fluid, half of them with septa and lobules.",
    ("colon", "annular"): "The wall is thick all around a short segment and narrows the lumen.",
    ("colon", "asymmetric"): "One side of the wall is thick, inward and outward.",
    ("colon", "polypoid"): "A mass in the lumen on a narrow base.",
}


# Phase and contrast (HU) that a kind is known for; others of the kind look different, as in the presets.
CONTRAST: dict[tuple[str, str], tuple[str, float, float]] = {
    ("liver", "metastasis"): ("portal_venous", -60, -35),
    ("liver", "hcc"): ("arterial", 14, 60),
    ("liver", "icc"): ("portal_venous", -50, -20),
    ("kidney", "clear_cell"): ("arterial", 10, 80),
    ("kidney", "oncocytoma"): ("arterial", -10, 60),
    ("pancreas", "pdac"): ("portal_venous", -70, -30),
    ("pancreas", "pnet"): ("arterial", 20, 90),
}
# Part of a tumor that a kind is known for.
PART = {("liver", "hemangioma"): "rim", ("pancreas", "pdac"): "upstream"}


@dataclass(frozen=True)
class Effect:
    """A part of a tumor, by its name in `--without`, and a tumor that shows it."""

    part: str
    wish: Wish
    field_mm: float = 80.0


EFFECTS = (
    Effect("mass_effect", Wish("liver", "hcc", 40), 100.0),
    Effect("rim", Wish("liver", "icc", 40)),
    Effect("core", Wish("liver", "metastasis", 60), 110.0),
    Effect("septa", Wish("pancreas", "cyst", 28)),
    Effect("calcification", Wish("liver", "metastasis", 40)),
    Effect("upstream", Wish("pancreas", "pdac", 18), 120.0),
    Effect("structure", Wish("liver", "hcc", 40)),
    Effect("noise", Wish("liver", "metastasis", 30)),
    Effect("deformation", Wish("liver", "metastasis", 40)),
    Effect("soft_edge", Wish("liver", "icc", 30)),
)
GROWTH = (
    Wish("liver", "metastasis", 40, points=5, interval_days=60),
    Wish("kidney", "clear_cell", 45, points=5, interval_days=365),
)
