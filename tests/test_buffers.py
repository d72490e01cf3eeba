"""Buffers that come back when nobody holds them."""

from __future__ import annotations

import pytest
import torch

from training.buffers import BufferPool


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float32, torch.float16])
def test_a_lent_tensor_has_the_size_asked_for(dtype: torch.dtype) -> None:
    pool = BufferPool((4, 1, 2, 3, 5), dtype)
    assert pool.lend(3).shape == (3, 1, 2, 3, 5)
    assert pool.lend(4).dtype == dtype


def test_a_buffer_is_lent_again_once_it_is_dropped() -> None:
    pool = BufferPool((2, 4), torch.int16)
    seen = {pool.lend(2).data_ptr() for _ in range(10)}
    assert pool.allocated == len(seen) == 1


HOLDERS = {
    "the tensor": lambda tensor: tensor,
    "one sample": lambda tensor: tensor[1],
    "a reshaped view": lambda tensor: tensor.view(-1)[3:5],
    "a detached alias": lambda tensor: tensor.detach(),
    "the numpy array": lambda tensor: tensor.numpy(),
    "a slice of the numpy array": lambda tensor: tensor.numpy()[1, 2:],
    "the storage": lambda tensor: tensor.untyped_storage(),
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_a_buffer_is_not_lent_again_while_anything_refers_to_it(holder) -> None:  # type: ignore[no-untyped-def]
    pool = BufferPool((2, 4), torch.int16)
    tensor = pool.lend(2).fill_(7)
    held = holder(tensor)
    where = tensor.data_ptr()
    del tensor
    others = [pool.lend(2).fill_(9) for _ in range(3)]
    assert where not in {other.data_ptr() for other in others}
    del held
    assert pool.lend(2).data_ptr() == where


def test_a_cleared_pool_forgets_free_and_lent_buffers() -> None:
    pool = BufferPool((2, 4), torch.int16)
    lent = pool.lend(2)
    pool.clear()
    del lent
    pool.lend(2)
    assert pool.allocated == 2
