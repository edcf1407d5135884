"""Fractions on real data: BRITS beside simpler methods, on blocks of land that none of them has seen.

``CUBEKIT_SHARED=FOLDER python -m benchmarks.studies.fractions`` prints the tables of
docs/systems/fractions.md. The folder holds ``data/landsat_gewata_2001_vcf`` and
``data/s2_monthly_belgium``; a name after the command runs that set alone.
"""

import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import odc.geo.xr
import xarray as xr

import cubekit
from cubekit.batching.balance import split_balanced
from cubekit.batching.extract import extract
from cubekit.batching.samples import Samples
from cubekit.cube.ancillary import add_ancillary
from cubekit.evaluation.fractions import FractionScores, assess_fractions
from cubekit.pipeline.fractions.steps import imputation_of
from cubekit.training.scores import other_shares, predict_values
from cubekit.typing import FloatArray

SEEDS = (0, 1, 2)
SATURATED = 16000
EMPTY = 65535
BANDS = {
    "red": "B4",
    "nir": "B8",
    "blue": "B2",
    "green": "B3",
    "rededge2": "B6",
    "swir16": "B11",
    "swir22": "B12",
}
WORLDCEREAL = "WORLDCEREAL_{}_2021"
NOT_CROPLAND = 254


@dataclass(frozen=True)
class Case:
    """One data set and how it is learned from."""

    name: str
    samples: Samples
    block: float
    buffer: int
    epochs: int
    batch: int


def gewata(root: Path) -> Case:
    """Landsat 7 about 2001, means of 10 x 10 pixels (300 m), shares of the land cover of 2011: one date."""
    folder = root / "landsat_gewata_2001_vcf"
    names = ("B1", "B2", "B3", "B4", "B5", "B7")
    bands = [_open(folder / f"Gewata{name}.tif") for name in names]
    fine = xr.concat(bands, "band").expand_dims(time=[np.datetime64("2001-01-01", "ns")])
    reflectance = fine.where(fine < SATURATED) * 1e-4
    cube = _coarse(reflectance.assign_coords(band=list(names)), 10)
    classes = {1: "cropland", 2: "bamboo", 3: "bare soil", 4: "coffee", 5: "forest", 6: "wetland"}
    shares = cubekit.load_fractions(folder / "lulc2011.tif", cube, classes=classes, min_coverage=0.95)
    return Case("gewata", extract(cube, shares), block=3000, buffer=1, epochs=60, batch=256)


def belgium(root: Path) -> Case:
    """Sentinel-2 months of 2021, means of 5 x 5 pixels (50 m), shares of the crop map of WorldCereal."""
    path = root / "s2_monthly_belgium" / "s2_s1_meteo_2020-08_2022-03_croptypes.nc"
    with xr.open_dataset(path, mask_and_scale=False, decode_coords="all") as source:
        months = source.sel(t=slice("2020-12-01", "2021-11-30")).load()
    crs = "EPSG:32631"
    stored = xr.concat([months[name].astype("uint16") for name in BANDS.values()], "band").rename(t="time")
    reflectance = stored.where(stored != EMPTY) * 1e-4
    fine = reflectance.transpose("time", "band", "y", "x").assign_coords(band=list(BANDS))
    cube = _coarse(fine.odc.assign_crs(crs), 5)
    height = months["elevation"].isel(t=0) if "t" in months["elevation"].dims else months["elevation"]
    cube = add_ancillary(cube, elevation=height.astype("float32").odc.assign_crs(crs), place=False)
    shares = cubekit.load_fractions(_crops(months).odc.assign_crs(crs), cube, classes=CROPS)
    samples = extract(cube, shares, ancillary=("altitude", "slope"))
    return Case("belgium", samples, block=200, buffer=0, epochs=150, batch=64)


CROPS = {0: "no cropland", 1: "other crops", 2: "winter cereals", 3: "spring cereals", 4: "maize"}


def _crops(months: xr.Dataset) -> xr.DataArray:
    """Join the maps of single crops to one of codes; where several claim a pixel the later one has it."""
    codes = xr.where(months[WORLDCEREAL.format("TEMPORARYCROPS")] == 100, 1, 0)
    for code, name in ((2, "WINTERCEREALS"), (3, "SPRINGCEREALS"), (4, "MAIZE-MAIN")):
        codes = xr.where(months[WORLDCEREAL.format(name)] == 100, code, codes)
    return codes.astype("int32")


def _open(path: Path) -> xr.DataArray:
    """Read a GeoTIFF."""
    import rasterio
    from odc.geo.geobox import GeoBox

    with rasterio.open(path) as file:
        return odc.geo.xr.wrap_xr(file.read(1), GeoBox.from_rio(file))


def _coarse(fine: xr.DataArray, factor: int) -> xr.Dataset:
    """Average what is observed over squares of pixels; a square without any stays a gap."""
    trimmed = fine.isel(
        y=slice(0, fine.sizes["y"] // factor * factor), x=slice(0, fine.sizes["x"] // factor * factor)
    )
    box = trimmed.odc.geobox.zoom_out(factor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # means of empty squares
        means = trimmed.coarsen(y=factor, x=factor).mean()
    values = means.transpose("time", "band", "y", "x").to_numpy().astype("float32")
    coords = {"time": fine["time"].to_numpy(), "band": fine["band"].to_numpy().tolist()}
    data = xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords)
    cube = data.to_dataset(name="data").assign_coords(odc.geo.xr.xr_coords(box))
    cube["data"].attrs |= {"grid_mapping": "spatial_ref", "_FillValue": np.float32(np.nan)}
    return cube


def run_case(case: Case, seeds: Sequence[int] = SEEDS) -> dict[str, list[FractionScores]]:
    """Split, train and score with each seed."""
    found: dict[str, list[FractionScores]] = {}
    for seed in seeds:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            parts = split_balanced(case.samples, block=case.block, buffer=case.buffer, seed=seed)
        _say(f"\n{case.name}, seed {seed}\n{parts}")
        _say("\n".join(f"({warning.message})" for warning in told if "Mean shares" in str(warning.message)))
        train, valid, test = parts.parts
        start = monotonic()
        model = cubekit.fit(
            "brits",
            train,
            valid,
            epochs=case.epochs,
            batch=case.batch,
            learning_rate=3e-3,
            schedule="cosine",
            clip=0.95,
            seed=seed,
            progress=False,
        )
        spent = monotonic() - start
        predicted = {"BRITS": predict_values(model, test), **other_shares(train, test, seed=seed)}
        for name, shares in predicted.items():
            score = assess_fractions(test.y, shares, test.classes)
            found.setdefault(name, []).append(score)
            _say(f"{name:<16} RMSE {score.overall:.4f}  accuracy {score.dominant.overall:.3f}")
        _say(f"{spent:.0f} s of training, best epoch {model.card.metrics['epoch']:.0f} of {case.epochs}")
        imputed = imputation_of(model, test, share=0.1)
        if imputed is not None and len(test.times) > 1:
            _say(f"imputation of 10 % hidden values: RMSE {imputed.overall:.4f} (reflectance)")
    return found


def table(case: Case, found: Mapping[str, Sequence[FractionScores]]) -> str:
    """Write mean and spread over the seeds as Markdown."""
    names = case.samples.classes.names
    rows = []
    for name, scores in found.items():
        columns = (
            [score.overall for score in scores],
            [score.errors.mae.mean() for score in scores],
            [_mean(score.errors.r) for score in scores],
            [score.dominant.overall for score in scores],
        )
        rows.append(f"| {name} | {' | '.join(map(_spread, columns))} |")
    by_class = []
    for name, scores in found.items():
        means = np.mean([score.errors.rmse for score in scores], axis=0)
        by_class.append(f"| {name} | {' | '.join(f'{mean:.3f}' for mean in means)} |")
    head = ["| method | mean RMSE | mean MAE | mean r | greatest share right |", "|---|---|---|---|---|"]
    second = ["", f"| RMSE | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    return "\n".join([*head, *rows, *second, *by_class])


def _mean(values: FloatArray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def _spread(values: Sequence[Any]) -> str:
    if not np.isfinite(values).any():
        return "-"
    return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else f"{values[0]:.4f}"


def _say(text: str) -> None:
    if text:
        print(text, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Run the study on one or both data sets."""
    shared = os.environ.get("CUBEKIT_SHARED")
    if not shared or not (Path(shared) / "data").is_dir():
        sys.exit("Set CUBEKIT_SHARED to the folder that holds data/landsat_gewata_2001_vcf and the others.")
    logging.getLogger("cubekit").setLevel(logging.ERROR)
    cases = {"gewata": gewata, "belgium": belgium}
    for name in arguments or list(cases):
        case = cases[name](Path(shared) / "data")
        _say(f"\n## {name}: {case.samples!r}")
        _say("\n" + table(case, run_case(case)))


if __name__ == "__main__":
    main(sys.argv[1:])
