"""One lesion at several times: the same draw, smaller the earlier."""

from __future__ import annotations

from pipeline.config import GenerateConfig
from pipeline.spec.distributions import whole
from pipeline.spec.limits import MIN_DIAMETER_VOXELS
from pipeline.spec.records import MassEffectSpec, SampleSpec, TumorSpec


def at_time(spec: SampleSpec, config: GenerateConfig, series: int, point: int, spacing_mm: float) -> SampleSpec:
    """The sample at a time point of its series; what was drawn is the last. Lesions too small to see are absent."""
    interval, points = config.series.interval_days, config.series.points
    before_last = (points - 1 - point) * interval
    tumors = [_earlier(tumor, before_last) for tumor in spec.tumors]
    visible = tuple(t for t in tumors if t.diameter_mm >= MIN_DIAMETER_VOXELS * spacing_mm)
    return spec.model_copy(update={"tumors": visible, "series_id": series, "time_days": point * interval})


def _earlier(tumor: TumorSpec, days: float) -> TumorSpec:
    """A tumor some days before it had its full size. Volume doubles in `doubling_days`; without them it is stable."""
    if tumor.doubling_days is None:
        return tumor
    factor = whole(2.0 ** (-days / tumor.doubling_days / 3))
    changes: dict[str, object] = {"diameter_mm": tumor.diameter_mm * factor}
    if tumor.mass_effect:
        reach = tumor.mass_effect.reach_mm * factor
        changes["mass_effect"] = MassEffectSpec(strength=tumor.mass_effect.strength, reach_mm=reach)
    if tumor.upstream:
        duct, atrophy = tumor.upstream.duct_mm * factor, tumor.upstream.atrophy_mm * factor
        changes["upstream"] = tumor.upstream.model_copy(update={"duct_mm": duct, "atrophy_mm": atrophy})
    return tumor.model_copy(update=changes)
