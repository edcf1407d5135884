"""A fine image for every day: ``python -m benchmarks.studies.fusion_series``.

Landsat (8 and 17 March, 2 April 2020) and daily MODIS of Kranj below ``CUBEKIT_SHARED``. A network learns
from two Landsat dates, ``ck.fuse_series`` makes all 26 days from them, and the third date, which nobody has
seen, says how good they are, beside what needs no network. ``--picture`` draws the days around 17 March.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure

import cubekit as ck
from benchmarks.report import machine
from benchmarks.studies.fusion_pairs import SETS
from cubekit.batching.pairs import open_pairs
from cubekit.evaluation.fusion_scores import assess_fusion
from cubekit.exports.figures import save_figure
from cubekit.prediction.fuse import Known
from cubekit.tasks.examples import Examples
from cubekit.training.bundle import Model
from cubekit.typing import FloatArray

DAYS = ("2020-03-08", "2020-03-17", "2020-04-02")
METRICS = ("MAE", "RMSE", "SSIM", "SAM", "CC")
SHOWN = ("2020-03-08", "2020-03-12", "2020-03-17", "2020-03-22", "2020-03-27", "2020-04-02")
RGB = ("swir16", "nir", "red")


def main() -> None:
    """Hold out one date, then the other, and print one table."""
    options = _options()
    root = Path(os.environ.get("CUBEKIT_SHARED", "")) / "data"
    if not (root / SETS["kranj"].layout.name).is_dir():
        sys.exit(f"No data sets in {root}: set CUBEKIT_SHARED to the folder that holds data/.")
    torch.set_num_threads(1)
    fine, coarse = (cube.compute() for cube in SETS["kranj"].cubes(root))
    facts = machine()
    print(f"{facts['processor']}, {facts['cores']} cores, torch {torch.__version__}, 1 thread\n", flush=True)
    print(f"| held out | from | method | {' | '.join(METRICS)} |\n|---|---|---|{'--:|' * len(METRICS)}")
    for out in (DAYS[1], DAYS[2]):
        known = [day for day in DAYS if day != out]
        start = perf_counter()
        model = _trained(fine.sel(time=known), coarse, known, options)
        trained = perf_counter() - start
        truth, few = _on(fine, out), fine.sel(time=known)
        for ways, image in _images(model, few, coarse, known, out):
            scores = assess_fusion(image, truth, ratio=16).scores
            print(f"| {out} | {ways} | " + " | ".join(f"{scores[name]:.4g}" for name in METRICS) + " |")
        start = perf_counter()
        series = ck.fuse_series(model, few, coarse, known=_way(out)).compute()
        made = _fused(model, few, coarse, out, _way(out))
        apart = ((made - truth) ** 2).mean(("y", "x")) ** 0.5
        bias = (made - truth).mean(("y", "x"))
        print("RMSE by band:", ", ".join(f"{name} {value:.4f}" for name, value in _by_band(apart)))
        print("mean error by band:", ", ".join(f"{name} {value:+.4f}" for name, value in _by_band(bias)))
        print(f"{series.sizes['time']} days: {perf_counter() - start:.1f} s; training {trained:.0f} s\n")
        if options.picture and out == DAYS[1]:
            save_figure(_figure(series, fine, coarse, out), options.picture)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="edcstfn")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=2, help="patches a step")
    parser.add_argument("--picture", type=Path, help="PNG to write")
    return parser.parse_args()


def _way(out: str) -> Known:
    """Use both neighbours of a date between them, else the last one."""
    return "both" if out == DAYS[1] else "before"


def _trained(fine: xr.Dataset, coarse: xr.Dataset, known: list[str], options: argparse.Namespace) -> Model:
    """Learn from the two known dates, forwards and backwards."""
    steps = [(known[0], known[1]), (known[1], known[0])]
    cut = open_pairs(fine, coarse, steps=steps).normalised(1).patches(32, 4)
    examples = Examples(
        arrays=cut.arrays, bands=cut.bands, crs=cut.crs, resolution=cut.resolution, extent=cut.extent
    )
    return ck.fit(
        options.network,
        examples,
        epochs=options.epochs,
        batch=options.batch,
        seed=42,
        progress=False,
    )


def _images(
    model: Model, fine: xr.Dataset, coarse: xr.Dataset, known: list[str], out: str
) -> Iterator[tuple[str, xr.DataArray]]:
    """Give the held-out image by network, copy, change and, between two dates, lines in time."""
    ways: tuple[Known, ...] = ("both", "nearest") if _way(out) == "both" else ("before",)
    for way in ways:
        yield f"{way} | network {model.card.network}", _fused(model, fine, coarse, out, way)
    images, far = fine["data"], coarse["data"]
    start = images.sel(time=known[_nearest(known, out)])
    wanted = _on(coarse, out)
    yield "nearest | copy of F1", start
    yield "nearest | F1 + (C2 - C1)", start + wanted - far.sel(time=start["time"]).drop_vars("time")
    if _way(out) == "both":
        between, moved = (cube.interp(time=np.datetime64(out)) for cube in (images, far.sel(time=known)))
        yield "both | line in time between F1 and F3", between
        yield "both | the same + (C2 - line in time between C1 and C3)", between + wanted - moved


def _fused(model: Model, fine: xr.Dataset, coarse: xr.Dataset, day: str, way: Known) -> xr.DataArray:
    """Return the image of a day, made from known dates."""
    series = ck.fuse_series(model, fine, coarse, dates=[day], known=way)
    return series["data"][0].drop_vars(("time", "known_date")).compute()


def _by_band(values: xr.DataArray) -> list[tuple[str, float]]:
    return [
        (str(name), float(value)) for name, value in zip(values["band"].values, values.values, strict=True)
    ]


def _on(cube: xr.Dataset, day: str) -> xr.DataArray:
    """Return the image of a day."""
    image: xr.DataArray = cube["data"].sel(time=np.datetime64(day)).drop_vars("time")
    return image


def _nearest(known: list[str], out: str) -> int:
    apart = np.abs(np.array(known, "datetime64[D]") - np.datetime64(out, "D"))
    return int(apart.argmin())


def _figure(series: xr.Dataset, fine: xr.Dataset, coarse: xr.Dataset, out: str) -> Figure:
    """Draw some days and the held-out image, and below the series of two places."""
    figure = Figure(figsize=(11, 5.4), layout="constrained")
    upper, lower = np.ravel(figure.subfigures(2, 1, height_ratios=(1, 1.25)))
    truth = _on(fine, out)
    images = {f"{day[5:]}{_what(day, out)}": _on(series, day) for day in SHOWN}
    images[f"{out[5:]}\nLandsat, held out"] = truth
    ends = np.nanquantile(fine["data"].sel(band=list(RGB)), (0.02, 0.98), axis=(0, 2, 3))
    for axes, (title, image) in zip(upper.subplots(1, len(images)), images.items(), strict=True):
        colours = (image.sel(band=list(RGB)).transpose("y", "x", "band") - ends[0]) / (ends[1] - ends[0])
        axes.imshow(np.clip(colours, 0, 1), interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    for axes, (y, x) in zip(lower.subplots(1, 2, sharey=True), _places(fine), strict=True):
        for band, colour in (("nir", "tab:green"), ("red", "tab:red")):
            here = {"band": band}
            made, seen, far = (
                cube["data"].sel(here).isel(y=y, x=x) for cube in (series, fine.sel(time=list(DAYS)), coarse)
            )
            axes.plot(far["time"], far, color=colour, alpha=0.4, linestyle=":", label=f"{band}, MODIS")
            axes.plot(made["time"], made, color=colour, label=f"{band}, fused")
            known = seen["time"] != np.datetime64(out)
            axes.plot(seen["time"][known], seen[known], "o", color=colour, label=f"{band}, Landsat")
            axes.plot(seen["time"][~known], seen[~known], "*", color=colour, markersize=13, mec="k",
                      label=f"{band}, Landsat, held out")  # fmt: skip
        axes.set_title(f"row {y}, column {x}", fontsize=9)
        axes.set_ylabel("reflectance")
        axes.tick_params(axis="x", labelrotation=30, labelsize=8)
    lower.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure


def _what(day: str, out: str) -> str:
    return "\nfused" if day == out or day not in DAYS else "\nLandsat"


def _places(fine: xr.Dataset) -> list[tuple[int, int]]:
    """Choose the pixels whose NIR, blurred, rises and falls most from the first to the last date."""
    nir: FloatArray = (
        fine["data"].sel(band="nir", time=[DAYS[0], DAYS[2]]).rolling(y=3, x=3, center=True).mean().to_numpy()
    )
    change = nir[1] - nir[0]
    rise, fall = (
        np.unravel_index(int(at), change.shape) for at in (np.nanargmax(change), np.nanargmin(change))
    )
    return [(int(rise[0]), int(rise[1])), (int(fall[0]), int(fall[1]))]


if __name__ == "__main__":
    main()
