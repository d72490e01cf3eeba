"""The realism report: how far synthetic lesions are from real ones, beside healthy tissue from healthy tissue.

In: a dataset, a folder of real cases with lesion masks. Out: `realism.json` and `report.html`. Only lesion regions are
measured, never whole volumes. `docs/realism.md` has every definition.
"""

from training.realism.run import describe, realism

__all__ = ["describe", "realism"]
