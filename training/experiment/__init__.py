"""The reports of experiments: the evaluations of its runs in; `experiment.json` and one page out."""

from training.experiment.write import write_experiment_report

__all__ = ["write_experiment_report"]
