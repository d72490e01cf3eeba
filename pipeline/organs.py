"""Class ids of every organ and its tumor, the organs that take tumors, and the label maps of the datasets people have.

Ids come in pairs: an organ is odd, its tumor the even number after it. They never change between datasets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

# The order is part of the format: append, never insert.
ORGANS: tuple[str, ...] = (
    "liver",
    "pancreas",
    "kidney",
    "colon",
    "spleen",
    "stomach",
    "gallbladder",
    "duodenum",
    "small_bowel",
    "aorta",
    "inferior_vena_cava",
    "portal_vein",
    "bone",
)
BACKGROUND = 0
CLASS_IDS: dict[str, int] = {"background": BACKGROUND} | {
    name: number
    for k, organ in enumerate(ORGANS)
    for name, number in ((organ, 2 * k + 1), (f"{organ}_tumor", 2 * k + 2))
}
CLASS_NAMES: dict[int, str] = {number: name for name, number in CLASS_IDS.items()}


@dataclass(frozen=True)
class TumorOrgan:
    """An organ that tumors are put into; the others are anatomy that tumors must respect.

    Below the first number of `volume_ml` an organ is cut off by the scan and unusable, above the second the mask is
    wrong, as it is with a mean outside `mean_hu`. Of a hollow organ the wall is meant, not what it holds. An elongated
    one has a course from its end at the patient's right to the other.
    """

    name: str
    volume_ml: tuple[float, float]
    mean_hu: tuple[float, float]
    hollow: bool = False
    elongated: bool = False


# Volumes are wide on purpose, ours: adults have about 1500 ml of liver, 80 of pancreas and 300 of kidneys, children a
# fraction. Mean HU: organ medians over a large CT collection of mixed phases are liver 10..162, pancreas -29..146,
# kidney -40..255 (0.5 to 99.5 %, NVIDIA MAISI); wider here, as fatty livers exist. Bowel wall has 30-40 HU native and
# up to 120 enhanced; a mask with nothing but gas or fat below its surface is misplaced.
TUMOR_ORGAN_TABLE: tuple[TumorOrgan, ...] = (
    TumorOrgan("liver", volume_ml=(100, 6000), mean_hu=(-20, 250)),
    TumorOrgan("pancreas", volume_ml=(5, 300), mean_hu=(-60, 220), elongated=True),
    TumorOrgan("kidney", volume_ml=(20, 1500), mean_hu=(-50, 350)),
    TumorOrgan("colon", volume_ml=(30, 5000), mean_hu=(-60, 250), hollow=True),
)
TUMOR_ORGANS: tuple[str, ...] = tuple(organ.name for organ in TUMOR_ORGAN_TABLE)
HOLLOW: tuple[str, ...] = tuple(organ.name for organ in TUMOR_ORGAN_TABLE if organ.hollow)
ELONGATED: tuple[str, ...] = tuple(organ.name for organ in TUMOR_ORGAN_TABLE if organ.elongated)


def tumor_organ(name: str) -> TumorOrgan:
    """The line of an organ in the table of organs that take tumors."""
    for organ in TUMOR_ORGAN_TABLE:
        if organ.name == name:
            return organ
    raise InputError(f"no tumors are put into {name!r}; choose from {', '.join(TUMOR_ORGANS)}")


def organ_id(organ: str) -> int:
    """The class id of an organ, e.g. 1 for `liver`."""
    if organ not in ORGANS:
        raise InputError(f"unknown organ {organ!r}; known organs: {', '.join(ORGANS)}")
    return CLASS_IDS[organ]


def tumor_id(organ: str) -> int:
    """The class id of an organ's tumor, e.g. 2 for `liver`."""
    return organ_id(organ) + 1


def is_tumor(class_id: int) -> bool:
    """Whether a class id names a tumor (even and not background)."""
    return class_id > 0 and class_id % 2 == 0


# TotalSegmentator v2, task `total`: structures by id (class map of its README). Bones share one class here.
_TOTALSEGMENTATOR_NAMES: tuple[str, ...] = tuple(
    (
        "spleen kidney_right kidney_left gallbladder liver stomach pancreas adrenal_gland_right adrenal_gland_left "
        "lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right lung_middle_lobe_right lung_lower_lobe_right "
        "esophagus trachea thyroid_gland small_bowel duodenum colon urinary_bladder prostate kidney_cyst_left "
        "kidney_cyst_right sacrum vertebrae_S1 vertebrae_L5 vertebrae_L4 vertebrae_L3 vertebrae_L2 vertebrae_L1 "
        "vertebrae_T12 vertebrae_T11 vertebrae_T10 vertebrae_T9 vertebrae_T8 vertebrae_T7 vertebrae_T6 vertebrae_T5 "
        "vertebrae_T4 vertebrae_T3 vertebrae_T2 vertebrae_T1 vertebrae_C7 vertebrae_C6 vertebrae_C5 vertebrae_C4 "
        "vertebrae_C3 vertebrae_C2 vertebrae_C1 heart aorta pulmonary_vein brachiocephalic_trunk "
        "subclavian_artery_right subclavian_artery_left common_carotid_artery_right common_carotid_artery_left "
        "brachiocephalic_vein_left brachiocephalic_vein_right atrial_appendage_left superior_vena_cava "
        "inferior_vena_cava portal_vein_and_splenic_vein iliac_artery_left iliac_artery_right iliac_vena_left "
        "iliac_vena_right humerus_left humerus_right scapula_left scapula_right clavicula_left clavicula_right "
        "femur_left femur_right hip_left hip_right spinal_cord gluteus_maximus_left gluteus_maximus_right "
        "gluteus_medius_left gluteus_medius_right gluteus_minimus_left gluteus_minimus_right autochthon_left "
        "autochthon_right iliopsoas_left iliopsoas_right brain skull rib_left_1 rib_left_2 rib_left_3 rib_left_4 "
        "rib_left_5 rib_left_6 rib_left_7 rib_left_8 rib_left_9 rib_left_10 rib_left_11 rib_left_12 rib_right_1 "
        "rib_right_2 rib_right_3 rib_right_4 rib_right_5 rib_right_6 rib_right_7 rib_right_8 rib_right_9 rib_right_10 "
        "rib_right_11 rib_right_12 sternum costal_cartilages"
    ).split()
)
_BONE = re.compile(r"(vertebrae|rib|humerus|scapula|clavicula|femur|hip)_.*|sacrum|sternum|skull")
_ALIASES = {
    "kidney_left": "kidney",
    "kidney_right": "kidney",
    "left_kidney": "kidney",
    "right_kidney": "kidney",
    "portal_vein_and_splenic_vein": "portal_vein",
    "postcava": "inferior_vena_cava",
}


def class_of_structure(name: str) -> int | None:
    """The class of a structure as files and label maps spell it (`kidney_left`, `vertebrae_L1`, `liver_tumor`).

    0 for a known structure that has no class of its own, None for a name nobody uses.
    """
    name = _ALIASES.get(name, name)
    if name in CLASS_IDS:
        return CLASS_IDS[name]
    if _BONE.fullmatch(name):
        return CLASS_IDS["bone"]
    return BACKGROUND if name in _TOTALSEGMENTATOR_NAMES else None


@dataclass(frozen=True)
class LabelMap:
    """How the ids of somebody's label image become our class ids; an id that is not listed is an error."""

    name: str
    classes: Mapping[int, int]

    def apply(self, labels: npt.NDArray[np.integer], where: str) -> npt.NDArray[np.uint8]:
        """Class ids (uint8) of a label image of any shape; `where` names its file in the error."""
        ids = np.unique(labels)
        unknown = [int(i) for i in ids if int(i) not in self.classes]
        if unknown:
            raise InputError(
                f"{where}: label map {self.name!r} does not know the ids {unknown[:12]} "
                f"(it knows {_span(self.classes)}). Name the right map with --labels, "
                "e.g. --labels totalsegmentator or --labels liver=1,kidney=2,spleen=3"
            )
        lowest = int(ids[0])
        table = np.zeros(int(ids[-1]) - lowest + 1, np.uint8)
        for i in ids:
            table[int(i) - lowest] = self.classes[int(i)]
        mapped: npt.NDArray[np.uint8] = table[labels - lowest]
        return mapped


def _span(classes: Mapping[int, int]) -> str:
    ids = sorted(classes)
    return ", ".join(map(str, ids)) if len(ids) <= 12 else f"{ids[0]} to {ids[-1]}"


_NAMED_MAPS: dict[str, dict[int, int]] = {
    "totalsegmentator": {0: 0} | {i: class_of_structure(n) or 0 for i, n in enumerate(_TOTALSEGMENTATOR_NAMES, 1)},
    "lits": {0: 0, 1: CLASS_IDS["liver"], 2: CLASS_IDS["liver_tumor"]},
    "kits": {  # KiTS19 has no cysts; they are benign, and part of the kidney here
        0: 0,
        1: CLASS_IDS["kidney"],
        2: CLASS_IDS["kidney_tumor"],
        3: CLASS_IDS["kidney"],
    },
    "msd-pancreas": {0: 0, 1: CLASS_IDS["pancreas"], 2: CLASS_IDS["pancreas_tumor"]},
    "phantumor": {number: number for number in CLASS_NAMES},
}


_MAX_LABEL = 65535


def label_map(text: str) -> LabelMap:
    """Parse `--labels`: a known map, such as `totalsegmentator` or `lits`, or `name=value,...` pairs."""
    if text in _NAMED_MAPS:
        return LabelMap(text, _NAMED_MAPS[text])
    classes = {0: 0}
    for pair in text.split(","):
        name, sign, value = (part.strip() for part in pair.partition("="))
        if not sign or not value.isdigit():
            raise InputError(
                f"--labels {text!r}: {pair!r} is neither a known label map ({', '.join(_NAMED_MAPS)}) nor name=value"
            )
        class_id = class_of_structure(name)
        if class_id is None:
            raise InputError(f"--labels {text!r}: unknown structure {name!r}; known: {', '.join(CLASS_IDS)}")
        if int(value) in classes or int(value) > _MAX_LABEL:
            rule = "0 is background" if int(value) == 0 else f"ids are named once and lie below {_MAX_LABEL + 1}"
            raise InputError(f"--labels {text!r}: {pair.strip()!r} does not fit: {rule}")
        classes[int(value)] = class_id
    return LabelMap(text, classes)
