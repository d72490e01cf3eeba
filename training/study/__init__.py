"""The report of a reader study: answers against the truth, and a machine observer beside the readers.

In: a study folder of `pipeline.study`. Out: `study.json`, `answers.csv` and `report.html`. `docs/study.md` has every
definition.
"""

from training.study.report import describe, report

__all__ = ["describe", "report"]
