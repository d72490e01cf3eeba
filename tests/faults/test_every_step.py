"""Commands that end, or whose disk fails, at every single change that they make to the file system."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from pipeline.config import GenerateConfig
from tests.faults.lab import TINY, Lab, assert_readable
from tests.faults.template import REACHED

GROWN = TINY.model_copy(update={"samples": 6})
QUICK = {"pauses_s": [0.01, 0.01]}  # between the tries of a shard
MOST = 400


def begun(lab: Lab, out: Path, config: GenerateConfig) -> Path:
    """What lies there before the command: nothing, or the dataset that shall grow."""
    before = lab.folder / f"before-{config.store}"
    if config.samples > TINY.samples:
        if not before.exists():
            lab.resume(before, config=config.model_copy(update={"samples": TINY.samples}))
        shutil.copytree(before, out)
    return out


def reference(lab: Lab, config: GenerateConfig) -> Path:
    out = lab.folder / f"whole-{config.store}-{config.samples}"
    if not out.exists():
        begun(lab, out, config)
        lab.resume(out, config=config)
    return out


def hurt_at(lab: Lab, out: Path, config: GenerateConfig, what: str, step: int) -> Counter[int]:
    """Hurt the command at its first changes and then at every `step`-th; how often it ended with which code.

    The same command follows. Between the two a reader sees nothing wrong; after both, nothing is different.
    """
    wanted, codes = reference(lab, config), Counter[int]()
    for done, at in enumerate([*range(1, 5), *range(5, MOST, step)]):
        place = begun(lab, out.with_name(f"{out.name}-{at}"), config)
        run = lab.generate(place, config=config, disk=[str(place), at, what], policy=QUICK)
        if run.wait() == REACHED:
            print(f"\n{what} at {done} of about {at - 1} changes: exit codes {dict(codes)}")
            return codes
        codes[run.wait()] += 1
        check_message(run.wait(), run.said())
        assert_readable(place, wanted)
        lab.resume(place, config=config)
        lab.assert_recovered(place, config, wanted)
        shutil.rmtree(place)
    raise AssertionError(f"the command makes fewer than {MOST} changes")


def check_message(code: int, said: str) -> None:
    assert "Traceback" not in said, said
    told = [line for line in said.splitlines() if line.startswith("phantumor: ")]
    assert len(told) == (1 if code > 0 else 0), said


def cases(quick: int) -> list[object]:
    """(settings, every how many changes): some always, all with `-m soak`."""
    recipe = TINY.model_copy(update={"store": "recipe"})
    return [
        pytest.param(TINY, quick, id="new"),
        pytest.param(GROWN, quick, id="growing"),
        *(pytest.param(config, 1, id=name, marks=pytest.mark.soak) for name, config in (("every-new", TINY),)),
        pytest.param(GROWN, 1, id="every-growing", marks=pytest.mark.soak),
        pytest.param(recipe, 1, id="every-recipe", marks=pytest.mark.soak),
    ]


@pytest.mark.parametrize(("config", "step"), cases(9))
def test_killed_at_any_step_the_same_command_goes_on(lab: Lab, out: Path, config: GenerateConfig, step: int) -> None:
    codes = hurt_at(lab, out, config, "kill", step)
    assert set(codes) == {-9}
    assert codes[-9] * step > 30


@pytest.mark.parametrize(("config", "step"), cases(40))
def test_one_write_error_at_any_step_is_tried_again_or_told(
    lab: Lab, out: Path, config: GenerateConfig, step: int
) -> None:
    codes = hurt_at(lab, out, config, "EIO", step)
    assert set(codes) <= {0, 1}
    assert codes[0]


@pytest.mark.parametrize(("config", "step"), cases(40))
def test_a_disk_that_fills_up_at_any_step_stops_the_run_and_the_same_command_goes_on(
    lab: Lab, out: Path, config: GenerateConfig, step: int
) -> None:
    codes = hurt_at(lab, out, config, "ENOSPC", step)
    assert set(codes) <= {0, 1}
    assert codes[1]
