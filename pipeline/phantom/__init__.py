"""A made-up abdominal CT with organ labels, from a seed: the built-in source for demos, tests and first steps.

In: a seed, a grid and a contrast phase. Out: a `Phantom`. Pure, no files, numpy only.

All anatomy is implicit: an organ is a signed distance (mm, negative inside) of bent patient coordinates, painted over
what lies there with a soft edge of one voxel (partial volume). Abdominal organs keep inside the `room` under the
diaphragm and within the wall, and most clear a thin layer of fat around themselves, so none overlap. What is drawn from
the seed does not depend on the grid or the phase: the same seed at another spacing or phase is the same patient.
Positions are mm from the centre of the field of view: x to the patient's right, y anterior, z superior. They are our
own, set by eye and by organ volumes. No model of any person, and no stand-in for real CT in a study.

Tables (`tissues`, `curves`) and drawing (`patient`) feed the `canvas`; painters, one module per region, cover it in the
order that `assemble` gives.
"""

from pipeline.phantom.assemble import Phantom, make_phantom
from pipeline.phantom.tissues import PHASE_HU, PHASES

__all__ = ["PHASES", "PHASE_HU", "Phantom", "make_phantom"]
