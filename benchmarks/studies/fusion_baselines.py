"""Fusion without training on real pairs: ``python -m benchmarks.studies.fusion_baselines``.

Reads the sets below ``CUBEKIT_SHARED``, predicts every wanted date by five baselines, and prints eleven
scores of whole scenes in textbook definitions, as tables in Markdown. Lines between sensors are fitted on the
dates up to the known one, so nothing is learned from a wanted date.
"""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import odc.geo.xr  # noqa: F401  (registers the accessor)
import xarray as xr

from benchmarks.report import machine
from benchmarks.studies.fusion_pairs import SETS
from cubekit.batching.pairs import Pair, Pairs, open_pairs
from cubekit.evaluation.fusion_baselines import BASELINES, predict_baseline
from cubekit.evaluation.fusion_metrics import METRICS
from cubekit.evaluation.fusion_scores import assess_fusion

FLANDERS_BANDS = ("blue", "green", "red", "nir")
FLANDERS_RATIO = 8  # 80 m
CLEAR = (4, 5, 6, 7)  # scene classes: vegetation, bare, water, unclassified
LEAST_CLEAR = 0.99

Known = tuple[Pair, float]
Scores = dict[str, dict[str, float]]


def main() -> None:
    """Print all tables."""
    folder = Path(os.environ.get("CUBEKIT_SHARED", "")) / "data"
    if not (folder / "fusion_landsat_modis_2016").is_dir():
        sys.exit(f"No data sets in {folder}: set CUBEKIT_SHARED to the folder that holds data/.")
    facts = machine()
    print(f"{facts['processor']}, {facts['cores']} cores, Python {facts['python']}, {facts['date']}\n")
    begun = time.monotonic()
    for title, pairs in (
        ("Landsat and MODIS 2016", landsat_modis("2016", folder)),
        ("Landsat and MODIS, Kranj 2020", landsat_modis("kranj", folder)),
        ("Sentinel-2 and Landsat 8, Flanders 2017-2018", flanders(folder)),
    ):
        print(report(title, [(pair, scores(pair, ratio)) for pair, ratio in pairs]))
    print(f"{time.monotonic() - begun:.0f} s in all")


def landsat_modis(name: str, folder: Path) -> Iterator[Known]:
    """Give the pairs of a set, each with what is known by its first date."""
    known = [span[0] for span in SETS[name].open(folder).spans]
    yield from ((SETS[name].ready(folder, day)[number], 16) for number, day in enumerate(known))


def flanders(folder: Path) -> Iterator[Known]:
    """Give pairs of Sentinel-2 at 10 m and Landsat 8 averaged to 80 m, at most three days apart."""
    fine, coarse = sentinel(folder / "s2_l8_s1_flanders_patch"), landsat(folder / "s2_l8_s1_flanders_patch")
    pairs: Pairs = open_pairs(fine, coarse, tolerance=3)
    for number, (known, _) in enumerate(pairs.spans):
        past = pairs.dates[pairs.dates <= known]
        yield pairs.harmonised(past).normalised(1)[number], FLANDERS_RATIO


def sentinel(folder: Path) -> xr.DataArray:
    """Open the clear Sentinel-2 dates, reflectance."""
    ten, twenty = (xr.open_dataset(next(folder.glob(f"S2_L2A_{size}_*.nc"))) for size in ("10m", "20m"))
    clear = twenty["SCL"].isin(CLEAR)
    cube = stacked(ten, ("B02", "B03", "B04", "B08"))
    return cube.isel(time=np.flatnonzero(clear.mean(("y", "x")) >= LEAST_CLEAR))


def landsat(folder: Path) -> xr.DataArray:
    """Open the clear Landsat 8 dates, averaged to coarse pixels; wrapped negatives become gaps."""
    ten = xr.open_dataset(next(folder.glob("L8_SR_10m_*.nc")))
    clear = (ten["pixel_qa"].astype("uint16") & 2) > 0
    cube = stacked(ten, ("B02", "B03", "B04", "B05"))
    cube = cube.where(cube < 2).isel(time=np.flatnonzero(clear.mean(("y", "x")) >= LEAST_CLEAR))
    coarse = cube.coarsen(y=FLANDERS_RATIO, x=FLANDERS_RATIO).mean()
    return placed(coarse)


def stacked(dataset: xr.Dataset, bands: tuple[str, ...]) -> xr.DataArray:
    """Return bands by their common names, float32."""
    cube = dataset[list(bands)].to_dataarray("band").assign_coords(band=list(FLANDERS_BANDS))
    return placed(cube.transpose("time", "band", "y", "x").astype("float32").drop_attrs())


def placed(cube: xr.DataArray) -> xr.DataArray:
    """Return a cube with the CRS of the patch."""
    there: xr.DataArray = cube.odc.assign_crs("EPSG:32631")
    return there


def scores(pair: Pair, ratio: float) -> Scores:
    """Score all baselines on one pair."""
    found: Scores = {}
    images = [pair.coarse_t1.compute(), pair.coarse_t2.compute(), pair.fine_t1.compute()]
    truth = pair.fine_t2.compute()
    for name in BASELINES:
        start = time.monotonic()
        predicted = predict_baseline(name, *images, ratio=ratio)
        result = assess_fusion(predicted, truth, ratio=ratio)
        found[name] = result.scores | {"seconds": time.monotonic() - start, "n_invalid": result.n_invalid}
    return found


def report(title: str, found: list[tuple[Pair, Scores]]) -> str:
    """Write the scores of a set: pair by pair where there are few, else their means."""
    few = 3
    shape = " x ".join(str(size) for size in found[0][0].fine_t2.shape)
    lines = [f"### {title}", "", f"{len(found)} pair(s) of {shape} (band, y, x).", ""]
    if len(found) <= few:
        for pair, table in found:
            lines += [f"{pair.t1} to {pair.t2}:", "", *rows(table), ""]
    else:
        names = list(found[0][1])
        means = {
            name: {key: float(np.mean([table[name][key] for _, table in found])) for key in found[0][1][name]}
            for name in names
        }
        lines += ["Means over the pairs:", "", *rows(means), "", "RMSE of each:", ""]
        lines += ["| pair | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
        for pair, table in found:
            cells = (f"{table[name]['RMSE']:.4f}" for name in names)
            lines.append(f"| {pair.t1} to {pair.t2} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def rows(table: Scores) -> list[str]:
    """Write one line a baseline."""
    names = (*METRICS, "seconds", "n_invalid")
    lines = ["| baseline | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for name, scored in table.items():
        lines.append(f"| {name} | " + " | ".join(f"{scored[each]:.4g}" for each in names) + " |")
    return lines


if __name__ == "__main__":
    main()
