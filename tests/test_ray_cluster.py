"""Joining a Ray cluster: what is shipped to its nodes, what the processes of a local one hear."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys

import pytest

from workers import ray_cluster


@pytest.mark.parametrize(
    ("job", "ships"),
    [
        (None, False),
        ("{}", False),
        ('{"runtime_env": {}}', False),
        ('{"runtime_env": {"working_dir": "gcs://x.zip"}}', True),
        ("not json", False),
        ("[]", False),
    ],
)
def test_a_submitted_job_that_ships_code_is_not_given_another(
    monkeypatch: pytest.MonkeyPatch, job: str | None, ships: bool
) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    if job is not None:
        monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", job)
    assert ray_cluster._job_ships_code() is ships


HEARS = "import signal; print(signal.getsignal(signal.SIGINT) is not signal.SIG_IGN)"


def test_processes_of_a_driver_that_ignores_interrupts_hear_them() -> None:
    """A driver that a script starts in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        heard = []
        for within in (False, True):
            with ray_cluster.children_hear_interrupts() if within else contextlib.nullcontext():
                heard.append(subprocess.check_output([sys.executable, "-c", HEARS], text=True).strip())
        assert heard == ["False", "True"]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
