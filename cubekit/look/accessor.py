"""``cube.ck``: the pictures as methods of a dataset."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import xarray as xr

from cubekit.typing import StrPath

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@xr.register_dataset_accessor("ck")  # type: ignore[no-untyped-call]
class CubeAccessor:
    """Looks at a cube; each method is the function of the same purpose.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x).
    """

    def __init__(self, cube: xr.Dataset) -> None:
        self._cube = cube

    def quicklook(
        self,
        *,
        time: int | str | None = None,
        bands: Sequence[str] | str | None = None,
        path: StrPath | None = None,
    ) -> "Figure":
        """Draw one date; see :func:`cubekit.look.pictures.quicklook`.

        Parameters
        ----------
        time : int or str, optional
            Place of a date, or a day.
        bands : sequence of str, optional
            Names.
        path : path, optional
            PNG to write too.

        Returns
        -------
        matplotlib.figure.Figure
            Not known to pyplot.
        """
        from cubekit.look.pictures import quicklook

        return quicklook(self._cube, time=time, bands=bands, path=path)

    def time_strip(
        self, *, dates: int = 24, bands: Sequence[str] | str | None = None, path: StrPath | None = None
    ) -> "Figure":
        """Draw many dates side by side; see :func:`cubekit.look.pictures.time_strip`.

        Parameters
        ----------
        dates : int, optional
            Pictures at most.
        bands : sequence of str, optional
            Names.
        path : path, optional
            PNG to write too.

        Returns
        -------
        matplotlib.figure.Figure
            Not known to pyplot.
        """
        from cubekit.look.pictures import time_strip

        return time_strip(self._cube, dates=dates, bands=bands, path=path)

    def coverage_calendar(self, *, path: StrPath | None = None) -> "Figure":
        """Draw what was observed when; see :func:`cubekit.look.coverage.coverage_calendar`.

        Parameters
        ----------
        path : path, optional
            PNG to write too.

        Returns
        -------
        matplotlib.figure.Figure
            Not known to pyplot.
        """
        from cubekit.look.coverage import coverage_calendar

        return coverage_calendar(self._cube, path=path)

    def point_series(
        self,
        x: float,
        y: float,
        *,
        crs: str | None = None,
        bands: Sequence[str] | str | None = None,
        path: StrPath | None = None,
    ) -> "Figure":
        """Draw the series of one pixel; see :func:`cubekit.look.point.point_series`.

        Parameters
        ----------
        x, y : float
            Coordinates of the point.
        crs : str, optional
            Of `x` and `y`. Default: that of the cube.
        bands : sequence of str, optional
            Names.
        path : path, optional
            PNG to write too.

        Returns
        -------
        matplotlib.figure.Figure
            Not known to pyplot.
        """
        from cubekit.look.point import point_series

        return point_series(self._cube, x, y, crs=crs, bands=bands, path=path)

    def valid_share(self) -> xr.DataArray:
        """Return the share of pixels with data; see :func:`cubekit.look.sample.valid_share`.

        Returns
        -------
        xarray.DataArray
            float32 (time, band), as lazy as the cube.
        """
        from cubekit.look.sample import valid_share

        return valid_share(self._cube)
