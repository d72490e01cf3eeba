"""What an experiment was asked for, as a file in its folder: the same folder takes no other experiment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import InputError
from pipeline.experiments.arms import Arm
from pipeline.experiments.plan import Step
from pipeline.files import replace_file, writing_to
from pipeline.settings import Settings, differences, to_yaml

EXPERIMENT, PLAN, PACE = "experiment.yaml", "plan.json", "pace.json"
Document = dict[str, Any]


def check_same(out: Path, document: Document, growing: Sequence[str]) -> None:
    """InputError when the folder holds something else, or another experiment; lists that grow may have grown."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; --out takes a folder")
    file = out / EXPERIMENT
    if not file.exists():
        if out.is_dir() and any(out.iterdir()):
            raise InputError(f"{out}: exists and holds no experiment; give --out a new or an empty folder")
        return
    try:
        old = yaml.safe_load(file.read_text())
        kinds = old["experiment"], document["experiment"]
        before, now = _without_growth(old["settings"], document["settings"], growing)
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise InputError(f"{file}: not readable ({error!r}). Restore it, or choose another --out") from error
    if kinds[0] != kinds[1]:
        raise InputError(f"{out} holds an experiment {kinds[0]}; choose another --out for {kinds[1]}")
    changed = differences(old | {"settings": before}, document | {"settings": now})
    if changed:
        more = f"{', '.join(growing[:-1])} and {growing[-1]}"
        raise InputError(
            f"{out} holds an experiment with other settings: {'; '.join(changed)}. Use those to go on with it ({more} "
            "may be added), or choose another --out"
        )


def _without_growth(old: Document, new: Document, growing: Sequence[str]) -> tuple[Document, Document]:
    """Both settings, the old ones without lists that are contained in the new ones."""
    grown = [name for name in growing if set(old.get(name, ())) <= set(new[name])]
    return ({name: value for name, value in d.items() if name not in grown} for d in (old, new))  # type: ignore[return-value]


def write_experiment(out: Path, document: Document, configs: Mapping[str, Settings]) -> None:
    """`experiment.yaml` and the files that commands take with `--config`, by name."""
    with writing_to(out, "Choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        for name, settings in configs.items():
            replace_file(out / name, to_yaml(settings).encode())
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
                "data": [data.name for data in arm.data],
                "labels": list(arm.labels),
                "samples": sum(data.samples for data in arm.data),
                "flags": list(arm.flags),
            }
            for arm in arms
        ],
        "steps": [{"name": step.name, "command": ["phantumor", *step.words]} for step in steps],
    }


def write_plan(out: Path, document: Document) -> None:
    """Write `plan.json`."""
    replace_file(out / PLAN, (json.dumps(document, indent=1) + "\n").encode())


def read_plan(out: Path) -> dict[str, Any]:
    """`plan.json` of an experiment."""
    try:
        return dict(json.loads((out / PLAN).read_text()))
    except FileNotFoundError as error:
        raise InputError(f"{out}: no experiment was begun there; give the --out of `phantumor experiment`") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{out / PLAN}: cannot be read ({error}); run the experiment's command again") from error
