"""One lesion at several times: the same draw, smaller the earlier, whatever the order samples are drawn in."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.bank import Bank
from pipeline.config import GenerateConfig
from pipeline.spec import SampleSpec, TumorSpec, draw_sample
from pipeline.spec.limits import MIN_DIAMETER_VOXELS
from pipeline.spec.series import at_time
from pipeline.synthesis.engines.growth import GrowthForm
from tests.specs import config

POINTS, INTERVAL = 4, 60.0


def series_config(**changes: Any) -> GenerateConfig:
    kinds = {"liver": {"kinds": {"metastasis": 1, "cyst": 1}}}
    settings = {"engine": "growth", "series": {"points": POINTS, "interval_days": INTERVAL}, "tumors": kinds}
    return config(**(settings | changes))


@pytest.fixture(scope="module")
def specs(abdomens: Bank) -> list[SampleSpec]:
    return [draw_sample(abdomens, series_config(distractor_share=0.5), index) for index in range(POINTS * 25)]


def test_samples_of_a_series_say_so(specs: list[SampleSpec]) -> None:
    for index, spec in enumerate(specs):
        assert spec.index == index
        assert spec.series_id == index // POINTS
        assert spec.time_days == (index % POINTS) * INTERVAL


def test_a_series_is_one_patient_one_patch_and_its_look_alikes(specs: list[SampleSpec]) -> None:
    def place(spec: SampleSpec) -> dict[str, Any]:
        return spec.model_dump(exclude={"index", "tumors", "time_days"})

    series = [specs[start : start + POINTS] for start in range(0, len(specs), POINTS)]
    for samples in series:
        assert all(place(spec) == place(samples[0]) for spec in samples)
    assert len({str(place(samples[0])) for samples in series}) == len(series)
    assert any(samples[0].distractors for samples in series)


def lesions(specs: list[SampleSpec], series: int) -> dict[int, list[TumorSpec | None]]:
    """The lesions of a series by instance, at each time or None."""
    samples = specs[series * POINTS : (series + 1) * POINTS]
    found: dict[int, list[TumorSpec | None]] = {t.instance: [None] * POINTS for s in samples for t in s.tumors}
    for point, sample in enumerate(samples):
        for tumor in sample.tumors:
            found[tumor.instance][point] = tumor
    return found


def test_lesions_grow_by_their_doubling_time_and_change_in_nothing_else(specs: list[SampleSpec]) -> None:
    grown = stable = 0
    for series in range(25):
        for over_time in lesions(specs, series).values():
            for before, after in pairwise(over_time):
                if before is None or after is None:
                    continue
                size = {"diameter_mm", "mass_effect"}
                assert before.model_dump(exclude=size) == after.model_dump(exclude=size)
                if before.doubling_days is None:
                    stable += 1
                    assert before == after
                    continue
                grown += 1
                growth = (after.diameter_mm / before.diameter_mm) ** 3
                assert growth == pytest.approx(2 ** (INTERVAL / before.doubling_days), rel=1e-4)
                assert (before.mass_effect is None) == (after.mass_effect is None)
                if before.mass_effect and after.mass_effect:
                    ratio = after.mass_effect.reach_mm / before.mass_effect.reach_mm
                    assert ratio == pytest.approx(after.diameter_mm / before.diameter_mm)
                    assert after.mass_effect.strength == before.mass_effect.strength
    assert grown > 20
    assert stable > 10


def test_the_last_time_is_what_was_drawn(specs: list[SampleSpec]) -> None:
    for spec in specs[POINTS - 1 :: POINTS]:
        for tumor in spec.tumors:
            if isinstance(tumor.form, GrowthForm):
                assert tumor.diameter_mm == tumor.form.full_diameter_mm


def test_what_is_too_small_to_show_is_absent_and_appears_once(specs: list[SampleSpec]) -> None:
    late = 0
    for series in range(25):
        for over_time in lesions(specs, series).values():
            there = [tumor is not None for tumor in over_time]
            assert there == sorted(there)  # what has appeared stays
            late += not there[0]
            assert all(t.diameter_mm >= MIN_DIAMETER_VOXELS * 3.0 for t in over_time if t)
    assert late


def test_order_does_not_matter(abdomens: Bank, specs: list[SampleSpec]) -> None:
    settings = series_config(distractor_share=0.5)
    assert [draw_sample(abdomens, settings, i) for i in (9, 3, 0, 7)] == [specs[i] for i in (9, 3, 0, 7)]


def test_more_points_are_the_same_lesions(abdomens: Bank) -> None:
    """The last time point is the whole draw, so it depends on the series' number alone."""
    last = [draw_sample(abdomens, series_config(series={"points": n}), 3 * n - 1) for n in (1, 2, 5)]
    assert last[0].tumors == last[1].tumors == last[2].tumors
    assert last[0].series_id is None


def test_without_series_there_is_no_time(abdomens: Bank) -> None:
    spec = draw_sample(abdomens, config(engine="growth"), 3)
    assert (spec.series_id, spec.time_days) == (None, None)


def test_healthy_samples_have_their_time_as_well(abdomens: Bank) -> None:
    settings = series_config(healthy_share=1)
    found = [draw_sample(abdomens, settings, index) for index in range(POINTS)]
    assert [spec.time_days for spec in found] == [0, 60, 120, 180]
    assert not any(spec.tumors for spec in found)


@pytest.mark.parametrize(("point", "ratio"), [(0, 0.25), (1, 0.5), (2, 1.0)])
def test_the_law_of_growth(abdomens: Bank, point: int, ratio: float) -> None:
    settings = series_config(series={"points": 3, "interval_days": 90})
    spec = next(s for i in range(50) if (s := draw_sample(abdomens, config(engine="growth"), i)).tumors)
    fast = spec.tumors[0].model_copy(update={"doubling_days": 30.0, "diameter_mm": 40.0})  # three doublings in 90 days
    found = at_time(spec.model_copy(update={"tumors": (fast,)}), settings, 7, point, 3.0)
    assert [t.diameter_mm for t in found.tumors] == [pytest.approx(40 * ratio)]
    assert found.series_id == 7


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "ellipsoid"}, ["series.points", "growth"]),
        ({"organs": ["colon"]}, ["series.points", "colon", "wall"]),
        ({"organs": ["liver", "colon"]}, ["colon"]),
        ({"series": {"points": 0}}, ["points"]),
        ({"series": {"points": 2, "interval_days": 0}}, ["interval_days"]),
    ],
)
def test_series_that_make_no_sense_are_refused(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValidationError) as caught:
        series_config(**changes)
    assert all(word in str(caught.value) for word in words)
