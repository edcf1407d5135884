"""Batches shared out among the processes of one training."""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import torch.distributed as dist


class RankShare:
    """Every process gets its own batches of a stream, and all get as many.

    A remainder of batches is left out of the epoch; the next epoch has another order.

    Parameters
    ----------
    stream : iterable
        The same in every process, with ``len``.
    world : int
        Number of processes.
    """

    def __init__(self, stream: Any, world: int) -> None:
        self._stream, self._world = stream, world
        self._given = self._skip = 0

    def __len__(self) -> int:
        return max(1, len(self._stream) // self._world)

    def __iter__(self) -> Iterator[Any]:
        rank = dist.get_rank() if dist.is_initialized() else 0
        skip, self._skip = self._skip * self._world, 0
        for index, batch in enumerate(islice(iter(self._stream), len(self) * self._world)):
            if index >= skip and index % self._world == rank:
                self._given = (index // self._world + 1) % len(self)
                yield batch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass.

        Parameters
        ----------
        epoch : int
            From 0.
        """
        if hasattr(self._stream, "set_epoch"):
            self._stream.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches each process has got in this epoch.

        Returns
        -------
        dict
            For :meth:`load_state_dict`.
        """
        return {"given": self._given}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Leave out the batches that were given before.

        Parameters
        ----------
        state : mapping
            From :meth:`state_dict`.
        """
        self._skip = int(state["given"])
