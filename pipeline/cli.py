"""The command line: `main` runs a verb of `pipeline.verbs`; every failure becomes one message and an exit code."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence

from cyclopts import CycloptsError
from pydantic import ValidationError

from pipeline.errors import PhantumorError
from pipeline.settings import explain
from pipeline.verbs import (  # noqa: F401  (registers the verbs)
    annotating,
    copies,
    datasets,
    evaluation,
    evidence,
    experiments,
    judging,
    learning,
    looking,
    making,
)
from pipeline.verbs.app import app


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code: 0 done, 1 failed, 2 bad input."""
    words = list(sys.argv[1:] if argv is None else argv)
    warnings.formatwarning = lambda message, *_: f"phantumor: {message}\n"
    try:
        with _stopped_by_sigterm():
            app(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return _fail(_usage(error, words), 2)
    except ValidationError as error:
        return _fail(explain(error), 2)
    except PhantumorError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "stopped; what was finished is kept, the same command goes on from there", 1)
    except BrokenPipeError:  # `phantumor inspect | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(f"{error.filename or 'the system'}: {error.strerror or error}", 1)
    return 0


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """What schedulers send before they take a machine away stops a command as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _usage(error: CycloptsError, words: Sequence[str]) -> str:
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        return explain(cause)
    first = (word for word in words[:1] if not word.startswith("-"))
    verb = " ".join(first if error.command_chain is None else error.command_chain)
    text = str(error).strip().replace("requires an argument", "is required")
    text = text.replace("positional arguments", "values, separated by blanks")
    return f"{text} See `phantumor {verb + ' ' if verb else ''}--help`."


def _fail(message: str, code: int) -> int:
    print(f"phantumor: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
