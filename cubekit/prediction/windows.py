"""How an image is cut into windows for a network that looks around, so that the cuts do not show.

A network with a known reach gets windows with a margin that is thrown away: its outputs are those of the
whole image. One without gets overlapping windows, whose outputs are averaged with weights that fade towards
the edges but never vanish. Windows lie at fixed places of the scene, whatever tiles ask for them, and each
tile computes all the windows that it needs: nothing is accumulated, nobody waits, and any cut gives the same
map.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Protocol

import numpy as np

from cubekit.errors import PredictionError
from cubekit.typing import Array, FloatArray

SIDE = 256
"""Pixels a side of the part of a window that is kept; of the whole window where windows are blended."""

_LONGEST = 1024
"""Pixels a side of the kept part at most: larger windows save little and leave workers without any."""

WINDOW_BYTES = 600_000_000
"""What a window may take, its numbers and the network's layers together; a worker holds one at a time.

A constant: where windows lie must not depend on the machine."""

_OVERLAP = 4  # a quarter of a window is shared with each neighbour


class ReachLike(Protocol):
    """What has to be known of a network; `cubekit.nn.reach.Reach` is one."""

    @property
    def halo(self) -> int | None:
        """Pixels around a block that its outputs depend on."""

    @property
    def multiple(self) -> int:
        """Grid on which cuts do not matter."""


@dataclass(frozen=True)
class Span:
    """A window along one dimension: what is read, and which part of it counts."""

    read: slice
    kept: slice


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Where the windows of a scene lie; the same along rows and columns."""

    step: int
    """Distance between the first pixels of two neighbours."""

    margin: int
    """Pixels read on either side of the kept part."""

    multiple: int
    """Sides of windows are padded to this by mirroring, as far as the scene is too small."""

    blended: bool
    """Whether windows overlap and are averaged."""

    def spans(self, start: int, stop: int, size: int) -> list[Span]:
        """List the windows that a tile needs along one dimension.

        Parameters
        ----------
        start, stop : int
            The tile; it starts at a multiple of `step`.
        size : int
            Length of the scene.

        Returns
        -------
        list of Span
            In pixels of the scene. Blended windows may keep parts outside the tile.
        """
        if not self.blended:
            return [
                Span(
                    slice(max(0, first - self.margin), min(size, first + self.step + self.margin)),
                    slice(first, min(first + self.step, size)),
                )
                for first in range(start, stop, self.step)
            ]
        side = self.step + self.margin
        before = -(-self.margin // self.step)
        firsts = range(max(0, start - before * self.step), stop, self.step)
        reads = [
            slice(first, min(first + side, size))
            for first in firsts
            if first + side > start and (first == 0 or first + self.margin < size)
        ]
        return [Span(read, read) for read in reads]

    def needed(self, start: int, stop: int, size: int) -> slice:
        """Return what a tile reads along one dimension.

        Parameters
        ----------
        start, stop : int
            The tile.
        size : int
            Length of the scene.

        Returns
        -------
        slice
            In pixels of the scene.
        """
        spans = self.spans(start, stop, size)
        return slice(min(span.read.start for span in spans), max(span.read.stop for span in spans))

    def weights(self, read: slice, size: int) -> FloatArray:
        """Return the weight of each pixel of a blended window along one dimension.

        Parameters
        ----------
        read : slice
            The window.
        size : int
            Length of the scene.

        Returns
        -------
        numpy.ndarray
            float32: 1, falling as a raised cosine towards edges inside the scene where neighbours overlap,
            never to 0; those of two neighbours add up to 1.
        """
        count = read.stop - read.start
        ramp = np.minimum(np.arange(1, count + 1, dtype="float32") / (self.margin + 1), 1)
        ramp = np.sin(np.float32(np.pi / 2) * ramp) ** 2
        weights = np.ones(count, "float32")
        if read.start > 0:
            weights *= ramp
        if read.stop < size:
            weights *= ramp[::-1]
        return weights


def plan_windows(
    reach: ReachLike,
    *,
    side: int | None = None,
    blend: int | None = None,
    shape: tuple[int, int] | None = None,
    pixel_bytes: float | None = None,
) -> Windows:
    """Choose the windows of a network for a scene; tiles and workers have no say, so that they do not show.

    Margins are computed twice, so windows with margins are as large as `WINDOW_BYTES` allow, and a scene that
    fits is one window.

    Parameters
    ----------
    reach : Reach
        What is known of the network.
    side : int, optional
        Pixels a side that are kept (of the whole window where windows are blended). Default: as many as fit;
        256 where windows are blended, and up to 512 for wide margins where memory is not known.
    blend : int, optional
        Pixels a side of windows that overlap by half and are averaged, whatever the reach. Default: margins
        where the reach is known, as they are exact.
    shape : tuple of int, optional
        Rows and columns of the scene.
    pixel_bytes : float, optional
        What a pixel of a window takes; None where it is not known.

    Returns
    -------
    Windows
        All lengths multiples of the network's.
    """
    multiple = reach.multiple

    def whole(length: int) -> int:
        return -(-length // multiple) * multiple

    if blend is not None:
        step = whole(-(-blend // 2))
        return Windows(step=step, margin=step, multiple=multiple, blended=True)
    if reach.halo is None:
        size = whole(side or SIDE)
        margin = whole(size // _OVERLAP) if size > multiple else 0
        return Windows(step=size - margin, margin=margin, multiple=multiple, blended=margin > 0)
    margin = whole(reach.halo)
    wanted = side or min(max(SIDE, 4 * reach.halo), max(2 * SIDE, 2 * reach.halo))
    if side is None and shape is not None and pixel_bytes is not None:
        wanted = _largest(shape, pixel_bytes, margin)
    return Windows(step=whole(wanted), margin=margin, multiple=multiple, blended=False)


def _largest(shape: tuple[int, int], pixel_bytes: float, margin: int) -> int:
    """Return the side of the largest kept part that memory allows, such that all parts are about as large."""
    longest, least = max(shape), max(SIDE, 2 * margin)
    for count in range(ceil(longest / max(_LONGEST, least)), ceil(longest / least)):
        step = ceil(longest / count)
        if pixel_bytes * prod(min(step + 2 * margin, size) for size in shape) <= WINDOW_BYTES:
            return step
    return ceil(longest / ceil(longest / least))


Forward = Callable[[Sequence[FloatArray]], FloatArray]
"""Takes windows ``(…, h, w)``, gives ``(k, h, w)``."""


@dataclass(frozen=True)
class Tile:
    """A part of a scene that is predicted in one go."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    shape: tuple[int, int]
    """Of the scene."""

    def pairs(self, windows: Windows) -> Iterator[tuple[Span, Span]]:
        """List the windows that the tile needs.

        Parameters
        ----------
        windows : Windows
            Of the scene.

        Yields
        ------
        tuple of Span
            Rows and columns of each window, row by row.
        """
        yield from product(
            windows.spans(*self.rows, self.shape[0]), windows.spans(*self.columns, self.shape[1])
        )


def predict_tile(
    forward: Forward,
    read: Callable[[slice, slice], Sequence[FloatArray] | None],
    windows: Windows,
    tile: Tile,
) -> FloatArray | None:
    """Predict one tile from the windows that touch it.

    Parameters
    ----------
    forward : callable
        The network: takes windows ``(…, h, w)``, gives ``(k, h, w)``; NaN where it knows nothing.
    read : callable
        Gives the inputs of a window of the scene, or None where there is nothing to predict in it.
    windows : Windows
        From `plan_windows`.
    tile : Tile
        What to predict.

    Returns
    -------
    numpy.ndarray or None
        ``(k, rows, columns)`` float32, NaN where nothing is known; None if no window had anything to predict.

    Raises
    ------
    PredictionError
        If the network returns another size than it was given.
    """
    total: FloatArray | None = None
    mass = np.zeros((tile.rows[1] - tile.rows[0], tile.columns[1] - tile.columns[0]), "float32")
    for down, across in tile.pairs(windows):
        inputs = read(down.read, across.read)
        if inputs is None:
            continue
        values = _padded_forward(forward, inputs, windows.multiple)
        there, here = _shared(down, tile.rows), _shared(across, tile.columns)
        part = values[:, there[0], here[0]]
        weights: FloatArray = np.ones(part.shape[1:], "float32")
        if windows.blended:
            rows = windows.weights(down.read, tile.shape[0])[there[0]]
            weights = np.outer(rows, windows.weights(across.read, tile.shape[1])[here[0]])
        known = np.isfinite(part).all(axis=0)
        weights = np.where(known, weights, 0)
        total = np.zeros((len(part), *mass.shape), "float32") if total is None else total
        total[:, there[1], here[1]] += np.where(known, part, 0) * weights
        mass[there[1], here[1]] += weights
    if total is None:
        return None
    total /= np.where(mass > 0, mass, np.nan)
    return total


def _shared(span: Span, tile: tuple[int, int]) -> tuple[slice, slice]:
    """Return the part of a window that lies in a tile, in pixels of the window and of the tile."""
    first, last = max(span.kept.start, tile[0]), min(span.kept.stop, tile[1])
    start = span.read.start
    return slice(first - start, last - start), slice(first - tile[0], last - tile[0])


def _padded_forward(forward: Forward, inputs: Sequence[FloatArray], multiple: int) -> FloatArray:
    """Mirror the last rows and columns up to a multiple, predict, and cut off what was added."""
    height, width = inputs[0].shape[-2:]
    values = forward([mirrored(image, multiple) for image in inputs])
    grown = (-(-height // multiple) * multiple, -(-width // multiple) * multiple)
    if values.ndim != 3 or values.shape[1:] != grown:  # noqa: PLR2004  (k, h, w)
        raise PredictionError(
            f"the model returned shape {values.shape}, expected (k, {grown[0]}, {grown[1]})"
        )
    return values[:, :height, :width]


def mirrored(image: Array, multiple: int) -> Array:
    """Grow an image at the bottom and right by mirroring until both sides divide.

    Parameters
    ----------
    image : numpy.ndarray
        ``(…, y, x)``.
    multiple : int
        What both sides shall divide by.

    Returns
    -------
    numpy.ndarray
        Mirrored at the last row and column, which are repeated where the image is too small for that.
    """
    below, right = (-side % multiple for side in image.shape[-2:])
    if not (below or right):
        return image
    mode = "reflect" if below < image.shape[-2] and right < image.shape[-1] else "edge"
    pads = [(0, 0)] * (image.ndim - 2) + [(0, below), (0, right)]
    grown: Array = np.pad(image, pads, mode=mode)  # type: ignore[call-overload]
    return grown


def apply_in_windows(
    forward: Forward, images: Sequence[FloatArray], reach: ReachLike, *, side: int | None = None
) -> FloatArray:
    """Run a network over images of any size, window by window.

    Parameters
    ----------
    forward : callable
        Takes a list of windows ``(…, h, w)`` of the images, gives ``(k, h, w)``.
    images : sequence of numpy.ndarray
        ``(…, y, x)``, all of one size; such as the three images of a fusion network.
    reach : Reach
        From `cubekit.nn.reach.measure_reach`.
    side : int, optional
        Pixels a side of a window; see `plan_windows`.

    Returns
    -------
    numpy.ndarray
        ``(k, y, x)`` float32. With a bounded reach what the network gives for the whole images at once, up
        to the rounding of floats.

    Raises
    ------
    PredictionError
        If the network returns another size than it was given.
    """
    height, width = images[0].shape[-2:]

    def read(rows: slice, columns: slice) -> list[FloatArray]:
        return [image[..., rows, columns] for image in images]

    tile = Tile((0, height), (0, width), (height, width))
    found = predict_tile(forward, read, plan_windows(reach, side=side), tile)
    if found is None:
        raise PredictionError("The images have no pixel.")
    return found
