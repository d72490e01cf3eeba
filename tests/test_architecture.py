"""Which room may import what, and other rules that a reader relies on, checked on the source of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("pipeline", "workers", "training")
# They offer every verb, so they reach into all rooms: inside functions, so that a verb loads only what it needs.
VERBS = tuple(
    f"pipeline/verbs/{name}.py"
    for name in (
        "app",
        "making",
        "datasets",
        "copies",
        "learning",
        "judging",
        "evaluation",
        "evidence",
        "looking",
        "experiments",
        "annotating",
    )
)
DOORS = ("pipeline/cli.py", "pipeline/demo.py", *VERBS)
# Training on a cluster needs both: `training` must not know Ray, and `workers` is the only room that does. It starts
# training processes as they are; nothing else in `workers` may reach into `training`.
TRAINING_ON_RAY = "workers/train_on_ray.py"
_LIGHT = "cli catalog comparison delta export inspection manifest reader shard status store views where".split()
LIGHT = (*(f"pipeline/{name}.py" for name in _LIGHT), *VERBS)
HEAVY = set("torch ray monai scipy matplotlib zarr nibabel pydicom cc3d edt obstore boto3".split())
MODULES = sorted(path.relative_to(ROOT).as_posix() for room in ROOMS for path in (ROOT / room).rglob("*.py"))


class Import(NamedTuple):
    package: str  # the outermost name
    line: int
    inside: bool  # a function, so it runs only when that is called


class _Imports(ast.NodeVisitor):
    """Every import of a module, at any depth, relative ones resolved."""

    def __init__(self, module: str) -> None:
        self._package = module.split("/")[:-1]
        self._depth = 0
        self.found: list[Import] = []

    def visit_Import(self, node: ast.Import) -> None:
        self._add(node, *(alias.name for alias in node.names))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        above = self._package[: len(self._package) - node.level + 1] if node.level else []
        self._add(node, ".".join([*above, node.module or ""]))

    def visit_Call(self, node: ast.Call) -> None:
        """`importlib.import_module("x")` and `__import__("x")` are imports as well."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
            self._add(node, str(node.args[0].value))
        self.generic_visit(node)

    def _add(self, node: ast.AST, *names: str) -> None:
        line = getattr(node, "lineno", 0)
        self.found += [Import(name.partition(".")[0], line, self._depth > 0) for name in names]

    def _visit_function(self, node: ast.AST) -> None:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1

    visit_FunctionDef = visit_AsyncFunctionDef = visit_Lambda = _visit_function  # noqa: N815


def parse(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(), module)


def imports_of(module: str, tree: ast.Module | None = None) -> list[Import]:
    visitor = _Imports(module)
    visitor.visit(tree or parse(module))
    return visitor.found


def allowed(module: str, package: str) -> bool:
    """Whether a module may import a package somewhere."""
    room = module.split("/")[0]
    match package:
        case "ray":
            return room == "workers"
        case "monai":
            return room == "training"
        case "torch":
            return room != "pipeline" or module.startswith("pipeline/synthesis/")
        case "workers":
            return room == package or module in DOORS
        case "training":
            return room == package or module in (*DOORS, TRAINING_ON_RAY)
        case "tests" | "benchmarks":
            return False
    return True


# -- the checker itself -----------------------------------------------------------------------------------------------


def test_the_rooms_are_found() -> None:
    assert {module.split("/")[0] for module in MODULES} == set(ROOMS)
    assert {*DOORS, TRAINING_ON_RAY, "workers/generate.py", "training/stream.py", "pipeline/shard.py"} <= set(MODULES)
    assert any(module.startswith("pipeline/synthesis/") for module in MODULES)


def test_imports_are_found_wherever_they_hide() -> None:
    tree = ast.parse(
        "import a.b, c as d\n"
        "from e.f import g\n"
        "from . import h\n"
        "from ..up import i\n"
        "if True:\n    import j\n"
        "class K:\n    import k\n    def f(self):\n        try:\n            from l.m import n\n        finally:\n"
        "            x = lambda: importlib.import_module('o.p')\n"
    )
    found = imports_of("room/inner/module.py", tree)
    assert [(i.package, i.inside) for i in found] == [
        ("a", False),
        ("c", False),
        ("e", False),
        ("room", False),
        ("room", False),
        ("j", False),
        ("k", False),
        ("l", True),
        ("o", True),
    ]


@pytest.mark.parametrize(
    ("module", "package", "expected"),
    [
        ("workers/ray_executor.py", "ray", True),
        ("pipeline/cli.py", "ray", False),
        ("training/train.py", "ray", False),
        ("training/network.py", "monai", True),
        ("pipeline/measure.py", "monai", False),
        ("workers/shard_task.py", "torch", True),
        ("pipeline/synthesis/render.py", "torch", True),
        ("pipeline/preview.py", "torch", False),
        ("pipeline/cli.py", "torch", False),
        ("pipeline/cli.py", "training", True),
        ("pipeline/config.py", "training", False),
        ("pipeline/status.py", "workers", False),
        ("training/train.py", "workers", False),
        ("workers/generate.py", "training", False),
        ("workers/train_on_ray.py", "training", True),
        ("training/train.py", "pipeline", True),
        ("training/train.py", "tests", False),
    ],
)
def test_the_rules_are_those_of_the_design(module: str, package: str, expected: bool) -> None:
    assert allowed(module, package) is expected


# -- the rules --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_its_room_may(module: str) -> None:
    forbidden = [f"{module}:{i.line} {i.package}" for i in imports_of(module) if not allowed(module, i.package)]
    assert forbidden == []


@pytest.mark.parametrize("module", DOORS)
def test_doors_open_other_rooms_only_inside_functions(module: str) -> None:
    assert [i for i in imports_of(module) if i.package in ("workers", "training") and not i.inside] == []


@pytest.mark.parametrize("module", LIGHT)
def test_modules_of_light_commands_import_heavy_things_only_inside_functions(module: str) -> None:
    assert [i for i in imports_of(module) if i.package in HEAVY and not i.inside] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(parse(module)), f"{module} has no docstring"


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Calls with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("module", [module for module in MODULES if module not in DOORS])
def test_parquet_is_read_without_a_scanner(module: str) -> None:
    """Its threads may outlive the interpreter's end with bytes of Python in hand, which aborts the process."""
    assert [f"{module}:{call.lineno}" for name, call in calls(parse(module)) if name.endswith("read_table")] == []


@pytest.mark.parametrize("module", [module for module in MODULES if module not in DOORS])
def test_a_library_does_not_print(module: str) -> None:
    assert [f"{module}:{call.lineno}" for name, call in calls(parse(module)) if name == "print"] == []


# -- randomness -------------------------------------------------------------------------------------------------------

NUMPY_RANDOM = {"Generator", "PCG64", "PCG64DXSM", "Philox", "SeedSequence", "BitGenerator", "default_rng"}
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "rand_like", "randn_like"}
TORCH_SEEDS = {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"}


def global_randomness(tree: ast.Module) -> list[str]:
    """Uses of a generator that others share: of numpy, of the standard library, of torch outside `fork_rng`."""
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.With) and any("fork_rng" in ast.unparse(item.context_expr) for item in node.items)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        text = ast.unparse(node) if isinstance(node, ast.Attribute | ast.Import | ast.ImportFrom) else ""
        owner, _, name = text.rpartition(".")
        if owner in ("np.random", "numpy.random") and name not in NUMPY_RANDOM:
            found.append(text)
        if text == "import random" or text.startswith(("from random import", "from numpy.random import")):
            found.append(text)
        if text in TORCH_SEEDS and id(node) not in guarded:
            found.append(text)
    for name, call in calls(tree):
        draws = name.startswith("torch.") and name.removeprefix("torch.") in TORCH_DRAWS
        if draws and id(call) not in guarded and not any(keyword.arg == "generator" for keyword in call.keywords):
            found.append(name)
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("np.random.seed(0)", ["np.random.seed"]),
        ("x = numpy.random.rand(3)", ["numpy.random.rand"]),
        ("import random", ["import random"]),
        ("from random import shuffle", ["from random import shuffle"]),
        ("torch.manual_seed(0)", ["torch.manual_seed"]),
        ("torch.randn(3)", ["torch.randn"]),
        ("with torch.random.fork_rng():\n    torch.manual_seed(0)\n    torch.rand(2)", []),
        ("torch.randn(3, generator=g)", []),
        ("np.random.Generator(np.random.PCG64(np.random.SeedSequence((1, 2))))", []),
        ("np.random.default_rng(np.random.SeedSequence((1, 2))).normal()", []),
        ("g = torch.Generator().manual_seed(3)", []),
    ],
)
def test_global_randomness_is_recognised(source: str, expected: list[str]) -> None:
    assert global_randomness(ast.parse(source)) == expected


@pytest.mark.parametrize("module", MODULES)
def test_no_module_uses_a_generator_that_others_share(module: str) -> None:
    assert global_randomness(parse(module)) == []


def test_generators_are_always_seeded() -> None:
    unseeded = [
        f"{module}:{call.lineno}"
        for module in MODULES
        for name, call in calls(parse(module))
        if name.rpartition(".")[2] in ("default_rng", "SeedSequence", "PCG64") and not (call.args or call.keywords)
    ]
    assert unseeded == []
