"""The names of the steps that can be left out."""

from __future__ import annotations

import pytest

from pipeline.errors import InputError
from pipeline.steps import PARTS, STEPS, switched_off


def test_parts_are_named_once_and_apart_from_steps() -> None:
    assert len(set(PARTS)) == len(PARTS)
    assert not set(PARTS) & set(STEPS)
    assert set(STEPS) == {"location", "shape", "texture", "effects"}


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ((), set()),
        (("rim",), {"rim"}),
        (("location",), {"vessels", "depth", "regions"}),
        (("texture", "core"), {"structure", "noise", "core"}),
        (("effects", "rim"), {"mass_effect", "rim", "core", "septa", "calcification", "upstream"}),
        (("rim", "rim"), {"rim"}),
        (tuple(STEPS), set(PARTS)),
    ],
)
def test_a_step_stands_for_its_parts(names: tuple[str, ...], parts: set[str]) -> None:
    assert switched_off(names) == parts


@pytest.mark.parametrize("name", ["rims", "", "Rim", "all", "mass-effect"])
def test_another_name_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(InputError, match="location, shape") as caught:
        switched_off(("rim", name))
    assert repr(name) in str(caught.value)
    assert "calcification" in str(caught.value)
