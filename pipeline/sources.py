"""Finding cases in what the user points `prepare` at: a case folder, a folder of them, a datalist, an image and a mask.

In: paths. Out: `CaseSource` records that say which files make a case. Looks at names only, opens no image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.bank_format import CASE_ID
from pipeline.errors import InputError
from pipeline.organs import LabelMap, class_of_structure
from pipeline.public_layouts import pairs_of

ENDINGS = (".nii.gz", ".nii")
DICOM_FOLDER, MASK_FOLDER = "dicom", "segmentations"
IMAGE_NAMES = ("ct", "imaging")  # the second is how KiTS calls it
LABEL_FILE_STARTS = ("organs", "label", "mask", "seg")
DATALIST_SPLITS = {
    "training": "train",
    "train": "train",
    "validation": "val",
    "val": "val",
    "test": "test",
    "testing": "test",
}
LAYOUT = (
    "a case is a folder with ct.nii.gz (or a DICOM series in dicom/) and masks named after organs, e.g. liver.nii.gz"
)


@dataclass(frozen=True)
class CaseSource:
    """The files of one case: a CT and either one label map or binary masks by class id."""

    case_id: str
    image: Path  # NIfTI file, or folder of a DICOM series
    label_file: Path | None = None
    named_class: int | None = None  # of a label file called after an organ: that is what it holds if it is binary
    masks: Mapping[Path, int] = field(default_factory=dict)
    split: str | None = None  # where a datalist says it

    def __post_init__(self) -> None:
        if not CASE_ID.fullmatch(self.case_id):
            raise InputError(
                f"{self.image}: {self.case_id!r} cannot be a case id: it must start with a letter or digit and hold "
                "only letters, digits, '.', '_' and '-' (100 at most); rename the folder or file"
            )

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.image, *([self.label_file] if self.label_file else []), *self.masks)


@dataclass(frozen=True)
class Found:
    """Cases, and remarks on what was left out that the user should read."""

    cases: tuple[CaseSource, ...]
    notes: tuple[str, ...] = ()


def find_cases(source: Path | None, image: Path | None, mask: Path | None, labels: LabelMap | None) -> Found:
    """The cases of one SOURCE, or of `--image` and `--mask` where `source` is None.

    `labels` is the map of `--labels`; without it masks are binary and named after organs. Raises InputError, naming the
    path and the layout that was expected, when there is no case to be found.
    """
    if source is None:
        return Found((_pair(image, mask, labels),))
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; {LAYOUT}")
    if source.is_dir():
        return _folder(source, labels)
    if source.suffix.lower() == ".json":
        return _datalist(source, labels)
    raise InputError(
        f"{source}: a SOURCE is a case folder, a folder of case folders or a datalist .json; "
        "give a single image with --image FILE --mask FILE"
    )


def check_ids(cases: Sequence[CaseSource]) -> None:
    """Refuse two cases of one id."""
    for case_id, count in Counter(case.case_id for case in cases).items():
        if count > 1:
            images = ", ".join(str(case.image) for case in cases if case.case_id == case_id)
            raise InputError(
                f"{count} cases have the id {case_id!r}: {images}; rename a folder, or set case_id in the datalist"
            )


def _pair(image: Path | None, mask: Path | None, labels: LabelMap | None) -> CaseSource:
    if image is None or mask is None:
        raise InputError("--image and --mask go together: one CT and its organ mask or label map")
    return _image_and_mask(_file_case_id(image), image, mask, labels)


def _image_and_mask(
    case_id: str, image: Path, mask: Path, labels: LabelMap | None, split: str | None = None
) -> CaseSource:
    for path in (image, mask):
        if not path.exists():
            raise InputError(f"{path}: no such file")
    if labels:
        return CaseSource(case_id, image, label_file=mask, split=split)
    class_id = _class_of(mask)
    if not class_id:
        raise InputError(
            f"{mask}: no organ is called {_stem(mask)!r}; if it is a label map, name its ids with --labels, "
            "e.g. --labels totalsegmentator or --labels liver=1"
        )
    return CaseSource(case_id, image, masks={mask: class_id}, split=split)


def _folder(folder: Path, labels: LabelMap | None) -> Found:
    if _images(folder):
        return _case_folder(folder, labels)
    pairs = pairs_of(folder, {_stem(file): file for file in _niftis(folder)})
    if pairs:
        return Found(tuple(_image_and_mask(pair.case_id, pair.image, pair.label, labels) for pair in pairs))
    inside = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    strays = [p.name for p in inside if not _images(p)]
    if not inside or strays:
        found = f"no CT in {', '.join(strays[:8])}" if inside else f"it holds {_listing(folder)}"
        raise InputError(f"{folder}: neither a case nor a folder of cases: {found}; {LAYOUT}")
    parts = [_case_folder(p, labels) for p in inside]
    cases = tuple(case for part in parts for case in part.cases)
    return Found(cases, tuple(note for part in parts for note in part.notes))


def _case_folder(folder: Path, labels: LabelMap | None) -> Found:
    images = _images(folder)
    if len(images) > 1:
        raise InputError(f"{folder}: {' and '.join(p.name for p in images)} are both there; leave one CT per case")
    case_id = folder.resolve().name
    others = [p for p in (*_niftis(folder), *_niftis(folder / MASK_FOLDER)) if p not in images]
    label_file = _label_file(others, folder) if labels else None
    if label_file is None:
        return _with_masks(case_id, images[0], others, folder)
    left_out = [str(p.relative_to(folder)) for p in others if p != label_file]
    notes = [f"{case_id}: left out {', '.join(left_out)}; organs are read from {label_file.name}"] if left_out else []
    source = CaseSource(case_id, images[0], label_file=label_file, named_class=_class_of(label_file) or None)
    return Found((source,), tuple(notes))


def _with_masks(case_id: str, image: Path, files: list[Path], folder: Path) -> Found:
    classes = {path: _class_of(path) for path in files}
    masks = {path: class_id for path, class_id in classes.items() if class_id}
    unknown = [str(path.relative_to(folder)) for path, class_id in classes.items() if class_id is None]
    if not masks:
        found = ", ".join(p.name for p in files[:12]) or "no other NIfTI file"
        raise InputError(
            f"{folder}: no mask named after an organ beside the CT (found: {found}); name masks like liver.nii.gz, "
            "or name the ids of a label map with --labels, e.g. --labels totalsegmentator"
        )
    notes = [f"{case_id}: left out {', '.join(unknown)}: no organ has that name"] if unknown else []
    return Found((CaseSource(case_id, image, masks=masks),), tuple(notes))


def _label_file(files: list[Path], folder: Path) -> Path | None:
    """The label map among the files beside a CT; None when they are masks, several that are named after organs."""
    called_so = [p for p in files if p.name.lower().startswith(LABEL_FILE_STARTS)]
    organs = [p for p in files if _class_of(p)]
    if not called_so and len(organs) > 1:
        return None
    candidates = called_so or organs or files
    if len(candidates) != 1:
        found = ", ".join(str(p.relative_to(folder)) for p in candidates[:12]) or "none"
        raise InputError(
            f"{folder}: --labels needs one label map per case, named {'*, '.join(LABEL_FILE_STARTS)}* or the only "
            f"other NIfTI file; found {found}. Rename the right one to organs.nii.gz, or list it in a datalist .json"
        )
    return candidates[0]


def _datalist(path: Path, labels: LabelMap | None) -> Found:
    """A MONAI datalist, `{"training": [{"image": ..., "label": ...}], ...}`; paths lie relative to its folder."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file: {error}") from error
    lists = {k: v for k, v in content.items() if k in DATALIST_SPLITS} if isinstance(content, dict) else {}
    if not any(lists.values()) or not all(isinstance(entries, list) for entries in lists.values()):
        raise InputError(
            f'{path}: not a datalist: it needs {{"training": [{{"image": ..., "label": ...}}]}}, '
            "also with the keys validation and test"
        )
    cases = tuple(case for key, entries in lists.items() for case in _entries(path, key, entries, labels))
    return Found(cases, tuple(_datalist_notes(path, lists)))


def _entries(path: Path, key: str, entries: list[Any], labels: LabelMap | None) -> Iterator[CaseSource]:
    for number, entry in enumerate(entries):
        if isinstance(entry, str):
            continue  # an image without label, as the test lists of the Medical Segmentation Decathlon have them
        where = f"{path}: {key}[{number}]"
        image, label = (entry.get(name) if isinstance(entry, dict) else None for name in ("image", "label"))
        if not isinstance(image, str) or not isinstance(label, str):
            raise InputError(f"{where}: needs one path as image and one as label, found {json.dumps(entry)[:200]}")
        file = path.parent / image
        case_id = str(entry.get("case_id") or _file_case_id(file))
        try:
            yield _image_and_mask(case_id, file, path.parent / label, labels, DATALIST_SPLITS[key])
        except InputError as error:
            raise InputError(f"{where}: {error}") from error


def _datalist_notes(path: Path, lists: Mapping[str, list[Any]]) -> Iterator[str]:
    unlabelled = sum(isinstance(entry, str) for entries in lists.values() for entry in entries)
    if unlabelled:
        yield f"{path.name}: left out {unlabelled} images without a label"
    splits = {DATALIST_SPLITS[key] for key, entries in lists.items() if entries}
    if splits == {"train"}:
        yield f"{path.name}: all its cases are listed as training, so they go into the split train"


def _images(folder: Path) -> list[Path]:
    """What could be the CT of a case folder."""
    named = (folder / f"{name}{ending}" for name in IMAGE_NAMES for ending in ENDINGS)
    files = [file for file in named if file.is_file()]
    return files + ([folder / DICOM_FOLDER] if (folder / DICOM_FOLDER).is_dir() else [])


def _niftis(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name.lower().endswith(ENDINGS) and not p.name.startswith("."))


def _class_of(mask: Path) -> int | None:
    """Class id of a mask by its file name: 0 for a structure that has no class, None for an unknown name."""
    for name in (_stem(mask), _stem(mask).lower()):
        class_id = class_of_structure(name)
        if class_id is not None:
            return class_id
    return None


def _file_case_id(image: Path) -> str:
    """The file's stem; the folder's name for files called as in case folders, and for DICOM folders."""
    if _stem(image) in IMAGE_NAMES or image.name == DICOM_FOLDER:
        return image.resolve().parent.name
    return _stem(image)


def _stem(path: Path) -> str:
    ending = next((e for e in ENDINGS if path.name.lower().endswith(e)), "")
    return path.name[: len(path.name) - len(ending)]


def _listing(folder: Path) -> str:
    names = sorted(p.name for p in folder.iterdir())
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"
