"""Joining a Ray cluster: what is shipped to its nodes."""

from __future__ import annotations

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
