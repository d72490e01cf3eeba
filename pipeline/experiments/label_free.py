"""The label-free experiment: networks that saw synthetic tumors only, judged by real ones, one command from cases to
report.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.config import GenerateConfig, SplitShare
from pipeline.experiments.cases import Sources, check_apart, find_roles, folders_of, splits_of
from pipeline.experiments.document import Document
from pipeline.experiments.experiment import Experiment
from pipeline.experiments.label_free_arms import arms_of
from pipeline.experiments.plan import Design, Target, flag, real_cases, rules
from pipeline.experiments.settings import LabelFree
from pipeline.settings import resolve
from pipeline.train_config import TrainConfig

KIND = "label-free"
HELD_OUT = "healthy-test"
_TRAIN_AND_VAL = SplitShare(train=0.9, val=0.1, test=0.0)  # real cases are the test


def plan_label_free(
    sources: Sources, out: Path, wanted: LabelFree, generate: GenerateConfig, train: TrainConfig
) -> Experiment:
    """InputError where cases and settings do not go together, or `out` holds something else."""
    cases = find_roles(sources, wanted)
    arms, digests = arms_of(wanted, generate, len(cases.annotated)), cases.digests()
    check_apart(cases, digests)
    folders = folders_of(cases, wanted.hold_out, wanted.annotation)
    document: Document = {
        "experiment": KIND,
        "settings": wanted.model_dump(mode="json") | {"arms": list(wanted.chosen(len(cases.annotated)))},
        "cases": digests,
        "splits": splits_of(cases.healthy, wanted.hold_out),
    }
    groups = {name: len(found) for name, found in folders.items()}
    design = Design(wanted, arms, targets_of(wanted, HELD_OUT in groups))
    return Experiment(out, design, document, folders, groups, generate, train)


def targets_of(wanted: LabelFree, held_out: bool) -> tuple[Target, ...]:
    """The real cases, and healthy ones where some are held out."""
    flags = (*flag("--labels", wanted.labels), *rules(wanted), "--healthy")
    return (real_cases(wanted), *([Target(HELD_OUT, "healthy", None, flags)] if held_out else []))


def generate_settings(file: Path | None) -> GenerateConfig:
    """Settings of generation; where nothing is said of splits, no sample goes into `test`."""
    config = resolve(GenerateConfig, file, {})
    if "split_share" in config.model_fields_set:
        return config
    return config.model_copy(update={"split_share": _TRAIN_AND_VAL})
