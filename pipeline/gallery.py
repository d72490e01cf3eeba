"""A page of pictures: every kind of tumor and look-alike, in every contrast phase there is, beside the healthy CT.

In: a bank, or the built-in phantom. Out: DIR/gallery.md and DIR/gallery/*.png.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pipeline.bank import Bank, create_or_open_bank, open_bank
from pipeline.errors import InputError
from pipeline.files import writing_to
from pipeline.gallery_content import CONTRAST, EFFECTS, GROWTH, LOOK, PART, Effect, sizes_mm
from pipeline.organs import TUMOR_ORGANS
from pipeline.phantom import PHASES, make_phantom
from pipeline.presets import preset_of
from pipeline.preview import Preview, Wish, describe_frame, extent_mm, field_of_view, make_preview

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.figures import Panel, View

SPACING_MM = 1.5
_SHAPE = (216, 176, 132)  # 324 x 264 x 198 mm: liver dome to lower kidney poles
_PATIENT = 1  # seed of the phantom

_WHOLE = 0.85  # of the wanted diameter, which the organ's surface may have cut
_SEEDS = 24  # tried for a tumor that is whole and typical, or that has the part that a picture shows
_SAME_PLACE_VOXELS = 2.0
_PARTS = 6  # tumors with a part, of which the one that it changes most is shown
_FIELD_MM, _FIELD_EXTENTS = 60.0, 1.7  # that panels show: at least, and in extents of the largest tumor
_PANEL_INCHES, _SERIES_DPI = 1.05, 80


def gallery(out: Path, bank_path: Path | None, seed: int, log: Callable[[str], None]) -> list[Path]:
    """Write the page and its pictures into `out`; the files. `bank_path`: a bank, or a new folder for the phantoms."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    with _opened(bank_path, log) as bank, writing_to(out, "Choose another --out"):
        (out / "gallery").mkdir(parents=True, exist_ok=True)
        page = _Page(bank, out, str(bank_path or "bank"), seed, log)
        page.say(*_introduction(page))
        for organ in TUMOR_ORGANS:
            if all(organ in record.usable_organs for record in bank.records if record.case_id in page.cases.values()):
                _write_organ(page, organ)
        _write_effects(page)
        _write_growth(page)
        return page.finish()


@contextmanager
def _opened(path: Path | None, log: Callable[[str], None]) -> Iterator[Bank]:
    """The bank at a path; where there is none, one of phantoms, kept only where a path was given."""
    if path is None:
        with tempfile.TemporaryDirectory(prefix="phantumor-") as folder:
            yield make_phantom_bank(Path(folder) / "bank", log)
    elif path.exists():
        yield open_bank(path).healthy()
    else:
        log(f"{path} is no bank yet: it becomes one of phantoms")
        yield make_phantom_bank(path, log)


def make_phantom_bank(
    path: Path, log: Callable[[str], None], shape: tuple[int, int, int] = _SHAPE, spacing_mm: float = SPACING_MM
) -> Bank:
    """One phantom patient in every contrast phase, as a new bank."""
    from pipeline.case import build_case

    with create_or_open_bank(path, spacing_mm) as writer:
        for phase in PHASES:
            log(f"building a phantom, {_words(phase)} phase")
            made = make_phantom(_PATIENT, shape, spacing_mm, phase)
            case = build_case(f"phantom_{phase}", made.ct, made.organs, made.affine, spacing_mm)
            writer.add_case(replace(case, phase=phase))
    return open_bank(path)


def _is_ours(bank: Bank) -> bool:
    return {record.case_id for record in bank.records} == {f"phantom_{phase}" for phase in PHASES}


def _words(name: str) -> str:
    return name.replace("_", " ")


@dataclass
class _Page:
    """The page in the making."""

    bank: Bank
    out: Path
    bank_name: str
    seed: int
    log: Callable[[str], None]
    lines: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)

    @property
    def cases(self) -> dict[str, str]:
        """The first case of each phase, in the order of the phases."""
        first: dict[str, str] = {}
        for record in self.bank.records:
            first.setdefault(record.phase, record.case_id)
        return {phase: first[phase] for phase in (*PHASES, "unknown") if phase in first}

    @property
    def case(self) -> str:
        """Of the latest phase, the portal venous one where there is one."""
        return list(self.cases.values())[-1]

    def say(self, *lines: str) -> None:
        """Paragraphs."""
        self.lines += [part for line in lines for part in (line, "")]

    def picture(self, name: str, figure: Figure, text: str, wish: Wish, dpi: int = 150) -> None:
        """A picture with what it shows and a command that shows one of its tumors."""
        from pipeline.figures import save_small_png

        path = save_small_png(figure, self.out / "gallery" / f"{name}.png", dpi)
        self.files.append(path)
        self.log(f"wrote {path}")
        self.say(f"![{text}](gallery/{path.name})", f"`{_command(self.bank_name, name, wish)}`")

    def finish(self) -> list[Path]:
        """Write the page; all files."""
        page = self.out / "gallery.md"
        page.write_text("\n".join(self.lines).rstrip() + "\n", encoding="utf-8")
        return [*self.files, page]


def _introduction(page: _Page) -> list[str]:
    seed = f" --seed {page.seed}" if page.seed else ""
    if _is_ours(page.bank):
        patient = (
            f"The patient is the built-in phantom at {page.bank.spacing_mm:g} mm in three contrast phases. It is no "
            "stand-in for real CT: look at the tumors, not the organs. `--bank bank` keeps the phantoms, so that the "
            "commands below work."
        )
    else:
        patient = f"The cases are {', '.join(page.cases.values())}."
    return [
        "# Gallery",
        f"Made by `phantumor gallery --out DIR{seed}`. {patient}",
        "Axial slices with most tumor, window -160 to 240 HU, the patient's right on the left; healthy and with the "
        "tumor side by side, the label outlined in the last column. Diameters (volume-equivalent) and contrasts (mean "
        "of the label minus parenchyma around it) were measured in the finished images. Of the first "
        f"{_SEEDS} seeds, shown is the first that gives a whole tumor with the look that its kind is known for.",
    ]


def _command(bank: str, name: str, wish: Wish) -> str:
    words = ["phantumor", "preview", bank, "--organ", wish.organ]
    words += ["--case", wish.case_id] if wish.case_id else []
    words += ["--kind", wish.kind] if wish.kind else []
    words += ["--diameter-mm", f"{wish.diameter_mm:g}"] if wish.diameter_mm else []
    words += ["--engine", wish.engine] if wish.engine else []
    words += ["--series", str(wish.points), "--interval-days", f"{wish.interval_days:g}"] if wish.points > 1 else []
    words += ["--without", *wish.without] if wish.without else []
    return shlex.join([*words, "--seed", str(wish.seed), "--out", f"{name}.png"])


def _try(bank: Bank, wish: Wish) -> Preview | None:
    try:
        return make_preview(bank, wish)
    except InputError:  # of a size or kind for which this case has no room: the page leaves it out
        return None


def _found(page: _Page, wish: Wish, good: Callable[[Preview], bool]) -> tuple[Wish, Preview] | None:
    """The wish at the first seed that gives a good tumor, in the page's best case."""
    for seed in range(page.seed, page.seed + _SEEDS):
        tried = replace(wish, seed=seed, case_id=page.case)
        made = _try(page.bank, tried)
        if made is None:
            return None
        if good(made):
            return tried, made
    return None


def _is_whole(made: Preview) -> bool:
    tumor = made.frames[-1].tumors[0]
    return bool(tumor["diameter_mm"] >= _WHOLE * tumor["requested_diameter_mm"])


# ---- kinds ----


def _write_organ(page: _Page, organ: str) -> None:
    page.say(f"## {organ.capitalize()}")
    preset = preset_of(organ)
    for kind in preset.kinds:
        _write_kind(page, organ, kind)
    _write_look_alikes(page, organ, [kind for kind in preset.distractors if kind not in preset.kinds])


def _write_kind(page: _Page, organ: str, kind: str) -> None:
    """Rows: sizes. Columns: healthy and with tumor in each phase, and the label."""
    from pipeline.figures import sheet

    found = [one for size in sizes_mm(organ, kind) if (one := _typical(page, Wish(organ, kind, size)))]
    page.say(f"### {organ.capitalize()}: `{kind}`", LOOK.get((organ, kind), ""))
    if not found:
        page.say("Does not fit this case.")
        return
    field_mm = _field_mm([made for _, phases in found for made in phases.values()])
    rows = [_phase_row(phases, field_mm) for _, phases in found]
    figure = sheet(rows, "", page.bank.spacing_mm, inches=_PANEL_INCHES)
    page.picture(f"{organ}_{kind}", figure, f"{organ} {kind} by size and contrast phase", found[-1][0])
    page.say("\n".join(_facts_table([phases for _, phases in found])))


def _typical(page: _Page, wish: Wish) -> tuple[Wish, dict[str, Preview]] | None:
    """The wish at the first seed that meets all rules, or else most of them, in every phase in which it fits."""
    best: tuple[int, Wish, dict[str, Preview]] | None = None
    for seed in range(page.seed, page.seed + _SEEDS):
        tried = replace(wish, seed=seed, case_id=page.case)
        made = {phase: _try(page.bank, replace(tried, case_id=case)) for phase, case in page.cases.items()}
        phases = {phase: one for phase, one in made.items() if one is not None}
        if not phases:
            return None
        rules = _rules(wish, phases)
        if best is None or sum(rules) > best[0]:
            best = sum(rules), tried, phases
        if all(rules):
            break
    return None if best is None else best[1:]


def _rules(wish: Wish, phases: Mapping[str, Preview]) -> list[bool]:
    """Whole, at one place in all phases, and of the contrast that the kind is known for."""
    centers = np.array([made.lesion.center_vox for made in phases.values()])
    phase, low, high = CONTRAST.get((wish.organ, str(wish.kind)), ("", 0.0, 0.0))
    contrast = phases[phase].frames[-1].tumors[0]["contrast_hu"] if phase in phases else (low + high) / 2
    part = PART.get((wish.organ, str(wish.kind)))
    return [
        all(map(_is_whole, phases.values())),
        float(np.ptp(centers, axis=0).max()) < _SAME_PLACE_VOXELS,
        low <= contrast <= high,
        part is None or all(getattr(made.lesion, part) is not None for made in phases.values()),
    ]


def _field_mm(previews: Sequence[Preview]) -> float:
    return max(_FIELD_MM, _FIELD_EXTENTS * max(extent_mm(made) for made in previews))


def _phase_row(phases: Mapping[str, Preview], field_mm: float) -> list[Panel]:
    from pipeline.figures import before_after_row

    row = []
    for number, (phase, made) in enumerate(phases.items(), 1):
        tumor = made.frames[-1].tumors[0]
        healthy, after, label = before_after_row(*_views(made, field_mm), "axial")
        row += [
            replace(healthy, title=f"{_words(phase)}, healthy"),
            replace(after, title=f"{tumor['diameter_mm']:.0f} mm, {tumor['contrast_hu']:+.0f} HU"),
        ]
        row += [label] if number == len(phases) else []
    return row


def _views(
    made: Preview, field_mm: float
) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """Healthy, with tumor, label: what a picture of `field_mm` shows."""
    view, last = field_of_view(made, field_mm), made.frames[-1]
    return made.healthy[view], last.image[view], last.label[view]


def _facts_table(rows: Sequence[Mapping[str, Preview]]) -> list[str]:
    names = list(rows[-1])
    lines = [f"| wanted | {' | '.join(map(_words, names))} |", "|---" * (len(names) + 1) + "|"]
    for phases in rows:
        cells = [_fact(phases[name]) if name in phases else "" for name in names]
        wanted = next(iter(phases.values())).lesion.diameter_mm
        lines.append(f"| {wanted:g} mm | {' | '.join(cells)} |")
    return lines


def _fact(made: Preview) -> str:
    tumor = made.frames[-1].tumors[0]
    return f"{tumor['diameter_mm']:.1f} mm, {tumor['contrast_hu']:+.0f} HU"


def _write_look_alikes(page: _Page, organ: str, kinds: Sequence[str]) -> None:
    """Rows: kinds. Columns: healthy, with look-alike, label, axial and coronal."""
    from pipeline.figures import before_after_row, sheet

    found = [one for kind in kinds if (one := _found(page, Wish(organ, kind), lambda _: True))]
    if not found:
        return
    field_mm, rows = _field_mm([made for _, made in found]), []
    for wish, made in found:
        shown = made.frames[-1].shown[field_of_view(made, field_mm)]
        views = _views(made, field_mm)
        row = [p for v in _BOTH for p in before_after_row(*views, v, shown)]
        row[1] = replace(row[1], title=f"{_words(str(wish.kind))}\n{_fact(made)}")
        rows.append(row)
    page.say(f"### {organ.capitalize()}: look-alikes", "Labelled as organ or background, with `--distractor-share`.")
    figure = sheet(rows, "", page.bank.spacing_mm, inches=_PANEL_INCHES)
    page.picture(f"{organ}_look_alikes", figure, f"{organ} look-alikes: {', '.join(kinds)}", found[0][0])


# ---- parts, forms, growth ----

_BOTH: tuple[View, ...] = ("axial", "coronal")


def _write_effects(page: _Page) -> None:
    page.say("## Parts", "The same tumor without one part (`--without`), and with it; axial and coronal.")
    for effect in EFFECTS:
        if (found := _most_changed(page, effect)) is None:
            continue
        wish, made, without = found
        figure = _pair_figure(made, without, effect.field_mm, page.bank.spacing_mm)
        text = f"{_words(effect.part)}, {wish.organ} {wish.kind}"
        page.say(f"### {_words(effect.part).capitalize()} ({wish.organ} {wish.kind})")
        page.picture(f"part_{effect.part}", figure, text, wish)


def _most_changed(page: _Page, effect: Effect) -> tuple[Wish, Preview, Preview] | None:
    """Of some tumors with the part, the one that it changes most: without the part, the same tumor is where it is."""
    pairs = []
    for seed in range(page.seed, page.seed + _SEEDS):
        wish = replace(effect.wish, seed=seed, case_id=page.case)
        made = _try(page.bank, wish)
        if made is None or getattr(made.lesion, effect.part, True) is None:
            continue
        without = _try(page.bank, replace(wish, without=(effect.part,)))
        if without is not None and without.lesion.center_vox == made.lesion.center_vox:
            pairs.append((float(_change(made, without).mean()), wish, made, without))
        if len(pairs) == _PARTS:
            break
    return max(pairs, key=lambda pair: pair[0])[1:] if pairs else None


def _change(made: Preview, without: Preview) -> npt.NDArray[np.float64]:
    """HU that a part changes in the labelled organ, in either direction."""
    (one,), (other,) = made.frames, without.frames
    return np.abs(one.image.astype(float) - other.image) * (one.label > 0)


def _pair_figure(made: Preview, without: Preview, field_mm: float, spacing_mm: float) -> Figure:
    """Without and with a part, in the slices through the tumor that it changes most, and outlined."""
    from pipeline.figures import Panel, sheet

    view = field_of_view(made, field_mm)
    changed, shown, last = _change(made, without)[view], made.frames[-1].shown[view], made.frames[-1].label[view]
    row = []
    for name, axis in zip(_BOTH, (2, 1), strict=True):
        others = tuple(a for a in range(3) if a != axis)
        area = shown.sum(axis=others)
        cut = int(np.where(area >= area.max() / 2, changed.sum(axis=others), -1).argmax())
        for title, of in ((f"{name}, without", without), ("with", made)):
            row.append(Panel(title, np.take(of.frames[-1].image[view], cut, axis), None, name))
    row.append(replace(row[-1], title="label", label=np.take(last, cut, axis), filled=False))
    return sheet([row], "", spacing_mm, inches=1.5 * _PANEL_INCHES)


def _write_growth(page: _Page) -> None:
    from pipeline.figures import series_figure

    page.say("## Growth", "`--engine growth`: one lesion at several times; earlier ones lie inside later ones.")
    for wish in GROWTH:
        if (found := _found(page, wish, _is_whole)) is None:
            continue
        chosen, made = found
        view = field_of_view(made)
        center = [c - s.start for c, s in zip(made.center_vox, view, strict=True)]
        times = [(describe_frame(f).replace(": ", "\n", 1), f.image[view], f.label[view]) for f in made.frames]
        figure = series_figure(times, center, made.spacing_mm, f"{wish.organ} {wish.kind}")
        page.picture(f"growth_{wish.organ}", figure, f"{wish.kind} over time", chosen, _SERIES_DPI)
        page.say("\n".join(f"- {describe_frame(frame)}" for frame in made.frames))
