"""Yearly vegetation maps around a mine that grows and is planted again behind its edge."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cubekit.typing import FloatArray

FIRST = 2001
OUTSIDE = 0.0
"""Stored number outside a zone, as in the published archives."""

INDEX = "NDVI"
_PIXEL = 30.0
_CRS = "EPSG:32650"
_RECOVERY = 6.0  # years in which planted land comes half way back


@contextmanager
def yearly_vegetation(
    folder: Path, *, seed: int = 0, size: int = 96, years: int = 14
) -> Iterator[Mapping[str, object]]:
    """Write a year-per-file archive with the zones ``buffer`` and ``mine``.

    Cover has a pattern of the land, a trend of its own at each place, and good and bad years. The mine is a
    disc whose edge moves outwards every year; what it leaves is planted and recovers. So the change of a
    pixel can be told from its neighbours, which no baseline looks at.

    Parameters
    ----------
    folder : pathlib.Path
        Where it goes; files that are there are kept.
    seed : int, optional
        Of land and years.
    size : int, optional
        Pixels a side, of 30 m.
    years : int, optional
        Number of maps.

    Yields
    ------
    mapping
        ``root`` (folder of the maps), ``index`` and ``zones`` (name to raster).
    """
    maps, mine = landscape(seed=seed, size=size, years=years)
    for zone, inside in (("buffer", _disc(size, 0.48)), ("mine", mine)):
        place = folder / zone / INDEX
        place.mkdir(parents=True, exist_ok=True)
        for number, values in enumerate(maps):
            path = place / f"Landsat_{INDEX}_{FIRST + number}.tif"
            if not path.is_file():
                _write(path, np.where(inside, values, OUTSIDE).astype("float32"))
    first = f"Landsat_{INDEX}_{FIRST}.tif"
    yield {
        "root": str(folder),
        "index": INDEX,
        "zones": {zone: str(folder / zone / INDEX / first) for zone in ("mine", "buffer")},
    }


def landscape(*, seed: int, size: int, years: int) -> tuple[FloatArray, FloatArray]:
    """Make the maps.

    Parameters
    ----------
    seed : int
        Of land and years.
    size : int
        Pixels a side.
    years : int
        Number of maps.

    Returns
    -------
    maps : numpy.ndarray
        ``(years, size, size)`` float64, about 0.05 to 0.95, never exactly 0.
    mine : numpy.ndarray
        ``(size, size)`` bool: land that the mine reaches by the last year.
    """
    from cubekit.testing.fractal import fractal

    dice = np.random.default_rng((seed, 5))
    land = 0.62 + 0.09 * fractal(dice, (size, size), longest=size / 2)
    trend = 0.003 * fractal(dice, (size, size), longest=size / 2)
    weather = [0.0]
    for _ in range(years - 1):
        weather.append(0.4 * weather[-1] + 0.015 * dice.standard_normal())
    rows, columns = np.mgrid[:size, :size]
    distance = np.hypot(rows - 0.5 * size, columns - 0.46 * size) / size
    edge = 0.06 + 0.018 * np.arange(years) * (14 / years)
    reached = np.full((size, size), np.inf)
    for number in range(years - 1, -1, -1):
        reached[distance < edge[number]] = number
    maps = []
    for number in range(years):
        since = np.clip(number - reached, 0, None)  # years since the edge passed
        lost = np.where(reached <= number, 0.75 * 0.5 ** (since / _RECOVERY), 0)
        cover = (land + trend * number) * (1 - lost) + weather[number]
        maps.append(np.clip(cover + 0.008 * dice.standard_normal(cover.shape), 0.02, 0.98))
    return np.stack(maps), distance < edge[-1]


def _disc(size: int, radius: float) -> FloatArray:
    """Return pixels within a share of the side from the centre."""
    rows, columns = np.mgrid[:size, :size]
    near: FloatArray = np.hypot(rows - 0.5 * size, columns - 0.5 * size) < radius * size
    return near


def _write(path: Path, values: FloatArray) -> None:
    """Write a single-band GeoTIFF."""
    import rasterio
    from rasterio.transform import from_origin

    height, width = values.shape
    draft = path.with_name(f".{path.name}.part.tif")
    with rasterio.open(
        draft, "w", driver="GTiff", height=height, width=width, count=1, dtype="float32", crs=_CRS,
        transform=from_origin(500_000, 4_400_000, _PIXEL, _PIXEL), compress="deflate",
    ) as file:  # fmt: skip
        file.write(values, 1)
    draft.replace(path)
