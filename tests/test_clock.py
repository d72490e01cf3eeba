from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

import pytest
import torch

from training.clock import Clock, memory_mb, metrics_line, stall_line


def make_clock(*steps: tuple[float, float]) -> Clock:
    """A clock that saw steps of (waiting, computing) seconds, each of 2 samples with loss 1, 2, 3, ..."""
    spans = (span for wait, compute in steps for span in (0.0, 0.0, wait, compute))
    times: Iterator[float] = accumulate(spans)
    clock = Clock(lambda: next(times))
    for k in range(len(steps)):
        clock.start()
        clock.wait()
        clock.got_data()
        clock.finish(loss=k + 1.0, samples=2)
    return clock


def test_record_holds_the_means_of_its_interval() -> None:
    record = make_clock((0.1, 0.3), (0.3, 0.3)).record(voxels_per_sample=1000, steps_left=10)
    assert record == pytest.approx(
        {
            "loss": 1.5,
            "samples_per_s": 4,
            "voxels_per_s": 4000,
            "data_wait_ms": 200,
            "data_wait_frac": 0.4,
            "step_ms": 500,
            "eta_s": 5,
        }
    )


def test_an_interval_begins_anew_while_the_totals_go_on() -> None:
    times = iter([0.0, 0.0, 1.0, 2.0, 2.0, 2.0, 2.0, 4.0])
    clock = Clock(lambda: next(times))
    for loss in (1.0, 7.0):
        clock.start()
        clock.wait()
        clock.got_data()
        clock.finish(loss, 1)
        record = clock.record(1, 0)
        assert record["loss"] == loss
    assert record["data_wait_frac"] == 0
    assert (clock.total_s, clock.total_wait_s, clock.stall) == (4, 1, 0.25)


def test_a_step_of_several_batches_waits_for_each() -> None:
    times = iter([0.0, 0.0, 1.0, 5.0, 7.0, 10.0])
    clock = Clock(lambda: next(times))
    clock.start()
    for _ in range(2):
        clock.wait()
        clock.got_data()
    clock.finish(1.0, 4)
    assert (clock.total_s, clock.total_wait_s) == (10, 3)


@pytest.mark.parametrize(
    ("wait", "compute", "stall", "hint"), [(0.05, 0.95, "5.0 %", False), (0.5, 0.5, "50.0 %", True)]
)
def test_a_stalled_input_is_reported_with_a_hint(wait: float, compute: float, stall: str, hint: bool) -> None:
    line = stall_line(make_clock((wait, compute)), threads=3)
    assert line.startswith(f"input stall {stall}")
    assert ("raise --threads (now 3)" in line) == hint


def test_nothing_done_is_no_stall() -> None:
    assert Clock().stall == 0


def test_lines_for_people_hold_every_figure() -> None:
    device = torch.device("cpu")
    record = {"step": 20, "lr": 1e-3} | make_clock((0.01, 0.09)).record(4096, 80) | memory_mb(device)
    line = metrics_line(record, 100)
    for text in (
        "step 20/100",
        "loss 1.0000",
        "lr 1.00e-03",
        "20.0 samples/s",
        "10.0 ms (10 %)",
        "of 100 ms",
        "8 s left",
    ):
        assert text in line
    assert "GPU" not in line
    assert "GPU 12 MB" in metrics_line(record | {"gpu_mb": 12.3}, 100)


def test_memory_is_this_process_s() -> None:
    assert 20 < memory_mb(torch.device("cpu"))["rss_mb"] < 1e6
