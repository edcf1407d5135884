"""The windows that one block needs of its files; those behind a network are read ahead, many at a time."""

import atexit
import os
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from types import TracebackType
from typing import Final, Self

import numpy as np
from odc.geo.geobox import GeoBox

from cubekit.cube.kernels import valid_in
from cubekit.cube.lay import Loaded
from cubekit.cube.places import Positions
from cubekit.cube.plan import Plan, bounds_on
from cubekit.cube.quality import masked_by
from cubekit.cube.reader import MARGINS, MAX_WINDOW, Source, kernel_margin, read_onto, read_values
from cubekit.cube.remote import FEW_FILES, is_remote
from cubekit.cube.resample import Pixels, Place, Window, positions, sample_nearest, warp, window_of
from cubekit.errors import SourceError
from cubekit.typing import Array, IntArray

IN_FLIGHT: Final = 32
"""Windows of remote files that one process reads at once: waiting for a network takes no processor."""

AHEAD_BYTES: Final = 32 * 2**20
"""Pixels that one block may hold of dates that it has not come to yet."""

_Key = tuple[int, int]
_Values = tuple[Array, float | None]


@lru_cache(maxsize=1)
def _pool(process: int) -> ThreadPoolExecutor:  # noqa: ARG001  (a forked process gets threads of its own)
    pool = ThreadPoolExecutor(IN_FLIGHT, "cubekit-read")
    atexit.register(pool.shutdown, wait=False, cancel_futures=True)
    return pool


class Windows:
    """Windows of the files under one block; a context manager that leaves no read behind it.

    Parameters
    ----------
    plan : Plan
        Of the whole cube.
    target : odc.geo.geobox.GeoBox
        The block.
    steps : sequence of numpy.ndarray of int
        Scenes of each date, the first on top.
    """

    def __init__(self, plan: Plan, target: GeoBox, steps: Sequence[IntArray]) -> None:
        self._plan, self._target = plan, target
        halo = plan.mask.reach if plan.mask is not None else 0
        self._padded = target.pad(halo) if halo else target
        self._positions: dict[tuple[int, bool], Positions] = {}
        self._places: dict[tuple[int, str, bool], Place | None] = {}
        self._reading: dict[_Key, tuple[Future[_Values], int]] = {}
        self._begun: set[_Key] = set()
        self._wholes: dict[int, Window] = {}
        self._coming: deque[_Key] | None = None
        self._upper = [int(scenes[0]) for scenes in steps if scenes.size]
        layers = range(plan.form_of.shape[1])
        self._remote = any(is_remote(plan.hrefs[scene][layer]) for scene in self._upper for layer in layers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for future, _ in self._reading.values():
            future.cancel()
        self._reading.clear()

    def positions(self, source: GeoBox, *, padded: bool = False) -> Positions:
        """Return where the pixels of the block lie in a file; files of one grid share the answer.

        Parameters
        ----------
        source : odc.geo.geobox.GeoBox
            Grid of the file, as the plan holds it.
        padded : bool, optional
            For the block with the rim from which masked areas may grow into it.

        Returns
        -------
        Positions
            In pixels of the file.
        """
        key = (id(source), padded)
        if key not in self._positions:
            self._positions[key] = positions(source, self._padded if padded else self._target)
        return self._positions[key]

    def get(self, scene: int, band: int) -> Loaded | None:
        """Return what a band of a scene has for the block.

        Parameters
        ----------
        scene, band : int
            Numbers of both; the scene has the band.

        Returns
        -------
        Loaded or None
            None where the file has nothing there.

        Raises
        ------
        SourceError
            When it cannot be read.
        """
        if self._remote:
            self._read_ahead(scene, band)
        source, place = self._place(scene, band)
        if place is None:
            return None
        method, window = self._plan.resampling[band], place.window
        if window.size > MAX_WINDOW and max(self._target.shape) > 1:
            whole = read_onto(source, self._target, resampling=method)
            return Loaded.placed(whole)
        values, nodata = self._values(scene, band, source, window)
        if method in MARGINS:
            return Loaded(values, nodata, place, method)
        part = source.form.geobox[window.top : window.bottom, window.left : window.right]
        return Loaded.placed(warp(Pixels(values, valid_in(values, nodata)), part, self._target, method))

    def quality(self, scene: int) -> Pixels | None:
        """Return the codes of the quality band for the block and its rim.

        Parameters
        ----------
        scene : int
            Number of the scene, which has that band.

        Returns
        -------
        Pixels or None
            Valid where the file has pixels, whatever they say; None where it has none.

        Raises
        ------
        SourceError
            When it cannot be read.
        """
        layer = len(self._plan.bands)
        if self._remote:
            self._read_ahead(scene, layer)
        source, place = self._place(scene, layer)
        if place is None:
            return None
        if place.window.size > MAX_WINDOW and max(self._padded.shape) > 1:
            return read_onto(source, self._padded, every_value=True)
        values, _ = self._values(scene, layer, source, place.window)
        return sample_nearest(Pixels(values, np.ones(values.shape, bool)), place.window, place.where)

    def _place(self, scene: int, layer: int) -> tuple[Source, Place | None]:
        """Find the block in a file; files of one grid share the answer."""
        source = self._plan.source(scene, layer)
        if source is None:  # pragma: no cover  (callers ask for what is there)
            raise SourceError(f"Item {self._plan.scenes[scene]!r} lacks an asset.")
        box, quality = source.form.geobox, layer == len(self._plan.bands)
        method = "nearest" if quality else self._plan.resampling[layer]
        key = (id(box), method, quality)
        if key not in self._places:
            where = self.positions(box, padded=quality)
            margin = MARGINS[method] if method in MARGINS else kernel_margin(box, self._target)
            if method == "bilinear" and self._takes_whole_numbers(source) and where.on_centres:
                margin = 0  # all the weight is on the pixel itself; a rim would be of other tiles
            window = window_of(where, box.shape.yx, margin)
            self._places[key] = None if window is None else Place(where, window)
        return source, self._places[key]

    def _takes_whole_numbers(self, source: Source) -> bool:
        return all(np.dtype(kind).kind in "ui" for kind in (source.form.dtype, self._plan.encoding.dtype))

    def _values(self, scene: int, layer: int, source: Source, window: Window) -> _Values:
        future, _ = self._reading.pop((scene, layer), (None, 0))
        return read_values(source, window) if future is None else future.result()

    def expect(self, keys: Iterable[tuple[int, int]]) -> None:
        """Say what will be asked for, where that is not date by date.

        Parameters
        ----------
        keys : iterable of tuple of int
            Scenes and layers, in order; they replace those said before. What is asked for beside them is
            read when it is asked for.
        """
        self._coming = deque(keys)

    def _read_ahead(self, scene: int, layer: int) -> None:
        """Begin to read what is asked for, and what comes then as far as memory allows."""
        if self._coming is None:
            self._read_dates(scene, quality_only=layer == len(self._plan.bands))
            return
        self._begin(scene, layer)
        while self._coming and not self._is_full:
            self._begin(*self._coming.popleft())

    @property
    def _is_full(self) -> bool:
        return sum(size for _, size in self._reading.values()) > AHEAD_BYTES

    def _read_dates(self, scene: int, *, quality_only: bool) -> None:
        """Begin to read this scene, and the upper ones of the dates that come."""
        bands = range(0 if quality_only else len(self._plan.bands))
        for layer in (*self._quality, *bands):
            self._begin(scene, layer)
        for other in self._upper[self._upper.index(scene) + 1 :] if scene in self._upper else ():
            if self._is_full:
                return
            for layer in self._quality:
                self._begin(other, layer)
            for band in range(len(self._plan.bands)) if self._clear(other) else ():
                self._begin(other, band)

    @property
    def _quality(self) -> tuple[int, ...]:
        return () if self._plan.mask is None else (len(self._plan.bands),)

    def _clear(self, scene: int) -> bool:
        """Tell whether a mask leaves anything of a scene, as far as its quality band has been read."""
        if self._plan.mask is None:
            return True
        future, _ = self._reading.get((scene, len(self._plan.bands)), (None, 0))
        if future is None or not future.done() or future.exception() is not None:
            return False
        return not bool(masked_by(future.result()[0], self._plan.mask).all())

    def _begin(self, scene: int, layer: int) -> None:
        key = (scene, layer)
        if key in self._begun or self._plan.source(scene, layer) is None:
            return
        self._begun.add(key)
        source, place = self._place(scene, layer)
        if place is not None and place.window.size <= MAX_WINDOW and is_remote(source.href):
            size = place.window.size * np.dtype(source.form.dtype).itemsize
            around = self._around(source)
            reading = _pool(os.getpid()).submit(read_values, source, place.window, around)
            self._reading[key] = (reading, size)

    def _around(self, source: Source) -> Window | None:
        """Return what the whole cube needs of a file, if the next blocks will find it still there."""
        if len(self._upper) * self._plan.form_of.shape[1] > FEW_FILES:
            return None
        key = id(source.form.geobox)
        if key not in self._wholes:
            self._wholes[key] = Window(*bounds_on(self._plan.grid, source.form.geobox))
        return self._wholes[key]
