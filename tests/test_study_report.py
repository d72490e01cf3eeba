"""From answers to the report: every figure of a study whose answers are known, and the sentence it permits."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.study.answers import Answer, AnswerBook, Reader
from pipeline.study.design import ANSWERS, TRUTH, Answers, Mode, order, read_study
from pipeline.study.reading import Reading
from tests.command import run as command
from tests.studies import make_study
from training.realism.classifier import Side, two_sample_auc
from training.study import describe, report
from training.study.verdict import headline, sentence

FLIPPED = {"left": "right", "right": "left", "real": "synthetic", "synthetic": "real"}


def read_all(folder: Path, name: str, said: Callable[[int, str], str], stop: int | None = None) -> None:
    """A reader who says `said(position among the trials, right answer)`, 10 s a case."""
    study, book = read_study(folder), AnswerBook(folder / ANSWERS)
    truth = Answers.model_validate_json((folder / TRUTH).read_bytes()).trials
    place = {trial.id: k for k, trial in enumerate(study.trials)}
    reader = book.begin(Reader(name=name, role="Resident", years=3)).id
    for shown in order(study, reader)[:stop]:
        right = truth[shown.trial]
        answer = said(place.get(shown.trial, 0), right)
        if shown.repeat and answer in ("left", "right"):
            answer = FLIPPED[answer]
        about = shown.__dict__ | {"answer": answer, "confidence": None if answer == "unsure" else 4}
        assert book.add(reader, Answer(time_ms=10_000, loading_ms=5, slices_seen=7, **about))


@pytest.fixture(autouse=True)
def no_machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a second for ten lesions; one test asks for it."""
    if "machine" in request.node.name:
        return
    nothing = Side(np.empty((0, 1)), (), ())
    record = {"lesions": 0, "measured": 0, "auc": {"border": two_sample_auc(nothing, nothing, [])}}
    monkeypatch.setattr(sys.modules["training.study.report"], "machine_observer", lambda *_: record)


def run(folder: Path, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"margin": 0.1, "seed": 0, "log": lambda _: None} | changes
    return report(folder, tmp_path / "report", **settings)


def test_a_reader_who_sees_all_and_one_who_guesses(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", trials=20, practice=2)
    read_all(folder, "Ann", lambda _, right: right)
    read_all(folder, "Ben", lambda k, right: "unsure" if k < 4 else right if k % 4 < 2 else FLIPPED[right])
    found = run(folder, tmp_path)
    ann, ben = found["readers"]
    assert (ann["answered"], ann["accuracy"]["count"], ann["accuracy"]["n"]) == (20, 20, 20)
    assert (ann["sensitivity"]["value"], ann["specificity"]["value"], ann["auc"]["value"]) == (1, 1, 1)
    assert (ann["within"]["agreed"], ann["within"]["n"]) == (1, 2)
    assert (ben["unsure"], ben["accuracy"]["count"], ben["accuracy"]["n"]) == (4, 8, 16)
    assert ben["auc"]["value"] == pytest.approx(0.5)
    assert ben["guessing"] == {"right": 10, "n": 20}
    assert ann["seconds"]["median"] == 10
    pooled = found["pooled"]
    assert (pooled["accuracy"]["count"], pooled["accuracy"]["n"], pooled["answered"]) == (28, 36, 40)
    assert pooled["auc"]["value"] == pytest.approx(0.75)
    # Of 20 trials both said the same in 8; by chance 0.5 * (8 + 8) / 20.
    assert found["agreement"]["pairs"][0]["agreed"] == pytest.approx(0.4)
    assert found["agreement"]["pairs"][0]["value"] == pytest.approx((0.4 - 0.4) / 0.6)
    assert found["equivalence"]["share"] == pytest.approx(30 / 40)


def test_forced_choice_turns_repeated_pairs_back(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", "2afc", trials=20, practice=1)
    read_all(folder, "Ann", lambda k, right: right if k % 4 else FLIPPED[right])
    found = run(folder, tmp_path)
    (ann,) = found["readers"]
    assert (ann["accuracy"]["count"], ann["accuracy"]["n"]) == (15, 20)
    assert (ann["within"]["agreed"], ann["within"]["n"]) == (1, 2)
    assert ann["d_prime"] == pytest.approx(0.902, abs=2e-3)  # sqrt(2) z(15.5 / 21)
    assert ann["auc"] is None
    with (tmp_path / "report" / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 23
    right = [row["answer"] == row["truth"] for row in rows if row["practice"] == "False" and row["repeat"] == "False"]
    assert right.count(True) == 15


def test_practice_and_repeats_are_in_no_figure(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", trials=10, practice=4)
    read_all(folder, "Ann", lambda _, right: right)
    (ann,) = run(folder, tmp_path)["readers"]
    assert (ann["answered"], ann["accuracy"]["n"]) == (10, 10)


def test_the_machine_tells_bright_balls_from_dark_ones(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", trials=10, practice=0)
    read_all(folder, "Ann", lambda _, right: right)
    machine = run(folder, tmp_path)["machine"]
    assert (machine["lesions"], machine["measured"]) == (10, 10)
    assert machine["auc"]["border"]["auc"] > 0.95


def test_few_cases_give_no_auc_of_readers_or_machine(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", trials=4, practice=0)
    read_all(folder, "Ann", lambda _, right: right)
    found = run(folder, tmp_path)
    assert found["pooled"]["auc"]["value"] is found["readers"][0]["auc"]["value"] is None
    assert found["machine"]["auc"]["border"]["auc"] is None
    told = "\n".join(describe(found, tmp_path))
    assert "no AUC: fewer than 5 real or synthetic cases were rated" in told
    assert "no AUC: fewer than 5 real or synthetic lesions could be measured" in told
    html = (tmp_path / "report" / "report.html").read_text()
    assert "fewer than 5 cases of a class" in html
    assert "no AUC: fewer than 5 real or synthetic cases were rated" in html


def test_unfinished_readers_count_and_are_named(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", trials=10, practice=2)
    read_all(folder, "Ann", lambda _, right: right, stop=6)
    found = run(folder, tmp_path)
    assert found["pooled"]["answered"] == 4
    assert any("not finished: Ann" in note for note in found["notes"])
    AnswerBook(folder / ANSWERS).begin(Reader(name="Ben"))
    read_all(folder, "Cid", lambda _, right: right, stop=2)  # practice only
    assert "begun without an answer to a trial: Ben, Cid" in run(folder, tmp_path)["notes"]


def test_the_files_are_whole_and_need_nothing_else(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", trials=8, practice=0)
    read_all(folder, "A&B".replace("&", " "), lambda _, right: right)
    found = run(folder, tmp_path)
    assert json.loads((tmp_path / "report" / "study.json").read_text()) == found
    html = (tmp_path / "report" / "report.html").read_text()
    assert found["sentence"].replace("'", "&#x27;") in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert "src=" not in html
    assert "report.html" in describe(found, tmp_path)[-1]


@pytest.mark.parametrize("mode", ["yes-no", "2afc"])
def test_the_same_answers_give_the_same_report(tmp_path: Path, mode: Mode) -> None:
    folder = make_study(tmp_path / "study", mode, trials=8, practice=0)
    for name in ("Ann", "Ben"):
        read_all(folder, name, lambda k, right: right if k % 3 else FLIPPED[right])
    first, second = run(folder, tmp_path), run(folder, tmp_path)
    assert first == second


def test_nothing_is_reported_of_nothing(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", trials=4, practice=2)
    with pytest.raises(InputError, match="no trial is answered"):
        run(folder, tmp_path)
    read_all(folder, "Ann", lambda _, right: right, stop=2)  # practice only
    with pytest.raises(InputError, match="no trial is answered"):
        run(folder, tmp_path)
    with pytest.raises(InputError, match="another folder"):
        report(folder, folder, margin=0.1, seed=0, log=lambda _: None)


def test_a_second_report_says_that_it_replaces_the_first(tmp_path: Path) -> None:
    folder = make_study(tmp_path / "study", trials=4, practice=0)
    read_all(folder, "Ann", lambda _, right: right)
    said: list[str] = []
    run(folder, tmp_path, log=said.append)
    run(folder, tmp_path, log=said.append)
    assert ["anew" in line for line in said] == [False, True]


@pytest.mark.parametrize("content", [None, b"{}", b"half"])
def test_a_report_never_replaces_another_study(tmp_path: Path, content: bytes | None) -> None:
    folder = make_study(tmp_path / "study", trials=4, practice=0)
    read_all(folder, "Ann", lambda _, right: right)
    other = make_study(tmp_path / "other", trials=4, practice=0) / "study.json"
    if content is not None:
        other.write_bytes(content)
    before = other.read_bytes()
    with pytest.raises(InputError, match="give another folder"):
        report(folder, other.parent, margin=0.1, seed=0, log=lambda _: None)
    assert other.read_bytes() == before


def test_files_of_another_study_are_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_study(tmp_path / "study", trials=4, practice=1)
    other = make_study(tmp_path / "other", trials=12, practice=2, seed=1)
    read_all(other, "Ann", lambda _, right: right)
    (folder / ANSWERS / "ann.jsonl").write_bytes((other / ANSWERS / "ann.jsonl").read_bytes())
    words = ["study", "report", folder, "--out", tmp_path / "report"]
    code, _, told = command(capsys, *words)
    assert (code, "ann.jsonl: answer 2 is to trial t001" in told, "of another study" in told) == (2, True, True), told
    with pytest.raises(InputError, match="of another study"):
        Reading(folder).begin(Reader(name="Ann"))
    (other / TRUTH).write_bytes((folder / TRUTH).read_bytes())
    code, _, told = command(capsys, "study", "report", other, "--out", tmp_path / "report")
    assert (code, "truth.json: is of another study" in told) == (2, True), told
    (folder / "practice.json").write_text('{"trials": {}}')
    with pytest.raises(InputError, match=r"practice\.json: is of another study"):
        Reading(folder)


def figures(right: int, n: int, auc: Any = None, unsure: int = 0, **test: Any) -> dict[str, Any]:
    from training.intervals import proportion
    from training.study.statistics import equivalence

    return {
        "equivalence": equivalence(right, n, 0.1) | test,
        "pooled": {
            "accuracy": proportion(right, n),
            "clustered": None,
            "answered": n,
            "readers": 1,
            "auc": auc,
            "unsure": unsure,
        },
        "readers": [{"role": "Radiologist"}],
        "study": {"organ": "liver", "real_lesions": 9, "real_scans": 3, "synthetic_lesions": 9, "synthetic_scans": 1},
    }


@pytest.mark.parametrize(
    ("right", "n", "expected", "not_expected"),
    [
        (150, 300, "equivalent to chance within a margin of 10", "inconclusive"),
        (10, 20, "inconclusive", "equivalent to"),
        (18, 20, "apart more often than by chance", "inconclusive"),
        (2, 20, "took one for the other", "more often than"),
        (0, 0, "nothing can be said", "%"),
        (2160, 4000, "still told them apart", "inconclusive"),
    ],
)
def test_the_sentence_says_no_more_than_was_found(right: int, n: int, expected: str, not_expected: str) -> None:
    text = sentence(figures(right, n))
    assert expected in text
    assert not_expected not in text
    if n:
        assert f"{n} answers of 1 reader (radiologist) to 9 real liver lesions of 3 scans" in text


def test_the_sentence_says_how_unsure_counts() -> None:
    assert "accuracy, unsure as half right, 50 %" in sentence(figures(10, 20, unsure=4))
    assert "unsure" not in sentence(figures(10, 20))


def test_readers_who_answer_alike_prove_less() -> None:
    assert "inconclusive" in sentence(figures(150, 300, met=False, clustered=[0.36, 0.64]))


@pytest.mark.parametrize(
    ("low", "high", "said"), [(0.55, 0.7, "higher"), (0.3, 0.45, "lower"), (0.45, 0.6, ""), (None, None, "")]
)
def test_ratings_that_tell_them_apart_are_not_hidden_by_accuracy(low: float, high: float, said: str) -> None:
    found = figures(150, 300, auc={"value": 0.62, "low": low, "high": high})
    assert ("ranked synthetic lesions " + said in sentence(found) and "but not" in headline(found)) == bool(said)
