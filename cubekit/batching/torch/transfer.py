"""From arrays to tensors on a device: pinned memory, and copies that go on while others work.

Nothing here has been run on a GPU yet: the tests take the place of its events with their own.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch.utils.data import get_worker_info

from cubekit.batching.buffers import Buffers
from cubekit.batching.torch.shared import Batch
from cubekit.typing import Array

_KEEP = 32  # pinned arrays: some batches of several arrays each


class Event(Protocol):
    """A place in the work of a device that can be waited for."""

    def synchronize(self) -> Any:
        """Wait until the device is there."""


class Carrier:
    """Brings batches to a device, and keeps the memory that they are copied from until the copy is over.

    Memory of batches is used again as soon as nobody refers to it, and a copy to a GPU is still under way
    when the call that asked for it returns. So a batch is held until the event after its copy has come; it is
    waited for when the next batch goes, by when it is long over.

    Parameters
    ----------
    device : str or torch.device or None
        Where to; None leaves tensors where they are.
    mark : callable, optional
        Returns an event after all that the device was asked for so far. Default: that of CUDA; none
        elsewhere, where copies are over when the call returns.
    """

    def __init__(self, device: str | torch.device | None, *, mark: Callable[[], Event] | None = None) -> None:
        self._device = None if device is None else torch.device(device)
        on_gpu = self._device is not None and self._device.type == "cuda"
        self._mark = mark or (self._cuda_event if on_gpu else None)
        self._under_way: tuple[Event, Batch] | None = None

    def __call__(self, arrays: Mapping[str, Array]) -> Batch:
        """Return tensors of arrays, on the device."""
        here = {name: torch.from_numpy(values) for name, values in arrays.items()}
        if self._device is None:
            return here
        there = {name: values.to(self._device, non_blocking=True) for name, values in here.items()}
        if self._mark is not None:
            before, self._under_way = self._under_way, (self._mark(), here)
            if before is not None:
                before[0].synchronize()
        return there

    def _cuda_event(self) -> Event:
        event: Any = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        marked: Event = event
        return marked


def pinned() -> Callable[[Mapping[str, Array]], Mapping[str, Array]] | None:
    """Return what copies arrays to pinned memory, so that their way to a GPU overlaps with work.

    Batches are filled in ordinary memory, as much of it as a stream's buffer; only those about to leave are
    pinned.

    Returns
    -------
    callable or None
        None without a GPU, and in worker processes, whose batches are sent to another one first.
    """
    if not torch.cuda.is_available() or get_worker_info() is not None:
        return None
    return partial(_copied, Buffers(_pinned_bytes, keep=_KEEP))


def _copied(memory: Buffers, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
    copies = {name: memory(values.shape, values.dtype) for name, values in arrays.items()}
    for name, values in arrays.items():
        copies[name][...] = values
    return copies


def _pinned_bytes(size: int) -> Array:
    made: Array = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
    return made
