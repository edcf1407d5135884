"""Pairs of dates of a coarse and a fine cube: what fusion networks and their baselines learn from."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from typing import Literal, overload

import dask
import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

from cubekit.batching.align import align, as_array, fit_lines, on_lines
from cubekit.batching.dates import DateMatch, days_of, pair_dates
from cubekit.batching.pair_patches import IMAGES, Gaps, PairPatches, cut_patches
from cubekit.batching.patches import Edge, PatchPlan
from cubekit.cube.contract import geobox_of, to_physical
from cubekit.cube.regrid import Kernel
from cubekit.errors import CubeError, OptionError, check_option
from cubekit.typing import Array, FloatArray, StrPath

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Four images ``(band, y, x)`` on one grid: float32, physical, NaN where there is no data; lazy."""

    coarse_t1: xr.DataArray
    """Coarse image of the earlier date."""

    coarse_t2: xr.DataArray
    """Coarse image of the wanted date."""

    fine_t1: xr.DataArray
    """Fine image of the earlier date."""

    fine_t2: xr.DataArray
    """Fine image of the wanted date: what is to be predicted."""

    t1: np.datetime64
    """Date of the known fine image, by day."""

    t2: np.datetime64
    """Date of the wanted fine image, by day."""

    @property
    def images(self) -> dict[str, xr.DataArray]:
        """The four images by name (:data:`IMAGES`)."""
        return {name: getattr(self, name) for name in IMAGES}

    @property
    def valid(self) -> xr.DataArray:
        """Where all four images have data in all bands: ``(y, x)`` bool, as lazy as the images."""
        known = [image.notnull().all("band") for image in self.images.values()]
        valid: xr.DataArray = known[0].copy(data=reduce(and_, [each.data for each in known]))
        return valid

    def load(self) -> dict[str, FloatArray]:
        """Read the images.

        Returns
        -------
        dict of str to numpy.ndarray
            ``coarse_t1``, ``coarse_t2``, ``fine_t1``, ``fine_t2``: ``(c, h, w)`` float32, NaN where there is
            no data. Read in one computation.
        """
        loaded = dask.compute({name: image.data for name, image in self.images.items()})[0]  # type: ignore[no-untyped-call,attr-defined]
        return {name: np.asarray(values, dtype="float32") for name, values in loaded.items()}

    def __repr__(self) -> str:
        shape = " x ".join(str(size) for size in self.fine_t1.shape)
        return f"Pair {self.t1} -> {self.t2}: {shape} ({', '.join(map(str, self.fine_t1.dims))})"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Pairs(Sequence[Pair]):
    """Pairs of dates over two aligned cubes, in the order of the wanted date. Lazy.

    A sequence: ``pairs[0]`` is a :class:`Pair`, ``pairs[:3]`` are fewer pairs. Methods return new pairs.
    """

    fine: xr.DataArray
    """Fine images of all dates ``(time, band, y, x)`` float32, NaN where there is no data."""

    coarse: xr.DataArray
    """Coarse images of the same dates, on the same grid and with the same band names."""

    steps: tuple[tuple[int, int], ...]
    """Positions of t1 and t2 along ``time``."""

    match: DateMatch
    """Which dates of the cubes belong together, and those without a partner."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return tuple(str(name) for name in self.fine["band"].to_numpy())

    @property
    def dates(self) -> Array:
        """Dates that both cubes have, datetime64[D], increasing."""
        return days_of(self.fine)

    @property
    def spans(self) -> list[tuple[np.datetime64, np.datetime64]]:
        """Dates (t1, t2) of each pair, by day."""
        dates = self.dates
        return [(dates[first], dates[second]) for first, second in self.steps]

    @property
    def grid(self) -> GeoBox | None:
        """Grid of the images; None where they have no CRS."""
        try:
            return geobox_of(self.fine)
        except CubeError:
            return None

    def __len__(self) -> int:
        return len(self.steps)

    @overload
    def __getitem__(self, index: int) -> Pair: ...

    @overload
    def __getitem__(self, index: slice) -> "Pairs": ...

    def __getitem__(self, index: int | slice) -> "Pair | Pairs":
        """Return a pair, or some of the pairs."""
        if isinstance(index, slice):
            return replace(self, steps=self.steps[index])
        first, second = self.steps[index]
        dates = self.dates
        return Pair(
            coarse_t1=self.coarse.isel(time=first, drop=True),
            coarse_t2=self.coarse.isel(time=second, drop=True),
            fine_t1=self.fine.isel(time=first, drop=True),
            fine_t2=self.fine.isel(time=second, drop=True),
            t1=dates[first],
            t2=dates[second],
        )

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        height, width = self.fine.sizes["y"], self.fine.sizes["x"]
        ends = f", {self.spans[0][0]} -> {self.spans[-1][1]}" if self.steps else ""
        return f"Pairs: {len(self)}{ends}, {len(self.bands)} bands, {height} x {width} pixels; {self.match}"

    def take(
        self, dates: Sequence[str | np.datetime64] | Array, *, at: Literal["both", "t1", "t2"] = "both"
    ) -> "Pairs":
        """Keep the pairs of some dates.

        Parameters
        ----------
        dates : sequence of str or datetime64
            Fine dates, by day.
        at : {"both", "t1", "t2"}, optional
            Which date of a pair must be among them.

        Returns
        -------
        Pairs
            In the same order; none where no pair fits.

        Raises
        ------
        OptionError
            If a date is not one of these pairs.
        """
        check_option("at", at, ("both", "t1", "t2"))
        wanted = self._positions(dates)
        ends = {"both": (0, 1), "t1": (0,), "t2": (1,)}[at]
        kept = tuple(step for step in self.steps if all(step[end] in wanted for end in ends))
        return replace(self, steps=kept)

    def normalised(
        self, scale: float, *, coarse_scale: float | None = None, negative: bool = False
    ) -> "Pairs":
        """Divide the images, so that reflectance runs from 0 to 1.

        Parameters
        ----------
        scale : float
            Value that becomes 1, such as 10000 for reflectance stored as integers.
        coarse_scale : float, optional
            That of the coarse images. Default: `scale`.
        negative : bool, optional
            Keep values below zero; by default they become 0, as in the published comparisons.

        Returns
        -------
        Pairs
            NaN stays NaN; as lazy as these.

        Raises
        ------
        OptionError
            If a scale is not above zero.
        """
        scales = (scale, scale if coarse_scale is None else coarse_scale)
        if not all(0 < each < np.inf for each in scales):
            raise OptionError(f"scale={scale!r}, coarse_scale={coarse_scale!r}: expected numbers above zero.")
        fine, coarse = (
            (cube if negative else cube.where(~(cube < 0), np.float32(0))) / np.float32(each)
            for cube, each in zip((self.fine, self.coarse), scales, strict=True)
        )
        return replace(self, fine=fine, coarse=coarse)

    def harmonised(
        self,
        dates: Sequence[str | np.datetime64] | Array | None = None,
        *,
        to: Literal["fine", "coarse"] = "fine",
    ) -> "Pairs":
        """Bring two sensors to the same values by a line for each band: ``fine = a * coarse + b``.

        For sensors that differ in calibration or units. The lines are those of least squares over the pixels
        of `dates`, so give the training dates only.

        Parameters
        ----------
        dates : sequence of str or datetime64, optional
            Fine dates to fit on. Default: all of ``t1`` of these pairs.
        to : {"fine", "coarse"}, optional
            Whose values both have afterwards: coarse images are put on the lines, or fine images are brought
            back along them, as where fine images are raw numbers and coarse ones reflectance.

        Returns
        -------
        Pairs
            The fit is computed now, its result stays lazy.

        Raises
        ------
        OptionError
            If a date is none of these pairs, or no line can be fitted, or none that can be followed back.
        """
        check_option("to", to, ("fine", "coarse"))
        wanted = sorted(self._positions(dates) if dates is not None else {first for first, _ in self.steps})
        lines = fit_lines(self.coarse.isel(time=wanted), self.fine.isel(time=wanted))
        for band, slope, intercept in zip(self.bands, *lines, strict=True):
            _log.info("%s: fine = %.5g * coarse + %.5g", band, slope, intercept)
        if to == "fine":
            return replace(self, coarse=on_lines(self.coarse, *lines))
        a, b = (xr.DataArray(line.astype("float32"), dims="band") for line in lines)
        if not (np.abs(a) > 0).all():
            raise OptionError("A fine band does not change with the coarse one: there is no way back to it.")
        return replace(self, fine=((self.fine - b) / a).transpose(*self.fine.dims))

    def patches(
        self,
        size: int | tuple[int, int],
        stride: int | tuple[int, int] | None = None,
        *,
        edge: Edge = "keep",
        gaps: Gaps = "drop",
    ) -> PairPatches:
        """Cut all pairs into patches.

        Parameters
        ----------
        size : int or tuple of int
            Rows and columns of a patch.
        stride : int or tuple of int, optional
            Rows and columns from one patch to the next. Default: `size`.
        edge : {"keep", "drop"}, optional
            Put last patches flush with the edge where the scene leaves a rest, or lose the rest.
        gaps : {"drop", "keep"}, optional
            What to do with patches in which an image has a gap; those left out are counted in the log and in
            ``dropped``.

        Returns
        -------
        PairPatches
            In memory: pair by pair, row by row. Each pair is read once.

        Raises
        ------
        OptionError
            If the scene is smaller than a patch.
        """
        return cut_patches(
            self, PatchPlan(self.fine.isel(time=0, drop=True), size, stride=stride, edge=edge), gaps=gaps
        )

    def _positions(self, dates: Sequence[str | np.datetime64] | Array) -> set[int]:
        """Return where dates lie along ``time``."""
        known = {date: position for position, date in enumerate(self.dates)}
        wanted = list(np.asarray(dates, dtype="datetime64[D]").ravel())
        if strange := [str(date) for date in wanted if date not in known]:
            raise OptionError(
                f"{', '.join(strange)}: no such date; both cubes have {', '.join(map(str, known))}."
            )
        return {known[date] for date in wanted}


def open_pairs(
    fine: xr.Dataset | xr.DataArray | StrPath,
    coarse: xr.Dataset | xr.DataArray | StrPath,
    *,
    tolerance: float = 0,
    bands: Sequence[str] | Mapping[str, str] | None = None,
    steps: Literal["consecutive", "all"] | Sequence[tuple[str, str]] = "consecutive",
    resampling: Kernel = "cubic",
) -> Pairs:
    """Pair the dates of a fine and a coarse cube, any two.

    Parameters
    ----------
    fine, coarse : xarray.Dataset, xarray.DataArray or path
        Cubes, or stores of them: dims ``(time, band, y, x)``, stored numbers with CF coding or physical
        values with NaN. Where they differ in grid, the coarse one is resampled to the fine grid, block by
        block when it is read.
    tolerance : float, optional
        Days that a coarse date may lie from the fine date that it belongs to.
    bands : sequence of str or mapping, optional
        Bands to use, by the names that both cubes have; or fine name to coarse name where these differ.
        Default: all that both have, in the order of the fine cube.
    steps : {"consecutive", "all"} or sequence of tuple, optional
        Which dates make a pair: each and the next; each and all later ones; or these (t1, t2), fine dates by
        day. t2 may be the earlier one.
    resampling : {"cubic", "bilinear", "nearest"}, optional
        How coarse images come to the fine grid.

    Returns
    -------
    Pairs
        Lazy; physical values. What has no partner is in its ``match``.

    Raises
    ------
    OptionError
        If fewer than two dates, or no bands, are of both cubes, or a date in `steps` is none of them.
    CubeError
        If a cube has no grid to resample by.

    Examples
    --------
    >>> times = np.array(["2020-03-08", "2020-03-17", "2020-04-02"], "datetime64[ns]")
    >>> cube = xr.DataArray(
    ...     np.zeros((3, 1, 8, 8)), {"time": times, "band": ["red"]}, ("time", "band", "y", "x")
    ... )
    >>> [str(span[1]) for span in open_pairs(cube, cube).spans]
    ['2020-03-17', '2020-04-02']
    """
    fine, coarse = as_array(fine, "fine"), as_array(coarse, "coarse")
    match = pair_dates(fine, coarse, tolerance=tolerance)
    if len(match) < 2:  # noqa: PLR2004
        raise OptionError(
            f"Pairs need two dates that both cubes have, within {tolerance:g} day(s); found {match!r}. "
            "Raise tolerance= where the sensors pass on different days."
        )
    if len(match.unmatched_fine) or len(match.unmatched_coarse):
        _log.info("%r", match)
    near = align(coarse.isel(time=match.coarse), fine, bands=bands, resampling=resampling)
    images = to_physical(fine.isel(time=match.fine).sel(band=near["band"].to_numpy()))
    near = near.assign_coords(time=images["time"].to_numpy())
    pairs = Pairs(fine=images, coarse=near, steps=(), match=match)
    return replace(pairs, steps=_steps(steps, pairs))


def _steps(steps: str | Sequence[tuple[str, str]], pairs: Pairs) -> tuple[tuple[int, int], ...]:
    count = len(pairs.dates)
    if not isinstance(steps, str):
        found = [tuple(pairs._positions([date]).pop() for date in step) for step in steps]  # noqa: SLF001
        return tuple((first, second) for first, second in found)
    check_option("steps", steps, ("consecutive", "all"))
    if steps == "consecutive":
        return tuple((first, first + 1) for first in range(count - 1))
    return tuple((first, second) for second in range(count) for first in range(second))
