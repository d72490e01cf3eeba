"""Ray: shards on a real local cluster, whose workers are killed; and clusters that must not be joined."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.store import FolderStore
from tests.fakes import act
from tests.scripted import SAMPLES
from tests.test_local import jobs_in, pids, wait_for
from workers import ray_cluster
from workers.attempt import ShardReport
from workers.drive import Outcome, drive
from workers.executor import Result
from workers.failure import Failure
from workers.ledger import Ledger, RunFacts
from workers.policy import Policy
from workers.quarantine import quarantined
from workers.ray_executor import RayExecutor

pytestmark = pytest.mark.slow


@pytest.fixture
def executor(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayExecutor]:
    """Its `close` leaves the cluster to the next test."""
    monkeypatch.setattr(cluster, "shutdown", lambda: None)
    found = RayExecutor(act)
    yield found
    found.close()


def finished(executor: RayExecutor, count: int) -> dict[int, Result]:
    found: dict[int, Result] = {}
    deadline = time.monotonic() + 90
    while len(found) < count:
        assert time.monotonic() < deadline
        found |= dict(executor.wait(5.0))
    return found


def test_the_cluster_is_used_and_looked_at(executor: RayExecutor, tmp_path: Path) -> None:
    assert executor.slots() == 2
    assert executor.window() == 64
    assert executor.wait(0.0) == []
    handles = [executor.submit(job) for job in jobs_in(tmp_path, 6)]
    found = finished(executor, 6)
    assert sorted(found) == handles
    assert all(isinstance(result, ShardReport) for result in found.values())
    used = {pid for shard in range(6) for pid in pids(tmp_path, shard)}
    assert os.getpid() not in used
    assert len(used) < 6  # workers are kept


def test_a_run_on_ray_survives_a_killed_worker_and_poison(executor: RayExecutor, tmp_path: Path) -> None:
    ledger = Ledger(FolderStore(tmp_path), RunFacts("digest", "bank", "ray local", "phantumor generate"))
    jobs = jobs_in(tmp_path, 6, s1="die once", s2="raise", s4="die")
    assert drive(jobs, executor, Policy(), ledger) == Outcome(4 * SAMPLES, (2, 4), 0, 0)
    assert [len(pids(tmp_path, shard)) for shard in range(6)] == [1, 2, 1, 1, 4, 1]
    assert quarantined(FolderStore(tmp_path)) == {2, 4}
    record = (tmp_path / "failures/000004.json").read_text()
    assert '"died": true' in record
    assert "WorkerCrashedError" in record
    assert '"exception": "UnpicklableError"' in (tmp_path / "failures/000002.json").read_text()


def test_a_cancelled_shard_tidies_up_and_others_go_on(executor: RayExecutor, tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, 3, s0="hang", s1="hang")
    stuck, other = executor.submit(jobs[0]), executor.submit(jobs[1])
    wait_for(lambda: all((tmp_path / f"{shard}.pids").exists() for shard in (0, 1)))
    executor.cancel(stuck)
    (tmp_path / "1").unlink()
    assert list(finished(executor, 1)) == [other]
    last = executor.submit(jobs[2])
    assert list(finished(executor, 1)) == [last]
    wait_for((tmp_path / "0.left").exists)


def test_closing_gives_what_runs_the_time_to_tidy_up(executor: RayExecutor, tmp_path: Path) -> None:
    executor.submit(jobs_in(tmp_path, 1, s0="hang")[0])
    wait_for((tmp_path / "0.pids").exists)
    executor.close()
    assert (tmp_path / "0.left").exists()


def test_code_that_a_node_does_not_have_is_a_failure_in_words(cluster: Any, executor: RayExecutor) -> None:
    executor._task = _Missing()  # type: ignore[assignment]
    executor.submit(jobs_in(Path("/nowhere"), 1)[0])
    [failure] = finished(executor, 1).values()
    assert isinstance(failure, Failure)
    assert "no_such_module" in failure.traceback


class _Missing:
    def __reduce__(self) -> Any:
        import importlib

        return importlib.import_module, ("no_such_module",)


def test_what_workers_count_is_there_for_prometheus(cluster: Any, executor: RayExecutor, tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, 3, s2="raise")
    for job in jobs:
        executor.submit(job)
    finished(executor, 3)
    node = cluster.nodes()[0]
    if node["MetricsExportPort"] <= 0:
        pytest.skip("Ray exports metrics only where ray[default] is installed")
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    def exported() -> set[str]:
        return set(re.findall(r"^ray_phantumor_\w+", urllib.request.urlopen(url).read().decode(), re.MULTILINE))

    wanted = {"shards_total", "samples_total", "bytes_total", "shard_seconds_count", "shard_seconds_bucket"}
    wait_for(lambda: {f"ray_phantumor_{name}" for name in wanted} <= exported())


# ---- clusters of others ----

HEAD = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""
TOKEN = "5" * 64


@pytest.fixture(scope="module", params=["disabled", "token"])
def head(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A head that somebody else started: whether it asks for a token, and its address."""
    settings = {"RAY_AUTH_MODE": request.param, "RAY_AUTH_TOKEN": TOKEN}
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        env={**os.environ, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    yield request.param, process.stdout.readline().strip()
    process.communicate("")


JOIN = """
import sys
from pipeline.errors import InputError
from workers.ray_cluster import connect
try:
    connect(sys.argv[1], None, insecure="--insecure" in sys.argv)
except InputError as error:
    sys.exit(f"refused: {error}")
import ray
print("joined", int(ray.cluster_resources()["CPU"]))
"""


def join(address: str, *flags: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Join from a fresh process with these settings."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ours |= {"HOME": "/nonexistent"}  # where no token lies
    command = [sys.executable, "-c", JOIN, address, *flags]
    return subprocess.run(command, env=ours | settings, capture_output=True, text=True, timeout=120, check=False)


def test_a_cluster_without_a_token_is_refused_unless_asked_for(head: tuple[str, str]) -> None:
    mode, address = head
    holder = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
    joined = join(address, **holder)
    if mode == "token":
        assert joined.stdout == "joined 1\n", joined.stderr
        stranger = join(address)
        assert "refused" in stranger.stderr
        assert "token" in stranger.stderr
        return
    assert "refused" in joined.stderr
    assert "RAY_AUTH_MODE=token" in joined.stderr
    assert "--insecure" in joined.stderr
    assert join(address, "--insecure").stdout == "joined 1\n"


def test_where_nobody_listens_nothing_is_joined() -> None:
    with pytest.raises(InputError, match="no Ray cluster answers there"):
        ray_cluster.connect("127.0.0.1:1", None)


def test_what_cannot_be_asked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "_check_reachable", lambda address: None)
    with pytest.raises(InputError, match="could not find out"):
        ray_cluster.connect("ray://127.0.0.1:10001", None)
    monkeypatch.setattr(ray_cluster, "_ASK", "raise RuntimeError('another Ray')")
    with pytest.raises(InputError, match="another Ray"):
        ray_cluster.connect("127.0.0.1:6379", None)
