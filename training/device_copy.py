"""Batches from host buffers to the device, on a stream of their own where the device is a GPU.

The copy from pinned memory then runs beside the kernels that are queued already, and the host does not wait for it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch

from pipeline.errors import InputError
from training.reader import Batch

MOST_COPYING = 2  # the batch that is delivered, and the next one


@dataclass(frozen=True)
class Copying:
    """A batch on the device, there after `event`; None where it is there already."""

    batch: Batch
    event: torch.cuda.Event | None = None


class DeviceCopy:
    """Copies batches to one device."""

    def __init__(self, device: str | torch.device | None) -> None:
        self.device = checked_device(device)
        self._stream: torch.cuda.Stream | None = None
        self._copying: deque[tuple[Batch, torch.cuda.Event]] = deque()  # host buffers that may still be read from

    @property
    def pinned(self) -> bool:
        """Whether host buffers should be pinned."""
        return self.device.type == "cuda"

    @property
    def ahead(self) -> bool:
        """Whether a copy runs by itself, so that it should begin before the batch is wanted."""
        return self.device.type == "cuda"

    def begin(self, host: Batch) -> Copying:
        """Begin to copy a batch; on the host it is the same one."""
        if self.device.type == "cpu":
            return Copying(host)
        if self.device.type != "cuda":
            return Copying({name: tensor.to(self.device) for name, tensor in host.items()})
        return self._to_gpu(host)

    def _to_gpu(self, host: Batch) -> Copying:
        while len(self._copying) >= MOST_COPYING or (self._copying and _is_done(self._copying[0][1])):
            self._release()
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            copied = {name: tensor.to(self.device, non_blocking=True) for name, tensor in host.items()}
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        self._copying.append((host, event))
        return Copying(copied, event)

    def delivered(self, copying: Copying) -> Batch:
        """The batch for the consumer, whose kernels from now on wait for the copy."""
        if copying.event is not None:
            consumer = torch.cuda.current_stream(self.device)
            consumer.wait_event(copying.event)
            for tensor in copying.batch.values():
                tensor.record_stream(consumer)  # or its memory would be given away while kernels still read it
        return copying.batch

    def finish(self) -> None:
        """Wait for all copies: until then their host buffers must not be filled anew."""
        while self._copying:
            self._release()

    def _release(self) -> None:
        """Give the host buffers of the oldest copy back, when it is done."""
        self._copying[0][1].synchronize()
        self._copying.popleft()


def _is_done(event: torch.cuda.Event) -> bool:
    return bool(event.query())  # type: ignore[no-untyped-call]


def checked_device(device: str | torch.device | None) -> torch.device:
    """The device (None: the CPU); InputError where it cannot be used."""
    try:
        checked = torch.device("cpu" if device is None else device)
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises AssertionError
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"ShardStream: device {device} cannot be used here: {reason}. Use cpu or cuda") from error
    return checked
