from __future__ import annotations

import signal
import threading

import pytest

from training.interrupts import SIGNALS, Interrupts


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_interrupts_at_once_but_not_within_a_held_part(number: signal.Signals) -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt), interrupts.held():  # noqa: PT012
            signal.raise_signal(number)
            done.append("whole")
        with interrupts.held():
            done.append("and no later part")
    assert done == ["whole", "and no later part"]


def test_an_error_within_a_held_part_is_the_error() -> None:
    with Interrupts() as interrupts, pytest.raises(ValueError, match="disk"), interrupts.held():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        raise ValueError("disk")


def test_signals_can_be_ignored_from_some_point_on() -> None:
    with Interrupts() as interrupts:
        interrupts.ignore()
        signal.raise_signal(signal.SIGINT)


def test_handlers_are_given_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with Interrupts():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_other_threads_change_no_handlers() -> None:
    before = signal.getsignal(signal.SIGINT)
    inside: list[object] = []

    def work() -> None:
        with Interrupts():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]
