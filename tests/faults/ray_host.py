"""A Ray cluster of virtual nodes on this machine, in a process of its own: a head without CPUs and two workers.

It takes a command a line: `nodes` answers the process ids of the workers' raylets, `remove` kills the last worker node,
`add` starts one. It ends with its input, and every process of the cluster with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.s3_server import ROOT

# A node that does not answer for 2 x (1 + 3) s is dead; by default it takes a minute.
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 3000,
    "health_check_failure_threshold": 2,
}
# As cluster.yaml has them on every node.
KEEPALIVE = {"RAY_grpc_client_keepalive_time_ms": "15000", "RAY_grpc_client_keepalive_timeout_ms": "10000"}


@dataclass
class Host:
    """The running cluster."""

    process: subprocess.Popen[str]
    address: str

    def ask(self, command: str) -> list[int]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        found: list[int] = json.loads(self.process.stdout.readline())
        return found

    @staticmethod
    def family(raylet: int) -> list[int]:
        """A raylet and the worker processes below it."""
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        return [raylet, *(pid for pid, parent in parents.items() if parent == raylet)]


@contextlib.contextmanager
def running_cluster() -> Iterator[Host]:
    """Start it; it asks nobody for a token."""
    environment = {**os.environ, **KEEPALIVE, "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.ray_host"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield Host(process, process.stdout.readline().strip())
    finally:
        process.communicate("", timeout=120)


def _serve() -> None:
    from ray.cluster_utils import Cluster

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray talks
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    workers = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    print(cluster.address, file=answers, flush=True)
    for line in sys.stdin:
        command = line.strip()
        if command == "remove":
            cluster.remove_node(workers.pop(), allow_graceful=False)
        if command == "add":
            workers.append(cluster.add_node(num_cpus=1))
        raylets = [node.all_processes["raylet"][0].process.pid for node in workers]
        print(json.dumps(raylets), file=answers, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    _serve()
