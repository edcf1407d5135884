"""A season over the sample landscape as two sensors see it: sparse and sharp, frequent and blurred."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import xarray as xr

from cubekit.cube.contract import MAIN
from cubekit.typing import FloatArray

log = logging.getLogger("cubekit")

BANDS = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}
"""Names, and those of the sample spectra."""

RATIO = 16
"""Fine pixels along a coarse one."""

_FIRST, _EVERY, _BETWEEN = 75, 20, 4  # day of the year; days between fine images, and between coarse ones
_NOISE, _GAIN = 0.004, 1.03  # of the coarse sensor, which is calibrated a little differently
_YEAR, _HOUR, _LATITUDE = 2023, 10.5, 48.2


@contextmanager
def fusion_pairs(
    folder: Path, *, seed: int = 0, size: int = 128, dates: int = 8
) -> Iterator[Mapping[str, object]]:
    """Make a sparse fine series and a dense coarse one.

    Parameters
    ----------
    folder : pathlib.Path
        For the two stores; what lies there finished is not made again.
    seed : int, optional
        Seed of landscape and noise.
    size : int, optional
        Rows and columns of the fine images, a multiple of 16.
    dates : int, optional
        Fine images, 20 days apart; coarse ones are 4 days apart.

    Yields
    ------
    mapping
        ``fine`` and ``coarse``, paths of stores.
    """
    from cubekit.store.write import write

    fine, coarse = build_series(seed=seed, size=size, dates=dates)
    log.info("sample series: %d fine and %d coarse dates", fine.sizes["time"], coarse.sizes["time"])
    paths = {"fine": folder / "fine.zarr", "coarse": folder / "coarse.zarr"}
    for name, cube in (("fine", fine), ("coarse", coarse)):
        write(cube, paths[name], layout="patches", overwrite=True, progress=False)
    yield {name: str(path) for name, path in paths.items()}


def build_series(*, seed: int = 0, size: int = 128, dates: int = 8) -> tuple[xr.Dataset, xr.Dataset]:
    """Invent both series, in memory.

    Parameters
    ----------
    seed : int, optional
        Seed of landscape and noise.
    size : int, optional
        Rows and columns of the fine images, a multiple of 16.
    dates : int, optional
        Fine images.

    Returns
    -------
    fine : xarray.Dataset
        Cube of reflectance at 10 m, every 20 days.
    coarse : xarray.Dataset
        Means over 160 m with another calibration and noise, every 4 days, those of the fine dates included.
    """
    from cubekit.testing.landscape import PIXEL, build_landscape
    from cubekit.testing.spectra import BANDS as SPECTRAL
    from cubekit.testing.sun import sun_at
    from cubekit.testing.surface import build_surface

    surface = build_surface(seed, build_landscape(seed, (size, size)))
    rng = np.random.default_rng([seed, 11])
    days = np.arange(_FIRST, _FIRST + _EVERY * (dates - 1) + 1, _BETWEEN)
    chosen = [SPECTRAL.index(name) for name in BANDS.values()]
    suns = [sun_at(float(day), latitude=_LATITUDE, solar_hour=_HOUR) for day in days]
    seen = [
        surface.reflectance(float(day), moisture=0.4, sun=sun)[chosen]
        for day, sun in zip(days, suns, strict=True)
    ]
    blocks = (size // RATIO, RATIO, size // RATIO, RATIO)
    means = [image.reshape(len(BANDS), *blocks).mean(axis=(2, 4)) * _GAIN for image in seen]
    noisy = [image + rng.normal(0, _NOISE, image.shape) for image in means]
    sparse = slice(None, None, _EVERY // _BETWEEN)
    return _cube(seen[sparse], days[sparse], PIXEL), _cube(noisy, days, PIXEL * RATIO)


def _cube(images: list[FloatArray], days: np.ndarray, pixel: float) -> xr.Dataset:
    """Put images on a grid."""
    import odc.geo.xr  # noqa: F401  (registers the accessor)

    from cubekit.testing.scene import CRS, LEFT, TOP

    values = np.stack(images).astype("float32")
    centres = [(np.arange(side) + 0.5) * pixel for side in values.shape[-2:]]
    start = np.datetime64(f"{_YEAR}-01-01")
    coords = {
        "time": (start + (days - 1).astype("timedelta64[D]")).astype("datetime64[ns]"),
        "band": list(BANDS),
        "y": TOP - centres[0],
        "x": LEFT + centres[1],
    }
    data = xr.DataArray(values, coords, ("time", "band", "y", "x"), attrs={"_FillValue": np.float32(np.nan)})
    cube: xr.Dataset = xr.Dataset({MAIN: data}).odc.assign_crs(CRS)
    return cube
