"""The label-kinds experiment: the same synthetic samples seen as masks, boxes, scribbles, reports, ..., each trained on
equally long and scored on other samples, and on real cases where there are any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.bank import Bank, open_bank
from pipeline.catalog import open_dataset
from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.experiments.cases import (
    Cases,
    Digests,
    Sources,
    check_apart,
    find_roles,
    folders_of,
    splits_of,
)
from pipeline.experiments.document import Document
from pipeline.experiments.experiment import Experiment
from pipeline.experiments.label_kinds_arms import TEST, arms_of, tested
from pipeline.experiments.label_kinds_settings import LabelKinds
from pipeline.experiments.plan import ANNOTATE_CONFIG, Design, Target, real_cases, rules
from pipeline.settings import resolve
from pipeline.train_config import TrainConfig

KIND = "label-kinds"
_SCORED = "synthetic"  # folder of the evaluations on held-out samples
_RESAMPLING = ("rotate_share", "zoom_share", "elastic_share")


@dataclass(frozen=True)
class Material:
    """What to train and score on: a bank or the healthy cases for one, real cases, a dataset to score on."""

    cases: Sources
    bank: Path | None = None
    test: Path | None = None


def plan_label_kinds(
    material: Material, out: Path, wanted: LabelKinds, generate: GenerateConfig, train: TrainConfig
) -> Experiment:
    """InputError where cases, bank and settings do not go together, or `out` holds something else."""
    if (material.bank is None) == (not material.cases.healthy):
        raise InputError("give either --bank, made by `phantumor prepare`, or --healthy, cases to make one of")
    cases = find_roles(material.cases, wanted)
    digests = cases.digests()
    check_apart(cases, digests)
    wanted.check_amounts(len(cases.annotated))
    folders = folders_of(cases, wanted.hold_out, wanted.annotation)
    groups = {name: len(found) for name, found in folders.items()}
    document: Document = {"experiment": KIND, "settings": wanted.model_dump(mode="json"), "cases": digests}
    if material.bank is None:
        document["splits"] = splits_of(cases.healthy, wanted.hold_out)
    else:
        bank = _checked(open_bank(material.bank).healthy(), wanted, cases, digests)
        groups = _counts(bank, wanted.organ) | groups
        document["bank"] = bank.fingerprint
    design, scored_on = _design(material, wanted, generate, groups, len(cases.annotated))
    configs = {ANNOTATE_CONFIG: wanted.annotate}
    return Experiment(out, design, document | scored_on, folders, groups, generate, train, configs)


def train_settings(file: Path | None) -> TrainConfig:
    """Settings of training, all arms alike; patches are not turned, zoomed or bent unless the file says so.

    A turned box is none, and a zoomed tumor has not the size that its report tells.
    """
    config = resolve(TrainConfig, file, {})
    unsaid = {name: 0.0 for name in _RESAMPLING if name not in config.augment.model_fields_set}
    return config.model_copy(update={"augment": config.augment.model_copy(update=unsaid)})


def _design(
    material: Material, wanted: LabelKinds, generate: GenerateConfig, groups: dict[str, int], annotated: int
) -> tuple[Design, Document]:
    """The arms and what they are scored on; what that adds to the experiment's description."""
    arms, real = arms_of(wanted, annotated), [real_cases(wanted)] if "real" in groups else []
    if material.test is not None:
        split, digest = _split_of(material.test, wanted)
        target = Target(TEST, _SCORED, material.test, ("--split", split, *rules(wanted)))
        return Design(wanted, arms, (target, *real), material.bank), {TEST: digest}
    made = tested(wanted, f"healthy-{TEST}" in groups, generate.seed)
    target = Target(TEST, _SCORED, made, ("--split", "all", *rules(wanted)))
    return Design(wanted, arms, (target, *real), material.bank), {}


def _split_of(test: Path, wanted: LabelKinds) -> tuple[str, Any]:
    """The samples of a given dataset to score on, and what tells it from others."""
    dataset = open_dataset(test)
    if f"{wanted.organ}_tumor" not in dataset.info.classes:
        known = ", ".join(dataset.info.classes)
        raise InputError(f"--test {test}: labels no {wanted.organ}_tumor but {known}; give a dataset of {wanted.organ}")
    return (TEST if dataset.split_counts().get(TEST) else "all"), dataset.info.config_digest


def _checked(bank: Bank, wanted: LabelKinds, cases: Cases, digests: Digests) -> Bank:
    """A given bank; InputError where it does not fit the settings or holds a case that is scored on."""
    if wanted.spacing != bank.spacing_mm:
        raise InputError(
            f"--spacing {wanted.spacing:g}: the bank {bank.place} has {bank.spacing_mm:g} mm; give that, or --healthy "
            "instead of --bank"
        )
    held = {digest: record.case_id for record in bank.records for digest in record.sources.values()}
    for case_id, digest in digests["real"].items():
        if digest["ct"] in held:
            raise InputError(
                f"{cases.real[case_id].image}: a real case is scored on and must be in no training, but it is "
                f"{held[digest['ct']]} of the bank {bank.place}; take it out of --real, or give another bank"
            )
    return bank


def _counts(bank: Bank, organ: str) -> dict[str, int]:
    """Cases with the organ by split, as the folders of cases are named."""
    splits: Sequence[str] = [record.split for record in bank.records if organ in record.usable_organs]
    return {f"healthy-{split}": splits.count(split) for split in dict.fromkeys(splits)}
