"""Batches for forecasts: windows of years drawn anew each epoch, targets of one part only."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from cubekit.batching.augment import Augmentation
from cubekit.batching.patches import PatchPlan
from cubekit.batching.torch.cubes import CubeStream
from cubekit.batching.torch.shared import Batch, SharedStream
from cubekit.batching.torch.streams import batches
from cubekit.batching.years import YearSplit
from cubekit.cube.contract import Encoding
from cubekit.errors import OptionError
from cubekit.labels import ClassTable
from cubekit.typing import IntArray


class YearStream(SharedStream):
    """Patches of past years and of the year that follows, read from a cube chunk by chunk.

    Each batch is a dictionary: ``x`` (n, window, 1, y, x) float32 physical, NaN where there is no data;
    ``y`` (n, y, x), NaN where the pixel is not known or belongs to another part; ``index`` (n,). Corners and
    target years are drawn anew in each epoch from the seed and the epoch alone, each at most once while there
    are as many; for validation they are the same in every epoch.

    Parameters
    ----------
    cube : xarray.Dataset
        Yearly maps of one band.
    split : YearSplit
        What belongs to which part.
    part : {"train", "valid"}
        Part.
    samples : int or None
        Patches in an epoch; None takes every corner and year.
    batch : int
        Patches in a batch, at most.
    seed : int
        Of the draws.
    augment : Augmentation or None
        Changes to training patches.
    threads : int
        Threads that read ahead.
    """

    def __init__(  # noqa: PLR0917  (made by year_batches)
        self,
        cube: xr.Dataset,
        split: YearSplit,
        part: Literal["train", "valid"],
        samples: int | None,
        batch: int,
        seed: int,
        augment: Augmentation | None,
        threads: int,
    ) -> None:
        self.cube, self.split, self.part = cube, split, part
        self.batch, self.seed, self.augment, self.threads = batch, seed, augment, threads
        self._years = np.array(split.train if part == "train" else split.valid)
        self._corners = split.corners[part]
        self._all = len(self._years) * len(self._corners)
        self.samples = self._all if samples is None else samples
        self._targets = split.targets(part).astype("uint8")
        self._epoch = 0
        self._made: tuple[int, CubeStream] | None = None

    @property
    def bands(self) -> tuple[str, ...]:
        """Name of the index."""
        return tuple(str(band) for band in self.cube["band"].to_numpy())

    @property
    def times(self) -> npt.NDArray[np.datetime64]:
        """Dates of the inputs of the last target year."""
        last = int(self._years[-1])
        dates = self.cube["time"].to_numpy()[last - self.split.window : last]
        return np.asarray(dates.astype("datetime64[ns]"))

    @property
    def classes(self) -> ClassTable:
        """No classes: values are forecast."""
        return ClassTable.of(())

    @property
    def encoding(self) -> Encoding:
        """How the cube is stored."""
        return self._inner.encoding

    @property
    def crs(self) -> str:
        """CRS of the cube."""
        return self._inner.crs

    @property
    def resolution(self) -> float:
        """Pixel size of the cube, in units of its CRS."""
        return self._inner.resolution

    def draw(self, epoch: int) -> IntArray:
        """Draw the patches of an epoch.

        Parameters
        ----------
        epoch : int
            From 0.

        Returns
        -------
        numpy.ndarray
            ``(samples, 3)`` first year, row and column of each window.
        """
        dice = np.random.default_rng((self.seed, epoch if self.part == "train" else 0, len(self.part)))
        rounds = [dice.permutation(self._all) for _ in range(self.samples // self._all)]
        rest = self.samples % self._all
        chosen = np.concatenate([*rounds, dice.choice(self._all, rest, replace=False)]).astype("int64")
        year, corner = np.divmod(chosen, len(self._corners))
        first = self._years[year] - self.split.window
        return np.concatenate([first[:, None], self._corners[corner]], axis=1)

    @property
    def _inner(self) -> CubeStream:
        """The stream over the patches of this epoch."""
        if self._made is None or self._made[0] != self._epoch:
            plan = PatchPlan.at(
                self.cube,
                self.split.patch,
                corners=self.draw(self._epoch),
                steps=self.split.window,
                horizon=1,
            )
            training = self.part == "train"
            stream = batches(
                self.cube,
                plan,
                batch=self.batch,
                shuffle=training,
                seed=self.seed,
                aux=self._targets,
                augment=self.augment if training else None,
            )
            stream.stream = replace(stream.stream, threads=self.threads)
            stream.set_epoch(self._epoch)
            self._made = self._epoch, stream
        self._made[1].everywhere = self.everywhere
        return self._made[1]

    def digest(self) -> str:
        """Return a fingerprint of cube, split and draws.

        Returns
        -------
        str
            SHA-256 in hexadecimal.
        """
        held = self._epoch
        self._epoch = 0
        state = hashlib.sha256(self._inner.digest().encode())
        self._epoch = held
        state.update(self._targets.tobytes())
        state.update(f"{self.samples} {self._years.tolist()} {self.part} {self.augment}".encode())
        return state.hexdigest()

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[Batch]:
        inner = self._inner
        for each in inner:
            if inner.state_dict()["epoch"] != self._epoch and self.part == "train":  # this is the last batch
                self._epoch += 1
            yield self._ready(each)
        if self.part == "valid":
            inner.set_epoch(self._epoch)

    @staticmethod
    def _ready(each: Batch) -> Batch:
        """Keep the targets of the part."""
        y = each["y"][:, 0, 0]
        return {
            "x": each["x"],
            "y": torch.where(each["aux"][:, 0] > 0, y, torch.nan),
            "index": each["index"],
        }

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass; validation is the same in all.

        Parameters
        ----------
        epoch : int
            From 0.
        """
        if self.part == "train":
            self._epoch = epoch
        self._inner.set_epoch(self._epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return where the stream stands.

        Returns
        -------
        dict
            Plain numbers, for :meth:`load_state_dict`.
        """
        return {"at": self._epoch, **self._inner.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another stream over the same cube stood.

        Parameters
        ----------
        state : mapping
            From :meth:`state_dict`.

        Raises
        ------
        OptionError
            If the other stream had other samples, batch size or seed.
        """
        self._epoch = int(state["at"])
        self._inner.load_state_dict(state)

    def __repr__(self) -> str:
        return (
            f"YearStream: {self.samples} patches of {self.split.window} + 1 years an epoch for part "
            f"{self.part!r}, of {self._all} ({len(self._corners)} corners, {len(self._years)} target years)"
        )


def year_batches(
    cube: xr.Dataset,
    split: YearSplit,
    part: Literal["train", "valid"] = "train",
    *,
    samples: int | None = None,
    batch: int = 128,
    seed: int = 0,
    augment: Augmentation | None = None,
    workers: int = 2,
) -> YearStream:
    """Stream windows of past years with the year that follows, for :func:`cubekit.fit`.

    Parameters
    ----------
    cube : xarray.Dataset
        Yearly maps of one band; a store, or in memory.
    split : YearSplit
        From :func:`cubekit.batching.years.split_years` over the same cube.
    part : {"train", "valid"}, optional
        Which targets are given; others are NaN.
    samples : int, optional
        Patches in an epoch, drawn at random. Default: every admissible corner and target year.
    batch : int, optional
        Patches in a batch.
    seed : int, optional
        Of the draws: equal for any number of workers.
    augment : Augmentation, optional
        Flips and turns of training patches.
    workers : int, optional
        Threads that read ahead.

    Returns
    -------
    YearStream
        Give it to ``ck.fit("convlstm_unet", train, valid)``.

    Raises
    ------
    OptionError
        If the cube has several bands, or numbers are not positive.
    """
    if cube.sizes["band"] != 1:
        bands = cube["band"].to_numpy().tolist()
        raise OptionError(f"The cube has bands {bands}; one model forecasts one: cube.sel(band=['NDVI']).")
    if part not in split.corners:
        raise OptionError(f"part={part!r} should be one of {list(split.corners)}.")
    if (samples is not None and samples < 1) or min(batch, workers) < 1:
        raise OptionError(f"samples={samples!r}, batch={batch!r} and workers={workers!r} must be positive.")
    return YearStream(cube, split, part, samples, batch, seed, augment, workers)
