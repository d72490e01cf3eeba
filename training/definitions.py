"""What the words of an evaluation mean, for its report. In: the settings. Out: words with their meaning."""

from __future__ import annotations

from training.froc import FLOOR
from training.records import ScoreSettings

CONTRAST_BIN_HU = 20
_CONNECT = {6: "a face", 18: "a face or edge", 26: "a face, edge or corner"}


def definitions(settings: ScoreSettings) -> dict[str, str]:
    """The definitions that these settings make."""
    return _samples_and_tumors(settings) | _detection(settings) | _outlines(settings) | _INTERVALS


def _samples_and_tumors(settings: ScoreSettings) -> dict[str, str]:
    small = f" Pieces below {settings.min_lesion_mm3:g} mm³ are no tumors." if settings.min_lesion_mm3 else ""
    cuts = ", ".join(f"{cut:g}" for cut in settings.diameter_cuts_mm)
    return {
        "sample": "One evaluated image: a whole CT or a patch of one.",
        "source case": "The CT that a sample was cut from. Samples of one source case resemble each other.",
        "tumor": "A connected piece of tumor label (voxels that share "
        f"{_CONNECT[settings.connectivity]} belong together).{small}",
        "diameter": "Diameter of the ball with the tumor's volume, in mm. A tumor cut by the image's edge is measured "
        f"by the part inside. A tumor exactly on a cut ({cuts} mm) belongs to the larger group.",
        "healthy sample": "A sample whose truth has no tumor of any class.",
        "empty samples": "Where neither truth nor prediction has the class, Dice does not exist: the sample is counted "
        "as correctly empty and is in no mean.",
    }


def _detection(settings: ScoreSettings) -> dict[str, str]:
    return {
        "found": "A true tumor is found when at least one of its voxels is predicted as tumor of the same organ.",
        "sensitivity": "Found tumors divided by all true tumors.",
        "sensitivity at IoU 0.1 (0.5)": "The same, but a tumor counts only when it and the predicted tumors that touch "
        "it share at least a tenth (half) of their common volume (intersection over union). It discounts predictions "
        "that are far too large.",
        "false tumor": "A predicted tumor that touches no true tumor of the same organ.",
        "precision": "Predicted tumors that touch a true tumor (that reach the IoU with the true tumors they touch), "
        "divided by all predicted tumors.",
        "F1": "Harmonic mean of sensitivity and precision. It does not exist where there is no tumor and none is "
        "predicted, and is 0 where only one of the two is there.",
        "false positive volume": "Volume in ml of predicted tumors that touch no true one; mean over all samples.",
        "false negative volume": "Volume in ml of true tumors that nothing predicted touches; mean over the samples "
        "that have the class.",
        "sample sensitivity": "Of the samples that have a tumor of this class, the share in which any is predicted.",
        "sample specificity": "Of the samples that have no tumor of this class, the share in which none is predicted.",
        "patient sensitivity and specificity": "The same by source case: it has a tumor (a predicted one) when any of "
        "its samples has.",
        "FROC": f"Candidates are connected pieces with a tumor probability of at least {FLOOR:g}, scored by their "
        "largest probability; a candidate hits the true tumors it touches, and is false when there are none. Pieces "
        f"are made once, at {FLOOR:g}, not anew at each threshold: tumors that a bridge of such probability joins are "
        "one candidate and are hit together, a network that is unsure over a wide area has few, large candidates, and "
        f"a tumor that stays below {FLOOR:g} is never found, so the curve ends there. The curve "
        "shows the share of tumors hit over the false candidates per scan as the least score falls; its mean is over "
        f"{', '.join(f'{rate:g}' for rate in settings.froc_false_per_scan)} false candidates per scan.",
        "contrast": "Mean HU of a tumor minus that of the organ around it; grouped by "
        f"{CONTRAST_BIN_HU} HU, lower end included.",
    }


def _outlines(settings: ScoreSettings) -> dict[str, str]:
    tolerance = f"{settings.nsd_tolerance_mm:g} mm"
    return {
        "Dice": "Twice the shared volume divided by the sum of both volumes: 1 is a perfect outline, 0 shares nothing. "
        "Mean over the samples that have the class; a missed class counts as 0. An organ's volume includes its tumors. "
        "Where tumor classes are taken together, each class of a sample is one outline.",
        f"surface Dice {tolerance}": "Normalized surface Dice: the share of both surfaces that lies within "
        f"{tolerance} of the other, by area (Nikolov et al. 2021, marching-cubes surface elements). Same samples as "
        "Dice.",
        "HD95": "Distance within which 95 % of each surface lies of the other, larger direction, in mm (same surface "
        "elements, weighted by area). Only for samples where class and prediction both exist.",
        "volume error": "Predicted minus true volume in ml; mean over the samples that have the class.",
    }


_INTERVALS = {
    "interval of a mean": "95 % bootstrap interval that draws whole source cases with replacement.",
    "interval of a share": "95 % Wilson interval. It takes tumors as independent; where several come from one source "
    "case, the true uncertainty is larger.",
}
