"""The six indices of yearly vegetation and ecology maps: from the catalogue, or as they were published."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr

from cubekit.cube.contract import DIMS, MAIN, check_cube, to_physical
from cubekit.cube.indices import add_indices, bands_for
from cubekit.errors import CubeError, OptionError, check_option
from cubekit.typing import FloatArray

EcologyIndex: TypeAlias = Literal["EVI", "FVC", "NDVI", "RVI", "RSEI", "SAVI"]
"""Index of yearly maps."""

Sensor: TypeAlias = Literal["tm", "etm", "oli"]
"""Landsat sensor whose wetness is meant."""

_CATALOGUE: Final[Mapping[str, str]] = MappingProxyType({"EVI": "EVI", "NDVI": "NDVI", "RVI": "SR"})
"""Index to its name in the catalogue, whose RVI is another one: a ratio of a red edge band."""

WETNESS: Final[Mapping[Sensor, tuple[float, ...]]] = MappingProxyType(
    {
        "tm": (0.0315, 0.2021, 0.3102, 0.1594, -0.6806, -0.6109),
        "etm": (0.2626, 0.2141, 0.0926, 0.0656, -0.7629, -0.5388),
        "oli": (0.1511, 0.1973, 0.3283, 0.3407, -0.7117, -0.4559),
    }
)
"""Weights of blue, green, red, near infrared and both short-wave infrareds in the tasseled cap's wetness:
Crist 1985, doi:10.1016/0034-4257(85)90102-6; Huang et al. 2002, doi:10.1080/01431160110106113; Baig et al.
2014, doi:10.1080/2150704X.2014.915434."""

_SOIL = (
    0.5  # of SAVI, Huete 1988, doi:10.1016/0034-4257(88)90106-X; the catalogue's default is that of EVI, 1
)
_REFLECTED = ("B", "G", "R", "N", "S1", "S2")
_SAMPLE = 4_000_000  # pixels that percentiles are taken of; more change them by less than their meaning


def vegetation_index(
    cube: xr.Dataset,
    name: EcologyIndex,
    *,
    sensor: Sensor = "oli",
    heat: str = "lst",
    soil: float | None = None,
    vegetation: float | None = None,
    water: bool = False,
) -> xr.Dataset:
    """Compute one of the six indices of yearly maps from reflectance.

    Parameters
    ----------
    cube : xarray.Dataset
        Reflectance ``(time, band, y, x)``, as for :func:`cubekit.add_indices`; one date a year for forecasts.
    name : {"EVI", "FVC", "NDVI", "RVI", "RSEI", "SAVI"}
        Index; RVI is near infrared over red, SAVI has the soil term 0.5.
    sensor : {"tm", "etm", "oli"}, optional
        For RSEI.
    heat : str, optional
        Band with the land surface temperature, for RSEI.
    soil, vegetation : float, optional
        NDVI of bare soil and of full cover, for FVC.
    water : bool, optional
        Whether RSEI covers water too.

    Returns
    -------
    xarray.Dataset
        ``data (time, band, y, x)`` float32 with the one band `name`; NaN where there is no data.

    Raises
    ------
    UnknownNameError
        For a band that the cube lacks.
    OptionError
        For another index.
    CubeError
        If the numbers cannot be reflectance.
    """
    check_option("name", name, get_args(EcologyIndex))
    if name == "FVC":
        return vegetation_cover(cube, soil=soil, vegetation=vegetation)
    if name == "RSEI":
        return ecological_index(cube, sensor=sensor, heat=heat, water=water)
    if name == "SAVI":
        check_cube(cube)
        red, nir = (_band(cube, place) for place in bands_for(cube, ("R", "N")).values())
        savi = (1 + _SOIL) * (nir - red) / (nir + red + _SOIL)
        return _named(cube, savi.expand_dims(band=["SAVI"]).transpose(*DIMS), "SAVI")
    known = _CATALOGUE[name]
    found = add_indices(cube.sel(band=[b for b in cube["band"].to_numpy() if b != known]), known)
    return found.sel(band=[known]).assign_coords(band=[name])


def vegetation_cover(
    cube: xr.Dataset,
    *,
    soil: float | None = None,
    vegetation: float | None = None,
    percentiles: tuple[float, float] = (5, 95),
) -> xr.Dataset:
    """Compute fractional vegetation cover, FVC, by the dichotomy of pixels into soil and vegetation.

    ``FVC = (NDVI - NDVI_soil) / (NDVI_vegetation - NDVI_soil)``, kept within 0 and 1. The two ends are one
    pair of numbers for all dates, so that years can be compared.

    Parameters
    ----------
    cube : xarray.Dataset
        Reflectance with red and near infrared, as for :func:`cubekit.add_indices`.
    soil, vegetation : float, optional
        NDVI of bare soil and of full cover. Default: percentiles of all NDVI of the cube, which is read for
        it (a regular sample of at most 4 million numbers).
    percentiles : tuple of float, optional
        Which ones.

    Returns
    -------
    xarray.Dataset
        ``data`` float32 with the band ``FVC``, 0 to 1, NaN where there is no data; lazy. The ends are in the
        attributes ``ndvi_soil`` and ``ndvi_vegetation``.

    Raises
    ------
    CubeError
        If there is no data, or the numbers cannot be reflectance.
    OptionError
        If soil is not below vegetation.

    References
    ----------
    Gutman and Ignatov (1998), doi:10.1080/014311698215333.
    """
    found = vegetation_index(cube, "NDVI")
    ndvi = found[MAIN]
    if soil is None or vegetation is None:
        low, high = _percentiles(ndvi, percentiles)
        soil, vegetation = low if soil is None else soil, high if vegetation is None else vegetation
    if not soil < vegetation:
        raise OptionError(f"soil={soil:g} must be below vegetation={vegetation:g}.")
    cover = ((ndvi - np.float32(soil)) / np.float32(vegetation - soil)).clip(0, 1)
    return _named(found, cover, "FVC", ndvi_soil=float(soil), ndvi_vegetation=float(vegetation))


def ecological_index(
    cube: xr.Dataset, *, sensor: Sensor = "oli", heat: str = "lst", water: bool = False
) -> xr.Dataset:
    """Compute the remote sensing based ecological index, RSEI: first component of four pressures and states.

    Greenness (NDVI), wetness (tasseled cap of the sensor), dryness (NDBSI, the mean of a soil and a built-up
    index) and heat (land surface temperature) are scaled to 0-1 by their extremes. Their first principal
    component, turned so that greenness counts as good, is scaled to 0-1 again. Scales and components are
    those of all dates together, so that years can be compared.

    Parameters
    ----------
    cube : xarray.Dataset
        Reflectance of blue, green, red, near infrared and both short-wave infrareds, and a band of land
        surface temperature in any unit.
    sensor : {"tm", "etm", "oli"}, optional
        Whose wetness is taken; see `WETNESS`.
    heat : str, optional
        Name of the temperature band.
    water : bool, optional
        Whether to keep water (MNDWI above 0), which distorts wetness over land and is left out as published.

    Returns
    -------
    xarray.Dataset
        ``data`` float32 with the band ``RSEI``, 0 (bad) to 1 (good), NaN where a part is missing; lazy, but
        the cube is read twice for scales and components. Attributes: ``loadings`` of greenness, wetness,
        dryness, heat, and ``explained``, the share of the variance.

    Raises
    ------
    UnknownNameError
        For a band that the cube lacks.
    CubeError
        If there is no temperature band, a part is constant, or nothing is data.
    OptionError
        For another sensor.

    References
    ----------
    Xu et al. (2019), doi:10.3390/rs11202345; on its use Xu and Deng (2022), doi:10.3390/rs14215307; MNDWI: Xu
    (2006), doi:10.1080/01431160600589179.
    """
    check_option("sensor", sensor, get_args(Sensor))
    check_cube(cube)
    if heat not in cube["band"].to_numpy():
        bands = cube["band"].to_numpy().tolist()
        raise CubeError(
            f"RSEI needs the land surface temperature as a band: no {heat!r} in {bands}; give heat=."
        )
    parts = _parts(cube, sensor, heat)
    if not water:
        green, short = (_band(cube, place) for place in bands_for(cube, ("G", "S1")).values())
        parts = parts.where(~((green - short) / (green + short) > 0))
    parts = parts.where((abs(parts) < np.inf).all("part"))
    rest = [dim for dim in parts.dims if dim != "part"]
    low, high = (each.compute() for each in (parts.min(rest), parts.max(rest)))
    if not bool((high > low).all()):
        raise CubeError("RSEI: greenness, wetness, dryness or heat is constant, or no pixel has all four.")
    scaled = (parts - low) / (high - low)
    mean = scaled.mean(rest).compute()
    count = int(scaled.isel(part=0).count())
    away = (scaled - mean).fillna(0)
    products = xr.dot(away, away.rename(part="other"), dim=rest).compute().to_numpy() / max(count - 1, 1)
    values, vectors = np.linalg.eigh(products)
    loadings = vectors[:, -1] * (1 if vectors[0, -1] >= 0 else -1)
    first = xr.dot(scaled - mean, xr.DataArray(loadings, dims="part"), dim="part")
    bottom, top = float(first.min()), float(first.max())
    named = ((first - bottom) / (top - bottom)).expand_dims(band=["RSEI"]).transpose(*DIMS)
    explained = float(values[-1] / values.sum())
    return _named(cube, named, "RSEI", loadings=loadings.round(6).tolist(), explained=explained)


def _parts(cube: xr.Dataset, sensor: Sensor, heat: str) -> xr.DataArray:
    """Return greenness, wetness, dryness and heat: (part, time, y, x) float64."""
    blue, green, red, nir, short, long = (_band(cube, p) for p in bands_for(cube, _REFLECTED).values())
    bands = (blue, green, red, nir, short, long)
    wet: xr.DataArray = sum(band * weight for band, weight in zip(bands, WETNESS[sensor], strict=True))  # type: ignore[assignment]
    soil = ((short + red) - (nir + blue)) / ((short + red) + (nir + blue))
    built, natural = 2 * short / (short + nir), nir / (nir + red) + green / (green + short)
    dry = (soil + (built - natural) / (built + natural)) / 2
    warm = to_physical(cube[MAIN].sel(band=heat, drop=True), dtype="float64")
    return xr.concat([(nir - red) / (nir + red), wet, dry, warm], "part", coords="minimal", compat="override")


def _band(cube: xr.Dataset, place: int) -> xr.DataArray:
    """Return a band in physical units."""
    return to_physical(cube[MAIN].isel(band=place, drop=True), dtype="float64")


def _percentiles(values: xr.DataArray, wanted: tuple[float, float]) -> tuple[float, float]:
    """Return percentiles of a regular sample of all numbers."""
    step = max(1, int(np.ceil((values.size / _SAMPLE) ** 0.5)))
    sample: FloatArray = values.isel(y=slice(None, None, step), x=slice(None, None, step)).to_numpy()
    known = sample[np.isfinite(sample)]
    if not known.size:
        raise CubeError("FVC: no pixel has NDVI.")
    low, high = np.percentile(known, wanted)
    return float(low), float(high)


def _named(cube: xr.Dataset, values: xr.DataArray, name: str, **attrs: object) -> xr.Dataset:
    """Put an index into a cube of its own."""
    values = values.astype("float32")
    values.attrs = {"_FillValue": np.float32("nan"), **attrs}
    if mapping := cube[MAIN].attrs.get("grid_mapping"):
        values.attrs["grid_mapping"] = mapping
    if mapping := cube[MAIN].encoding.get("grid_mapping"):
        values.encoding["grid_mapping"] = mapping
    others = cube.drop_vars([key for key, item in cube.variables.items() if "band" in item.dims])
    return others.assign_coords(band=[name]).assign({MAIN: values.assign_coords(band=[name])})
