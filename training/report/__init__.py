"""The reports: records and figures of an evaluation, or of two compared, in; a folder with `report.html` out."""

from training.report.choice import choose_examples
from training.report.examples import Example
from training.report.write import write_comparison, write_report

__all__ = ["Example", "choose_examples", "write_comparison", "write_report"]
