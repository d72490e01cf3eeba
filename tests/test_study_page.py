"""Whole studies answered by keyboard in a real browser, in both modes; nothing leaves this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn

from pipeline.pages.server import application, bound
from pipeline.study.answers import Answer, AnswerBook, Reader
from pipeline.study.design import ANSWERS, Mode, order, read_study
from pipeline.study.reading import Reading
from pipeline.study.server import WRITES, routes
from tests.studies import make_study
from training.study import report

CHROMIUM = Path("/usr/bin/chromium")
# Without a graphics card WebGL 2 is drawn by SwiftShader.
FLAGS = ["--no-sandbox", "--disable-gpu", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
READY = "body[data-phase=reading], body[data-phase=feedback], body[data-phase=finished]"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} is missing (Debian: apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


class Served:
    """A study on a free port; `end` stops it as a crash of the machine would, for the page."""

    def __init__(self, study: Path, port: int = 0, token: str = "secret") -> None:
        listening = bound("127.0.0.1", port)
        self.port = int(listening.getsockname()[1])
        app = application(routes(Reading(study)), token, self.port, writes=WRITES)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        self._listening = listening
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]})
        self._thread.start()

    def end(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._listening.close()


class Page:
    """What a reader does."""

    def __init__(self, browser: Any, served: Served) -> None:
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.page = browser.new_context(viewport={"width": 480, "height": 320}).new_page()
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"http://127.0.0.1:{served.port}/?token=secret")

    def begin(self, name: str, known: bool = False) -> None:
        self.page.fill("#name", name)
        self.page.press("#name", "Enter")
        if known:
            self.wait("#message:has-text('A reader of this name')")
            assert self.phase == "begin"
            self.page.press("#name", "Enter")
        self.wait(READY)

    def wait(self, selector: str) -> None:
        self.page.wait_for_selector(selector, timeout=20_000)

    @property
    def phase(self) -> str:
        return str(self.page.evaluate("document.body.dataset.phase"))

    def answer(self, *keys: str) -> None:
        number = self.page.evaluate("document.body.dataset.number")
        for key in (*keys, "Enter"):
            self.page.keyboard.press(key)
        next_one = f"body[data-phase=reading]:not([data-number='{number}'])"
        self.wait(f"body[data-phase=feedback], body[data-phase=finished], {next_one}")
        if self.phase == "feedback":
            assert "Right: " in self.text("#feedback") or "Wrong: " in self.text("#feedback")
            self.page.keyboard.press("Enter")
            self.wait(next_one)

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))


def answers(study: Path, reader: str) -> list[Answer]:
    return AnswerBook(study / ANSWERS).read(reader)[1]


@pytest.fixture
def open_page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    running: list[Served] = []

    def opened(mode: Mode, **sizes: int) -> tuple[Path, Served, Page]:
        study = make_study(tmp_path / "study", mode, **sizes)
        running.append(Served(study))
        return study, running[0], Page(chromium, running[0])

    yield opened
    for served in running:
        served.end()


@pytest.mark.parametrize(("mode", "keys"), [("yes-no", ("r", "s", "u")), ("2afc", ("ArrowLeft", "ArrowRight"))])
def test_a_study_of_20_cases_is_answered_by_keyboard(open_page: Any, mode: Mode, keys: tuple[str, ...]) -> None:
    study, _, page = open_page(mode, trials=20, practice=1)
    page.begin("Ann")
    shown = order(read_study(study), "ann")
    said = {"r": "real", "s": "synthetic", "u": "unsure", "ArrowLeft": "left", "ArrowRight": "right"}
    for k in range(len(shown)):
        key = keys[k % len(keys)]
        page.answer("ArrowUp", key, *(() if key == "u" else str(1 + k % 5)))
    assert page.phase == "finished"
    given = answers(study, "ann")
    assert [one.answer for one in given] == [said[keys[k % len(keys)]] for k in range(len(shown))]
    assert [one.confidence for one in given] == [
        None if one.answer == "unsure" else 1 + k % 5 for k, one in enumerate(given)
    ]
    assert [one.cases for one in given] == [one.cases for one in shown]
    assert all(one.slices_seen == 2 for one in given)
    assert all(one.time_ms > 0 for one in given)
    assert {urlsplit(url).hostname for url in page.asked if url.startswith("http")} == {"127.0.0.1"}
    assert page.errors == []


def test_slices_and_window_follow_keys_and_mouse(open_page: Any) -> None:
    _, _, page = open_page("yes-no", trials=2, practice=0)
    page.begin("Ann")
    assert page.text("#where").startswith("slice 0 ")
    for _ in range(3):
        page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("PageUp")
    assert page.text("#where").startswith("slice +2 ")
    page.page.mouse.move(200, 120)
    page.page.mouse.wheel(0, 100)
    page.page.wait_for_timeout(200)
    assert page.text("#where").startswith("slice +1 ")
    page.page.keyboard.press("w")
    assert "W 150 L 90 (liver)" in page.text("#where")
    page.page.keyboard.press("Shift+ArrowRight")
    page.page.keyboard.press("Shift+ArrowUp")
    assert "W 170 L 100" in page.text("#where")
    page.page.mouse.down()
    page.page.mouse.move(240, 120)
    page.page.mouse.up()
    assert "W 230 L 100" in page.text("#where")
    page.page.keyboard.press("Enter")  # nothing is said yet
    assert page.phase == "reading"


def test_an_answer_waits_for_a_server_that_is_gone_and_the_reader_goes_on(open_page: Any) -> None:
    study, served, page = open_page("yes-no", trials=3, practice=0)
    page.begin("Ann")
    page.answer("s", "5")
    served.end()
    for key in ("r", "2", "Enter"):
        page.page.keyboard.press(key)
    page.wait("#message:not([hidden])")
    assert "This answer is kept here" in page.text("#message")
    again = Served(study, served.port)
    try:
        page.wait("body[data-phase=reading][data-number='2']")
        assert [(one.answer, one.confidence) for one in answers(study, "ann")] == [("synthetic", 5), ("real", 2)]
        page.page.reload()
        page.begin("ann", known=True)
        assert page.text("#progress") == "2 of 4 answered"
    finally:
        again.end()


def test_no_table_of_the_report_is_cut_on_a_small_screen(chromium: Any, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", trials=20, practice=0)
    book = AnswerBook(study / ANSWERS)
    for name in ("Dr Anna-Maria Longname", "Ben"):
        reader = book.begin(Reader(name=name, role="radiologist in training", years=3)).id
        for k, shown in enumerate(order(read_study(study), reader)):
            about = shown.__dict__ | {"answer": ("real", "synthetic", "unsure")[k % 3]}
            sure = None if k % 3 == 2 else 4
            book.add(reader, Answer(**about, confidence=sure, time_ms=9000, loading_ms=5, slices_seen=7))
    report(study, tmp_path / "report", margin=0.1, seed=0, log=lambda _: None)
    page = chromium.new_page(viewport={"width": 1100, "height": 800})
    page.goto((tmp_path / "report" / "report.html").as_uri())
    widths = page.evaluate("[...document.querySelectorAll('.scroll')].map((one) => [one.scrollWidth, one.clientWidth])")
    assert len(widths) > 5
    assert all(content <= shown for content, shown in widths)
    page.close()


def test_a_server_with_another_token_is_told_and_gets_the_answer(open_page: Any) -> None:
    study, served, page = open_page("yes-no", trials=2, practice=0)
    page.begin("Ann")
    served.end()
    again = Served(study, served.port, token="another")
    try:
        for key in ("r", "2", "Enter"):
            page.page.keyboard.press(key)
        page.wait("#message:has-text('open the new address in another tab')")
        other = page.page.context.new_page()
        other.goto(f"http://127.0.0.1:{served.port}/?token=another")
        page.wait("body[data-phase=reading][data-number='1']")
        assert page.page.is_hidden("#message")
        other.close()
    finally:
        again.end()


def test_a_second_tab_is_told_that_its_answer_was_not_kept(open_page: Any, chromium: Any) -> None:
    study, served, page = open_page("yes-no", trials=3, practice=0)
    page.begin("Ann")
    second = Page(chromium, served)
    second.begin("Ann", known=True)
    page.answer("s", "5")
    second.answer("r", "2")
    told = second.text("#message")
    assert "case 1 of 4 had been answered as “ann” in another tab" in told
    assert "goes on with case 2 of 4" in told
    assert [one.answer for one in answers(study, "ann")] == ["synthetic"]
    second.answer("r", "2")
    assert second.page.is_hidden("#message")
    second.page.close()


def test_time_in_a_hidden_tab_does_not_count(open_page: Any) -> None:
    study, _, page = open_page("yes-no", trials=2, practice=0)
    page.begin("Ann")
    hide = "(on) => { Object.defineProperty(document, 'hidden', { value: on, configurable: true }); document.dispatchEvent(new Event('visibilitychange')); }"  # noqa: E501
    page.page.evaluate(hide, True)
    page.page.wait_for_timeout(1500)
    page.page.evaluate(hide, False)
    began = page.page.evaluate("performance.now()")
    page.answer("r", "1")
    passed = page.page.evaluate("performance.now()") - began
    (one,) = answers(study, "ann")
    assert one.time_ms < passed + 1400
