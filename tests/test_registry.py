"""The registry holds every engine file, and says what a module lacks to be an engine."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from pydantic import create_model

from pipeline.engine_names import engine_names, solid_engines
from pipeline.synthesis.engines import registry
from pipeline.synthesis.engines._form import EngineForm
from tests.tumors import ellipsoid, tumor

PARTS = ("Form", "draw_form", "extent_mm", "reach_mm", "is_coarse", "depth_mm")


def test_it_holds_the_engines_and_no_helper() -> None:
    assert tuple(registry.ENGINES) == engine_names() == ("ellipsoid", "growth", "wall")
    assert tuple(registry.SOLID_ENGINES) == solid_engines()
    for name, engine in registry.ENGINES.items():
        assert engine.Form.model_fields["engine"].default == name


def test_a_tumor_is_answered_for_by_its_own_engine() -> None:
    long = tumor(form=ellipsoid(30.0, 10.0, 10.0))
    assert registry.engine_of(long) is registry.ENGINES["ellipsoid"]
    assert registry.reach_mm(long) == registry.ENGINES["ellipsoid"].reach_mm(long) > 30
    assert registry.is_coarse(long, 1.0)
    assert not registry.is_coarse(long, 3.0)


def toy(name: str, called: str, without: str | None = None) -> None:
    """A module beside the engines, as an import would leave it."""
    module = ModuleType(f"pipeline.synthesis.engines.{name}")
    module.__file__ = f"engines/{name}.py"
    for part in PARTS[1:]:
        setattr(module, part, lambda *_: None)
    module.Form = create_model("ToyForm", __base__=EngineForm, engine=(str, called))  # type: ignore[attr-defined]
    if without:
        delattr(module, without)
    sys.modules[module.__name__] = module


@pytest.mark.parametrize("part", PARTS)
def test_a_module_that_lacks_something_is_named_with_it(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.synthesis.engines.toy", ModuleType("placeholder"))
    toy("toy", "toy", without=part)
    with pytest.raises(TypeError, match=rf"'toy' .*toy\.py.* has no {part}; see docs"):
        registry._load("toy")


def test_a_record_must_bear_the_name_of_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipeline.synthesis.engines.toy", ModuleType("placeholder"))
    toy("toy", "ball")
    with pytest.raises(TypeError, match=r"'toy' .* calls itself 'ball'"):
        registry._load("toy")
    toy("toy", "toy")
    assert registry._load("toy") is sys.modules["pipeline.synthesis.engines.toy"]
