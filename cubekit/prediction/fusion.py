"""Fusion networks over windows of a scene: images side by side as dates of one source, noise by the place."""

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
import torch
from torch import nn

from cubekit.cube.contract import Encoding
from cubekit.prediction.forward import reach_of
from cubekit.prediction.patches import patch_tiles
from cubekit.prediction.rule import Rule
from cubekit.prediction.shipping import ShippedModel
from cubekit.prediction.tiling import TILE
from cubekit.prediction.windows import Windows, plan_windows
from cubekit.typing import BoolArray, FloatArray

ONE_PAIR = 3
"""Images of one pair: coarse of the known date, coarse of the wanted one, fine of the known date."""

_CELL = 256
_LEAST_CHANGE = 1e-3
_PHYSICAL = Encoding(dtype="float32", nodata=float("nan"))


class FusionForward:
    """A fusion network as prediction calls it, with gaps kept out of it.

    A pixel is predicted where the images that it needs are known. Unknown ones are given to the network as
    the mean of what is known at the place, so that neighbours are predicted too. With two pairs, networks
    that have ``forward_pairs`` blend them themselves; the two predictions of any other are averaged, the one
    whose coarse image differs less from that of the wanted date counting more, pixel by pixel.

    Parameters
    ----------
    network : torch.nn.Module
        Takes ``coarse_t1, coarse_t2, fine_t1`` ``(n, c, h, w)``; with ``sample``, starting noise as well.
    """

    def __init__(self, network: nn.Module) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network: Any = network.to(self.device)

    @torch.inference_mode()
    def __call__(self, windows: Sequence[FloatArray]) -> FloatArray:
        """Predict one window.

        Parameters
        ----------
        windows : sequence of numpy.ndarray
            Images ``(3, c, h, w)``, or ``(5, c, h, w)`` with coarse and fine image of a second known date,
            NaN where there is no data; then, for diffusion, noise ``(c, h, w)``.

        Returns
        -------
        numpy.ndarray
            ``(c, h, w)`` float32, NaN where an image lacks data.
        """
        images, noise = windows[0], windows[1] if len(windows) > 1 else None
        known: BoolArray = np.asarray(np.isfinite(images).all(axis=1))
        full = _filled(images)
        first = np.asarray(known[:ONE_PAIR].all(axis=0))
        if len(images) == ONE_PAIR:
            return np.where(first, self._run(full, noise), np.nan).astype("float32")
        second = np.asarray(known[[3, 1, 4]].all(axis=0))
        return self._of_two(full, noise, first, second)

    def _of_two(
        self, full: FloatArray, noise: FloatArray | None, first: BoolArray, second: BoolArray
    ) -> FloatArray:
        """Predict from two pairs, or from the one that is known."""
        own = hasattr(self.network, "forward_pairs")
        values: FloatArray = np.full(full.shape[1:], np.nan, "float32")
        if own and (first & second).any():
            t = [torch.from_numpy(np.ascontiguousarray(image))[None].to(self.device) for image in full]
            values = self.network.forward_pairs(t[1], (t[0], t[2]), (t[3], t[4]))[0].float().cpu().numpy()
        if not own or not (first & second).all():
            one, other = self._run(full, noise), self._run(full[[3, 1, 4]], noise)
            change = [np.abs(full[1] - full[i]).mean(axis=0) + _LEAST_CHANGE for i in (0, 3)]
            mean = (one / change[0] + other / change[1]) / (1 / change[0] + 1 / change[1])
            alone = np.where(first, one, np.where(second, other, np.nan))
            values = np.where(first & second, values if own else mean, alone)
        return values.astype("float32")

    def _run(self, images: FloatArray, noise: FloatArray | None) -> FloatArray:
        given = [
            torch.from_numpy(np.ascontiguousarray(image))[None].to(self.device) for image in images[:ONE_PAIR]
        ]
        if noise is None:
            predicted = self.network(*given)
        else:
            start = torch.from_numpy(np.ascontiguousarray(noise))[None].to(self.device)
            predicted = self.network.sample(*given, noise=start)
        values: FloatArray = predicted[0].float().cpu().numpy()
        return values


def fused_tiles(
    model: Any,
    images: Sequence[da.Array],
    *,
    tile: int | None = None,
    window: int | None = None,
    seed: int = 0,
) -> da.Array:
    """Predict a whole scene, tile by tile.

    Parameters
    ----------
    model : cubekit.training.bundle.Model
        Of the task "fuse".
    images : sequence of dask.array.Array
        Three or five images ``(c, y, x)`` as `FusionForward` takes them; physical, NaN where there is no
        data.
    tile : int, optional
        Pixels a side of a task's block, rounded to whole windows. Does not change the result.
    window : int, optional
        Pixels a side of a window that are kept; of the whole window for networks that look at everything,
        which then does change the result.
    seed : int, optional
        Of the noise that diffusion starts from.

    Returns
    -------
    dask.array.Array
        ``(c, y, x)`` float32, a chunk a tile, NaN where an image lacks data.
    """
    bands = len(model.card.bands)
    windows = plan_windows(reach_of(model, [(bands,)] * ONE_PAIR), side=window)
    sources = [da.stack(images)]  # type: ignore[no-untyped-call]
    if hasattr(model.network, "sample"):
        sources.append(noise_field(sources[0].shape[1:], seed=seed))
    rule = Rule(
        models=(ShippedModel(model),),
        kind="value",
        count=bands,
        outputs=("value",),
        codings=(_PHYSICAL,) * len(sources),
        windows=windows,
    )
    return patch_tiles(sources, side_of(windows, tile), rule)


def side_of(windows: Windows, tile: int | None) -> int:
    """Return the side of a tile: whole windows.

    Parameters
    ----------
    windows : Windows
        Of the network.
    tile : int or None
        Side asked for; two blocks of `TILE` where nothing is asked for.

    Returns
    -------
    int
        Pixels.
    """
    return windows.step * max(1, round((tile or 2 * TILE) / windows.step))


def noise_field(shape: tuple[int, ...], *, seed: int) -> da.Array:
    """Return normal noise that belongs to places of a scene, so that windows and tiles agree on it.

    Parameters
    ----------
    shape : tuple of int
        Bands, rows and columns of the scene.
    seed : int
        Another one gives another field.

    Returns
    -------
    dask.array.Array
        ``(c, y, x)`` float32, lazy. A pixel's numbers depend on the seed and its place only.
    """
    bands, *size = shape
    chunks = tuple(tuple(min(_CELL, side - first) for first in range(0, side, _CELL)) for side in size)
    field: da.Array = da.map_blocks(  # type: ignore[no-untyped-call]
        _noise, chunks=((bands,), *chunks), dtype="float32", meta=np.empty((0, 0, 0), "float32"), seed=seed
    )
    return field


def _noise(seed: int, block_info: Any = None) -> FloatArray:
    """Draw the noise of a cell."""
    bands, rows, columns = block_info[None]["chunk-shape"]
    _, i, j = block_info[None]["chunk-location"]
    drawn = np.random.default_rng([seed, i, j]).standard_normal((_CELL, _CELL, bands), dtype="float32")
    return drawn[:rows, :columns].transpose(2, 0, 1)


def _filled(images: FloatArray) -> FloatArray:
    """Give unknown values the mean of what is known at their place and band, 0 where nothing is."""
    known = np.isfinite(images)
    if known.all():
        return images
    clean = np.where(known, images, 0)
    mean = clean.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known, images, mean).astype("float32")
