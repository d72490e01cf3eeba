"""Hashed smooth fields and interpolation: exact in float32 whatever the order of summation, box or batch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.synthesis.fields import FIELD_LIMIT, VALUE_LIMIT, Axes, FieldGrid, Interpolation, Kernel, lattice, root
from tests.tumors import CPU

KERNELS: tuple[Kernel, ...] = ("linear", "keys", "spline")
each_kernel = pytest.mark.parametrize("kernel", KERNELS)
Product = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def axes(starts: tuple[int, ...], shape: tuple[int, ...], step: float = 1.0) -> Axes:
    x, y, z = (np.arange(start, start + n)[None] * step for start, n in zip(starts, shape, strict=True))
    return x, y, z


def grid_of(between: Interpolation, values: Callable[..., npt.NDArray[np.float64]]) -> torch.Tensor:
    """Whole numbers at the grid points that an interpolation asks for."""
    index = np.meshgrid(
        *(s + np.arange(n) for s, n in zip(between.starts[0], between.shape, strict=True)), indexing="ij"
    )
    return torch.from_numpy(np.broadcast_to(values(*index), between.shape).astype(np.float32))[None]


def backwards(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """A matrix product summed one term after the other, from the last."""
    terms = [a[..., k : k + 1] * b[..., k : k + 1, :] for k in range(a.shape[-1])]
    total = torch.zeros_like(terms[-1])
    for term in terms[::-1]:
        total = total + term
    return total


def shuffled(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    order = torch.from_numpy(np.random.default_rng(1).permutation(a.shape[-1]))
    return backwards(a[..., order].contiguous(), b[..., order, :].contiguous())


def in_halves(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Even terms first, as vector units add."""
    return backwards(a[..., ::2], b[..., ::2, :]) + backwards(a[..., 1::2], b[..., 1::2, :])


def in_float64(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    exact = torch.einsum("...ik,...kj->...ij", a.double(), b.double())
    assert torch.equal(exact.float().double(), exact)
    return exact.float()


@each_kernel
@pytest.mark.parametrize("product", [backwards, shuffled, in_halves, in_float64])
def test_no_order_of_summation_changes_a_bit(kernel: Kernel, product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    positions: Axes = tuple(np.cumsum(rng.uniform(0.05, 0.9, (2, n)), axis=1) - 4 for n in (23, 17, 29))  # type: ignore[assignment]
    between = Interpolation(positions, kernel, CPU)
    random = rng.choice([-VALUE_LIMIT, VALUE_LIMIT, 1777, -3], (2, *between.shape))
    grid = torch.from_numpy(random.astype(np.float32))
    plain = between(grid)
    monkeypatch.setattr(torch, "matmul", product)
    monkeypatch.setattr(torch, "bmm", product)
    assert torch.equal(between(grid), plain)


def test_the_largest_sums_that_can_arise_are_exact() -> None:
    """Midway between points, with the signs of the weights, where Keys' kernel overshoots most."""
    middle = np.full((1, 1), 0.5)
    between = Interpolation((middle, middle, middle), "keys", CPU)
    signs = np.array([-1, 1, 1, -1])
    worst = VALUE_LIMIT * signs[:, None, None] * signs[:, None] * signs
    found = float(between(torch.from_numpy(worst.astype(np.float32))[None])[0, 0, 0, 0])
    value = VALUE_LIMIT
    for _ in range(2):
        value = round(value * 1.25)  # exact: the weights are sixteenths
    assert found == value * 1.25
    assert found * 2048 < 2**24


@each_kernel
@pytest.mark.parametrize("value", [0, 1, -777, VALUE_LIMIT])
def test_constants_are_reproduced_exactly(kernel: Kernel, value: int) -> None:
    between = Interpolation(axes((-5, 3, 0), (20, 9, 14), 0.371), kernel, CPU)
    assert torch.all(between(grid_of(between, lambda i, *_: np.full(i.shape, float(value)))) == value)


@each_kernel
def test_linear_functions_are_reproduced(kernel: Kernel) -> None:
    positions = axes((-5, 3, 0), (40, 19, 24), 0.217)
    between = Interpolation(positions, kernel, CPU)
    found = between(grid_of(between, lambda i, j, k: 100 * i - 70 * j + 30 * k + 5))[0].numpy()
    x, y, z = (p[0] for p in positions)
    assert np.abs(found - (100 * x[:, None, None] - 70 * y[:, None] + 30 * z + 5)).max() < 1.5


def test_keys_reproduces_quadratics_and_linear_does_not() -> None:
    positions = axes((-10, 0, 0), (60, 5, 5), 0.17)
    x = positions[0][0]
    error = {}
    for kernel in ("linear", "keys"):
        between = Interpolation(positions, kernel, CPU)
        found = between(grid_of(between, lambda i, *_: 40.0 * i * i - 900))[0, :, 2, 2].numpy()
        error[kernel] = np.abs(found - (40 * x * x - 900)).max()
    assert error["keys"] < 1.5
    assert error["linear"] > 8


@pytest.mark.parametrize("kernel", ["linear", "keys"])
def test_grid_values_are_passed_through(kernel: Kernel) -> None:
    between = Interpolation(axes((2, -3, 0), (6, 5, 4)), kernel, CPU)
    grid = torch.from_numpy(np.random.default_rng(0).integers(-4095, 4096, (1, *between.shape)).astype(np.float32))
    skip = 0 if kernel == "linear" else 1
    inner = grid[:, skip : skip + 6, skip : skip + 5, skip : skip + 4]
    assert torch.equal(between(grid), inner)


@settings(max_examples=60, deadline=None)
@given(
    key=st.integers(0, 2**64 - 1),
    low=st.tuples(*[st.integers(0, 9)] * 3),
    size=st.tuples(*[st.integers(1, 9)] * 3),
    start=st.tuples(*[st.integers(-2000, 2000)] * 3),
    step=st.floats(0.1, 3.0),
    grain=st.floats(0.3, 20.0),
)
def test_any_part_of_a_field_can_be_computed_alone(
    key: int, low: tuple[int, ...], size: tuple[int, ...], start: tuple[int, ...], step: float, grain: float
) -> None:
    whole = axes(start, (18, 18, 18), step)
    x, y, z = (a[:, c : c + n] for a, c, n in zip(whole, low, size, strict=True))
    inside = tuple(slice(c, c + n) for c, n in zip(low, size, strict=True))
    part = FieldGrid((x, y, z), [grain], CPU).field([key])[0]
    assert torch.equal(part, FieldGrid(whole, [grain], CPU).field([key])[0][inside])


def test_a_lattice_window_is_a_part_of_the_lattice() -> None:
    keys, start = torch.tensor([9]), torch.tensor([[-4, -4, -4]])
    whole = lattice(keys, start, (9, 9, 9))
    assert torch.equal(lattice(keys, start + torch.tensor([3, 4, 6]), (3, 4, 2)), whole[:, 3:6, 4:8, 6:8])


def test_the_lattice_is_uniform() -> None:
    values = lattice(torch.tensor([41]), torch.tensor([[-20, 5, 0]]), (48, 48, 48)).numpy().ravel()
    assert np.all(values % 2 == 1)
    assert np.abs(values).max() <= VALUE_LIMIT
    counts, _ = np.histogram(values, bins=64, range=(-4096, 4096))
    expected = len(values) / 64
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * np.sqrt(2 * 63)


@pytest.mark.parametrize("shift", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -1, 0)])
def test_neighbours_in_the_lattice_are_uncorrelated(shift: tuple[int, int, int]) -> None:
    keys = torch.tensor([5])
    here = lattice(keys, torch.tensor([[0, 0, 0]]), (40, 40, 40)).numpy().ravel()
    there = lattice(keys, torch.tensor([shift]), (40, 40, 40)).numpy().ravel()
    assert abs(np.corrcoef(here, there)[0, 1]) < 4 / np.sqrt(len(here))


@pytest.mark.parametrize("other", [42, 41 + 2**32, -42, 2**62])
def test_different_keys_are_uncorrelated(other: int) -> None:
    both = lattice(torch.tensor([41, other]), torch.zeros((2, 3), dtype=torch.int64), (40, 40, 40)).numpy()
    assert abs(np.corrcoef(both[0].ravel(), both[1].ravel())[0, 1]) < 4 / np.sqrt(both[0].size)


def test_axes_are_not_interchangeable() -> None:
    values = lattice(torch.tensor([41]), torch.tensor([[0, 0, 0]]), (32, 32, 32)).numpy()[0]
    assert abs(np.corrcoef(values.ravel(), values.transpose(1, 0, 2).ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("key", [0, 1, 2**62 + 12345])
def test_fields_have_mean_0_and_sd_1_and_a_known_end(key: int) -> None:
    field = FieldGrid(axes((0, 0, 0), (96, 96, 96)), [3.0], CPU).field([key])
    assert abs(float(field.mean())) < 0.1
    assert 0.85 < float(field.std()) < 1.15
    assert 2.5 < float(field.abs().max()) <= FIELD_LIMIT


def test_fields_are_smooth_at_their_grain() -> None:
    field = FieldGrid(axes((0, 0, 0), (64, 64, 64)), [6.0], CPU).field([3])[0]
    assert (field[1:] - field[:-1]).std() < 0.35 * (field[24:] - field[:-24]).std()


def test_several_keys_are_as_each_alone() -> None:
    grid = FieldGrid(axes((-7, 2, 0), (12, 10, 9)), [2.3], CPU)
    together = grid.fields([(11, 12, 2**63)])
    assert together.shape == (1, 3, 12, 10, 9)
    for k, key in enumerate((11, 12, 2**63)):
        assert torch.equal(together[:, k], grid.field([key]))


def test_a_batch_of_different_boxes_is_as_each_alone() -> None:
    steps, grains, keys = (0.7, 1.9, 3.0), (4.1, 0.9, 2.5), ((1, 2), (3, 4), (5, 6))
    alone = [axes((-9 + 5 * b, b, -b), (11, 8, 13), step) for b, step in enumerate(steps)]
    joined: Axes = tuple(np.concatenate([a[k] for a in alone]) for k in range(3))  # type: ignore[assignment]
    together = FieldGrid(joined, grains, CPU).fields(keys)
    for b, (own, grain) in enumerate(zip(alone, grains, strict=True)):
        assert torch.equal(together[b], FieldGrid(own, [grain], CPU).fields([keys[b]])[0])


@each_kernel
def test_interpolation_of_a_batch_is_as_each_alone(kernel: Kernel) -> None:
    alone = [axes((-4 + b, 3 * b, 0), (9, 7, 6), step) for b, step in enumerate((0.33, 0.9))]
    both = Interpolation(tuple(np.concatenate([a[k] for a in alone]) for k in range(3)), kernel, CPU)  # type: ignore[arg-type]
    values = torch.from_numpy(np.random.default_rng(2).integers(-4095, 4096, (2, *both.shape)).astype(np.float32))
    found = both(values)
    for b, own in enumerate(alone):
        one = Interpolation(own, kernel, CPU)
        x, y, z = one.shape
        assert np.array_equal(one.starts[0], both.starts[b])
        assert torch.equal(one(values[b : b + 1, :x, :y, :z]), found[b : b + 1])


def test_roots_are_rounded_correctly() -> None:
    """As numpy's, which are the processor's own; torch's float32 roots are not on every machine."""
    values = np.random.default_rng(5).random(1 << 16, np.float32) * 3000
    assert np.array_equal(root(torch.from_numpy(values)).numpy(), np.sqrt(values))
