"""The plan of a cube: which scene gives which pixels. Plain tables, made without opening files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from odc.geo.geobox import GeoBox

from cubekit.cube.blocks import Chunks
from cubekit.cube.contract import Encoding
from cubekit.cube.project import project
from cubekit.cube.quality import MaskRule
from cubekit.cube.reader import Form, Source
from cubekit.typing import Array, FloatArray, IntArray

MISSING = -1
"""Number of a form where a scene lacks a band."""

BLOCK_BYTES = 128 * 2**20
"""Memory that one block of a cube may take where chunks are not given."""

_SIDES = (1024, 512)
_EDGE_POINTS = 21


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """Everything that a task needs to make any block of a cube. Addresses are unsigned."""

    grid: GeoBox
    """Target grid."""

    bands: tuple[str, ...]
    """Names of the bands."""

    encoding: Encoding
    """Coding of the cube."""

    times: Array
    """datetime64[ns], shape (time,), increasing."""

    chunks: Chunks
    """Sizes of the blocks along time, band (always one), y and x."""

    scenes: tuple[str, ...]
    """Item identifiers, in the order in which scenes are laid below each other."""

    time_of: IntArray
    """Time step of each scene, shape (scene,), increasing."""

    bounds: IntArray
    """Top, left, bottom, right of each scene in pixels of the grid, shape (scene, 4); never too small."""

    forms: tuple[Form, ...]
    """Distinct looks of assets."""

    form_of: IntArray
    """Form of each asset, shape (scene, layer); layers are the bands, then the quality band if any."""

    hrefs: tuple[tuple[str, ...], ...]
    """Unsigned address of each asset, in the same places; empty where missing."""

    assets: tuple[tuple[str, ...], ...]
    """Key of each asset, in the same places."""

    shifts: IntArray
    """Added to stored numbers, shape (scene, band)."""

    signer: str | None
    """Name of the signer that is asked when a file is read."""

    resampling: tuple[str, ...]
    """Of each band."""

    mask: MaskRule | None = None
    """Rule for the quality band."""

    on_error: str = "raise"
    """What a failed read does."""

    cover: tuple[float | None, ...] = ()
    """Cloud cover in percent that each item states; empty where none does."""

    dropped: tuple[str, ...] = ()
    """Identifiers of items that do not touch the grid."""

    def source(self, scene: int, layer: int) -> Source | None:
        """Return one asset, or None where the scene lacks it.

        Parameters
        ----------
        scene : int
            Number of the scene.
        layer : int
            Number of the band; the number of bands means the quality band.

        Returns
        -------
        Source or None
            What to read.
        """
        form = int(self.form_of[scene, layer])
        if form == MISSING:
            return None
        return Source(
            href=self.hrefs[scene][layer],
            form=self.forms[form],
            item=self.scenes[scene],
            asset=self.assets[scene][layer],
            signer=self.signer,
        )

    def region(self, block: Sequence[int]) -> tuple[slice, slice, slice]:
        """Return times, rows and columns of a block.

        Parameters
        ----------
        block : sequence of int
            Number of the block along time, band, y and x.

        Returns
        -------
        tuple of slice
            Along time, y and x.
        """
        spans = []
        for axis in (0, 2, 3):
            start = sum(self.chunks[axis][: block[axis]])
            spans.append(slice(start, start + self.chunks[axis][block[axis]]))
        return spans[0], spans[1], spans[2]

    def touching(self, time: int, rows: slice, cols: slice) -> IntArray:
        """Return the scenes of one time step that may have pixels in a block, first one on top.

        Parameters
        ----------
        time : int
            Time step.
        rows, cols : slice
            Part of the grid.

        Returns
        -------
        numpy.ndarray of int
            Numbers of scenes.
        """
        first, last = np.searchsorted(self.time_of, [time, time + 1])
        top, left, bottom, right = self.bounds[first:last].T
        touches = (top < rows.stop) & (bottom > rows.start) & (left < cols.stop) & (right > cols.start)
        return np.asarray(first + np.flatnonzero(touches))

    def taking(
        self,
        scenes: IntArray,
        *,
        times: Array,
        time_of: IntArray,
        chunks: Chunks,
        dropped: tuple[str, ...] = (),
    ) -> "Plan":
        """Return the plan of some of the scenes.

        Parameters
        ----------
        scenes : numpy.ndarray of int
            Their numbers, in the order of their new time steps.
        times : numpy.ndarray of datetime64[ns]
            Of the time steps that there are now.
        time_of : numpy.ndarray of int
            Time step of each scene, increasing.
        chunks : tuple of tuple of int
            Sizes of the blocks.
        dropped : tuple of str, optional
            Identifiers of items that are not read.

        Returns
        -------
        Plan
            On the same grid, with the same forms.
        """
        return replace(
            self,
            times=times,
            time_of=time_of.astype(np.int32),
            chunks=chunks,
            scenes=tuple(self.scenes[scene] for scene in scenes),
            hrefs=tuple(self.hrefs[scene] for scene in scenes),
            assets=tuple(self.assets[scene] for scene in scenes),
            form_of=self.form_of[scenes],
            bounds=self.bounds[scenes],
            cover=tuple(self.cover[scene] for scene in scenes) if self.cover else (),
            shifts=self.shifts[scenes],
            dropped=dropped,
        )


def bounds_on(source: GeoBox, target: GeoBox) -> tuple[int, int, int, int]:
    """Return the rows and columns of a grid that another one may cover.

    Parameters
    ----------
    source : odc.geo.geobox.GeoBox
        Grid of a file.
    target : odc.geo.geobox.GeoBox
        Grid of the cube.

    Returns
    -------
    tuple of int
        Top, left, bottom, right, cut to the target; a little too large between two CRSs, never too small.
    """
    height, width = target.shape
    x, y = _outline(source)
    margin = 0.0
    if source.crs != target.crs:
        x, y = project(str(source.crs), str(target.crs), x, y)
        margin = 2.0
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return 0, 0, height, width  # reaches beyond the domain of the target's CRS: let each block look
    inverse = ~target.transform
    cols, rows = inverse.a * x + inverse.c, inverse.e * y + inverse.f
    edges = []
    for values, size in ((rows, height), (cols, width)):
        # Between the points of the outline an edge bulges by less than this share of its length.
        slack = margin + (margin and 0.002 * float(np.ptp(values)))
        low, high = np.floor(values.min() - slack + 1e-6), np.ceil(values.max() + slack - 1e-6)
        edges.append((int(np.clip(low, 0, size)), int(np.clip(high, 0, size))))
    return edges[0][0], edges[1][0], edges[0][1], edges[1][1]


def _outline(box: GeoBox) -> tuple[FloatArray, FloatArray]:
    height, width = box.shape
    t = np.linspace(0, 1, _EDGE_POINTS)
    cols = np.concatenate([t, np.ones_like(t), t, np.zeros_like(t)]) * width
    rows = np.concatenate([np.zeros_like(t), t, np.ones_like(t), t]) * height
    a = box.transform
    return a.a * cols + a.b * rows + a.c, a.d * cols + a.e * rows + a.f


def default_chunks(times: int, bands: int, shape: tuple[int, int], itemsize: int) -> tuple[int, int, int]:
    """Choose block sizes along time, y and x: tall blocks, for composites and series read whole time axes.

    Parameters
    ----------
    times, bands : int
        Length of these axes.
    shape : tuple of int
        Rows and columns of the grid.
    itemsize : int
        Bytes of a value.

    Returns
    -------
    tuple of int
        The largest side at which all dates fit into the budget; else the small side, dates shared out evenly.
    """
    for side in _SIDES:
        rows, cols = min(side, shape[0]), min(side, shape[1])
        step = rows * cols * bands * itemsize
        if step * times <= BLOCK_BYTES:
            return times, rows, cols
    blocks = -(-times * step // BLOCK_BYTES)
    return -(-times // blocks), rows, cols
