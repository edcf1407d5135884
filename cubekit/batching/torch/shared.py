"""What all streams of tensors share: epochs, their place among ranks, and states to go on from."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from cubekit.errors import OptionError

Batch = dict[str, torch.Tensor]
"""``x``, ``y``, ``valid``, ``doy`` and more: see :class:`SampleStream` and :class:`CubeStream`."""


Pass = tuple[int, Iterable[tuple[int, Callable[[], Batch]]]]
"""Number of a worker's last batch in an epoch, and its batches by number, each made when called."""


class SharedStream(IterableDataset[Batch]):
    """A stream of epochs that knows its rank, where it stands, and how to go on from there.

    A pass is one epoch, the next pass the next. The rank is known in worker processes too, where
    ``torch.distributed`` does not run. Streams make their batches in :meth:`_pass`.
    """

    everywhere = False
    """Whether every rank gets all batches, as for validation, instead of its share."""

    _sent: tuple[int, int] | None = None  # rank and ranks of the process that sent the stream here

    def __init__(self) -> None:
        self._epoch = 0
        self._position = 0  # batches of this epoch that have been given out
        self._resume = 0  # where the next pass starts

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_sent": self._share()}

    def _share(self) -> tuple[int, int]:
        """Return the rank of this process, or of the one that started it, and how many there are."""
        if self.everywhere:
            return 0, 1
        if self._sent is not None and get_worker_info() is not None:
            return self._sent
        return ranks()

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        start, self._resume = self._resume, 0
        epoch = self._epoch
        last, batches = self._pass(epoch, start, number, workers)
        for index, batch in batches:
            # the epoch ends with its last batch, as trainers that know the length never ask for more
            self._epoch, self._position = (epoch + 1, 0) if index == last else (epoch, index + 1)
            yield batch()

    def _pass(self, epoch: int, start: int, number: int, workers: int) -> Pass:
        """Return the batches of a worker from a position on."""
        raise NotImplementedError

    def _identity(self) -> dict[str, Any]:
        """Return what must agree between a state and its stream."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass.

        Parameters
        ----------
        epoch : int
            From 0. Naming the epoch that a loaded state stands in keeps its position.
        """
        if epoch != self._epoch:
            self._epoch, self._position, self._resume = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands: the batches given out so far are not given again.

        Returns
        -------
        dict
            Plain numbers, for :meth:`load_state_dict`. With worker processes each has its own.
        """
        return {"epoch": self._epoch, "position": self._position, **self._identity()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another stream over the same samples stood; what it gave out is not read again.

        Parameters
        ----------
        state : mapping
            From :meth:`state_dict`.

        Raises
        ------
        OptionError
            If the other stream had other samples, batch size, order, seed or, of cubes, memory.
        """
        check_identity(state, self._identity())
        self._epoch, self._position = int(state["epoch"]), int(state["position"])
        self._resume = self._position


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
