"""Composites made straight from scenes, band by band: no block ever holds all bands of all dates.

For each period of a block, the masks of its scenes are worked out once; then each band is read, laid and
reduced by itself. What is held are the dates of one period in one band, where otherwise all dates and bands
of the block have to be there before they are reduced. Results are the same to the last bit. Only a cube as
`open_cube` gave it is made this way, and only by reductions that take each band for itself.

``CUBEKIT_DIRECT=0`` in the environment turns it off.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
from dask.base import tokenize
from dask.delayed import delayed

from cubekit.cube.ahead import IN_FLIGHT, Windows
from cubekit.cube.blocks import map_blocks, pair
from cubekit.cube.fuse import Hidden, Scenes
from cubekit.cube.gdal import many_reads
from cubekit.cube.kernels import REDUCTIONS, reduce_dates, valid_in
from cubekit.cube.load import plan_behind
from cubekit.cube.periods import Groups, groups_of, spans
from cubekit.cube.plan import Plan
from cubekit.cube.reader import MARGINS
from cubekit.cube.remote import is_remote
from cubekit.cube.status import OUTSIDE, READ
from cubekit.typing import Array, IntArray

SIDE: Final = 512
"""Pixels along the blocks of local files: small ones keep all threads at work and the memory low."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Direct:
    """All that a task needs to make any block of a composite."""

    plan: Plan
    """Of the opened cube."""

    order: IntArray
    """Dates of the cube that are used, period by period."""

    groups: Groups
    """For each block along time, how many dates each of its periods has."""

    how: str
    """One of :data:`cubekit.cube.kernels.REDUCTIONS`."""

    nodata: float
    """Stored number without data."""

    @cached_property
    def reading(self) -> Plan:
        """What is read: the dates in the order of their periods, in the blocks of the composite."""
        plan = self.plan
        first = np.searchsorted(plan.time_of, np.arange(len(plan.times) + 1))
        spans = [np.arange(first[date], first[date + 1]) for date in self.order]
        scenes = np.concatenate(spans)
        unused = np.setdiff1d(np.arange(len(plan.scenes)), scenes)
        return plan.taking(
            scenes,
            times=plan.times[self.order],
            time_of=np.repeat(np.arange(len(spans)), list(map(len, spans))),
            chunks=(tuple(map(sum, self.groups)), plan.chunks[1], *_sides(plan)),
            dropped=(*plan.dropped, *(plan.scenes[scene] for scene in unused)),
        )

    @property
    def longest(self) -> int:
        """Dates of the period that has most."""
        return max(max(group) for group in self.groups)


def reduced(
    data: Any, order: IntArray, counts: Sequence[int], *, how: str, nodata: float
) -> tuple[Any, Any] | None:
    """Make a composite of an opened cube straight from its scenes, where that can be done.

    Parameters
    ----------
    data : dask.array.Array or numpy.ndarray
        Main variable of a cube.
    order : numpy.ndarray of int
        Dates that are used, period by period.
    counts : sequence of int
        How many of them each period has.
    how : str
        Way to reduce them.
    nodata : float
        Stored number without data.

    Returns
    -------
    tuple of dask.array.Array or None
        Values (period, band, y, x) and how many dates have data in any band (period, y, x), uint16; None
        where the cube has to be there first.
    """
    plan = plan_behind(data)
    if plan is None or how not in REDUCTIONS or os.environ.get("CUBEKIT_DIRECT", "1") == "0":
        return None
    groups = groups_of(counts, max(plan.chunks[0]))
    direct = Direct(plan=plan, order=order, groups=groups, how=how, nodata=nodata)
    chunks = (tuple(map(len, groups)), *direct.reading.chunks[1:])
    token = tokenize(data.name, order, groups, how, nodata, chunks)
    # One key of the graph holds it; tasks refer to it, so that it travels to each worker once.
    held = delayed(direct, name=f"direct-{token}", traverse=False)
    blocks = map_blocks(
        reduce_scenes, chunks=chunks, dtype=data.dtype, options={"direct": held}, name=f"reduced-{token}"
    )
    names = f"composite-{token}", f"observations-{token}"
    made: tuple[Any, Any] = pair(blocks, dtypes=(data.dtype, np.uint16), names=names, flat=True)
    return made


def _sides(plan: Plan) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the blocks along y and x: those of the cube, cut where neither pixels nor requests change."""
    whole = plan.chunks[2], plan.chunks[3]
    depends = any(method not in MARGINS for method in plan.resampling)  # on the block, a little, in GDAL
    if depends or any(is_remote(href) for row in plan.hrefs for href in row):
        return whole
    return _cut(whole[0]), _cut(whole[1])


def _cut(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Cut blocks of several squares; others stay, so that no short blocks come between."""
    if len(sizes) > 1 and (sizes[0] % SIDE or len({*sizes[:-1]}) > 1 or sizes[-1] > sizes[0]):
        return sizes
    total = sum(sizes)
    return tuple(min(SIDE, total - start) for start in range(0, total, SIDE))


def reduce_scenes(direct: Direct, block_id: tuple[int, ...]) -> tuple[Array, IntArray]:
    """Make one block of a composite.

    Parameters
    ----------
    direct : Direct
        Of the whole composite.
    block_id : tuple of int
        Number of the block along time, band, y and x.

    Returns
    -------
    tuple of numpy.ndarray
        Values (period, band, y, x), coded as the cube is, and how many dates have data in any band
        (period, y, x), uint16.

    Raises
    ------
    SourceError
        When an asset cannot be read and failures are not to be recorded.
    """
    plan, counts = direct.reading, direct.groups[block_id[0]]
    times, rows, cols = plan.region(block_id)
    target = plan.grid[rows, cols]
    shape, dtype = target.shape.yx, np.dtype(plan.encoding.dtype)
    made = np.empty((len(counts), len(plan.bands), *shape), dtype)
    seen = np.zeros((len(counts), *shape), np.uint16)
    dates = [plan.touching(date, rows, cols) for date in range(times.start, times.stop)]
    stack = np.empty((max(counts), *shape), dtype)
    with many_reads(), Windows(plan, target, dates) as windows:
        scenes = Scenes(plan, target, windows)
        made[np.equal(counts, 0)] = direct.nodata
        for step, span in spans(counts):
            behind = dates[span.stop : span.stop + IN_FLIGHT]
            period = _Period(scenes, dates[span], stack[: span.stop - span.start])
            period.reduce(direct, made[step], seen[step], behind)
    return made, seen


@dataclass(frozen=True)
class _Period:
    """The dates of one period of a block."""

    scenes: Scenes
    dates: list[IntArray]
    """Scenes of each date, the first on top."""

    stack: Array
    """Room for one band of them."""

    hidden: dict[int, Hidden] = field(default_factory=dict)

    def reduce(self, direct: Direct, made: Array, seen: IntArray, behind: list[IntArray]) -> None:
        """Write the values of all bands, and the number of dates with data in any."""
        windows, bands = self.scenes.windows, range(len(made))
        quality = () if self.scenes.plan.mask is None else (len(made),)
        upper = _upper(self.dates)
        windows.expect((scene, layer) for scene in upper for layer in quality)
        left = [scene for scene in upper if not self._hidden(scene).everything]
        then = [(scene, layer) for scene in _upper(behind) for layer in quality]
        windows.expect([*((scene, band) for band in bands for scene in left), *then])
        status = np.empty(self.stack.shape[1:], np.uint8)
        some = np.zeros(self.stack.shape, bool)
        for band in bands:
            self._lay(band, status)
            made[band] = reduce_dates(self.stack, direct.how, direct.nodata)
            some |= valid_in(self.stack, direct.nodata)
        seen[:] = some.sum(axis=0)

    def _lay(self, band: int, status: Array) -> None:
        """Lay the scenes of each date over each other in one band."""
        fill = self.scenes.plan.encoding.nodata
        self.stack[:] = self.stack.dtype.type(np.nan if fill is None else fill)
        for scenes, out in zip(self.dates, self.stack, strict=True):
            status[:] = OUTSIDE
            for number, scene in enumerate(scenes.tolist()):
                if number and bool((status == READ).all()):
                    break
                hidden = self._hidden(scene)
                if not hidden.everything:
                    self.scenes.lay(scene, band, hidden, out, status)

    def _hidden(self, scene: int) -> Hidden:
        """Work out a mask once for all bands."""
        if scene not in self.hidden:
            self.hidden[scene] = self.scenes.hidden(scene)
        return self.hidden[scene]


def _upper(dates: Iterable[IntArray]) -> list[int]:
    return [int(scenes[0]) for scenes in dates if scenes.size]
