"""From stored numbers to what a network takes: decoded, normalised, gaps filled, channels side by side."""

import copy
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from cubekit.cube.contract import Encoding
from cubekit.prediction.block import is_data, physical_series
from cubekit.prediction.rule import STRIP
from cubekit.tasks.series import SeriesInput
from cubekit.typing import Array, BoolArray, FloatArray

PHYSICAL = Encoding(dtype="float32", nodata=float("nan"))
"""Coding of numbers that are physical already."""

_PIXELS = 256  # decoded at a time: all their values stay in the processor's second cache


class Preparation:
    """What `cubekit.tasks.series.SeriesInput` does to physical numbers, from stored ones and with less work.

    Pixels without gaps, often all of them, are decoded, normalised and turned around in one pass; the others
    go through the `SeriesInput` itself. The arithmetic is the same, number by number.

    Parameters
    ----------
    inputs : SeriesInput
        Fills gaps and normalises.
    coding : Encoding, optional
        Of the numbers. Default: they are physical.
    device : torch.device, optional
        Where the network is.
    """

    def __init__(
        self, inputs: SeriesInput, coding: Encoding = PHYSICAL, device: torch.device | None = None
    ) -> None:
        self.device = device or torch.device("cpu")
        self.inputs = copy.deepcopy(inputs).to(self.device)
        self.coding = coding
        rule = inputs.normalisation
        self._shift, self._width = (
            np.asarray(numbers, "float32").reshape(rule.steps, len(rule.bands), 1, 1)
            for numbers in (rule.shift, rule.width)
        )

    def __call__(self, stored: Array) -> tuple[Tensor, Tensor]:
        """Prepare the pixels of a window.

        Parameters
        ----------
        stored : numpy.ndarray
            ``(time, band, y, x)``, any layout in memory.

        Returns
        -------
        x : torch.Tensor
            ``(y, x, time, band)`` float32, in this order in memory, normalised, without gaps.
        usable : torch.Tensor
            ``(y, x)`` bool; false where a band was never observed.
        """
        steps, bands, height, width = stored.shape
        x = np.empty((height, width, steps, bands), "float32")
        gaps = np.zeros((height, width), bool)
        threads = max(1, min(torch.get_num_threads(), height))
        ends = [height * number // threads for number in range(threads + 1)]
        parts = [slice(*each) for each in pairwise(ends)]
        if threads == 1:
            self._decode(stored, x, gaps)
        else:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda rows: self._decode(stored[:, :, rows], x[rows], gaps[rows]), parts))
        ready = torch.from_numpy(x).to(self.device)
        usable = torch.ones((height, width), dtype=torch.bool, device=self.device)
        self._fill(stored, gaps, ready, usable)
        return ready, usable

    def _decode(self, stored: Array, x: FloatArray, gaps: BoolArray) -> None:
        """Decode and normalise, whatever stands where there is no data; note which pixels have gaps."""
        steps, bands, height, width = stored.shape
        rows = max(1, _PIXELS // width)
        kept = np.empty((steps, bands, rows, min(width, _PIXELS)), "float32")
        scale, offset = np.float32(self.coding.scale), np.float32(self.coding.offset)
        for down, across in _pieces(height, width, rows):
            part = stored[:, :, down, across]
            values = kept[:, :, : part.shape[2], : part.shape[3]]
            np.multiply(part, scale, out=values, dtype="float32", casting="unsafe")
            values += offset
            values -= self._shift
            values /= self._width
            x[down, across] = values.transpose(2, 3, 0, 1)
            valid = is_data(part, self.coding.nodata)
            if not valid.all():
                gaps[down, across] = ~valid.all(axis=(0, 1))

    def _fill(self, stored: Array, gaps: BoolArray, x: Tensor, usable: Tensor) -> None:
        """Fill the gaps of the pixels that have some."""
        found = np.flatnonzero(gaps)
        for start in range(0, found.size, STRIP):
            chosen = found[start : start + STRIP]
            physical, _ = physical_series(stored[:, :, *np.divmod(chosen, gaps.shape[1])], self.coding)
            series = torch.from_numpy(np.ascontiguousarray(physical.transpose(2, 0, 1))).to(self.device)
            ready, where = self.inputs(series), torch.from_numpy(chosen).to(self.device)
            x.view(-1, *series.shape[1:])[where] = ready["x"]
            usable.view(-1)[where] = ready["usable"]


def _pieces(height: int, width: int, rows: int) -> Iterator[tuple[slice, slice]]:
    """Cut a window into parts of few pixels, row by row."""
    for first in range(0, height, rows):
        for start in range(0, width, _PIXELS):
            yield slice(first, first + rows), slice(start, start + _PIXELS)
