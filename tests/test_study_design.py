"""The order in which a reader meets the trials."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.study.design import INFO, Mode, order, read_study, reader_id
from tests.studies import make_study


@pytest.mark.parametrize("mode", ["yes-no", "2afc"])
def test_practice_first_then_every_trial_once_and_a_tenth_again(tmp_path: Path, mode: Mode) -> None:
    study = read_study(make_study(tmp_path / "study", mode, trials=20, practice=2))
    shown = order(study, "ann")
    assert [one.number for one in shown] == list(range(24))
    assert [one.practice for one in shown] == [True] * 2 + [False] * 22
    first = [one for one in shown if not one.practice and not one.repeat]
    assert {one.trial for one in first} == {trial.id for trial in study.trials}
    assert len(first) == 20
    for again in (one for one in shown if one.repeat):
        before = next(one for one in first if one.trial == again.trial)
        assert again.number - before.number > 1
        assert again.cases == before.cases[::-1]


def test_each_reader_has_an_order_of_his_own_and_keeps_it(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study")
    orders = [order(read_study(folder), name) for name in ("ann", "ben", "ann")]
    assert orders[0] == orders[2] != orders[1]


@pytest.mark.parametrize("trials", [1, 2, 3, 11])
def test_small_studies_have_an_order(tmp_path: Path, trials: int) -> None:
    shown = order(read_study(make_study(tmp_path / "study", trials=trials, practice=0)), "ann")
    assert len(shown) == trials + (1 if trials > 1 else 0)


@pytest.mark.parametrize("name", ["", "  ", "../ann", "a/b", "7", ".ann", "é", "a" * 41, "a\0"])
def test_names_that_cannot_be_files_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="reader's name"):
        reader_id(name)


def test_a_name_is_the_same_reader_in_any_case() -> None:
    assert reader_id("Ann  Other") == reader_id("ann other ") == "ann-other"


def test_a_damaged_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="study create"):
        read_study(tmp_path)
    (tmp_path / INFO).write_text('{"mode": "yes-no"}')
    with pytest.raises(InputError, match="damaged"):
        read_study(tmp_path)
