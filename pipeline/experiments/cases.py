"""The cases of an experiment: found, kept apart, spread over splits, and laid out as folders that commands read.

Cases that are evaluated on must be in no training, whatever they are called: they are told apart by content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.bank import next_split
from pipeline.config import SPLITS
from pipeline.errors import InputError
from pipeline.experiments.settings import Common, HoldOut
from pipeline.files import sha256_of, writing_to
from pipeline.organs import label_map
from pipeline.sources import DICOM_FOLDER, ENDINGS, CaseSource, check_ids, find_cases

FEWEST_TO_HOLD_OUT = 5
CASE_FOLDER = "cases"  # of the experiment
Group = Mapping[str, CaseSource]  # by case id
Digests = dict[str, dict[str, dict[str, str]]]  # by role and case id: of `ct` and of `masks`


@dataclass(frozen=True)
class Sources:
    """Where cases lie. `real` ones are evaluated on and never trained on."""

    healthy: tuple[Path, ...] = ()
    real: tuple[Path, ...] = ()
    annotated: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Cases:
    """Cases by what they are for."""

    healthy: Group
    annotated: Group
    real: Group

    def digests(self) -> Digests:
        """sha256 of CT and masks of every case: what the experiment is made from."""
        return {name: {case_id: _digest(case) for case_id, case in group.items()} for name, group in vars(self).items()}


def find_all(folders: Sequence[Path], labels: str | None) -> Group:
    """The cases in all of these folders, by id; InputError where two have the same id."""
    known = label_map(labels) if labels else None
    found = [case for folder in folders for case in find_cases(Path(folder), None, None, known).cases]
    check_ids(found)
    return {case.case_id: case for case in found}


def find_roles(sources: Sources, wanted: Common) -> Cases:
    """The cases of all roles, read with the label map of each."""
    labels = (wanted.labels, wanted.annotated_labels or wanted.real_labels, wanted.real_labels)
    groups = (sources.healthy, sources.annotated, sources.real)
    return Cases(*(find_all(group, names) for group, names in zip(groups, labels, strict=True)))


def check_apart(cases: Cases, digests: Digests) -> None:
    """InputError when a case that is evaluated on would be trained on: the same file, or the same bytes elsewhere."""
    for role, flag in (("healthy", "--healthy"), ("annotated", "--annotated")):
        group: Group = getattr(cases, role)
        by_path = {case.image.resolve(): case_id for case_id, case in group.items()}
        by_digest = {digest["ct"]: case_id for case_id, digest in digests[role].items()}
        for case_id, case in cases.real.items():
            same = by_path.get(case.image.resolve()) or by_digest.get(digests["real"][case_id]["ct"])
            if same is not None:
                raise InputError(
                    f"{case.image}: a real case is evaluated on and must be in no training, but {group[same].image} of "
                    f"{flag} is the same CT; take it out of {flag} or of --real"
                )


def check_readable(real: Group, labels: str | None) -> None:
    """InputError where the real masks cannot be read so, before anything is trained: one case is tried."""
    from pipeline.intake import read_native

    try:
        read_native(next(iter(real.values())), label_map(labels) if labels else None)
    except InputError as error:
        raise InputError(f"--real (see --real-labels): {error}") from error


def splits_of(healthy: Group, hold_out: HoldOut) -> dict[str, str]:
    """The split of each healthy case, by id. Where none is held out, all are trained on."""
    some = hold_out == "always" or (hold_out == "auto" and len(healthy) >= FEWEST_TO_HOLD_OUT)
    splits: dict[str, str] = {}
    for case_id, case in healthy.items():
        splits[case_id] = (case.split or next_split(list(splits.values()))) if some else "train"
    return splits


def ordered_for_annotation(annotated: Group) -> list[str]:
    """Case ids in a fixed random order: the first four are among the first sixteen."""
    ids = sorted(annotated)
    order = np.random.default_rng(np.random.SeedSequence((0, len(ids)))).permutation(len(ids))
    return [ids[k] for k in order]


def folders_of(cases: Cases, hold_out: HoldOut, amounts: Sequence[int]) -> dict[str, list[CaseSource]]:
    """Which cases lie in which folder below `CASE_FOLDER`: by split, annotated (all, and the first few), real."""
    splits = splits_of(cases.healthy, hold_out)
    folders = {
        f"healthy-{split}": [case for case_id, case in cases.healthy.items() if splits[case_id] == split]
        for split in SPLITS
    }
    order = ordered_for_annotation(cases.annotated)
    folders["annotated"] = [cases.annotated[case_id] for case_id in sorted(cases.annotated)]
    folders |= {f"annotated-{n}": [cases.annotated[case_id] for case_id in sorted(order[:n])] for n in amounts}
    folders["real"] = list(cases.real.values())
    return {name: found for name, found in folders.items() if found}


def lay_out(folders: Mapping[str, Sequence[CaseSource]], out: Path) -> None:
    """Case folders of symbolic links to the files, so that each role is one folder. Harmless twice."""
    with writing_to(out, "Run the same command again"):
        for name, cases in folders.items():
            for case in cases:
                _link_case(case, out / CASE_FOLDER / name / case.case_id)


def _link_case(case: CaseSource, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ending = next((e for e in ENDINGS if case.image.name.lower().endswith(e)), "")
    _link(folder / (DICOM_FOLDER if case.image.is_dir() else f"ct{ending}"), case.image)
    for file in (*([case.label_file] if case.label_file else []), *case.masks):
        _link(folder / file.name, file)


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() != target.resolve():
        link.unlink()  # the same case, moved to another place since
    if not link.is_symlink():
        link.symlink_to(target.resolve())


def _digest(case: CaseSource) -> dict[str, str]:
    from pipeline.intake import source_digests

    (ct,) = source_digests(replace(case, label_file=None, masks={})).values()
    masks = [f"{file.name} {sha256_of(file)}" for file in case.files[1:]]
    return {"ct": ct, "masks": hashlib.sha256("\n".join(sorted(masks)).encode()).hexdigest()}
