"""Stress tests: graded suites along one factor at a time, and how many tumors a network still finds at each level.

In: a run and a bank. Out: `stress.json`, `tumors.parquet`, `stress.png` and `report.html`. Samples are synthesised when
they are needed and kept only where asked. `docs/stress.md` says what each suite changes and how to read it.
"""

from training.stress.run import describe, stress

__all__ = ["describe", "stress"]
