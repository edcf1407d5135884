"""What a network holds while it predicts, measured on a small input."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known: dict[int, int] = {}
        self._given: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):  # what was there before, of which results may be views
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() not in self._known:
                self._given.add(leaf.untyped_storage().data_ptr())
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if not size or (place in self._given and place not in self._known):
            return
        if place not in self._known:
            self._known[place] = 0
            self.now += size
            self.peak = max(self.peak, self.now)
        self._known[place] += 1
        weakref.finalize(tensor, self._drop, place, size)

    def _drop(self, place: int, size: int) -> None:
        self._known[place] = self._known.get(place, 1) - 1
        if self._known[place] <= 0 and self._known.pop(place, None) is not None:
            self.now -= size


def activation_bytes(run: Callable[[], object]) -> int:
    """Count the bytes that tensors take while a function runs, at most at a time.

    Parameters
    ----------
    run : callable
        Runs a network without gradients on an input that exists already, which is not counted.

    Returns
    -------
    int
        Bytes of all tensors made inside; what a library takes for itself (work space of convolutions) is
        not seen.
    """
    with _Live() as live, torch.no_grad():
        run()
    peak: int = live.peak
    return peak
