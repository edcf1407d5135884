"""What all streams of tensors share: their place among ranks, and whose states they take."""

from collections.abc import Mapping
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from cubekit.errors import OptionError

Batch = dict[str, torch.Tensor]
"""``x``, ``y``, ``valid``, ``doy`` and more: see :class:`SampleStream` and :class:`CubeStream`."""


class SharedStream(IterableDataset[Batch]):
    """A stream that knows its rank, also in worker processes, where ``torch.distributed`` does not run."""

    everywhere = False
    """Whether every rank gets all batches, as for validation, instead of its share."""

    _sent: tuple[int, int] | None = None  # rank and ranks of the process that sent the stream here

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_sent": self._share()}

    def _share(self) -> tuple[int, int]:
        """Return the rank of this process, or of the one that started it, and how many there are."""
        if self.everywhere:
            return 0, 1
        if self._sent is not None and get_worker_info() is not None:
            return self._sent
        return ranks()


def ranks() -> tuple[int, int]:
    """Return the rank of this process, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def check_identity(state: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise unless a state belongs to a stream.

    Parameters
    ----------
    state : mapping
        That was saved.
    identity : mapping
        What must be the same.

    Raises
    ------
    OptionError
        With all that differs.
    """
    differing = {key: (state.get(key), value) for key, value in identity.items() if state.get(key) != value}
    if differing:
        shown = ", ".join(f"{key} was {was!r}, is {now!r}" for key, (was, now) in differing.items())
        raise OptionError(f"The state belongs to another stream: {shown}.")
