"""The maps of the coming years: a forecast becomes the newest input of the next one."""

from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from cubekit.batching.years import check_yearly
from cubekit.cube.contract import DIMS, MAIN, check_cube, to_physical
from cubekit.errors import ModelMismatchError, OptionError
from cubekit.prediction.forward import reach_of
from cubekit.prediction.job import Turning
from cubekit.prediction.members import has_dropout, thinned
from cubekit.prediction.predict import predict
from cubekit.prediction.shipping import model_digest
from cubekit.typing import Array


def forecast(  # noqa: PLR0913
    model: Any,
    cube: xr.Dataset,
    *,
    steps: int = 1,
    passes: int = 0,
    turning: Turning = "none",
    tile: int | None = None,
    blend: int | None = None,
    zone: xr.DataArray | None = None,
    out: str | PathLike[str] | None = None,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Forecast the maps of the years that follow a cube.

    The last years of the cube are the first input. Every further year takes the forecast before it as its
    newest map. Each member of an ensemble, and each network drawn by Monte-Carlo dropout, goes its own way
    through the years; mean and spread are taken of where they arrive, so doubt grows as it should.

    Parameters
    ----------
    model : cubekit.training.bundle.Model, or a sequence of them
        Trained to forecast; several are an ensemble.
    cube : xarray.Dataset
        Yearly maps ``(time, band, y, x)``, at least as many as the model looks back on; lazy or not.
    steps : int, optional
        Years to forecast.
    passes : int, optional
        Networks to draw from each model by Monte-Carlo dropout (Gal and Ghahramani 2016,
        https://doi.org/10.48550/arXiv.1506.02142); 0 takes the model itself.
    turning : {"none", "flips", "rotations"}, optional
        Test-time augmentation, in every step.
    tile : int, optional
        Pixels a side of one task's block; the maps do not depend on it.
    blend : int, optional
        Pixels a side of overlapping windows to average, see :func:`cubekit.predict`. Default: exact margins.
    zone : xarray.DataArray, optional
        ``(y, x)`` bool: pixels to forecast; the others stay without data.
    out : path, optional
        Store to write, as by :func:`cubekit.write`. Default: return lazy arrays.
    overwrite : bool, optional
        Whether to replace another forecast at `out`.
    workers : int, optional
        Blocks at a time, with `out`.
    progress : bool, optional
        Whether to draw a bar while writing.

    Returns
    -------
    xarray.Dataset
        A cube of the coming years: ``data (time, band, y, x)`` float32 in the unit of the input, NaN where a
        pixel was never observed in the window or lies outside the zone; ``spread`` likewise, the standard
        deviation over members, where there are several. Lazy without `out`.

    Raises
    ------
    ModelMismatchError
        If the model does not forecast, or the cube does not fit or is too short.
    OptionError
        If the years have holes, `steps` is below 1, or the network has no dropout for `passes`.
    CubeError
        If the dataset is no cube.
    StoreError
        If `out` cannot be written, or holds something else.
    """
    if steps < 1 or passes < 0:
        raise OptionError(f"steps={steps!r} must be at least 1, passes={passes!r} not negative.")
    check_cube(cube)
    check_yearly(cube)
    members = _members(model, passes)
    past = _past(members[0], cube)
    runs = [_run(member, past, steps, turning=turning, tile=tile, blend=blend) for member in members]
    together = xr.concat(runs, "member") if len(runs) > 1 else runs[0].expand_dims("member")
    together = together.where(zone) if zone is not None else together
    dates = _coming(past["time"].to_numpy(), steps)
    found = {MAIN: together.mean("member", skipna=False, keep_attrs=True)}
    if len(runs) > 1:
        found["spread"] = together.std("member", skipna=False)
        found["spread"].attrs = {
            "long_name": "standard deviation over members",
            "_FillValue": np.float32("nan"),
        }
    result = xr.Dataset({name: _described(each, past) for name, each in found.items()})
    result = result.assign_coords(time=dates).assign_attrs(_provenance(cube, members, past))
    if out is None:
        if workers is not None:
            raise OptionError("workers= applies while writing: give out=.")
        return result
    from cubekit.store.write import write

    return write(result, out, layout={"time": 1}, overwrite=overwrite, workers=workers, progress=progress)


def hindcast(
    model: Any,
    cube: xr.Dataset,
    years: Sequence[int],
    *,
    passes: int = 0,
    turning: Turning = "none",
    tile: int | None = None,
    blend: int | None = None,
    zone: xr.DataArray | None = None,
) -> xr.Dataset:
    """Forecast years that a cube holds, each from the years before it alone.

    Parameters
    ----------
    model : cubekit.training.bundle.Model, or a sequence of them
        Trained to forecast; these years should have been no targets of its training.
    cube : xarray.Dataset
        Yearly maps.
    years : sequence of int
        Calendar years to forecast.
    passes, turning, tile, blend, zone : optional
        As for :func:`forecast`.

    Returns
    -------
    xarray.Dataset
        As :func:`forecast` returns, with the dates of the cube; lazy.

    Raises
    ------
    OptionError
        If a year is not in the cube, or none is given.
    ModelMismatchError
        If too few years lie before one of them, or the model does not fit.
    """
    held = cube["time"].dt.year.to_numpy().tolist()
    unknown = [year for year in years if year not in held]
    if unknown or not years:
        raise OptionError(f"years={list(years)}: the cube holds {held[0]} to {held[-1]}, not {unknown}.")
    places = [held.index(year) for year in years]
    maps = [
        forecast(
            model,
            cube.isel(time=slice(0, place)),
            passes=passes,
            turning=turning,
            tile=tile,
            blend=blend,
            zone=zone,
        )
        for place in places
    ]
    together: xr.Dataset = maps[0] if len(maps) == 1 else xr.concat(maps, "time", combine_attrs="drop")
    return together.assign_coords(time=cube["time"].to_numpy()[places]).assign_attrs(maps[0].attrs)


class _Drawn:
    """One network out of those that dropout averages over, as a model of its own."""

    def __init__(self, model: Any, number: int) -> None:
        self.network, self.card = thinned(model.network, number), model.card
        self._model, self._number = model, number
        # it looks as far as the whole network does; measured once, not for each that is drawn
        self.reach = reach_of(model, [(len(self.card.times), len(self.card.bands))])

    def select(self, cube: xr.Dataset) -> xr.Dataset:
        """Check a cube, as the model does."""
        chosen: xr.Dataset = self._model.select(cube)
        return chosen

    def digest(self) -> str:
        """Tell it from the others that were drawn."""
        return f"{model_digest(self._model)}-{self._number}"


def _members(model: Any, passes: int) -> list[Any]:
    """Return all that goes its own way through the years."""
    models = list(model) if isinstance(model, list | tuple) else [model]
    for each in models:
        task = getattr(getattr(each, "card", None), "task", None)
        if task != "forecast":
            raise ModelMismatchError(
                f"{each!r} does not forecast (its task is {task!r}): use cubekit.predict."
            )
        if passes and not has_dropout(each.network):
            raise OptionError(
                f"passes={passes}: the network of {each!r} drops nothing. Train it with "
                "arguments={'dropout': 0.1}, or give several models."
            )
    if not models:
        raise OptionError("model is an empty sequence: give at least one model.")
    return [_Drawn(each, number) for each in models for number in range(passes)] if passes else models


def _past(model: Any, cube: xr.Dataset) -> xr.Dataset:
    """Return the years that the first forecast looks back on, as physical numbers."""
    window, bands = len(model.card.times), list(model.card.bands)
    if cube.sizes["time"] < window:
        raise ModelMismatchError(
            f"The model looks back on {window} years, the cube has {cube.sizes['time']}."
        )
    past: xr.Dataset = model.select(cube.isel(time=slice(-window, None)))
    if len(bands) != 1:
        raise ModelMismatchError(f"The model forecasts one band from {bands}: its forecast is no full input.")
    values = to_physical(past[MAIN])
    values.attrs["_FillValue"] = np.float32("nan")
    kept = past.drop_vars([name for name in past.data_vars if name != MAIN])
    return kept.assign({MAIN: values})


def _run(
    model: Any, past: xr.Dataset, steps: int, *, turning: Turning, tile: int | None, blend: int | None
) -> xr.DataArray:
    """Go through the years with one network: (time, band, y, x)."""
    maps = []
    for step in range(1, steps + 1):
        value = predict(model, past, turning=turning, tile=tile, blend=blend)["value"]
        newest = value.expand_dims(time=_coming(past["time"].to_numpy(), 1), band=past["band"].to_numpy())
        newest = newest.transpose(*DIMS).drop_vars([n for n in value.coords if n not in {"y", "x"}])
        maps.append(newest)
        if step < steps:
            series = xr.concat([past[MAIN].isel(time=slice(1, None)).drop_vars(_extra(past)), newest], "time")
            series.attrs = past[MAIN].attrs
            grid = {name: past.coords[name] for name in _extra(past)}
            past = xr.Dataset({MAIN: series}, attrs=past.attrs).assign_coords(grid)
    return xr.concat(maps, "time")


def _extra(cube: xr.Dataset) -> list[str]:
    """Name the coordinates beside those of the dimensions: the grid mapping."""
    return [str(name) for name in cube[MAIN].coords if name not in DIMS and not cube.coords[name].dims]


def _coming(times: Array, steps: int) -> Array:
    """Return the same day of the years that follow."""
    last = pd.Timestamp(times[-1])
    dates = [last + pd.DateOffset(years=step) for step in range(1, steps + 1)]
    return np.array(dates, dtype="datetime64[ns]")


def _described(values: xr.DataArray, past: xr.Dataset) -> xr.DataArray:
    """Give a map the grid and the coding of the input."""
    described = values.astype("float32").transpose(*DIMS)
    described = described.assign_coords({name: past.coords[name] for name in _extra(past)})
    kept = {key: value for key, value in past[MAIN].attrs.items() if key in {"grid_mapping", "units"}}
    described.attrs = {**kept, **values.attrs, "_FillValue": np.float32("nan")}
    if mapping := past[MAIN].encoding.get("grid_mapping"):
        described.encoding["grid_mapping"] = mapping
    return described


def _provenance(cube: xr.Dataset, members: Sequence[Any], past: xr.Dataset) -> dict[str, Any]:
    """Say what the maps were made from."""
    years = past["time"].dt.year.to_numpy()
    return {
        **{key: cube.attrs[key] for key in ("title", "collection") if key in cube.attrs},
        "model": " ".join(dict.fromkeys(model_digest(member).partition("-")[0][:16] for member in members)),
        "members": len(members),
        "first_input_years": f"{years[0]}-{years[-1]}",
    }
