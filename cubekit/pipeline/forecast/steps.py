"""The steps of a forecast: each is a few lines over the public functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from odc.geo.geobox import GeoBox

import cubekit
from cubekit.batching.augment import Augmentation
from cubekit.batching.torch.years import YearStream, year_batches
from cubekit.batching.years import YearSplit, split_years
from cubekit.cube.contract import MAIN, geobox_of, to_physical
from cubekit.cube.ecology import vegetation_index
from cubekit.cube.yearly import (
    ZONE,
    fill_nearest,
    open_yearly,
    read_mask,
    read_yearly_npz,
    with_all_years,
    with_zones,
    zone_mask,
    zones_of,
)
from cubekit.errors import PipelineError
from cubekit.evaluation.forecast import ForecastScores, score_forecasts
from cubekit.pipeline.forecast.spec import ForecastPipeline, Maps
from cubekit.pipeline.scenes import build_cube
from cubekit.pipeline.training import train_into
from cubekit.prediction.rollout import forecast, hindcast
from cubekit.training.bundle import Model
from cubekit.training.checks import check_network
from cubekit.typing import Array, BoolArray, FloatArray, StrPath

LAYOUT = {"time": 1 << 20, "y": 512, "x": 512}
"""Chunks of the store of maps: all years of 512 x 512 pixels at once, as windows of years are read."""

HISTORY = "loss_history.npz"


@dataclass(frozen=True)
class Tested:
    """Held-out years: truth, forecasts and their scores."""

    years: tuple[int, ...]
    truth: FloatArray
    forecasts: Mapping[str, FloatArray]
    zones: Mapping[str, BoolArray]
    scores: ForecastScores


def check_inputs(spec: ForecastPipeline) -> None:
    """Raise for what would only be missed once the maps are read."""
    check_network(spec.train.network, spec.train.arguments, task="forecast", form="patches")
    named = {f"zones.{name}": path for name, path in spec.zones.items()}
    if spec.maps.npz is not None:
        named |= {"maps.npz.path": spec.maps.npz.path, "maps.npz.like": spec.maps.npz.like}
    if spec.maps.years is not None:
        named["maps.years.root"] = spec.maps.years.root
    for key, path in named.items():
        if not Path(path).exists():
            raise PipelineError(
                f"Key {key!r}: there is nothing at {path}. Relative paths start at {Path.cwd()}."
            )


def build_maps(spec: ForecastPipeline, folder: Path, *, overwrite: bool) -> xr.Dataset:
    """Open or compute the yearly maps, lay the zones beside them, and write both as a store."""
    cube = _maps(spec, folder, overwrite=overwrite)
    zones: dict[str, Array] = {name: _zone(path, cube) for name, path in spec.zones.items()}
    cube = with_zones(cube, zones)
    inside = zones_of(cube).get(spec.within or "")
    if spec.within is not None and inside is None:
        raise PipelineError(f"Key 'within': the store has zones {list(zones_of(cube))}, not {spec.within!r}.")
    if spec.maps.fill is not None:
        cube = fill_nearest(cube, inside)
    elif inside is not None:
        cube = cube.assign({MAIN: cube[MAIN].where(inside)})
    return cubekit.write(cube, folder / "cube.zarr", layout=LAYOUT, overwrite=overwrite)


def _maps(spec: ForecastPipeline, folder: Path, *, overwrite: bool) -> xr.Dataset:
    """Return the maps of one index, one a year."""
    maps: Maps = spec.maps
    if maps.years is not None:
        return open_yearly(index=spec.index, **maps.years.model_dump(exclude_none=True))
    if maps.npz is not None:
        return read_yearly_npz(
            maps.npz.path, spec.index, like=grid_of(maps.npz.like), missing=maps.npz.missing
        )
    if maps.scenes is not None:
        scenes = maps.scenes
        cube = build_cube(scenes, folder / "reflectance.zarr", overwrite=overwrite)
        options = scenes.model_dump(exclude={"source", "grid", "cube"}, exclude_none=True)
        return with_all_years(vegetation_index(cube, spec.index, **options))  # type: ignore[arg-type]  # checked there
    return open_maps(Path(str(maps.store)), spec.index)


def open_maps(path: Path, index: str) -> xr.Dataset:
    """Open one index of a store, or of a folder with one file a year.

    Parameters
    ----------
    path : pathlib.Path
        Store or folder.
    index : str
        Name of the band.

    Returns
    -------
    xarray.Dataset
        Physical maps, one a year, with the zones of the store; lazy.

    Raises
    ------
    PipelineError
        If the store has no such band.
    ArchiveError
        If years are missing or come twice, or the folder holds no such files.
    """
    if not (path / "zarr.json").is_file():
        return open_yearly(path, index)
    opened = cubekit.open(path)
    if index not in opened["band"].to_numpy():
        bands = opened["band"].to_numpy().tolist()
        raise PipelineError(f"The store {path} has bands {bands}, not {index!r}.")
    chosen = opened if opened.sizes["band"] == 1 else opened.sel(band=[index])
    kept = chosen[[MAIN, *(name for name in chosen.data_vars if str(name).startswith(ZONE))]]
    if (
        kept[MAIN].dtype.kind != "f"
    ):  # a store of physical maps stays as it is, so that its chunks are read directly
        values = to_physical(kept[MAIN])
        values.attrs["_FillValue"] = np.float32("nan")
        kept = kept.assign({MAIN: values})
    return with_all_years(kept)


def grid_of(path: StrPath) -> GeoBox:
    """Return the grid of a store or a raster.

    Parameters
    ----------
    path : path
        Store or GeoTIFF.

    Returns
    -------
    GeoBox
        Where pixels lie.

    Raises
    ------
    GridError
        If the file cannot be read, or says no CRS.
    StoreError
        If the folder is no store.
    """
    return geobox_of(cubekit.open(path)) if Path(path).is_dir() else cubekit.grid(like=path)


def _zone(path: str, cube: xr.Dataset) -> BoolArray:
    """Read a zone from a raster, or from a mask of the published form."""
    if Path(path).suffix.lower() in {".pkl", ".pickle"}:
        return read_mask(path)
    return zone_mask(path, cube).to_numpy()


def plan_samples(spec: ForecastPipeline, cube: xr.Dataset) -> YearSplit:
    """Decide which years and pixels train, validate and test."""
    chosen = ("window", "patch", "hold_out", "by", "valid", "valid_years", "block", "masked", "seed")
    options = spec.sampling.model_dump(include=set(chosen))
    zone = zones_of(cube).get(spec.within or "")
    return split_years(cube, zone=None if zone is None else zone.to_numpy(), **options)


def streams(spec: ForecastPipeline, cube: xr.Dataset, split: YearSplit) -> tuple[YearStream, YearStream]:
    """Return training and validation samples."""
    how, batch = spec.sampling, spec.train.batch
    turned = Augmentation(flip=True, rotate=True) if how.augment else None
    common: dict[str, Any] = {"batch": batch, "seed": how.seed, "workers": how.workers}
    return (
        year_batches(cube, split, "train", samples=how.train_samples, augment=turned, **common),
        year_batches(cube, split, "valid", samples=how.valid_samples, **common),
    )


def train(spec: ForecastPipeline, parts: tuple[YearStream, YearStream], folder: Path) -> Model:
    """Train, or reuse a model made from the same maps and settings."""
    options = spec.train.model_dump(
        exclude_none=True, exclude={"network", "class_weights", "label_smoothing"}
    )
    return train_into(folder, spec.train.network, parts, options)[0]


def save_history(model: Model, path: Path) -> Path:
    """Write the losses of all epochs as ``train_losses`` and ``val_losses``."""
    rows = model.card.history
    np.savez(
        path,
        train_losses=np.array([row["train_loss"] for row in rows]),
        val_losses=np.array([row["valid_loss"] for row in rows]),
    )
    return path


def evaluate(
    spec: ForecastPipeline, model: Model, cube: xr.Dataset, split: YearSplit, folder: Path
) -> Tested:
    """Forecast the held-out years, each from the years before it, and score them beside the baselines."""
    calendar = cube["time"].dt.year.to_numpy()
    years = tuple(int(calendar[place]) for place in split.test)
    ahead = spec.predict
    options = ahead.model_dump(exclude={"steps"})
    found = hindcast(model, cube, years, zone=_within(spec, cube), **options)
    found = cubekit.write(found, folder / "hindcast.zarr", layout={"time": 1}, overwrite=True)
    zones = {name: inside.to_numpy() for name, inside in zones_of(cube).items()}
    parts = {name: inside for name, inside in zones.items() if name != spec.within}  # that one is the total
    name = spec.train.network
    scores = score_forecasts(cube, {name: found}, window=split.window, zones=parts)
    truth = to_physical(cube[MAIN].isel(band=0, time=list(split.test))).to_numpy()
    return Tested(years, truth, {name: found[MAIN].isel(band=0).to_numpy()}, zones, scores)


def predict_maps(spec: ForecastPipeline, model: Model, cube: xr.Dataset, folder: Path) -> xr.Dataset:
    """Forecast the years after the last map."""
    return forecast(
        model,
        cube,
        zone=_within(spec, cube),
        out=folder / "forecast.zarr",
        overwrite=True,
        **spec.predict.model_dump(),
    )


def _within(spec: ForecastPipeline, cube: xr.Dataset) -> xr.DataArray | None:
    """Return the zone that is forecast."""
    return None if spec.within is None else zones_of(cube)[spec.within].compute()
