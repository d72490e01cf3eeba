"""Batch buffers that are used again and again: filling fresh memory costs several times what decoding does."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any

import numpy.typing as npt
import torch


class _Loan(weakref.ref[npt.NDArray[Any]]):
    """Watches a view of a lent array."""

    __slots__ = ("array",)
    array: npt.NDArray[Any]


class BufferPool:
    """Batch arrays of one shape that come back by themselves once nobody holds their tensor, or a part of it."""

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, pinned: bool = False) -> None:
        self.allocated = 0
        self._shape, self._dtype, self._pinned = shape, dtype, pinned
        self.clear()

    def clear(self) -> None:
        """Forget all arrays; those that are lent out live as long as their tensors."""
        self._lent: dict[int, _Loan] = {}
        self._returned: deque[weakref.ref[npt.NDArray[Any]]] = deque()

    def lend(self, count: int) -> torch.Tensor:
        """A tensor of `count` samples whose values are left over from earlier uses."""
        array = self._take_back() if self._returned else self._allocate()
        # The tensor's storage, which slices share, keeps this very view alive: when it dies, nobody reads any more.
        view = array[:count]
        # The callback is no Python code: an interrupt that arrives within such a callback would be lost.
        loan = _Loan(view, self._returned.append)
        loan.array = array
        self._lent[id(loan)] = loan
        return torch.from_numpy(view)

    def _take_back(self) -> npt.NDArray[Any]:
        return self._lent.pop(id(self._returned.pop())).array

    def _allocate(self) -> npt.NDArray[Any]:
        self.allocated += 1
        array: npt.NDArray[Any] = torch.empty(self._shape, dtype=self._dtype, pin_memory=self._pinned).numpy()
        return array
