"""The command line's application and what all verbs share."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from pipeline import __version__
from pipeline.config import GenerateConfig
from pipeline.errors import PhantumorError
from pipeline.train_config import TrainConfig

_ROOT = Path(__file__).resolve().parents[2]
_HELP = """Label-free tumor segmentation: put synthetic tumors into healthy CT, stream-train on them, find real ones.

Research software, not for clinical use. Every verb has --help with an example; `phantumor demo` shows all of them.
"""

app = App(
    name="phantumor",
    help=_HELP,
    version=__version__,
    help_format="plaintext",
    # A list flag takes all its values, and a number that follows one never becomes a positional by accident.
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main says what is kept and how to go on
)
Flatten = Parameter(name="*")


def _on_a_disk(_: Any, given: Any) -> None:
    """A URL as a path would become a local folder of that name."""
    for path in given if isinstance(given, tuple | list) else (given,):
        if path is not None and re.match(r"[a-z][a-z0-9+]+:/", str(path)):
            raise ValueError(
                f"{str(path).replace(':/', '://', 1)}: this has to be on a disk; `phantumor copy` copies to S3"
            )


@dataclass(frozen=True)
class Workforce:
    """Who makes shards; the flags of every verb that does.

    Parameters
    ----------
    workers
        Processes on this machine; with --ray local, CPUs of the Ray cluster that is started.
    ray
        Use Ray: local starts a cluster here, auto or an address joins a running one.
    insecure
        Also join a Ray cluster that anybody may use without a token.
    retry_failed
        Also make shards that an earlier run gave up, see failures/ in the dataset.
    """

    workers: Annotated[int, Parameter(validator=Number(gte=1))] = 1
    ray: str | None = None
    insecure: bool = False
    retry_failed: bool = False


ALONE = Workforce()
Local = Annotated[Path, Parameter(validator=_on_a_disk)]


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextmanager
def told_when_stopped(what: str) -> Iterator[None]:
    """What Ctrl-C leaves behind, of a verb that does not go on where it was stopped."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(str(stop) or f"stopped; {what}") from stop


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def given(settings: GenerateConfig | TrainConfig | None) -> dict[str, Any]:
    """Only what the command line named, so that a YAML file can set the rest."""
    return settings.model_dump(exclude_unset=True) if settings is not None else {}


def ours(*names: str) -> None:
    """The packages have generic names: refuse to run when another installed package hides one of ours."""
    for name in names:
        spec = find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found is None or _ROOT not in found.parents:
            raise PhantumorError(
                f"the package {name!r} is found at {found}, not in the phantumor checkout {_ROOT}: another package "
                "of that name hides ours. Install phantumor in an environment of its own (`make setup`)"
            )
