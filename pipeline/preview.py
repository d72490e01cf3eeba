"""One case before and after: a picture, or NIfTI files, of a tumor (or look-alike) as `generate` would make it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.bank import Bank, open_bank
from pipeline.case import AIR_HU, Case
from pipeline.config import GenerateConfig, SeriesSettings, SplitShare, Tumors, TumorSettings
from pipeline.engine_names import EngineName, solid_engines
from pipeline.errors import InputError
from pipeline.files import writing_to
from pipeline.grid import Index3, crop, index3, shifted_affine
from pipeline.measure import measure_sample
from pipeline.presets import PresetSet, preset_of
from pipeline.spec import SampleSpec, TumorSpec, check_bank, draw_sample
from pipeline.store import Location
from pipeline.synthesis import Rendered, render

_EDGE_MM = 160.0  # of the patch, where the case is that large
_TRIES = 50  # draws until one holds a tumor: a large one does not fit every place
_LOOK_ALIKE_TRIES = 400  # draws until one holds the wanted kind: the rarest is one in seven
_CUT = 0.92  # of the asked diameter, below which the organ or the patch cut the tumor
_FIELD_MM, _FIELD_EXTENTS = 80.0, 3.0  # that a picture shows: at least, and in extents of the tumor


@dataclass(frozen=True)
class Wish:
    """What to show. None: as the presets draw it."""

    organ: str = "liver"
    kind: str | None = None  # of a tumor, or of a look-alike
    diameter_mm: float | None = None
    seed: int = 0
    case_id: str | None = None
    engine: EngineName | None = None  # None: ellipsoid, or growth for a series
    presets: PresetSet = "clinical"
    points: int = 1  # times that one lesion is shown at
    interval_days: float = 90.0
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.engine is not None and self.engine not in solid_engines():
            raise InputError(
                f"--engine {self.engine}: there is no such engine; choose from {', '.join(solid_engines())}"
            )
        if self.points > 1 and self.engine not in (None, "growth"):
            raise InputError("--series shows growth over time: leave --engine out, or give --engine growth")
        if self.diameter_mm is not None and self.is_look_alike:
            raise InputError(f"--diameter-mm: the size of {self.kind!r}, a look-alike, is drawn; leave it out")
        if self.points > 1 and self.is_look_alike:
            raise InputError(f"--series: {self.kind!r} is a look-alike, which does not grow; leave it out")

    @property
    def is_look_alike(self) -> bool:
        """Whether the kind is one that is not labelled as tumor; InputError for a kind that the organ does not have."""
        preset = preset_of(self.organ, self.presets)
        if self.kind is None or self.kind in preset.kinds:
            return False
        if self.kind not in preset.distractors:
            also = f"; look-alikes: {', '.join(preset.distractors)}" if preset.distractors else ""
            raise InputError(f"{self.organ} has no tumor kind {self.kind!r}; kinds: {', '.join(preset.kinds)}{also}")
        return True


@dataclass(frozen=True)
class Frame:
    """One point in time: image (HU), label (class ids), where the shown tumors are, and their measured facts."""

    image: npt.NDArray[np.int16]
    label: npt.NDArray[np.uint8]
    shown: npt.NDArray[np.bool_]  # voxels of tumors, or of the look-alike that `label` does not tell
    tumors: tuple[Mapping[str, Any], ...]
    day: float | None = None


@dataclass(frozen=True)
class Preview:
    """A healthy patch (X, Y, Z), the same with tumors at one or several times, and what to call it."""

    healthy: npt.NDArray[np.int16]
    frames: tuple[Frame, ...]  # the last one holds a tumor
    spec: SampleSpec  # of the last frame
    spacing_mm: float
    affine: npt.NDArray[np.float64]
    title: str

    @property
    def lesion(self) -> TumorSpec:
        """The first tumor, or the look-alike."""
        return (self.spec.tumors or self.spec.distractors)[0]

    @property
    def center_vox(self) -> Index3:
        """Of the lesion, in the patch."""
        inside = np.subtract(self.lesion.center_vox, self.spec.origin_vox)
        return index3(np.clip(np.rint(inside), 0, np.array(self.healthy.shape) - 1))


def make_preview(bank: Bank, wish: Wish) -> Preview:
    """Draw and render the first sample that holds what is wished for; for a series, all its times."""
    if wish.case_id is not None:
        bank.load(wish.case_id)  # names the cases there are
        bank = replace(bank, records=tuple(r for r in bank.records if r.case_id == wish.case_id))
    bank = bank.healthy()
    config = _config(bank, wish)
    check_bank(bank, config)
    for specs in _drawn(bank, config, wish):
        case = bank.load(specs[-1].case_id)
        last = _frame(case, specs[-1], wish)
        if last.tumors:
            frames = (*(_frame(case, spec, wish) for spec in specs[:-1]), last)
            return _preview(case, specs[-1], frames, wish)
    what = f"{wish.kind or wish.organ + ' tumor'}" + (f" of {wish.diameter_mm:g} mm" if wish.diameter_mm else "")
    raise InputError(f"{bank.path}: no place for a {what} was found; try another --seed, or a smaller --diameter-mm")


def _drawn(bank: Bank, config: GenerateConfig, wish: Wish) -> Iterator[list[SampleSpec]]:
    """Samples worth a look, each as its times."""
    for number in range(config.samples // wish.points):
        first = number * wish.points
        last = draw_sample(bank, config, first + wish.points - 1)
        if wish.is_look_alike:
            wanted = [d for d in last.distractors if d.kind == wish.kind][:1]
            if wanted:
                yield [last.model_copy(update={"distractors": tuple(wanted)})]
        elif last.tumors:
            yield [*(draw_sample(bank, config, first + k) for k in range(wish.points - 1)), last]


def _config(bank: Bank, wish: Wish) -> GenerateConfig:
    look_alike = wish.is_look_alike  # names an unknown organ before it becomes a field below
    tumor = TumorSettings(
        kinds={wish.kind: 1.0} if wish.kind and not look_alike else None,
        diameter_mm=(wish.diameter_mm, wish.diameter_mm) if wish.diameter_mm else None,
        count=(1, 1) if wish.diameter_mm or wish.kind or wish.points > 1 else None,
    )
    edge = max(16, round(_EDGE_MM / bank.spacing_mm))
    fitting = [record for record in bank.records if wish.organ in record.usable_organs] or bank.records
    x, y, z = (max(8, min(edge, *(record.shape[axis] for record in fitting))) for axis in range(3))
    return GenerateConfig(
        samples=(_LOOK_ALIKE_TRIES if look_alike else _TRIES) * wish.points,
        seed=wish.seed,
        patch_shape=(x, y, z),
        organs=(wish.organ,),
        healthy_share=1 if look_alike else 0,
        body_share=0,
        distractor_share=1 if look_alike else 0,
        split_share=SplitShare(train=1, val=1, test=1),
        presets=wish.presets,
        engine=wish.engine or ("growth" if wish.points > 1 else "ellipsoid"),
        series=SeriesSettings(points=wish.points, interval_days=wish.interval_days),
        without=wish.without,
        tumors=Tumors.model_validate({wish.organ: tumor}),
    )


def _frame(case: Case, spec: SampleSpec, wish: Wish) -> Frame:
    made = render(case, spec)
    if not wish.is_look_alike:
        return Frame(made.image, made.label, _shown(made), _facts(case, spec, made), spec.time_days)
    # The same sample with the look-alike as a tumor has the same image and says where it is.
    as_tumor = spec.model_copy(update={"tumors": spec.distractors, "distractors": ()})
    told = render(case, as_tumor)
    return Frame(made.image, made.label, _shown(told), _facts(case, as_tumor, told))


def _shown(made: Rendered) -> npt.NDArray[np.bool_]:
    shown = np.zeros(made.image.shape, bool)
    for instance in made.instances:
        shown[instance.box] |= instance.mask
    return shown


def _facts(case: Case, spec: SampleSpec, made: Rendered) -> tuple[Mapping[str, Any], ...]:
    return tuple(measure_sample(case, spec, made)["tumors"])


def _preview(case: Case, spec: SampleSpec, frames: tuple[Frame, ...], wish: Wish) -> Preview:
    return Preview(
        healthy=crop(case.ct, spec.origin_vox, spec.patch_shape, AIR_HU),
        frames=frames,
        spec=spec,
        spacing_mm=case.spacing_mm,
        affine=shifted_affine(case.affine, spec.origin_vox),
        title=_title(case, frames[-1], wish),
    )


def _title(case: Case, last: Frame, wish: Wish) -> str:
    shown = "; ".join(f"{t['kind']} {_size(t)}, {t['contrast_hu']:+.0f} HU" for t in last.tumors)
    note = ", a look-alike: labelled as organ or background" if wish.is_look_alike else ""
    return f"{case.case_id} ({case.phase.replace('_', ' ')}), {wish.organ}: {shown}{note}"


def _size(tumor: Mapping[str, Any]) -> str:
    """The measured diameter, and the asked one where the organ's surface cut the tumor."""
    measured, asked = tumor["diameter_mm"], tumor["requested_diameter_mm"]
    return f"{measured:.0f} mm" + (f" (of {asked:.0f}, cut by organ or patch)" if measured < _CUT * asked else "")


def describe_frame(frame: Frame) -> str:
    """A time point in words: `day 90: 12.3 mm, RECIST 14.0 x 11.2 mm`."""
    sizes = [
        f"{t['diameter_mm']:.1f} mm, RECIST {t['recist_long_mm']:.1f} x {t['recist_short_mm']:.1f} mm"
        for t in frame.tumors
    ]
    return f"day {frame.day or 0:.0f}: " + ("; ".join(sizes) or "too small to show")


def extent_mm(made: Preview) -> float:
    """Of the last frame's tumors, along the axis where they are longest."""
    return max(int(e[-1] - e[0] + 1) for e in _extent(made)) * made.spacing_mm


def field_of_view(made: Preview, field_mm: float | None = None) -> tuple[slice, slice, slice]:
    """The part of the patch that pictures show: around the last frame's tumors, cut at the patch."""
    extent = _extent(made)
    edge = round((field_mm or max(_FIELD_MM, _FIELD_EXTENTS * extent_mm(made))) / made.spacing_mm)
    starts = [
        min(max((int(e[0]) + int(e[-1]) + 1 - edge) // 2, 0), max(n - edge, 0))
        for e, n in zip(extent, made.healthy.shape, strict=True)
    ]
    x, y, z = (slice(start, start + edge) for start in starts)
    return x, y, z


def _extent(made: Preview) -> list[npt.NDArray[np.intp]]:
    """Positions along each axis that hold tumor."""
    return [np.flatnonzero(made.frames[-1].shown.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]


def preview(bank_path: Location, out: Path, wish: Wish) -> tuple[list[Path], list[str]]:
    """Write a preview: the files written, and for a series one line on each time.

    FILE.png is a picture. FILE.nii.gz gets FILE_healthy and FILE_label beside it; a series FILE_healthy, and for each
    time FILE_day000 and FILE_day000_label.
    """
    if not out.name.endswith((".png", ".nii.gz", ".nii")):
        raise InputError(f"--out {out}: a preview is a .png picture or .nii.gz volumes")
    made = make_preview(open_bank(bank_path), wish)
    with writing_to(out.parent, "Choose another --out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        files = [_write_picture(made, out)] if out.name.endswith(".png") else _write_volumes(made, out)
    return files, [describe_frame(frame) for frame in made.frames] if wish.points > 1 else []


def _write_picture(made: Preview, out: Path) -> Path:
    from pipeline.figures import before_after_figure, save_png, series_figure

    view = field_of_view(made)
    last = made.frames[-1]
    if len(made.frames) == 1:
        arrays = (made.healthy[view], last.image[view], last.label[view])
        figure = before_after_figure(*arrays, made.spacing_mm, made.title, last.shown[view])
    else:
        times = [(describe_frame(f).replace(": ", "\n", 1), f.image[view], f.label[view]) for f in made.frames]
        center = index3(c - s.start for c, s in zip(made.center_vox, view, strict=True))
        figure = series_figure(times, center, made.spacing_mm, made.title)
    return save_png(figure, out)


def _write_volumes(made: Preview, out: Path) -> list[Path]:
    from pipeline.volume import write_nifti

    names = [f"_day{frame.day or 0:03.0f}" if len(made.frames) > 1 else "" for frame in made.frames]
    volumes: dict[str, npt.NDArray[Any]] = {n: f.image for n, f in zip(names, made.frames, strict=True)}
    volumes["_healthy"] = made.healthy
    volumes |= {f"{n}_label": f.label for n, f in zip(names, made.frames, strict=True)}
    stem, _, ending = out.name.partition(".nii")
    written = []
    for suffix, array in volumes.items():
        path = out.with_name(f"{stem}{suffix}.nii{ending}")
        write_nifti(path, array, made.affine)
        written.append(path)
    return written
