"""Fine images of dates without one: of a pair, and of every date of a coarse series."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import dask.array as da
import numpy as np
import xarray as xr

from cubekit.batching.align import align, as_array, fit_lines, on_lines
from cubekit.batching.dates import days_of, pair_dates
from cubekit.batching.pairs import Pair
from cubekit.cube.contract import MAIN, to_physical
from cubekit.errors import OptionError, check_option
from cubekit.prediction.fusion import fused_tiles
from cubekit.prediction.shipping import ShippedModel, shared_with
from cubekit.prediction.tiling import TILE, objects
from cubekit.typing import Array, StrPath

if TYPE_CHECKING:
    from distributed import Client

Known = Literal["nearest", "before", "both"]
"""From which fine dates another one is predicted."""


def fuse_pair(
    model: Any, pair: Pair, *, tile: int | None = None, window: int | None = None, seed: int = 0
) -> xr.DataArray:
    """Predict the fine image of a pair's second date, over the whole scene.

    Networks with a known reach get windows with a margin that wide: the result is that of the whole scene at
    once. For the others windows overlap and are averaged; noise of diffusion belongs to places of the scene.

    Parameters
    ----------
    model : cubekit.training.bundle.Model
        Trained to fuse, with the bands of the pair.
    pair : Pair
        Scaled as in training (``pairs.normalised(…)``). Its second fine image is not looked at.
    tile : int, optional
        Pixels a side of a task's block. Does not change the result.
    window : int, optional
        Pixels a side of a window. Default: 256 or so.
    seed : int, optional
        Of the noise that diffusion starts from.

    Returns
    -------
    xarray.DataArray
        ``(band, y, x)`` float32, lazy, not clipped; NaN where one of the three images lacks data.

    Raises
    ------
    OptionError
        If the model is for another task, or has other bands.
    """
    _check(model, [str(name) for name in pair.fine_t1["band"].to_numpy()])
    images = [_lazy(image.data) for image in (pair.coarse_t1, pair.coarse_t2, pair.fine_t1)]
    fused = fused_tiles(model, images, tile=tile, window=window, seed=seed)
    return pair.fine_t1.drop_vars("time", errors="ignore").copy(data=fused)


def fuse_series(  # noqa: PLR0913
    model: Any,
    fine: xr.Dataset | xr.DataArray | StrPath,
    coarse: xr.Dataset | xr.DataArray | StrPath,
    *,
    out: StrPath | None = None,
    dates: Sequence[str | np.datetime64] | Array | None = None,
    known: Known = "nearest",
    scale: float = 1.0,
    coarse_scale: float | None = None,
    tolerance: float = 0,
    harmonise: bool = False,
    resampling: Literal["cubic", "bilinear", "nearest"] = "cubic",
    tile: int | None = None,
    window: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    workers: int | None = None,
    scheduler: "str | Client | None" = None,
    progress: bool | None = None,
) -> xr.Dataset:
    """Make a dense fine series from a sparse fine and a dense coarse one.

    Each date of the coarse cube becomes a fine image, predicted from the fine date(s) nearest in time that
    have a coarse image of their own. Dates with a fine image keep it; only its gaps are predicted, from the
    other dates.

    Parameters
    ----------
    model : cubekit.training.bundle.Model
        Trained to fuse; it selects its bands by name.
    fine, coarse : xarray.Dataset, xarray.DataArray or path
        Cubes ``(time, band, y, x)`` or stores of them; the coarse one is resampled to the fine grid.
    out : path, optional
        Store to write, date by date and shard by shard. Run again after a kill, it goes on. Default: return a
        lazy cube, compute nothing.
    dates : sequence of dates, optional
        Days to predict, of those the coarse cube has. Default: all.
    known : {"nearest", "before", "both"}, optional
        Fine date to start from: the nearest; the last one before; or the last before and the first after,
        where there are both, blended.
    scale, coarse_scale : float, optional
        Value that becomes 1 in either cube, as in training; the coarse one like the fine one unless given.
        Values below zero become 0.
    tolerance : float, optional
        Days that a fine date and its coarse image may lie apart.
    harmonise : bool, optional
        Whether to put coarse images on their line to the fine ones, band by band, fitted now on all dates
        that both have: for a model trained on ``pairs.harmonised(…)``. Scales then count for both as `scale`.
    resampling : {"cubic", "bilinear", "nearest"}, optional
        How coarse images come to the fine grid.
    tile : int, optional
        Pixels a side of a task's block. Does not change the result.
    window : int, optional
        Pixels a side of a window of the network. Default: 256 or so.
    seed : int, optional
        Of the noise that diffusion starts from.
    overwrite : bool, optional
        Whether to replace another series at `out`.
    workers : int, optional
        Tasks at a time, with ``out`` only.
    scheduler : {"threads", "processes"}, address or distributed.Client, optional
        Who computes, with ``out`` only.
    progress : bool, optional
        Whether to draw a bar while writing.

    Returns
    -------
    xarray.Dataset
        Cube ``data (time, band, y, x)`` float32 on the fine grid, scaled, NaN where nothing is known, with
        ``known_date (time)``: the fine date behind each image, its own where there was one. Lazy without
        ``out``, else the opened store.

    Raises
    ------
    OptionError
        If the model is for another task, a date is not in the coarse cube, or no fine date has a coarse
        image.
    UnknownNameError
        If a band of the model is in neither cube.
    StoreError
        If ``out`` cannot be written, or holds something else.
    """
    check_option("known", known, ("nearest", "before", "both"))
    _check(model)
    near = as_array(fine, "fine")
    far = align(coarse, near, bands=list(model.card.bands), resampling=resampling)
    match = pair_dates(near, far, tolerance=tolerance)
    if not len(match):
        raise OptionError(
            f"No fine date has a coarse image within {tolerance:g} day(s): {match!r}. Raise tolerance=."
        )
    ready = to_physical(near.sel(band=list(model.card.bands)).isel(time=match.fine))
    if harmonise:
        far = on_lines(far, *fit_lines(far.isel(time=match.coarse), ready))
    images = _Images(
        fine=_scaled(ready, scale),
        coarse=_scaled(far, scale if harmonise or coarse_scale is None else coarse_scale),
        of=match.coarse.tolist(),
        days=days_of(far),
    )
    days = images.days
    wanted = range(len(days)) if dates is None else _positions(days, dates)
    options = {"tile": tile, "window": window, "seed": seed}
    made = [_one_date(model, images, at, known, options) for at in wanted]
    series = _cube(ready, days[list(wanted)], made)
    if out is None:
        return series
    from cubekit.store.write import write

    with shared_with(scheduler, (ShippedModel(model),)) as who:
        return write(
            series,
            out,
            layout=_layout(series),
            overwrite=overwrite,
            scheduler=who,
            workers=workers,
            progress=progress,
        )


@dataclass(frozen=True, kw_only=True)
class _Images:
    """Lazy images of both cubes, ``(time, band, y, x)``."""

    fine: da.Array
    coarse: da.Array
    of: list[int]
    """Position of the coarse image that belongs to each fine one."""
    days: Array
    """Of the coarse images."""

    def pair(self, number: int) -> tuple[da.Array, da.Array]:
        """Return coarse and fine image of a known date."""
        return self.coarse[self.of[number]], self.fine[number]


def _one_date(
    model: Any, images: _Images, at: int, known: Known, options: dict[str, Any]
) -> tuple[da.Array, np.datetime64]:
    """Return the image of one date, and the known date behind it."""
    days, own = images.days, images.of.index(at) if at in images.of else None
    others = [number for number in range(len(images.of)) if number != own]
    chosen = _starts(days[images.of], days[at], others, known)
    if not chosen:
        empty: da.Array = da.full_like(images.coarse[at], np.nan)  # type: ignore[no-untyped-call]
        return (empty if own is None else images.fine[own]), days[at] if own is not None else np.datetime64(
            "NaT", "D"
        )
    coarse, fine = images.pair(chosen[0])
    given = [coarse, images.coarse[at], fine]
    given += [image for number in chosen[1:] for image in images.pair(number)]
    predicted = fused_tiles(model, given, **options)
    if own is None:
        return predicted, days[images.of[chosen[0]]]
    seen = images.fine[own].rechunk(predicted.chunks)
    whole: da.Array = da.where(da.isfinite(seen), seen, predicted)
    return whole, days[at]


def _starts(dates: Array, day: np.datetime64, others: list[int], known: Known) -> list[int]:
    """Choose known dates to predict a day from, the nearest first; two for "both"."""
    apart = (dates - day) / np.timedelta64(1, "D")
    near = sorted(others, key=lambda number: (abs(apart[number]), apart[number]))
    if known == "nearest":
        return near[:1]
    before, after = ([n for n in near if (apart[n] < 0) == side][:1] for side in (True, False))
    return before if known == "before" else sorted(before + after, key=near.index)


def _positions(days: Array, dates: Sequence[str | np.datetime64] | Array) -> list[int]:
    """Return where dates lie in the coarse series."""
    place = {day: position for position, day in enumerate(days)}
    wanted = list(np.asarray(dates, dtype="datetime64[D]").ravel())
    if strange := [str(day) for day in wanted if day not in place]:
        raise OptionError(
            f"dates: the coarse cube has no image of {', '.join(strange[:5])}; it has {len(days)} from "
            f"{days[0]} to {days[-1]}."
        )
    return sorted({place[day] for day in wanted})


def _scaled(cube: xr.DataArray, scale: float) -> da.Array:
    """Return physical values as training saw them, lazy."""
    if not 0 < scale < np.inf:
        raise OptionError(f"scale={scale!r}: expected a number above zero.")
    scaled = cube.where(~(cube < 0), 0) / np.float32(scale)
    return _lazy(scaled.transpose("time", "band", "y", "x").data)


def _lazy(data: Any) -> da.Array:
    """Return an array as Dask's, each image in blocks of about `TILE`."""
    if isinstance(data, da.Array):
        return data
    lead = (1,) * (data.ndim - 3)
    lazy: da.Array = da.from_array(data, chunks=(*lead, -1, TILE, TILE))  # type: ignore[no-untyped-call]
    return lazy


def _cube(like: xr.DataArray, days: Array, made: Sequence[tuple[da.Array, np.datetime64]]) -> xr.Dataset:
    """Put the images of all dates together."""
    data: da.Array = da.stack([image for image, _ in made])  # type: ignore[no-untyped-call]
    behind = np.array([day for _, day in made], dtype="datetime64[ns]")
    coords = {
        name: like.coords[name] for name in like.coords if name != "time" and "time" not in like[name].dims
    }
    times = days.astype("datetime64[ns]")
    variable = xr.DataArray(
        data, {**coords, "time": times}, ("time", "band", "y", "x"), attrs={"_FillValue": np.float32(np.nan)}
    )
    variable.encoding["grid_mapping"] = like.encoding.get(
        "grid_mapping", like.attrs.get("grid_mapping", "spatial_ref")
    )
    return xr.Dataset({MAIN: variable}).assign_coords(known_date=("time", behind))


def _layout(series: xr.Dataset) -> dict[str, int | tuple[int, int]]:
    """One object a date and place: the unit of work and of resuming."""
    chunks = series[MAIN].chunks or ()
    y, x = (objects(lengths, lengths[0]) for lengths in chunks[-2:])
    return {"time": (1, 1), "band": (1, -1), "y": y, "x": x}


def _check(model: Any, bands: Sequence[str] | None = None) -> None:
    """Refuse models of other tasks and other bands."""
    card = getattr(model, "card", None)
    if card is None or card.task != "fuse":
        raise OptionError(f"model is {model!r}, expected one trained to fuse: ck.fit('edcstfn', …).")
    if bands is not None and list(card.bands) != list(bands):
        raise OptionError(f"The model has bands {list(card.bands)}, the pair {list(bands)}, in this order.")
