"""Joining a Ray cluster, or starting one on this machine; refusing one that anybody may command."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[1]
# Without the first two, one frozen node stalls every shard for minutes; without the third, a shard that runs out of
# memory is retried for ever.
_ENVIRONMENT = {
    "RAY_grpc_client_keepalive_time_ms": "15000",
    "RAY_grpc_client_keepalive_timeout_ms": "10000",
    "RAY_task_oom_retries": "3",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # CPU tasks keep the environment they were given
}
_CONNECT_SECONDS = 10
_ASK_SECONDS = 60  # Ray's import on a slow disk takes most of it
_SHIPPED_WITHOUT = [".git", ".venv", "demo", "runs", "**/*.zarr", "**/*.nii.gz", ".mypy_cache", ".ruff_cache"]
# Asks the cluster for its nodes. In a process of its own: whether to show a token is settled once a process.
_ASK = """
import sys
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
try:
    GcsClient(address=canonicalize_bootstrap_address_or_die(sys.argv[1])).get_all_node_info(timeout=10)
except AuthenticationError:
    print("refused")
else:
    print("let in")
"""


def connect(address: str, workers: int | None, insecure: bool = False) -> None:
    """Join a Ray cluster: `local` starts one here for this run, `auto` or an address joins a running one.

    A cluster that takes work without a token is refused unless `insecure`: whoever reaches its ports runs code on it.
    InputError when it is, when it cannot be told, and when no cluster is there.
    """
    _set_environment(address)
    if address != "local":
        _check_reachable(address)
        if not insecure:
            _check_guarded(address)
    import ray

    _connect(ray, address, workers)


def _set_environment(address: str) -> None:
    """Ray reads some of these when it is imported, the rest when its processes start."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if address == "local":
        # A token of this run alone: nobody else on the machine can submit work, and nothing is written to $HOME.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _connect(ray: Any, address: str, workers: int | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        with children_hear_interrupts():
            ray.init(address="local", num_cpus=workers or os.cpu_count(), include_dashboard=False, **quiet)
        return
    shipped = {} if _job_ships_code() else {"working_dir": str(REPOSITORY), "excludes": _SHIPPED_WITHOUT}
    try:
        ray.init(address=address, runtime_env=shipped, **quiet)
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise _no_cluster(address, _line(str(error))) from error


@contextlib.contextmanager
def children_hear_interrupts() -> Iterator[None]:
    """Processes that are started within do not ignore SIGINT, though this one may: Ray cancels tasks by it.

    Whoever is started in the background of a script (`nohup phantumor ... &`) ignores it, and hands that down. A
    handler is not handed down.
    """
    ignores = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not ignores or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _job_ships_code() -> bool:
    """Whether this is a `ray job submit --working-dir ...`, whose code all tasks get; Ray refuses a second one."""
    try:
        job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
        return bool(job.get("runtime_env", {}).get("working_dir"))
    except (ValueError, AttributeError):
        return False


def _check_reachable(address: str) -> None:
    """Ray itself tries an address where nobody listens for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except OSError as error:
            raise _no_cluster(address, error.strerror or str(error)) from error


def _check_guarded(address: str) -> None:
    """InputError unless the cluster refuses who has no token, and takes ours."""
    if _lets_in(address, "disabled"):
        raise InputError(
            f"--ray {address}: the cluster takes work without a token: whoever reaches its ports can run code on it. "
            "Start it with RAY_AUTH_MODE=token (see cluster.yaml), or give --insecure where the network is closed"
        )
    if not _lets_in(address, "token"):  # Ray itself would try for a while
        raise InputError(
            f"--ray {address}: the cluster asks for a token, and does not take ours. Give the one it was started with "
            "in RAY_AUTH_TOKEN, or as a file in RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token"
        )


def _lets_in(address: str, mode: str) -> bool:
    """Whether the cluster answers with (`token`) or without (`disabled`) our token; InputError if that is unclear."""
    reason = "Ray Client addresses cannot be asked"
    if not address.startswith("ray://"):
        answer, reason = _asked(address, mode)
        if answer in ("let in", "refused"):
            return answer == "let in"
    raise InputError(
        f"--ray {address}: could not find out whether the cluster asks for a token ({reason}). Is that its address "
        "(host:6379, or auto on its head)? --insecure joins without asking"
    )


def _asked(address: str, mode: str) -> tuple[str, str]:
    """What the cluster says to a request, and the last line of what went wrong with it."""
    command = [sys.executable, "-c", _ASK, address]
    settings = {**os.environ, "RAY_AUTH_MODE": mode}
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=_ASK_SECONDS, check=False, env=settings)
    except subprocess.TimeoutExpired:
        return "", f"no answer in {_ASK_SECONDS} s"
    return asked.stdout.strip(), _line(asked.stderr.strip().rpartition("\n")[2])


def _no_cluster(address: str, reason: str) -> InputError:
    return InputError(
        f"--ray {address}: no Ray cluster answers there ({reason}). "
        "Start one (`ray up cluster.yaml`, `ray start --head`) or use --ray local"
    )


def _line(text: str) -> str:
    return next(iter(text.splitlines()), "no reason given")
