"""Batches of labelled series that are in memory, as tensors."""

import math
from functools import partial
from typing import Any

import numpy as np
import torch

from cubekit.batching.augment import Augmentation
from cubekit.batching.decode import decode
from cubekit.batching.samples import Samples
from cubekit.batching.torch.shared import Batch, Pass, SharedStream
from cubekit.errors import OptionError
from cubekit.typing import Array, IntArray


class SampleStream(SharedStream):
    """Batches of samples, epoch by epoch.

    Each batch is a dictionary:

    - ``x`` (n, time, band) float32: physical values, NaN where there is no data;
    - ``valid`` (n, time, band) bool;
    - ``doy`` (n, time) int64: day of the year;
    - ``y`` (n,) int64 class index, or (n, class) float32 shares;
    - ``ancillary`` (n, variable) float32, physical, of samples that have such variables.

    Batches are evened out: their sizes differ by one at most, so that no lone last sample upsets batch
    normalisation. Every sample comes once in an epoch, however many loader workers there are.

    A pass over the stream is one epoch; the next pass is the next epoch, in another order if shuffled. With
    the workers of a ``DataLoader``, which work on copies, call :meth:`set_epoch` before each pass, as with
    torch's own distributed sampler.

    Parameters
    ----------
    samples : Samples
        What to stream.
    batch : int
        Samples in a batch, at most.
    shuffle : bool
        Whether every epoch has its own order.
    seed : int
        Seed of the orders, and of the augmentation.
    augment : Augmentation, optional
        Changes to the values; series are not turned.
    """

    def __init__(
        self,
        samples: Samples,
        *,
        batch: int,
        shuffle: bool,
        seed: int,
        augment: Augmentation | None = None,
    ) -> None:
        if not len(samples):
            raise OptionError("There is no sample to stream: the part is empty.")
        if batch < 1:
            raise OptionError(f"batch={batch!r} must be at least 1.")
        super().__init__()
        self.samples = samples
        self.batch = batch
        self.shuffle = shuffle
        self.seed = seed
        self.augment = augment

    def __len__(self) -> int:
        return self._batches() // self._share()[1]

    def _batches(self) -> int:
        """Count the batches of all ranks: as many for each."""
        ranks = self._share()[1]
        return math.ceil(math.ceil(len(self.samples) / self.batch) / ranks) * ranks

    def __repr__(self) -> str:
        n, steps, bands = self.samples.x.shape
        size = n * steps * bands * np.dtype("float32").itemsize
        return (
            f"SampleStream: {n} samples of {steps} steps x {bands} bands in {len(self)} batches of at most "
            f"{self.batch}, {'shuffled' if self.shuffle else 'in order'}; "
            f"{self.samples.nbytes / 1e6:.1f} MB held as {self.samples.x.dtype}, "
            f"{size / 1e6:.1f} MB of tensors an epoch"
        )

    def _pass(self, epoch: int, start: int, number: int, workers: int) -> Pass:
        """Return the batches of a worker: every so many-th one."""
        rank, ranks = self._share()
        parts = np.array_split(self._order(), self._batches())[rank::ranks]
        mine = range(start + (number - start) % workers, len(parts), workers)
        return (mine[-1] if mine else -1), ((at, partial(self._tensors, parts[at], epoch)) for at in mine)

    def _identity(self) -> dict[str, Any]:
        """Return what must agree between a state and its stream."""
        return {"samples": len(self.samples), "batch": self.batch, "shuffle": self.shuffle, "seed": self.seed}

    def _order(self) -> IntArray:
        """Return the order of the samples in this epoch."""
        if not self.shuffle:
            return np.arange(len(self.samples))
        return np.random.default_rng([self.seed, self._epoch]).permutation(len(self.samples))

    def _tensors(self, chosen: IntArray, epoch: int) -> Batch:
        """Decode some samples."""
        values: Array = decode(self.samples.x[chosen], self.samples.encoding)
        seen: Array = ~np.isnan(values)
        if self.augment:
            values, seen = self.augment.altered(values, seen, chosen, (self.seed, epoch))
        y = torch.from_numpy(self.samples.y[chosen])
        doy = torch.from_numpy(self.samples.doy().astype("int64"))
        known = self.samples.ancillary
        extra = {} if known is None else {"ancillary": torch.from_numpy(known[chosen])}
        return extra | {
            "x": torch.from_numpy(values),
            "y": y.to(torch.int64 if self.samples.y.ndim == 1 else torch.float32),
            "valid": torch.from_numpy(seen),
            "doy": doy.expand(len(chosen), -1).clone(),  # contiguous, so that workers can share it
        }
