"""Batches from host buffers to the device, on a stream of their own where the device is a GPU.

The copy from pinned memory then runs beside the kernels that are queued already, and the host does not wait for it.
"""

from __future__ import annotations

import torch

from pipeline.errors import InputError
from training.reader import Batch


class DeviceCopy:
    """Copies batches to one device."""

    def __init__(self, device: str | torch.device | None) -> None:
        self.device = checked_device(device)
        self._stream: torch.cuda.Stream | None = None
        self._copying: tuple[Batch, torch.cuda.Event] | None = None

    @property
    def pinned(self) -> bool:
        """Whether host buffers should be pinned."""
        return self.device.type == "cuda"

    def __call__(self, host: Batch) -> Batch:
        """The batch on the device; on the host it is the same one."""
        if self.device.type == "cpu":
            return host
        if self.device.type != "cuda":
            return {name: tensor.to(self.device) for name, tensor in host.items()}
        return self._to_gpu(host)

    def _to_gpu(self, host: Batch) -> Batch:
        self.finish()
        consumer = torch.cuda.current_stream(self.device)
        if self._stream is None:
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(self._stream):
            copied = {name: tensor.to(self.device, non_blocking=True) for name, tensor in host.items()}
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        consumer.wait_event(event)
        for tensor in copied.values():
            tensor.record_stream(consumer)  # or its memory would be given to the next copy while kernels still read it
        self._copying = (host, event)
        return copied

    def finish(self) -> None:
        """Wait for the last copy: until then its host buffers must not be filled anew."""
        if self._copying is not None:
            self._copying[1].synchronize()
            self._copying = None


def checked_device(device: str | torch.device | None) -> torch.device:
    """The device (None: the CPU); InputError where it cannot be used."""
    try:
        checked = torch.device("cpu" if device is None else device)
        torch.empty(0, device=checked)
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA raises AssertionError
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"ShardStream: device {device} cannot be used here: {reason}. Use cpu or cuda") from error
    return checked
