"""What computes for ever is stopped; what waits is not."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from workers.failure import SampleError, failure_of
from workers.policy import Policy
from workers.time_limit import SampleTimeoutError, cpu_limit


def compute() -> None:
    while True:
        pass


def test_a_loop_without_end_is_stopped_and_its_shard_given_up_at_once() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(SampleTimeoutError, match=r"0\.05 s of processor time") as raised, cpu_limit(0.05):
        compute()
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
    assert Policy().verdict(failure_of(4, SampleError(7, "{}", raised.value)), 1) == "poison"


def test_waiting_is_not_computing() -> None:
    with cpu_limit(0.05):
        threading.Event().wait(0.2)


def test_each_sample_has_its_own_time() -> None:
    for _ in range(5):
        with cpu_limit(0.1):
            started = time.process_time()
            while time.process_time() - started < 0.03:
                pass


def test_other_threads_are_left_alone() -> None:
    done: list[bool] = []

    def work() -> None:
        with cpu_limit(0.01):
            done.append(signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]
