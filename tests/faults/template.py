"""A process that has everything imported and forks `phantumor` commands, so that hundreds of runs take a minute.

It reads a request a line from its standard input: `{"run": [words], ...}` starts a command and answers its process id,
`{"wait": pid}` answers the exit code (negative: the signal that ended it), `{"warm": [words]}` runs a command in the
template itself, so that what it imports is there for all.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import signal
import sys
import time
import traceback
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

LIMIT_S = float(os.environ.get("PHANTUMOR_TEST_LIMIT", "120"))  # of a command
REACHED = 77  # in place of 0: done, and the fault never came


def serve() -> None:
    """Until the input ends."""
    import pyarrow as pa
    import torch

    import workers.shard_task
    import workers.verify  # noqa: F401
    from pipeline.cli import main

    torch.set_num_threads(1)
    pa.Table.from_pylist([{"rows": 1}])  # imports pandas where it is installed, which every command would do again
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(_waited(request["wait"]), flush=True)
            continue
        if "warm" in request:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                code = main(request["warm"])
            print(code, flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            _child(request)
        print(pid, flush=True)


def _waited(pid: int) -> int:
    """Exit code of a command; one that hangs is killed with all its processes."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.002)


def _child(request: dict[str, Any]) -> None:
    """Run a command in a session of its own, its output in a file; never returns."""
    code = 70
    try:
        os.setsid()
        out = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for stream in (1, 2):
            os.dup2(out, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(request.get("environment", {}))
        code = _command(request)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _command(request: dict[str, Any]) -> int:
    from pipeline import s3_client
    from pipeline.cli import main
    from tests.faults.disk import Disk

    if os.environ.get("PHANTUMOR_TEST_IMPATIENT"):
        s3_client._PATIENT["retry_timeout"] = s3_client._HASTY["retry_timeout"] = timedelta(seconds=1)
    _order_faults(**request.get("policy", {}))
    disk = Disk(*request["disk"]) if "disk" in request else None
    if disk is not None:
        disk.install()
    code = main(request["run"])
    return REACHED if code == 0 and disk is not None and not disk.reached else code


def _order_faults(**policy: Any) -> None:
    """Make shards by the task that follows orders, in forked workers, with other numbers in the policy."""
    from tests.faults.orders import make
    from workers import drive, execution, local
    from workers.policy import Policy

    executor = execution.How.executor
    execution.How.executor = lambda how, jobs: executor(how, jobs, make)  # type: ignore[method-assign,assignment]
    drive._LOOK_S = policy.pop("look_s", drive._LOOK_S)
    local._GRACE_S = policy.pop("grace_s", local._GRACE_S)
    execution.Policy = partial(Policy, **policy)  # type: ignore[misc,assignment]
    local._SPAWN = get_context("fork")  # type: ignore[assignment]
    serve_jobs = local._serve

    def forked(pipe: Connection, *rest: Any) -> None:
        for other in [found for found in gc.get_objects() if type(found) is Connection and found is not pipe]:
            other.close()  # those of other workers, which a spawned one does not have
        serve_jobs(pipe, *rest)

    local._serve = forked  # type: ignore[assignment]


if __name__ == "__main__":
    serve()
