"""The evaluation report: records and figures in, one folder with `report.html` out."""

from training.report.examples import Example, choose_examples
from training.report.write import write_report

__all__ = ["Example", "choose_examples", "write_report"]
