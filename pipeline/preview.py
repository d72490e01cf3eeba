"""One case before and after: a picture, or NIfTI files, of a tumor as `generate` would make it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.bank import Bank, open_bank
from pipeline.case import AIR_HU
from pipeline.config import GenerateConfig, SplitShare, Tumors, TumorSettings
from pipeline.errors import InputError
from pipeline.files import writing_to
from pipeline.grid import crop, shifted_affine
from pipeline.measure import measure_sample
from pipeline.presets import preset_of
from pipeline.spec import SampleSpec, check_bank, draw_sample
from pipeline.synthesis import render

_EDGE_MM = 160.0  # of the picture, where the case is that large
_TRIES = 50  # draws until one holds a tumor: a large one does not fit every place


@dataclass(frozen=True)
class Preview:
    """A healthy patch, the same with tumors, its label, and the tumors' facts."""

    healthy: npt.NDArray[np.int16]
    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    spacing_mm: float
    affine: npt.NDArray[np.float64]
    title: str


def make_preview(
    bank: Bank, organ: str = "liver", kind: str | None = None, diameter_mm: float | None = None, seed: int = 0
) -> Preview:
    """Draw and render one sample with a tumor of the wanted organ, kind and diameter."""
    config = _config(bank, organ, kind, diameter_mm, seed)
    check_bank(bank, config)
    for index in range(_TRIES):
        spec = draw_sample(bank, config, index)
        case = bank.load(spec.case_id)
        rendered = render(case, spec)
        if rendered.instances:
            facts = measure_sample(case, spec, rendered)
            return Preview(
                healthy=crop(case.ct, spec.origin_vox, spec.patch_shape, AIR_HU),
                image=rendered.image,
                label=rendered.label,
                spacing_mm=case.spacing_mm,
                affine=shifted_affine(case.affine, spec.origin_vox),
                title=_title(spec, facts["tumors"]),
            )
    raise InputError(f"{bank.path}: no place for such a tumor was found in {_TRIES} tries; try a smaller --diameter-mm")


def _config(bank: Bank, organ: str, kind: str | None, diameter_mm: float | None, seed: int) -> GenerateConfig:
    tumor = TumorSettings(
        kinds={kind: 1.0} if kind else None,
        diameter_mm=(diameter_mm, diameter_mm) if diameter_mm else None,
        count=(1, 1) if diameter_mm or kind else None,
    )
    edge = max(16, round(_EDGE_MM / bank.spacing_mm))
    shapes = [record.shape for record in bank.records]
    x, y, z = (max(8, min(edge, *(shape[axis] for shape in shapes))) for axis in range(3))
    everywhere = SplitShare(train=1, val=1, test=1)
    preset_of(organ)  # names an unknown organ before it becomes a field below
    tumors = Tumors.model_validate({organ: tumor})
    return GenerateConfig(
        samples=_TRIES,
        seed=seed,
        patch_shape=(x, y, z),
        organs=(organ,),
        healthy_share=0,
        body_share=0,
        split_share=everywhere,
        tumors=tumors,
    )


def _title(spec: SampleSpec, tumors: Sequence[Mapping[str, Any]]) -> str:
    shown = "; ".join(f"{t['kind']} {_size(t)}, {t['contrast_hu']:+.0f} HU" for t in tumors)
    return f"{spec.case_id}, {spec.tumors[0].organ}: {shown}"


def _size(tumor: Mapping[str, Any]) -> str:
    """The measured diameter, and the asked one where the organ's surface cut the tumor."""
    measured, asked = tumor["diameter_mm"], tumor["requested_diameter_mm"]
    return f"{measured:.0f} mm" + (f" (of {asked:.0f}, cut by the organ)" if measured < 0.92 * asked else "")


def preview(
    bank_path: Path, out: Path, organ: str, kind: str | None, diameter_mm: float | None, seed: int
) -> list[Path]:
    """Write a preview as FILE.png, or as FILE.nii.gz with `_healthy` and `_label` beside it; the files written."""
    name = out.name
    if not name.endswith((".png", ".nii.gz", ".nii")):
        raise InputError(f"--out {out}: a preview is a .png picture or .nii.gz volumes")
    made = make_preview(open_bank(bank_path), organ, kind, diameter_mm, seed)
    with writing_to(out.parent, "Choose another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        return [_write_picture(made, out)] if name.endswith(".png") else _write_volumes(made, out)


def _write_picture(made: Preview, out: Path) -> Path:
    from pipeline.figures import before_after_figure, save_png

    return save_png(before_after_figure(made.healthy, made.image, made.label, made.spacing_mm, made.title), out)


def _write_volumes(made: Preview, out: Path) -> list[Path]:
    from pipeline.volume import write_nifti

    stem, _, ending = out.name.partition(".nii")
    written = []
    for suffix, array in (("", made.image), ("_healthy", made.healthy), ("_label", made.label)):
        path = out.with_name(f"{stem}{suffix}.nii{ending}")
        write_nifti(path, array, made.affine)
        written.append(path)
    return written
