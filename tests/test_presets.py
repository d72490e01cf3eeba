"""Presets: well-formed kinds, distributions that match their sources, and a source or a reason beside every number."""

from __future__ import annotations

import io
import itertools
import math
import re
import tokenize
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from statistics import NormalDist
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from scipy.ndimage import gaussian_filter

import pipeline.presets
from pipeline.errors import InputError
from pipeline.organs import TUMOR_ORGANS
from pipeline.presets import (
    PRESET_SETS,
    Absolute,
    BySize,
    Distribution,
    Ellipsoidal,
    LogNormal,
    LogUniform,
    Mixture,
    Normal,
    OrganPreset,
    Phase,
    Relative,
    TumorKind,
    Uniform,
    preset_of,
)
from pipeline.presets.distributions import SMALL_FIRST

Values = npt.NDArray[np.float64]
PHASES = get_args(Phase)
PRESETS = {organ: preset_of(organ) for organ in TUMOR_ORGANS} | {"seed-paper": preset_of("liver", "seed-paper")}
KINDS = [
    (f"{name}/{kind}", preset, record) for name, preset in PRESETS.items() for kind, record in preset.kinds.items()
]
DISTRACTORS = [
    (f"{name}/{kind} (distractor)", preset, record)
    for name, preset in PRESETS.items()
    for kind, record in preset.distractors.items()
]
each_preset = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
each_kind = pytest.mark.parametrize(
    ("preset", "kind"), [case[1:] for case in KINDS + DISTRACTORS], ids=[case[0] for case in KINDS + DISTRACTORS]
)


def ends(d: Distribution) -> tuple[float, float]:
    if isinstance(d, Mixture):
        parts = [ends(part) for _, part in d.parts]
        return min(low for low, _ in parts), max(high for _, high in parts)
    return d.low, d.high


def mean(d: Distribution) -> float:
    """The mean after cutting, from 2000 equally likely values."""
    if isinstance(d, Mixture):
        return sum(w * mean(part) for w, part in d.parts) / sum(w for w, _ in d.parts)
    return float(np.mean(quantiles(d)))


def quantiles(d: Distribution) -> Values:
    p = (np.arange(2000) + 0.5) / 2000
    if isinstance(d, Uniform):
        return d.low + p * (d.high - d.low)
    if isinstance(d, LogUniform):
        return d.low * (d.high / d.low) ** p
    if isinstance(d, Normal):
        return cut(NormalDist(d.mean, d.sd), d.low, d.high, p)
    assert isinstance(d, LogNormal)
    values: Values = np.exp(cut(NormalDist(d.mu, d.sigma), math.log(d.low), math.log(d.high), p))
    return values


def cut(normal: NormalDist, low: float, high: float, p: Values) -> Values:
    a, b = normal.cdf(low), normal.cdf(high)
    return np.array([normal.inv_cdf(a + q * (b - a)) for q in p])


def level(kind: TumorKind, phase: Phase) -> Relative | Absolute:
    return kind.level if isinstance(kind.level, Relative | Absolute) else kind.level[phase]


def hu(kind: TumorKind, phase: Phase = "portal_venous") -> float:
    return mean(level(kind, phase).hu)


def records(value: object) -> Iterator[tuple[str, object]]:
    """Every (field name, value) below a record, depth first."""
    if not is_dataclass(value):
        return
    for field in fields(value):
        inner = getattr(value, field.name)
        yield field.name, inner
        for item in inner.values() if isinstance(inner, dict) else (inner,):
            yield from records(item)


def distributions(value: object) -> Iterator[tuple[str, Distribution]]:
    return ((name, inner) for name, inner in records(value) if isinstance(inner, Distribution))


# ---- well-formed ----


@each_preset
def test_weights_name_kinds_and_can_be_drawn(preset: OrganPreset) -> None:
    assert set(preset.weights) == set(preset.kinds)
    assert min(preset.weights.values()) >= 0 < sum(preset.weights.values())
    assert set(preset.distractor_weights) == set(preset.distractors)
    assert all(weight > 0 for weight in preset.distractor_weights.values())
    assert min(preset.count.weights) >= 1
    assert sum(preset.count.weights.values()) == pytest.approx(1.0)


@each_preset
def test_no_look_alike_is_also_a_tumor_by_default(preset: OrganPreset) -> None:
    drawn = {kind for kind, weight in preset.weights.items() if weight > 0}
    assert not drawn & set(preset.distractors)


@each_preset
def test_regions_cover_the_organ_in_order(preset: OrganPreset) -> None:
    spans = list(preset.regions.values())
    assert all(low < high for low, high in spans)
    if spans:
        assert spans[0][0] == 0
        assert spans[-1][1] == 1
        assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))


@each_preset
def test_mixes_hold_known_kinds(preset: OrganPreset) -> None:
    for mix in preset.mixes:
        assert mix.weight > 0
        assert set(mix.counts) <= set(preset.kinds)
        assert all(0 < low <= high for low, high in mix.counts.values())


@each_kind
def test_every_distribution_is_drawable(preset: OrganPreset, kind: TumorKind) -> None:
    for name, d in distributions(kind):
        leaves = [part for _, part in d.parts] if isinstance(d, Mixture) else [d]
        for leaf in leaves:
            assert not isinstance(leaf, Mixture), f"{name}: mixtures are not nested"
            assert leaf.low <= leaf.high, name
            if isinstance(leaf, LogUniform | LogNormal):
                assert leaf.low > 0, name
            if isinstance(leaf, Normal):
                assert leaf.sd > 0, name
                assert leaf.low < leaf.mean < leaf.high, name
            if isinstance(leaf, LogNormal):
                assert leaf.sigma > 0, name
                assert leaf.low < math.exp(leaf.mu) < leaf.high, name
        if isinstance(d, Mixture):
            assert sum(weight for weight, _ in d.parts) == pytest.approx(1.0), name


@each_kind
def test_sizes_and_shares_are_possible(preset: OrganPreset, kind: TumorKind) -> None:
    positive = {"diameter_mm", "edge_mm", "texture_grain_mm", "axis_ratio", "slimness", "mm", "spacing_mm", "duct_mm"}
    shares = {"size", "density", "strength", "atrophy", "around", "inward", "share", "nodular"}
    for name, value in records(kind):
        if isinstance(value, BySize):
            assert value.middle_mm > 0
            assert value.width_mm > 0
            assert 0 < value.cap <= 1
        elif isinstance(value, Distribution):
            low, high = ends(value)
            assert name not in positive or low > 0, name
            assert name not in shares or 0 <= low <= high <= 1, name
            assert name not in {"lobulation", "deformation", "roughness", "texture_sd_hu"} or low >= 0, name
        elif name in shares:
            assert isinstance(value, float), name
            assert 0 <= value <= 1, name
    assert kind.place.vessel_clearance >= 0


@each_kind
def test_every_phase_has_a_level_in_the_range_of_ct(preset: OrganPreset, kind: TumorKind) -> None:
    for phase in PHASES:
        low, high = ends(level(kind, phase).hu)
        assert -150 <= low <= high <= 120
    assert isinstance(kind.level, Relative | Absolute) or set(kind.level) == set(PHASES)


@each_kind
def test_places_exist(preset: OrganPreset, kind: TumorKind) -> None:
    assert set(kind.place.regions or {}) <= set(preset.regions)
    assert kind.place.regions is None or sum(kind.place.regions.values()) == pytest.approx(1.0)
    if kind.place.exophytic is not None:
        assert kind.place.exophytic.base >= 0
        assert kind.place.exophytic.sd > 0


# ---- against the sources ----


@pytest.mark.parametrize(
    ("organ", "kind", "median_mm"),
    [
        ("liver", "metastasis", 12.8),  # measured masks
        ("liver", "hcc", 58.2 * 0.47 ** (1 / 3)),  # longest diameter by the share of its ball that is filled
        ("liver", "icc", 64.1 * 0.39 ** (1 / 3)),
        ("kidney", "clear_cell", 42.7 * 0.863),  # radiographic by equivalent diameter
        ("kidney", "papillary", 34.4 * 0.863),
        ("kidney", "oncocytoma", 32.8 * 0.863),
        ("kidney", "cyst", 11.2),
        ("pancreas", "pdac", 29.0),
        ("pancreas", "pnet", 18.0),
    ],
)
def test_half_the_diameters_are_clinical_half_small(organ: str, kind: str, median_mm: float) -> None:
    diameter = preset_of(organ).kinds[kind].diameter_mm
    assert isinstance(diameter, Mixture)
    (half, clinical), (other, small) = diameter.parts
    assert (half, other, small) == (0.5, 0.5, SMALL_FIRST)
    assert isinstance(clinical, LogNormal)
    assert math.exp(clinical.mu) == pytest.approx(median_mm, rel=0.01)


@pytest.mark.parametrize(
    ("organ", "kind", "phase", "expected", "within"),
    [
        ("liver", "metastasis", "portal_venous", -42, 1),
        ("liver", "cyst", "native", 10, 0.1),
        ("kidney", "papillary", "arterial", 66 - 150, 1),
        ("kidney", "papillary", "portal_venous", 68 - 170, 1),
        ("kidney", "angiomyolipoma", "native", -50, 0.1),
        ("pancreas", "pdac", "arterial", -0.89 * 74.8, 3),
        ("pancreas", "pdac", "portal_venous", -0.86 * 40.5, 3),
        ("pancreas", "cyst", "arterial", 10, 0.1),
        ("colon", "annular", "portal_venous", 0, 0.1),
    ],
)
def test_mean_levels_are_those_of_the_sources(
    organ: str, kind: str, phase: Phase, expected: float, within: float
) -> None:
    assert hu(preset_of(organ).kinds[kind], phase) == pytest.approx(expected, abs=within)


def test_phases_show_what_radiologists_know() -> None:
    liver, kidney, pancreas = (preset_of(organ).kinds for organ in ("liver", "kidney", "pancreas"))
    assert hu(liver["hcc"], "arterial") > 0 > hu(liver["hcc"])  # enhancement, then washout
    assert hu(liver["metastasis"]) < hu(liver["metastasis"], "arterial") < hu(liver["metastasis"], "native") < 0
    assert hu(liver["hemangioma"], "native") < hu(liver["hemangioma"], "arterial") < hu(liver["hemangioma"])
    assert hu(kidney["papillary"]) < hu(kidney["chromophobe"]) < hu(kidney["oncocytoma"]) < hu(kidney["clear_cell"]) < 0
    assert hu(pancreas["pdac"], "arterial") < hu(pancreas["pdac"]) < hu(pancreas["pdac"], "native") < 0
    assert hu(pancreas["pnet"], "arterial") > hu(pancreas["pnet"]) > 0


@pytest.mark.parametrize(
    ("organ", "kind", "phase", "share"),
    [
        ("liver", "hcc", "arterial", 0.78),  # hypervascular
        ("kidney", "clear_cell", "arterial", 13 / 23),
        ("kidney", "oncocytoma", "arterial", 9 / 21),
        ("pancreas", "pnet", "arterial", 0.80),
    ],
)
def test_shares_of_hypervascular_tumors(organ: str, kind: str, phase: Phase, share: float) -> None:
    d = level(preset_of(organ).kinds[kind], phase).hu
    assert isinstance(d, Mixture)
    (bright, bright_hu), (_, dark_hu) = d.parts
    assert bright == pytest.approx(share, abs=0.01)
    assert mean(bright_hu) > mean(dark_hu)


@pytest.mark.parametrize(("kind", "share"), [("icc", 0.34), ("hemangioma", 0.21), ("metastasis", 0.15), ("hcc", 0.06)])
def test_shares_of_lobulated_liver_tumors(kind: str, share: float) -> None:
    form = preset_of("liver").kinds[kind].form
    assert isinstance(form, Ellipsoidal)
    assert isinstance(form.lobulation, Mixture)
    (_, smooth), (lobulated, wavy) = form.lobulation.parts
    assert lobulated == share
    assert ends(smooth)[1] < ends(wavy)[0]


@pytest.mark.parametrize(("kind", "share"), [("hcc", 0.23), ("icc", 0.61), ("metastasis", 0.80), ("hemangioma", 0.83)])
def test_shares_of_rims(kind: str, share: float) -> None:
    rim = preset_of("liver").kinds[kind].rim
    assert rim is not None
    assert rim.share == share
    assert (rim.nodular > 0) == (kind == "hemangioma")


# KiTS by radiographic diameter: 0 below 2 cm, .09 at 2 to 4, .22 at 4 to 7, .6 above; 0.863 of it is equivalent
@pytest.mark.parametrize(("radiographic_mm", "share"), [(17, 0.0), (30, 0.09), (53, 0.22), (95, 0.6), (130, 0.6)])
def test_necrosis_of_kidney_tumors_grows_with_size(radiographic_mm: float, share: float) -> None:
    core = preset_of("kidney").kinds["clear_cell"].core
    assert core is not None
    assert isinstance(core.share, BySize)
    by = core.share
    found = by.cap / (1 + math.exp(-(0.863 * radiographic_mm - by.middle_mm) / by.width_mm))
    assert found == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize(("diameter_mm", "share"), [(20, 0.35), (55, 0.47), (85, 0.65)])
def test_large_kidney_tumors_lie_outside(diameter_mm: float, share: float) -> None:
    for kind in preset_of("kidney").kinds.values():
        rule = kind.place.exophytic
        assert rule is not None
        assert rule.base + rule.per_mm * max(0.0, diameter_mm - rule.above_mm) == pytest.approx(share, abs=0.01)


def test_two_thirds_of_the_carcinomas_lie_in_the_head() -> None:
    regions = preset_of("pancreas").kinds["pdac"].place.regions
    assert regions is not None
    assert regions["head"] == pytest.approx(2 / 3, abs=0.001)


def test_only_stool_lies_in_the_lumen() -> None:
    inside = [name for name, _, kind in KINDS + DISTRACTORS if kind.place.lumen]
    assert inside == ["colon/stool (distractor)"]


def test_look_alikes_let_vessels_run_through_where_blood_flow_alone_differs() -> None:
    for organ, name in [("liver", "perfusion_difference"), ("kidney", "perfusion_defect")]:
        kind = preset_of(organ).distractors[name]
        assert kind.base == "donor"
        assert kind.mass_effect is None
        assert hu(kind, "native") == 0 != hu(kind, "arterial")


# ---- the reference training generator ----

RADII = {"tiny": 4.0, "small": 8.0, "medium": 16.0, "large": 32.0}


@pytest.mark.parametrize(("name", "radius"), RADII.items())
def test_seed_paper_diameters_are_those_of_its_ellipsoids(name: str, radius: float) -> None:
    rng = np.random.default_rng(3)
    drawn = np.cbrt(rng.uniform(0.75, 1.25, (20000, 3)).prod(1)) * 2 * radius
    ours = quantiles(PRESETS["seed-paper"].kinds[name].diameter_mm)
    for q in (5, 50, 95):
        assert np.percentile(ours, q) == pytest.approx(np.percentile(drawn, q), rel=0.01)
    assert ours.mean() == pytest.approx(drawn.mean(), rel=0.003)


@pytest.mark.parametrize(("name", "radius"), list(RADII.items())[:2])
def test_seed_paper_contrast_is_the_mean_over_the_hard_mask(name: str, radius: float) -> None:
    rng = np.random.default_rng(5)
    found = [mean_drop(radius * rng.uniform(0.75, 1.25, 3), rng.uniform(1, 2), rng) for _ in range(60)]
    assert hu(PRESETS["seed-paper"].kinds[name]) == pytest.approx(np.mean(found), rel=0.08)


def mean_drop(half_axes: Values, blur: float, rng: np.random.Generator) -> float:
    ranges = [np.arange(-math.ceil(a) - 7, math.ceil(a) + 8) for a in half_axes]
    mask = sum((x / a) ** 2 for x, a in zip(np.meshgrid(*ranges, indexing="ij"), half_axes, strict=True)) <= 1
    soft = gaussian_filter(mask.astype(np.float32), blur)
    return -float(soft[mask].mean() * rng.uniform(0.5, 0.55) * rng.uniform(65, 145))


def test_seed_paper_edges_have_the_spread_of_its_blur() -> None:
    low, high = ends(PRESETS["seed-paper"].kinds["tiny"].edge_mm)
    t = (np.arange(1000) + 0.5) / 1000
    slope = 6 * t * (1 - t)  # of the smoothstep
    sd = math.sqrt((slope * (t - 0.5) ** 2).mean())
    assert (low * sd, high * sd) == pytest.approx((1.0, 2.0), rel=1e-3)


def test_seed_paper_has_the_five_mixes_and_nothing_else_on_top() -> None:
    preset = PRESETS["seed-paper"]
    assert [mix.weight for mix in preset.mixes] == [0.2] * 5
    assert preset.mixes[4].counts == {"tiny": (3, 10), "small": (5, 10), "medium": (2, 5), "large": (1, 3)}
    assert preset.whole_organ
    assert not preset.distractors
    for kind in preset.kinds.values():
        assert kind.base == "donor"
        assert kind.place.vessel_clearance == 0
        assert (kind.rim, kind.core, kind.septa, kind.mass_effect) == (None, None, None, None)


# ---- finding presets ----


@pytest.mark.parametrize("organ", TUMOR_ORGANS)
def test_every_tumor_organ_has_clinical_presets(organ: str) -> None:
    assert isinstance(preset_of(organ), OrganPreset)


@pytest.mark.parametrize(
    ("organ", "presets", "message"),
    [
        ("spleen", "clinical", "organs with presets: liver"),
        ("liver", "nice", "clinical, seed-paper"),
        ("kidney", "seed-paper", "has no kidney, only liver"),
    ],
)
def test_what_is_not_there_is_said(organ: str, presets: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        preset_of(organ, presets)
    assert "clinical" in PRESET_SETS


def test_an_organ_without_its_module_fails_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.presets, "TUMOR_ORGANS", (*TUMOR_ORGANS, "spleen"))
    assert preset_of("liver").kinds
    with pytest.raises(InputError, match=r"pipeline/presets/spleen\.py"):
        preset_of("spleen")


# ---- sources ----

FOLDER = Path(pipeline.presets.__file__).parent
SOURCES = [path for path in sorted(FOLDER.glob("*.py")) if path.stem not in ("__init__", "kinds")]
_TAG = re.compile(r"\[([^\]]+)\]")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_number_has_a_comment_beside_it(path: Path) -> None:
    assert undocumented(path.read_text()) == []


def undocumented(source: str) -> list[str]:
    """Lines with a number that has no comment: on its line, right above it, or at a bracket inside the kind's own."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    alone = {n for n in comments if source.splitlines()[n - 1].lstrip().startswith("#")}
    opened: list[int] = []
    missing: list[str] = []
    for token in tokens:
        if token.type == tokenize.OP and token.string in "([{":
            opened.append(token.start[0])
        elif token.type == tokenize.OP and token.string in ")]}":
            opened.pop()
        elif token.type == tokenize.NUMBER and opened:
            lines = [token.start[0], *opened[1:]] if len(opened) > 1 else [token.start[0], *opened]
            if not any(n in comments or n - 1 in alone for n in lines):
                missing.append(f"{token.start[0]}: {token.line.strip()}")
    return missing


def test_a_number_without_comment_is_found() -> None:
    assert undocumented("K = Kind(\n    a=Uniform(1.0, 2.0),\n)\n") == ["2: a=Uniform(1.0, 2.0),"] * 2
    assert undocumented("K = Kind(\n    a=Uniform(1.0, 2.0),  # (choice)\n    # [X]\n    b=3.0,\n)\n") == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_every_tag_is_a_source_of_the_docstring(path: Path) -> None:
    source = path.read_text()
    listed = set(re.findall(r"^  \[([^\]]+)\]", source, re.MULTILINE))
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    used = {
        tag.split(":")[0].strip()
        for token in tokens
        if token.type == tokenize.COMMENT
        for group in _TAG.findall(token.string)
        for tag in group.split(",")
    }
    assert used <= listed, used - listed
