"""All pictures of a cube, in a folder."""

from pathlib import Path

import xarray as xr

from cubekit.cube.contract import geobox_of
from cubekit.look.coverage import coverage_calendar
from cubekit.look.pictures import quicklook, time_strip
from cubekit.look.point import point_series
from cubekit.typing import StrPath


def look(
    cube: xr.Dataset, out: StrPath, *, point: tuple[float, float] | None = None, crs: str | None = None
) -> list[Path]:
    """Draw all pictures of a cube.

    Parameters
    ----------
    cube : xarray.Dataset
        With ``data`` (time, band, y, x).
    out : path
        Folder; made if need be, pictures in it are replaced.
    point : tuple of float, optional
        x and y of the pixel whose series is drawn. Default: the middle of the grid.
    crs : str, optional
        Of `point`. Default: that of the cube.

    Returns
    -------
    list of pathlib.Path
        ``quicklook.png``, ``strip.png``, ``coverage.png``, ``series.png``.

    Raises
    ------
    OptionError
        For a point outside the grid.
    """
    folder = Path(out)
    paths = [folder / f"{name}.png" for name in ("quicklook", "strip", "coverage", "series")]
    if point is None:
        box = geobox_of(cube)
        crs, point = None, box.transform * (box.shape.x // 2 + 0.5, box.shape.y // 2 + 0.5)
    point_series(cube, *point, crs=crs, path=paths[3])  # first: a point outside is refused at once
    quicklook(cube, path=paths[0])
    time_strip(cube, path=paths[1])
    coverage_calendar(cube, path=paths[2])
    return paths
