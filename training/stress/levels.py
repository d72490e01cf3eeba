"""The levels of each factor: mean plus k standard deviations, cut to what is physical. Pure, data and arithmetic.

THE TABLE of means and standard deviations, each with its source, is `STRESSED` (by organ) and `ANY_ORGAN` below.
Numbers that a preset has too are the preset's, whose sources stand in `pipeline.presets`; (choice) marks ours, with the
reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.presets.kinds import Phase

STEPS: tuple[int, ...] = (-3, -2, -1, 0, 1, 2, 3)


@dataclass(frozen=True)
class Level:
    """Level k of a factor for one sample; `clipped` where mean + k SD is not physical and the nearest limit stands."""

    k: int
    value: float
    clipped: bool


@dataclass(frozen=True)
class Quantity:
    """Mean and SD of one factor; of its natural logarithm where `log`."""

    mean: float
    sd: float
    source: str
    log: bool = False

    def at(self, k: int, low: float = -math.inf, high: float = math.inf) -> Level:
        """Level k within [low, high], in the factor's unit. ValueError where the limits leave nothing."""
        if low > high:
            raise ValueError(f"no value lies between {low:g} and {high:g}")
        plain = self.mean + k * self.sd
        # In whole millionths: the last bit of exp differs between math libraries.
        wanted = round(math.exp(plain) if self.log else plain, 6)
        value = min(max(wanted, low), high)
        return Level(k, value, value != wanted)


@dataclass(frozen=True)
class Stressed:
    """What stress tests of one organ vary."""

    kind: str  # of tumor, in the organ's clinical preset
    diameter_mm: Quantity
    contrast_hu: Mapping[Phase, Quantity]
    elongation: Quantity  # longest over shortest half axis
    texture_sd_hu: Quantity


def _of_uniform(low: float, high: float, source: str) -> Quantity:
    """Mean and SD of a uniform distribution."""
    return Quantity((low + high) / 2, (high - low) / math.sqrt(12), source)


# Of lesions above 8 mm the bounding box's longest over shortest edge: median 1.35, quartiles 1.20 and 1.67.
_LITS_ELONGATION = Quantity(
    math.log(1.35),
    math.log(1.67 / 1.20) / 1.349,  # a normal's quartiles lie 1.349 SD apart
    "LiTS lesions above 8 mm, measured: extent ratio, median 1.35, quartiles 1.20 and 1.67",
    log=True,
)

STRESSED: Mapping[str, Stressed] = {
    "liver": Stressed(
        kind="metastasis",
        diameter_mm=Quantity(
            2.546, 0.693, "245 LiTS lesions of 32 cases, measured: lognormal, median 12.8 mm", log=True
        ),
        contrast_hu={
            "native": Quantity(-15.0, 7.0, "(choice) 45 against 60 HU of plain liver, as the preset"),
            "arterial": Quantity(-22.0, 10.0, "(choice) 53 against 75 HU; the 92 % that stay darker, MCT-LTDiag"),
            "portal_venous": Quantity(
                -42.0, 12.0, "tumor minus liver in public scans: LiTS-117 -48, 3D-IRCADb-17 -40, most others -33 to -46"
            ),
        },
        elongation=_LITS_ELONGATION,
        texture_sd_hu=_of_uniform(8.0, 22.0, "structure of two real tumors (autocorrelation .64 to .97): 8 to 22 HU"),
    ),
    "pancreas": Stressed(
        kind="pdac",
        diameter_mm=Quantity(
            3.369, 0.291, "49 visible carcinomas, 30.3 (SD 9.0) mm, PMID 17961951: lognormal", log=True
        ),
        contrast_hu={
            "native": Quantity(-5.0, 5.0, "(choice) nearly invisible without contrast agent, as the preset"),
            "arterial": Quantity(-74.8, 35.6, "53 carcinomas, pancreatic phase, PMID 12202711"),
            "portal_venous": Quantity(-40.5, 23.0, "57 carcinomas, portal venous phase, PMID 17961951"),
        },
        elongation=Quantity(
            _LITS_ELONGATION.mean, _LITS_ELONGATION.sd, "(choice) as LiTS lesions; none measured here", log=True
        ),
        texture_sd_hu=_of_uniform(3.0, 10.0, "(choice) fibrous, little structure: 3 to 10 HU, as the preset"),
    ),
    "kidney": Stressed(
        kind="clear_cell",
        diameter_mm=Quantity(3.567, 0.720, "339 KiTS tumor masks, equivalent diameter: lognormal", log=True),
        contrast_hu={
            "native": Quantity(-6.0, 6.0, "34 HU against 40, doi 10.5301/uj.5000256; SD (choice)"),
            "arterial": Quantity(23.0, 25.0, "hypervascular: 173 HU against 150, doi 10.5301/uj.5000256; SD (choice)"),
            "portal_venous": Quantity(-21.0, 20.0, "hypervascular: 149 HU against 170, same source; SD (choice)"),
        },
        elongation=Quantity(
            math.log(1.36),
            math.log(1.44 / 1.25) / 1.349,
            "KiTS masks: principal axis ratio, median 1.36, quartiles 1.25 and 1.44",
            log=True,
        ),
        texture_sd_hu=_of_uniform(6.0, 20.0, "(choice) the most mixed of the carcinomas: 6 to 20 HU, as the preset"),
    ),
}


@dataclass(frozen=True)
class AnyOrgan:
    """What is done to the scan, whatever the organ."""

    noise_sd_hu: Quantity
    thickness_mm: Quantity


ANY_ORGAN = AnyOrgan(
    # None can be taken away, so the mean is the scan as it is.
    noise_sd_hu=Quantity(0.0, 12.5, "added to the scan's own; one step is what two real scans hold, 10 to 15 HU"),
    thickness_mm=Quantity(
        2.5, 1.25, "(choice) routine abdominal CT is reconstructed at 1.25 to 5 mm: mean - 1 to + 2 SD"
    ),
)

DEPTH_SOURCE = "measured in each case: depth of all voxels of the organ, where a tumor is as likely anywhere in it"


def stressed(organ: str) -> Stressed:
    """The numbers of an organ; InputError for organs without."""
    if organ not in STRESSED:
        raise InputError(
            f"no stress suites for {organ!r}; choose --organ from {', '.join(STRESSED)} (tumors of hollow organs grow "
            "along the wall and have neither one diameter nor one elongation)"
        )
    return STRESSED[organ]


def kept(by_k: Mapping[int, Sequence[Level]]) -> tuple[int, ...]:
    """The steps that differ from the next one towards the mean in some sample, ascending; 0 is always kept."""
    found = [0]
    for side in (range(1, max(by_k) + 1), range(-1, min(by_k) - 1, -1)):
        inner = 0
        for k in side:
            if [level.value for level in by_k[k]] != [level.value for level in by_k[inner]]:
                found.append(k)
                inner = k
    return tuple(sorted(found))
