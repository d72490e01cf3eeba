"""What an experiment was asked for, as a file in its folder: the same folder takes no other experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.config import GenerateConfig
from pipeline.errors import InputError
from pipeline.experiments.arms import Arm
from pipeline.experiments.cases import Digests
from pipeline.experiments.plan import GENERATE_CONFIG, TRAIN_CONFIG, Step
from pipeline.experiments.settings import LabelFree
from pipeline.files import replace_file, writing_to
from pipeline.settings import differences, to_yaml
from pipeline.train_config import TrainConfig

EXPERIMENT, PLAN, PACE = "experiment.yaml", "plan.json", "pace.json"
KIND = "label-free"
# These may grow in later calls: each of their entries is an arm or a run of its own.
_GROWING = ("arms", "diversity", "annotation", "seeds")
Document = dict[str, Any]


def document_of(
    wanted: LabelFree,
    arms: tuple[str, ...],
    generate: GenerateConfig,
    train: TrainConfig,
    digests: Digests,
    splits: Mapping[str, str],
) -> Document:
    """`experiment.yaml`: resolved settings, and every case with the sha256 of its CT and of its masks."""
    return {
        "experiment": KIND,
        "settings": wanted.model_dump(mode="json") | {"arms": list(arms)},
        "cases": digests,
        "splits": dict(splits),
        "generate": generate.model_dump(mode="json"),
        "train": train.model_dump(mode="json"),
    }


def check_same(out: Path, document: Document) -> None:
    """InputError when the folder holds something else, or another experiment; its lists of arms may have grown."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out takes a folder")
    file = out / EXPERIMENT
    if not file.exists():
        if out.is_dir() and any(out.iterdir()):
            raise InputError(f"{out}: exists and holds no experiment; give --out a new or an empty folder")
        return
    try:
        old = yaml.safe_load(file.read_text())
        before, now = _without_growth(old["settings"], document["settings"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise InputError(f"{file}: not readable ({error!r}). Restore it, or choose another --out") from error
    changed = differences(old | {"settings": before}, document | {"settings": now})
    if changed:
        raise InputError(
            f"{out} holds an experiment with other settings: {'; '.join(changed)}. Use those to go on with it (arms, "
            "diversity, annotation and seeds may be added), or choose another --out"
        )


def _without_growth(old: Document, new: Document) -> tuple[Document, Document]:
    """Both settings, the old ones without lists that are contained in the new ones."""
    grown = [name for name in _GROWING if set(old[name]) <= set(new[name])]
    return ({name: value for name, value in d.items() if name not in grown} for d in (old, new))  # type: ignore[return-value]


def write_experiment(out: Path, document: Document, generate: GenerateConfig, train: TrainConfig) -> None:
    """`experiment.yaml` and the two files that commands take with `--config`."""
    with writing_to(out, "Choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / GENERATE_CONFIG, to_yaml(generate).encode())
        replace_file(out / TRAIN_CONFIG, to_yaml(train).encode())
        replace_file(out / EXPERIMENT, yaml.safe_dump(document, sort_keys=False).encode())


def plan_document(arms: tuple[Arm, ...], steps: list[Step], train_steps: int, groups: Mapping[str, int]) -> Document:
    """`plan.json`: arms with their datasets, commands, cases by folder."""
    return {
        "train_steps": train_steps,
        "cases": dict(groups),
        "arms": [
            {
                "name": arm.name,
                "title": arm.title,
                "curve": arm.curve,
                "amount": arm.amount,
                "annotated": arm.annotated,
                "data": [made.name for made in arm.data],
                "samples": sum(made.samples for made in arm.data),
                "flags": list(arm.flags),
            }
            for arm in arms
        ],
        "steps": [{"name": step.name, "command": ["phantumor", *step.words]} for step in steps],
    }


def write_plan(out: Path, document: Document) -> None:
    """Write `plan.json`."""
    replace_file(out / PLAN, (json.dumps(document, indent=1) + "\n").encode())
