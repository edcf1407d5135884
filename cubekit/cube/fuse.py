"""One block of a cube: scenes are read, masked and laid over each other; each pixel ends with a status."""

import warnings
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from odc.geo.geobox import GeoBox

from cubekit.cube import status as codes
from cubekit.cube.ahead import Windows
from cubekit.cube.gdal import many_reads
from cubekit.cube.lay import Recode, lay
from cubekit.cube.plan import Plan
from cubekit.cube.quality import masked_by, shaped
from cubekit.cube.resample import covered
from cubekit.errors import SourceError
from cubekit.typing import Array, BoolArray, IntArray


class FailedReadWarning(UserWarning):
    """An asset could not be read; its pixels stay without data."""


@dataclass(frozen=True)
class Hidden:
    """What the quality band of a scene takes out of a block."""

    where: BoolArray | None
    """None where no mask is asked for."""

    code: int = codes.MASKED
    """Why."""

    @cached_property
    def everything(self) -> bool:
        """Whether nothing of the scene is left."""
        return self.where is not None and bool(self.where.all())


def load_block(plan: Plan, block_id: tuple[int, int, int, int], out: Array | None = None) -> Array:
    """Make one block of a cube.

    Parameters
    ----------
    plan : Plan
        Of the whole cube.
    block_id : tuple of int
        Number of the block along time, band, y and x.
    out : numpy.ndarray, optional
        Where to put it, of its shape and type; may be part of a larger array. Default: new memory.

    Returns
    -------
    numpy.ndarray
        Shape (time, band, y, x), coded as the plan says.

    Raises
    ------
    SourceError
        When an asset cannot be read and failures are not to be recorded.
    """
    return _load(plan, block_id, kept=False, out=out)[0]


def load_with_status(plan: Plan, block_id: tuple[int, int, int, int]) -> tuple[Array, Array]:
    """Make one block of a cube and say what became of each pixel.

    Parameters
    ----------
    plan : Plan
        Of the whole cube.
    block_id : tuple of int
        Number of the block along time, band, y and x.

    Returns
    -------
    tuple of numpy.ndarray
        Values, coded as the plan says, and codes of :mod:`cubekit.cube.status` as uint8; both of shape
        (time, band, y, x).

    Raises
    ------
    SourceError
        When an asset cannot be read and failures are not to be recorded.
    """
    block, status = _load(plan, block_id, kept=True)
    return block, np.zeros_like(block, np.uint8) if status is None else status


def _load(
    plan: Plan, block_id: tuple[int, int, int, int], *, kept: bool, out: Array | None = None
) -> tuple[Array, Array | None]:
    """Make one block; the status is that of the last date where it is not kept, if anybody needs it."""
    times, rows, cols = plan.region(block_id)
    target = plan.grid[rows, cols]
    shape = (times.stop - times.start, len(plan.bands), *target.shape.yx)
    dtype = np.dtype(plan.encoding.dtype)
    fill = np.nan if plan.encoding.nodata is None else plan.encoding.nodata
    block = np.empty(shape, dtype) if out is None else out
    block[:] = dtype.type(fill)
    steps = [plan.touching(step, rows, cols) for step in range(times.start, times.stop)]
    noted = kept or plan.on_error == "record" or any(scenes.size > 1 for scenes in steps)
    status = np.zeros(shape if kept else (1, *shape[1:]), np.uint8) if noted else None
    with many_reads(), Windows(plan, target, steps) as windows:
        scenes_of = Scenes(plan, target, windows)
        for number, scenes in enumerate(steps):
            became = None if status is None else status[number if kept else 0]
            if became is not None:
                became[:] = codes.OUTSIDE
            step = _Step(scenes_of, block[number], became)
            step.fuse(scenes, first=int(np.searchsorted(plan.time_of, times.start + number)))
    return block, status


@dataclass(frozen=True)
class Scenes:
    """The scenes under one block, as they are masked and laid onto it."""

    plan: Plan
    target: GeoBox
    windows: Windows

    @property
    def records(self) -> bool:
        """Whether failures are noted instead of raised."""
        return self.plan.on_error == "record"

    def lay(self, scene: int, band: int, hidden: Hidden, out: Array, status: Array | None) -> int:
        """Lay one band of a scene onto what lacks data.

        Parameters
        ----------
        scene, band : int
            Numbers of both.
        hidden : Hidden
            From `hidden`.
        out : numpy.ndarray
            Shape (y, x), coded as the plan says; changed in place.
        status : numpy.ndarray of uint8 or None
            Same shape; pixels that get data become ``READ``, which are left alone. None where no other scene
            is laid onto `out`.

        Returns
        -------
        int
            ``READ``; or ``MISSING`` or ``FAILED`` where there was nothing to lay.

        Raises
        ------
        SourceError
            When the asset cannot be read and failures are not to be recorded.
        """
        if self.plan.source(scene, band) is None:
            return codes.MISSING
        try:
            window = self.windows.get(scene, band)
            if window is not None:
                lay(window, Recode.of(self.plan, scene, band), out, status, hidden.where)
        except SourceError as error:
            self._failed(error)
            return codes.FAILED
        return codes.READ

    def hidden(self, scene: int, failure: int = codes.FAILED) -> Hidden:
        """Tell what the quality band masks; all, where it is missing or cannot be read.

        Parameters
        ----------
        scene : int
            Its number.
        failure : int, optional
            Code of a failed read.

        Returns
        -------
        Hidden
            For the block.

        Raises
        ------
        SourceError
            When the band cannot be read and failures are not to be recorded.
        """
        rule, layer = self.plan.mask, len(self.plan.bands)
        if rule is None:
            return Hidden(None)
        if self.plan.source(scene, layer) is None:
            return Hidden(self._everywhere, codes.MISSING)
        try:
            pixels = self.windows.quality(scene)
        except SourceError as error:
            self._failed(error)
            return Hidden(self._everywhere, failure)
        if pixels is None:
            return Hidden(self._everywhere)
        halo = rule.reach  # masked areas beyond the block grow into it
        inner = (slice(halo, halo + self.target.shape.y), slice(halo, halo + self.target.shape.x))
        masked = masked_by(pixels.values, rule) & pixels.valid
        return Hidden(shaped(masked, pixels.valid, rule)[inner] | ~pixels.valid[inner])

    @property
    def _everywhere(self) -> BoolArray:
        return np.ones(self.target.shape, bool)

    def _failed(self, error: SourceError) -> None:
        if not self.records:
            raise error
        warnings.warn(str(error), FailedReadWarning, stacklevel=2)


@dataclass(frozen=True)
class _Step:
    """One date of a block, all its bands."""

    scenes: Scenes
    out: Array
    status: Array | None
    """None where one scene is all there is, and nothing is recorded."""

    def fuse(self, scenes: IntArray, *, first: int) -> None:
        """Lay scenes over each other, the first one on top; count them from the first of the date."""
        for number, scene in enumerate(scenes.tolist()):
            if number and self.status is not None and bool((self.status == codes.READ).all()):
                return
            failure = codes.failed(scene - first)
            hidden = self.scenes.hidden(scene, failure)
            for band in range(len(self.out)):
                if hidden.everything:
                    self._note(scene, band, hidden.code)
                else:
                    self._lay(scene, band, hidden, failure)

    def _lay(self, scene: int, band: int, hidden: Hidden, failure: int) -> None:
        status = None if self.status is None else self.status[band]
        became = self.scenes.lay(scene, band, hidden, self.out[band], status)
        if became != codes.READ:
            self._note(scene, band, failure if became == codes.FAILED else became)
            return
        if not self.scenes.records:
            return
        if hidden.where is not None:
            self._note(scene, band, hidden.code, hidden.where)
        self._note(scene, band, codes.EMPTY, None if hidden.where is None else ~hidden.where)

    def _note(self, scene: int, band: int, code: int, among: BoolArray | None = None) -> None:
        """Note why pixels that a scene covers have no data."""
        if not self.scenes.records or self.status is None:
            return
        plan = self.scenes.plan
        layers = (band, *range(plan.form_of.shape[1]))
        source = next((s for layer in layers if (s := plan.source(scene, layer)) is not None), None)
        if source is not None:
            where = self.scenes.windows.positions(source.form.geobox)
            inside = covered(where, source.form.geobox.shape.yx)
            codes.note(self.status[band], inside if among is None else inside & among, code)
