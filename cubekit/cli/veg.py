"""Commands for forecasts of yearly maps: ``cubekit veg``."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import xarray as xr

import cubekit
from cubekit.cli.app import app
from cubekit.cli.options import OutOption, settings_of
from cubekit.errors import OptionError

veg = typer.Typer(no_args_is_help=True, help="Next year's map from the maps of past years.")
app.add_typer(veg, name="veg")

CubeArgument = Annotated[
    Path, typer.Argument(help="A store from *veg cube*, or a folder with one GeoTIFF a year.")
]
IndexOption = Annotated[
    str, typer.Option("--index", help="Index: EVI, FVC, NDVI, RVI, RSEI, SAVI, or another.")
]
OverwriteOption = Annotated[bool, typer.Option(help="Replace another result there.")]
ZoneOption = Annotated[str | None, typer.Option("--within", help="Zone of the store to keep to.")]


@veg.command()
def mask(
    source: Annotated[Path, typer.Argument(help="A raster that is 0 outside, or a pickled mask (.pkl).")],
    *,
    out: OutOption,
    like: Annotated[Path | None, typer.Option(help="Raster on the same pixels, for a pickled mask.")] = None,
) -> None:
    """Turn a raster or a published mask file into a zone mask: a GeoTIFF of 1 inside and 0 outside.

    A pickle is read by a reader that knows arrays of numbers only, so nothing in it can run.
    """
    from odc.geo.xr import xr_coords

    from cubekit.cube.yearly import read_mask, zone_mask
    from cubekit.pipeline.forecast.steps import grid_of

    pickled = source.suffix.lower() in {".pkl", ".pickle"}
    if pickled and like is None:
        raise OptionError(
            "A pickled mask does not say where it lies: give --like with a raster of the same pixels."
        )
    box = grid_of(like or source)
    inside = read_mask(source) if pickled else zone_mask(source, box).to_numpy()
    if inside.shape != tuple(box.shape):
        raise OptionError(f"--like {like}: {tuple(box.shape)} pixels, the mask has {inside.shape}.")
    attrs = {"_FillValue": np.uint8(0), "long_name": "zone"}
    found = xr.DataArray(inside.astype("uint8"), xr_coords(box), ("y", "x"), name="zone", attrs=attrs)
    cubekit.export(found, out)
    print(f"{int(inside.sum())} of {inside.size} pixels lie in the zone; saved to {out}")


@veg.command("cube")
def build(  # noqa: PLR0913
    source: Annotated[Path, typer.Argument(help="Folder with one GeoTIFF a year, or a published .npz file.")],
    *,
    index: IndexOption,
    out: OutOption,
    zone: Annotated[str | None, typer.Option(help="Zone whose files to take, a word of their paths.")] = None,
    pattern: Annotated[str | None, typer.Option(help="How paths are built, as 'NDVI_{date:%Y}.tif'.")] = None,
    outside: Annotated[float | None, typer.Option(help="Stored number outside the zone, as 0.")] = None,
    scale: Annotated[
        float | None, typer.Option(help="physical = stored x scale, if files do not say.")
    ] = None,
    missing: Annotated[
        str, typer.Option(help="Years without a file: raise, or nan for empty maps.")
    ] = "raise",
    masks: Annotated[
        list[str] | None, typer.Option("--mask", help="Zone to store, several times.", metavar="NAME=RASTER")
    ] = None,
    fill: Annotated[
        bool, typer.Option("--fill", help="Fill gaps from the nearest pixel of the year.")
    ] = False,
    like: Annotated[Path | None, typer.Option(help="Raster on the same pixels, for an .npz file.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Write the yearly maps of one index, and zone masks, as a store."""
    from cubekit.cube.yearly import fill_nearest, read_yearly_npz, with_zones
    from cubekit.pipeline.forecast.steps import LAYOUT, grid_of

    choice: Any = missing
    if source.suffix.lower() == ".npz":
        if like is None:
            raise OptionError(
                "An .npz file does not say where it lies: give --like with a raster of the same pixels."
            )
        cube = read_yearly_npz(source, index, like=grid_of(like), missing=choice)
    else:
        cube = cubekit.open_yearly(
            source, index, zone=zone, pattern=pattern, outside=outside, scale=scale, missing=choice
        )
    zones: dict[str, Any] = {name: str(path) for name, path in settings_of(masks or []).items()}
    cube = with_zones(cube, zones)
    if fill:
        cube = fill_nearest(cube)
    written = cubekit.write(cube, out, layout=LAYOUT, overwrite=overwrite)
    years = written["time"].dt.year.to_numpy()
    print(
        f"{index}, {years[0]} to {years[-1]}, {written.sizes['y']} x {written.sizes['x']} pixels: "
        f"saved to {out}"
    )


@veg.command()
def train(  # noqa: PLR0913
    cube: CubeArgument,
    *,
    index: IndexOption,
    out: OutOption,
    window: Annotated[int, typer.Option(min=1, help="Past years that predict the next.")] = 8,
    patch: Annotated[int, typer.Option(min=4, help="Pixels a side of a patch, a multiple of 4.")] = 64,
    batch: Annotated[int, typer.Option(min=2, help="Patches per step.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the samples of an epoch.")] = 100,
    learning_rate: Annotated[float, typer.Option("--lr", help="Of Adam; falls tenfold on a plateau.")] = 1e-3,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read ahead.")] = 2,
    patience: Annotated[int, typer.Option(min=1, help="Epochs without a better validation loss.")] = 10,
    train_samples: Annotated[int, typer.Option(min=1, help="Training patches an epoch.")] = 20_000,
    valid_samples: Annotated[int, typer.Option(min=1, help="Validation patches.")] = 4_000,
    hold_out: Annotated[int, typer.Option(min=1, help="Last years, kept for *veg evaluate*.")] = 1,
    by: Annotated[str, typer.Option(help="Validation apart by blocks of land, or by years.")] = "blocks",
    masked: Annotated[float, typer.Option(help="Largest masked share of a patch.")] = 0.3,
    residual: Annotated[
        bool, typer.Option(help="Draw the change from the last map, or the map itself.")
    ] = True,
    dropout: Annotated[float, typer.Option(help="Share of channels left out; needed for --passes.")] = 0.1,
    normalise: Annotated[
        str, typer.Option(help="standard, percentile, or none: values as they are.")
    ] = "standard",
    precision: Annotated[str, typer.Option(help="32, bf16 or 16.")] = "32",
    within: ZoneOption = None,
    seed: Annotated[int, typer.Option(help="Of blocks, draws and weights.")] = 0,
) -> None:
    """Train the ConvLSTM-UNet, with the last years held out; after Ctrl-C the same command goes on."""
    from cubekit.batching.years import split_years
    from cubekit.pipeline.training import save_with_curves

    opened = _open(cube, index)
    choice: Any = by
    split = split_years(
        opened, window=window, patch=patch, hold_out=hold_out, by=choice, masked=masked,
        zone=_zone(opened, within), seed=seed,
    )  # fmt: skip
    parts = (
        cubekit.year_batches(
            opened, split, "train", samples=train_samples, batch=batch, seed=seed, workers=workers,
            augment=cubekit.Augmentation(flip=True, rotate=True),
        ),
        cubekit.year_batches(
            opened, split, "valid", samples=valid_samples, batch=batch, seed=seed, workers=workers
        ),
    )  # fmt: skip
    options: dict[str, Any] = {"normalise": normalise, "precision": precision}
    model = cubekit.fit(
        "convlstm_unet", *parts, epochs=epochs, batch=batch, learning_rate=learning_rate, schedule="plateau",
        patience=patience, arguments={"residual": residual, "dropout": dropout}, seed=seed, out=out,
        **options,
    )  # fmt: skip
    save_with_curves(model, out)
    print(f"{model}\nsaved to {out}; score it with: cubekit veg evaluate {out} {cube} --hold-out {hold_out}")


@veg.command()
def predict(  # noqa: PLR0913
    model: Annotated[Path, typer.Argument(help="A model from *veg train*.")],
    cube: CubeArgument,
    *,
    out: OutOption,
    steps: Annotated[int, typer.Option(min=1, help="Years to forecast.")] = 1,
    member: Annotated[
        list[Path] | None, typer.Option(help="Another model, several times: mean and spread are kept.")
    ] = None,
    passes: Annotated[int, typer.Option(min=0, help="Networks to draw by Monte-Carlo dropout.")] = 0,
    tile: Annotated[int | None, typer.Option(min=1, help="Pixels a side of one task's block.")] = None,
    blend: Annotated[
        int | None, typer.Option(min=4, help="Side of overlapping windows to average, not exact margins.")
    ] = None,
    within: ZoneOption = None,
    workers: Annotated[int | None, typer.Option(help="How many blocks at a time.")] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Forecast the years after the last map of a cube, which may be larger than memory."""
    models = [cubekit.load_model(folder) for folder in (model, *(member or []))]
    opened = _open(cube, models[0].card.bands[0])
    found = cubekit.forecast(
        models, opened, steps=steps, passes=passes, tile=tile, blend=blend, zone=_zone(opened, within),
        out=out, workers=workers, overwrite=overwrite,
    )  # fmt: skip
    years = found["time"].dt.year.to_numpy().tolist()
    print(f"forecast of {', '.join(map(str, years))}: saved to {out}")


@veg.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model from *veg train*.")],
    cube: CubeArgument,
    *,
    hold_out: Annotated[int, typer.Option(min=1, help="Last years to forecast, as in *veg train*.")] = 1,
    member: Annotated[list[Path] | None, typer.Option(help="Another model of an ensemble.")] = None,
    passes: Annotated[int, typer.Option(min=0, help="Networks to draw by Monte-Carlo dropout.")] = 0,
    within: ZoneOption = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Text file for the table.")] = None,
) -> None:
    """Score a model on the last years of a cube, beside persistence, climatology and trend."""
    from cubekit.evaluation.forecast import score_forecasts
    from cubekit.prediction.rollout import hindcast

    models = [cubekit.load_model(folder) for folder in (model, *(member or []))]
    opened = _open(cube, models[0].card.bands[0])
    years = [int(year) for year in opened["time"].dt.year.to_numpy()[-hold_out:]]
    found = hindcast(models, opened, years, passes=passes, zone=_zone(opened, within))
    window = len(models[0].card.times)
    scores = score_forecasts(opened, {models[0].card.network: found}, window=window)
    print(scores.table())
    if out is not None:
        out.write_text(scores.table() + "\n", "utf-8")


def _open(path: Path, index: str) -> xr.Dataset:
    """Open a store, or a folder of yearly files; one index of it, in physical units."""
    from cubekit.pipeline.forecast.steps import open_maps

    return open_maps(path, index)


def _zone(cube: xr.Dataset, within: str | None) -> xr.DataArray | None:
    """Return a zone of a store."""
    from cubekit.cube.yearly import zones_of

    if within is None:
        return None
    zones = zones_of(cube)
    if within not in zones:
        raise OptionError(f"--within {within!r}: the store has the zones {list(zones)}.")
    return zones[within].compute()
