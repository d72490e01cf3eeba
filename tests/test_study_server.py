"""The server: what it sends and takes, what it never tells, and that nothing is lost when it is killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from pipeline.errors import InputError
from pipeline.pages.server import application
from pipeline.study.answers import AnswerBook
from pipeline.study.design import ANSWERS, LEAKS, MASKS, TRUTH, order, read_study
from pipeline.study.reading import Reading
from pipeline.study.server import WRITES, routes, serve
from tests.studies import make_study

GIVEN = {"confidence": 3, "time_ms": 1000, "loading_ms": 50, "slices_seen": 4}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Without what the server has no business with: it runs all the same."""
    folder = make_study(tmp_path / "study", trials=4, practice=1)
    for name in (TRUTH, LEAKS):
        (folder / name).unlink()
    for mask in (folder / MASKS).iterdir():
        mask.unlink()
    return folder


def browser(study: Path) -> TestClient:
    app = application(routes(Reading(study)), "secret", 80, writes=WRITES)
    return TestClient(app, base_url="http://127.0.0.1", headers={"x-phantumor-token": "secret"})


def begin(client: TestClient, name: str = "Ann") -> dict[str, Any]:
    state: dict[str, Any] = client.post("/api/begin", json={"name": name, "role": "", "years": None}).json()
    return state


def say(client: TestClient, number: int, reader: str = "ann", **changes: Any) -> httpx.Response:
    given = {"reader": reader, "number": number, "answer": "real", **GIVEN, **changes}
    return client.post("/api/answer", json=given)


def test_a_reader_answers_all_and_can_take_the_answers_home(study: Path) -> None:
    client = browser(study)
    state = begin(client)
    assert (state["mode"], state["done"], state["of"], state["practice"]) == ("yes-no", 0, 6, 1)
    assert client.get("/api/answers.csv?reader=ann").status_code == 400
    for number in range(6):
        state = say(client, number).json()
        assert state["done"] == number + 1
    assert state["next"] is None
    assert len(client.get("/api/answers.csv?reader=ann").text.splitlines()) == 7


def test_only_practice_tells_what_was_right(study: Path) -> None:
    client = browser(study)
    begin(client)
    right = json.loads((study / "practice.json").read_text())["trials"]["t000"]
    replies = [say(client, number).json() for number in range(6)]
    assert replies[0]["right"] == right
    assert all("right" not in reply for reply in replies[1:])


def test_a_screen_names_neither_case_nor_trial_nor_repeat(study: Path) -> None:
    client = browser(study)
    texts = [json.dumps(begin(client))] + [say(client, number).text for number in range(1)]
    texts += [say(client, number).text for number in range(1, 6)]
    for text in texts:
        assert not re.search(r't\d{3}|"00\d"|repeat|synthetic|truth', text.replace('"right":"synthetic"', "")), text


def test_a_case_is_sent_as_it_lies_without_time_and_digest(study: Path) -> None:
    client = browser(study)
    begin(client)
    reply = client.get("/api/case?reader=ann&number=0&side=0", headers={"accept-encoding": "gzip, br"})
    first = order(read_study(study), "ann")[0].cases[0]
    assert reply.content == (study / "cases" / f"{first}.nii").read_bytes()
    assert int(reply.headers["content-length"]) == len(reply.content)
    assert not {"last-modified", "etag", "content-encoding", "content-disposition"} & set(reply.headers)


def test_only_the_present_and_the_next_screen_are_sent(study: Path) -> None:
    client = browser(study)
    begin(client)
    say(client, 0)
    codes = [client.get(f"/api/case?reader=ann&number={n}&side=0").status_code for n in range(6)]
    assert codes == [404, 200, 200, 404, 404, 404]
    for wrong in ("number=1&side=1", "number=-1&side=0", "number=x&side=0", "side=0", "number=1&side=-1"):
        assert client.get(f"/api/case?reader=ann&{wrong}").status_code == 404
    assert client.get("/api/case?reader=nobody&number=0&side=0").status_code == 400


def test_there_is_no_way_back_and_none_ahead(study: Path) -> None:
    client = browser(study)
    begin(client)
    assert say(client, 0).status_code == 200
    for number in (0, 2, 99):
        reply = say(client, number, answer="synthetic")
        assert reply.status_code == 409
        assert reply.json()["done"] == 1
        assert "right" not in reply.json()


def test_an_answer_sent_again_is_kept_once(study: Path) -> None:
    client = browser(study)
    begin(client)
    first, again = say(client, 0), say(client, 0)
    assert (again.status_code, again.json()) == (200, first.json())
    assert say(client, 0, time_ms=1001).status_code == 409
    assert len(AnswerBook(study / ANSWERS).read("ann")[1]) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": "left"},
        {"answer": "maybe"},
        {"answer": "unsure"},
        {"confidence": None},
        {"confidence": 6},
        {"time_ms": -1},
        {"time_ms": "NaN"},
        {"reader": "../ann"},
        {"truth": "real"},
    ],
)
def test_answers_that_cannot_be_are_refused(study: Path, changes: dict[str, Any]) -> None:
    client = browser(study)
    begin(client)
    reply = say(client, 0, **changes)
    assert reply.status_code == 400
    assert reply.json()["error"]
    assert AnswerBook(study / ANSWERS).read("ann")[1] == []


@pytest.mark.parametrize(
    "path",
    [
        "/truth.json", "/study.json", "/practice.json", "/cases/001.nii", "/masks/001.npy", "/answers/ann.jsonl",
        "/static/../study.json", "/static/%2e%2e/%2e%2e/design.py", "/static/..%2f..%2fdesign.py",
        "/shared/../server.py", "/api/case/../../truth.json",
    ],
)  # fmt: skip
def test_no_file_of_the_study_can_be_asked_for(tmp_path: Path, path: str) -> None:
    client = browser(make_study(tmp_path / "study", trials=2, practice=0))
    assert client.get(path).status_code == 404


def test_strangers_are_refused(study: Path) -> None:
    client = browser(study)
    assert client.get("/api/state?reader=ann", headers={"x-phantumor-token": "guess"}).status_code == 403
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    assert client.post("/api/begin", json={"name": "Eve"}, headers={"origin": "http://evil.example"}).status_code == 403
    assert "script-src 'self'" in client.get("/").headers["content-security-policy"]


def test_two_readers_do_not_disturb_each_other(study: Path) -> None:
    client = browser(study)
    begin(client)
    begin(client, "Ben")
    for number in range(6):
        assert say(client, number).status_code == 200
        assert say(client, number, "ben", answer="synthetic").status_code == 200
    book = AnswerBook(study / ANSWERS)
    assert [{one.answer for one in book.read(name)[1]} for name in ("ann", "ben")] == [{"real"}, {"synthetic"}]


def test_a_name_that_is_taken_is_said_so_that_two_people_do_not_answer_as_one(study: Path) -> None:
    client = browser(study)
    assert begin(client, "Ann Other")["known"] is False
    assert begin(client, "ann-other")["known"] is True
    assert begin(client, "Ben")["known"] is False


def test_a_study_copied_without_its_answers_folder_is_named(study: Path) -> None:
    (study / ANSWERS).rmdir()
    with pytest.raises(InputError, match="answers: no such folder"):
        Reading(study)


def served(study: Path) -> tuple[subprocess.Popen[str], httpx.Client]:
    command = [sys.executable, "-m", "pipeline.cli", "study", "serve", str(study), "--no-browser"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    assert process.stderr is not None
    address = next(found for line in process.stderr if (found := re.search(r"(http://\S+)/\?token=(\S+)", line)))
    return process, httpx.Client(base_url=address[1], headers={"x-phantumor-token": address[2]}, timeout=30)


def test_a_killed_server_loses_no_answer_and_its_successor_goes_on(study: Path) -> None:
    process, client = served(study)
    try:
        begin(client)  # type: ignore[arg-type]
        for number in range(3):
            assert say(client, number).status_code == 200  # type: ignore[arg-type]
        with pytest.raises(InputError, match="served already"):
            serve(study, host="127.0.0.1", port=0, i_know=False, browser=False, say=lambda _: None)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    state = browser(study).get("/api/state?reader=ann").json()
    assert (state["done"], state["next"]["number"]) == (3, 3)


def test_other_machines_only_for_those_who_know(study: Path) -> None:
    with pytest.raises(InputError, match="--i-know"):
        serve(study, host="0.0.0.0", port=0, i_know=False, browser=False, say=lambda _: None)
