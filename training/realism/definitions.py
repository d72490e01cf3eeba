"""What every figure of the realism report means, and the targets. A changed meaning raises `DEFINITIONS_VERSION`."""

from __future__ import annotations

DEFINITIONS_VERSION = 1
SEED = 0  # of every draw: boxes, folds, places of virtual lesions, bootstrap

MARGIN_MM = 10.0  # lesion region: the label and this much of the organ around it
MIN_DIAMETER_MM = 3.0  # below it a label is a crumb; the published size statistics start there as well
SOFT_EDGE_MM = 2.0  # left out at the organ's surface and around other lesions: mixed voxels
SHELL = (2.0, 10.0)  # mm, parenchyma around a lesion, as `contrast_hu` of the manifest has it
MIN_PARENCHYMA_MM3 = 500.0  # a mean over less is noise (choice)

BOX_MM = 16.0  # edge of a sub-region
BOX_APART_MM = 12.0  # between centers in one lesion: boxes may share a quarter of their edge (choice)
BOXES_PER_LESION = 40  # of each kind (choice: a 55 mm lesion has about so many places for them)
CASES_FOR_FOLDS = 2  # below it on either side, folds are by lesion

CONTRAST_TARGET_HU = 10.0
AUC_TARGET = 0.75

DEFINITIONS = {
    "lesion": "a 26-connected piece of the lesion label at the dataset's spacing. Left out and counted: pieces that "
    f"touch the edge of their patch or scan (cut), pieces below {MIN_DIAMETER_MM:g} mm, pieces without parenchyma "
    f"around ({MIN_PARENCHYMA_MM3:g} mm³).",
    "lesion region": f"the lesion and the organ within {MARGIN_MM:g} mm of it.",
    "parenchyma": f"organ {SHELL[0]:g} to {SHELL[1]:g} mm from the lesion, at least {SOFT_EDGE_MM:g} mm from the "
    "organ's surface and from other lesions. Vessels are in it, because real masks do not tell them apart.",
    "contrast (HU)": "mean of the lesion minus mean of its parenchyma, one value a lesion.",
    "contrast W1 (HU), the headline": "Wasserstein-1 distance between two distributions of voxel HU in lesions minus "
    "the mean of the lesion's own parenchyma. Each lesion weighs the same. It holds contrast, structure and noise.",
    "contrast W1 of means (HU)": "the same distance between the contrasts, one value a lesion: contrast alone.",
    "floor of contrast W1 (HU)": "the same distance between parenchyma voxels minus their own mean, real against "
    "synthetic: what the scanners' noise and the vessels give without any lesion.",
    "sampling floor of contrast W1 (HU)": "median W1 between as many randomly drawn synthetic lesions as there are "
    "real ones and all other synthetic ones: what so few lesions give even from one and the same population.",
    "correlation length (mm)": "distance at which the radial autocorrelation of the residual falls to 1/e, by linear "
    "interpolation. Residual: voxel minus smooth local mean (Gaussian of 5 mm within the region). Measured at least "
    "2 mm inside the lesion, and in its parenchyma. White noise gives 0.63 voxels, the least that can be measured.",
    "correlation ratio": "correlation length in the lesion over that in its parenchyma: the scanner cancels. Above 1 "
    "the lesion is smoother than the organ around it.",
    "diameter (mm)": "of the ball with the lesion's volume.",
    "sphericity": "surface of the ball with the lesion's volume over the lesion's surface (1 is a ball).",
    "box fill": "volume over the volume of the axis-parallel bounding box (a ball: 0.52).",
    "extent ratio": "longest over shortest edge of that box.",
    "KS": "Kolmogorov-Smirnov distance of two distributions, 0 (equal) to 1 (apart).",
    "AUC": f"of a logistic regression (standardised features, L2) that tells real from synthetic boxes of {BOX_MM:g} "
    "mm it was not trained on: 0.5 indistinguishable, 1 always told apart. Pairs are compared within a fold. Border "
    "boxes are centered on the lesion's surface, inside boxes lie in the lesion. Synthetic lesions are chosen to match "
    "the real ones in size, and both sides have the same number of boxes.",
    "floor of AUC": "the same classifier on healthy organ: balls that are no lesions, real cases against the healthy "
    "twins of the synthetic samples, same number of boxes. It is what scanners and patients alone give.",
}
