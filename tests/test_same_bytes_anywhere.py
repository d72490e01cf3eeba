"""Samples do not depend on the vector instructions of the CPU: drawn, rendered and measured in processes without some.

A library (NumPy, BLAS, LAPACK, PyTorch) chooses its kernels by the CPU, and kernels add up in different orders.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.bank import Bank, open_bank
from pipeline.config import GenerateConfig
from pipeline.measure import measure_sample
from pipeline.spec import draw_sample
from pipeline.synthesis import render
from tests.specs import config

ROOT = Path(__file__).resolve().parents[1]
PATCH = (32, 32, 24)
# Settings and how many samples of each.
POPULATIONS: dict[str, tuple[GenerateConfig, int]] = {
    "liver": (config(patch_shape=PATCH, distractor_share=0.5), 4),
    "liver, growth": (config(patch_shape=PATCH, engine="growth"), 1),
    "kidney": (config("kidney", patch_shape=PATCH, distractor_share=0.5), 4),
    "pancreas": (config("pancreas", patch_shape=PATCH), 4),
    "colon": (config("colon", patch_shape=PATCH), 1),
}
_PROGRAM = "import sys; from tests.test_same_bytes_anywhere import main; main(sys.argv[1])"

Digests = dict[str, dict[str, str]]  # by sample, then by what is digested


def main(bank: str) -> None:
    """What a process of another CPU does: prints its digests, and which instructions it had."""
    print(json.dumps({"vectors": torch.backends.cpu.get_cpu_capability(), "digests": digests(open_bank(Path(bank)))}))


def digests(bank: Bank) -> Digests:
    return {
        f"{name} {index}": _digests_of(bank, settings, index)
        for name, (settings, count) in POPULATIONS.items()
        for index in range(count)
    }


def _digests_of(bank: Bank, settings: GenerateConfig, index: int) -> dict[str, str]:
    spec = draw_sample(bank, settings, index)
    case = bank.load(spec.case_id)
    rendered = render(case, spec)
    facts = measure_sample(case, spec, rendered)
    return {
        **_by_field("spec", json.loads(spec.model_dump_json())),
        "image": _digest(rendered.image.tobytes()),
        "label": _digest(rendered.label.tobytes()),
        **_by_field("facts", facts),
    }


def _by_field(what: str, record: dict[str, Any]) -> dict[str, str]:
    """A digest of each field of a sample's record and of its tumors', so that a failure says which field differs."""
    fields = {f"{what}: {name}": value for name, value in record.items() if name != "tumors"}
    for number, tumor in enumerate(record["tumors"], 1):
        fields |= {f"{what} of tumor {number}: {name}": value for name, value in tumor.items()}
    return {name: _digest(json.dumps(value).encode()) for name, value in fields.items()}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def vectors_of_numpy() -> list[str]:
    """The instruction sets beyond its baseline that NumPy has kernels for and this CPU has."""
    shown: Any = np.show_config(mode="dicts")
    return list(shown["SIMD Extensions"].get("found", []))


def settings_of(cpu: str) -> dict[str, str]:
    """Environment variables under which the libraries see an older CPU."""
    if cpu == "this":
        return {}
    found = vectors_of_numpy()
    if cpu == "avx2":
        gone = [name for name in found if name.startswith("AVX512") or name == "X86_V4"]
        vectors = {"OPENBLAS_CORETYPE": "Haswell", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    else:
        gone = found
        vectors = {
            "OPENBLAS_CORETYPE": "Prescott",
            "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
            "ATEN_CPU_CAPABILITY": "default",
        }
    return vectors | ({"NPY_DISABLE_CPU_FEATURES": " ".join(gone)} if gone else {})


@pytest.fixture(scope="module")
def processes(abdomens: Bank) -> dict[str, dict[str, Any]]:
    """What processes on three CPUs print; all read one bank."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("the variables that hide vector instructions are those of x86-64")
    return {cpu: _run(settings_of(cpu), abdomens.path) for cpu in ("this", "avx2", "sse")}


def _run(settings: dict[str, str], bank: Path) -> dict[str, Any]:
    plain = {name: value for name, value in os.environ.items() if name not in settings_of("sse")}
    command = [sys.executable, "-c", _PROGRAM, str(bank)]
    environment = {**plain, "OMP_NUM_THREADS": "1", **settings}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_older_cpus_are_what_the_processes_see(processes: dict[str, dict[str, Any]]) -> None:
    """Else equal digests would say nothing."""
    vectors = {cpu: found["vectors"] for cpu, found in processes.items()}
    assert vectors["sse"] in ("DEFAULT", "NO AVX")
    assert vectors["avx2"] in ("AVX2", vectors["this"])


@pytest.mark.parametrize("cpu", ["avx2", "sse"])
def test_samples_do_not_depend_on_the_cpu(processes: dict[str, dict[str, Any]], cpu: str) -> None:
    here, there = processes["this"]["digests"], processes[cpu]["digests"]
    assert here.keys() == there.keys()
    assert sum("label" in sample for sample in here.values()) == sum(count for _, count in POPULATIONS.values())
    differ = [
        f"{name}: {what}"
        for name in here
        for what in sorted({**here[name], **there[name]})
        if here[name].get(what) != there[name].get(what)
    ]
    assert not differ, "\n".join(differ)
