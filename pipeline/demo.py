"""`phantumor demo`: the whole loop on built-in phantoms, as commands that a user would type, each shown first."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from pipeline.errors import InputError, PhantumorError
from pipeline.phantom import make_phantom
from pipeline.progress import duration
from pipeline.volume import write_nifti

_MARK = "demo.json"
_MADE = ("cases", "bank", "data", "run", "figures")
_CASES = 12
_SPACING_MM = 3.0
_SHAPE = (112, 92, 68)  # 336 x 276 x 204 mm


def run_demo(out: Path) -> None:
    """Make phantoms, prepare, preview, generate through Ray, inspect, train, evaluate; the report lies in `out`."""
    started = time.monotonic()
    _clear(out)
    print(f"Twelve procedural phantoms stand in for healthy patients: {out / 'cases'}", flush=True)
    _write_phantoms(out / "cases")
    bank, data, run = out / "bank", out / "data", out / "run"
    for command in (
        f"prepare {_q(out / 'cases')} --labels phantumor --spacing {_SPACING_MM:g} --out {_q(bank)}",
        f"preview {_q(bank)} --kind metastasis --diameter-mm 30 --out {_q(out / 'figures' / 'preview.png')}",
        f"generate --bank {_q(bank)} --out {_q(data)} --samples 1024 --patch-shape 48 48 32 --shard-samples 32 "
        "--tumors.liver.diameter-mm 8 45 --tumors.liver.contrast-hu -80 -40 "
        "--body-share 0.25 --ray local --workers 2",
        f"inspect {_q(data)} --figures {_q(out / 'figures')}",
        f"train --data {_q(data)} --out {_q(run)} --steps 2000 --lr 0.003 --log-every 100 --validate-every 500",
        f"evaluate --run {_q(run)} --data {_q(data)} --split test --out {_q(out)}",
    ):
        _run(command)
    print(f"\nAll of it took {duration(time.monotonic() - started)}. Open {out / 'report.html'} in a browser.")
    print("These are phantoms: the figures show that the loop works, not how well it finds real tumors.")


def _q(path: Path) -> str:
    return shlex.quote(str(path))


def _clear(out: Path) -> None:
    """An empty folder, or one of an earlier demo without what that made."""
    if out.exists() and not (out / _MARK).exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not from an earlier demo; give --out a new folder")
    for name in _MADE:
        shutil.rmtree(out / name, ignore_errors=True)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / _MARK).write_text(json.dumps({"made_by": "phantumor demo"}))
    except OSError as error:
        raise PhantumorError(f"cannot write to {out}: {error.strerror}; choose another --out") from error


def _write_phantoms(folder: Path) -> None:
    for seed in range(_CASES):
        phantom = make_phantom(seed, _SHAPE, _SPACING_MM)
        case = folder / f"phantom_{seed + 1}"
        case.mkdir(parents=True)
        write_nifti(case / "ct.nii.gz", phantom.ct, phantom.affine)
        write_nifti(case / "organs.nii.gz", phantom.organs.astype(np.uint8), phantom.affine)


def _run(command: str) -> None:
    print(f"\n$ phantumor {command}", flush=True)
    code = subprocess.run([sys.executable, "-m", "pipeline.cli", *shlex.split(command)], check=False).returncode
    if code:
        raise PhantumorError(f"the demo stopped: `phantumor {command}` ended with exit code {code}")
