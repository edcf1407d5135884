"""Follow a map while it is written: tiles done, rate, time left, memory, and a picture that fills up."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import psutil
import xarray as xr
import zarr

from cubekit.progress import progress as bar
from cubekit.store.regions import Region
from cubekit.typing import Array, StrPath

_LOG = logging.getLogger("cubekit")

PICTURE = 1024
"""Pixels of the longer side of the preview, at most."""

_SECONDS = 2.0  # between two drawings: a picture for each shard would cost more than the shard


class Follower:
    """Shows how far a prediction is; passed to `cubekit.store.write.write` as ``watch``.

    Parameters
    ----------
    prediction : xarray.Dataset
        What is written.
    tile : int
        Pixels a side of a tile, which is what is counted.
    progress : bool or None
        Whether to draw a bar; see `cubekit.progress.progress`.
    preview : path, optional
        Picture of the first layer, refreshed every few seconds. It is whole at any moment.
    """

    def __init__(
        self,
        prediction: xr.Dataset,
        *,
        tile: int,
        progress: bool | None = None,
        preview: StrPath | None = None,
    ) -> None:
        self._sizes = prediction.sizes["y"], prediction.sizes["x"]
        self._tile, self._progress = tile, progress
        self._picture = None if preview is None else _Picture(prediction, Path(preview))
        self.peak = 0
        """Largest memory of this process seen while the map was written, in bytes."""

    @contextmanager
    def __call__(
        self, store: Any, regions: Sequence[Region], todo: Sequence[Region]
    ) -> Iterator[Callable[[Region], None]]:
        """Follow one run.

        Parameters
        ----------
        store : zarr.abc.store.Store
            Where the map is written.
        regions, todo : sequence of Region
            All parts, and those that are missing.

        Yields
        ------
        callable
            To be called with each part that is safe.
        """
        missing = set(todo)
        total = sum(map(self._tiles, regions))
        megapixels = self._sizes[0] * self._sizes[1] / 1e6
        process = psutil.Process()
        with bar(
            "predict", total, unit="tiles", enabled=self._progress, rate=(megapixels / total, "Mpx")
        ) as advance:
            kept = [region for region in regions if region not in missing]
            advance(sum(map(self._tiles, kept)))
            if self._picture is not None:
                self._picture.begin(store, kept)

            def noticed(region: Region) -> None:
                self.peak = max(self.peak, process.memory_info().rss)
                advance(self._tiles(region))
                if self._picture is not None:
                    self._picture.add(region)

            yield noticed
        if self._picture is not None:
            self._picture.draw()
        _LOG.info("predicted %d of %d tiles; this process held up to %.2f GB", total, total, self.peak / 1e9)

    def _tiles(self, region: Region) -> int:
        _, rows, columns = region.bounds
        down, across = (
            -(-min(bounds[1], size) // self._tile) - bounds[0] // self._tile
            for bounds, size in zip((rows, columns), self._sizes, strict=True)
        )
        return down * across


class _Picture:
    """A decimated picture of one layer."""

    def __init__(self, prediction: xr.Dataset, path: Path) -> None:
        self._name = str(next(iter(prediction.data_vars)))
        layer = prediction[self._name]
        self._attrs = layer.attrs
        self._lead = (0,) * (layer.ndim - 2)
        self._step = max(1, -(-max(layer.shape[-2:]) // PICTURE))
        height, width = (-(-size // self._step) for size in layer.shape[-2:])
        self._canvas = np.full((height, width), np.nan, "float32")
        self._path, self._drawn = path, 0.0

    def begin(self, store: Any, regions: Sequence[Region]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._array: Any = zarr.open_array(store, path=self._name, mode="r")
        for region in regions:
            self._paint(region)
        self.draw()

    def add(self, region: Region) -> None:
        self._paint(region)
        if monotonic() - self._drawn > _SECONDS:
            self.draw()

    def _paint(self, region: Region) -> None:
        step = self._step
        _, rows, columns = region.bounds
        firsts = [-(-bounds[0] // step) for bounds in (rows, columns)]
        windows = [
            slice(first * step, bounds[1], step)
            for first, bounds in zip(firsts, (rows, columns), strict=True)
        ]
        block = np.asarray(self._array[(*self._lead, *windows)], "float32")
        block[block == np.float32(self._attrs["_FillValue"])] = np.nan
        height, width = block.shape
        self._canvas[firsts[0] : firsts[0] + height, firsts[1] : firsts[1] + width] = block

    def draw(self) -> None:
        """Write the picture; a reader sees the old or the new one."""
        import matplotlib.image

        part = self._path.with_name(f".{self._path.name}.part")
        matplotlib.image.imsave(part, self._coloured(), format="png")
        os.replace(part, self._path)  # noqa: PTH105  (the atomic one)
        self._drawn = monotonic()

    def _coloured(self) -> Array:
        """Return the picture as ``(y, x, 4)`` bytes: colours of classes, or grey; nodata transparent."""
        known = np.isfinite(self._canvas)
        if "colours" in self._attrs:
            hexes = [colour.lstrip("#") for colour in self._attrs["colours"]]
            table = np.array([[int(text[i : i + 2], 16) for i in (0, 2, 4)] for text in hexes], "uint8")
            colours = table[np.where(known, self._canvas, 0).astype(int)]
        else:
            low, high = np.percentile(self._canvas[known], (2, 98)) if known.any() else (0, 1)
            grey = np.clip((np.nan_to_num(self._canvas) - low) / max(float(high - low), 1e-9), 0, 1)
            colours = np.repeat((grey * 255).astype("uint8")[..., None], 3, axis=-1)
        return np.dstack([colours, np.where(known, 255, 0).astype("uint8")])
