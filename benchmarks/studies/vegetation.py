"""Next year's map on real stacks: skill of the network beside forecasts without one, on held-out years.

``python -m benchmarks.studies.vegetation`` reads the stacks below ``CUBEKIT_SHARED``, trains the
ConvLSTM-UNet with several seeds in two ways (the change from the last map; the map itself), and prints for
every index and held-out year the errors of all forecasters. ``--seams`` measures what tiling changes.
"""

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import numpy as np
import torch
import xarray as xr

import cubekit as ck
from cubekit.evaluation.forecast import BASELINES, ForecastScores, score_forecasts
from cubekit.prediction.rollout import hindcast
from cubekit.training.bundle import Model
from cubekit.typing import FloatArray

WAYS: Mapping[str, bool] = {"change": True, "plain": False}
"""Way of training to whether the network draws the change from the last map."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A folder of yearly maps, and how it is split."""

    folder: str
    index: str
    pattern: str | None = None
    scale: float | None = None
    outside: float | None = None
    window: int = 4
    hold_out: int = 3

    def load(self, root: Path) -> xr.Dataset:
        """Read the maps into memory."""
        return ck.open_yearly(
            root / self.folder, self.index, pattern=self.pattern, scale=self.scale, outside=self.outside
        ).compute()


BATCH = 8
MODIS = "modis_mod13q1_sinop_2000_2017/annual_max"
STACKS: Mapping[str, Stack] = {
    "MODIS NDVI, Sinop": Stack(folder=MODIS, index="NDVI", scale=1e-4),
    "MODIS EVI, Sinop": Stack(folder=MODIS, index="EVI", scale=1e-4),
    "MODIS LAI, China": Stack(folder="modis_lai_china_2001_2020/annual", index="LAI", outside=0),
    "Landsat NDVI, summer, Rhine": Stack(
        folder="landsat_seasonal_nl/ndvi/filled",
        index="NDVI",
        pattern="*_s_{date:%Y}0625_*.tif",
        scale=0.01,
        window=3,
        hold_out=1,
    ),
}
"""Name to stack; sea, which the LAI maps hold as 0, is no data."""


def study(name: str, stack: Stack, root: Path, seeds: list[int], budget: argparse.Namespace) -> None:
    """Train with every seed and way, and print each beside the baselines as soon as it is known."""
    cube = stack.load(root)
    calendar = cube["time"].dt.year.to_numpy()
    years = [int(year) for year in calendar[-stack.hold_out :]]
    ways = {way: residual for way, residual in WAYS.items() if budget.way in {way, "both"}}
    for way, residual in ways.items():
        drawn = [hindcast(_trained(cube, stack, seed, residual, budget), cube, years) for seed in seeds]
        scores = [score_forecasts(cube, {way: found.compute()}, window=stack.window) for found in drawn]
        mean = drawn[0].assign(data=sum(found["data"] for found in drawn) / len(drawn))
        whole = score_forecasts(cube, {way: mean.compute()}, window=stack.window)
        if way == next(iter(ways)):
            for other in BASELINES:
                _tell(name, other, [whole], other)
        _tell(name, f"network, {way}", scores, way)
        _tell(name, f"network, {way}, mean of {len(seeds)} seeds", [whole], way)


def _trained(cube: xr.Dataset, stack: Stack, seed: int, residual: bool, budget: argparse.Namespace) -> Model:  # noqa: FBT001
    """Train one network."""
    split = ck.split_years(
        cube, window=stack.window, patch=32, hold_out=stack.hold_out, masked=0.5, seed=seed
    )
    turned = ck.Augmentation(flip=True, rotate=True)
    return ck.fit(
        "convlstm_unet",
        ck.year_batches(cube, split, "train", samples=budget.samples, batch=BATCH, seed=seed, augment=turned),
        ck.year_batches(cube, split, "valid", samples=16, batch=BATCH, seed=seed),
        epochs=budget.epochs,
        learning_rate=2e-3,
        schedule="plateau",
        patience=10,
        normalise="standard",
        arguments={"residual": residual},
        seed=seed,
        progress=False,
    )


def _tell(name: str, label: str, scores: list[ForecastScores], forecaster: str) -> None:
    """Print a line of a Markdown table for each year."""
    years = list(dict.fromkeys(row.year for row in scores[0].rows))
    for year in years:
        rows = [each.of(forecaster, year=year) for each in scores]
        skills = (_spread([row.skill[b] for row in rows], 3) for b in ("persistence", "climatology"))
        cells = (name, year, label, _spread([row.rmse for row in rows], 4), *skills)
        print("| " + " | ".join(cells) + " |", flush=True)


def _spread(values: list[float], digits: int) -> str:
    """Mean and, of several seeds, their standard deviation."""
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean


HEAD = (
    "| stack | year | forecaster | RMSE | skill to persistence | skill to climatology |\n"
    "|---|---|---|---|---|---|"
)


def seams() -> str:
    """Measure what tiling changes against the whole map at once, for a network with random weights."""
    from cubekit.nn import create
    from cubekit.nn.reach import Reach, measure_reach
    from cubekit.prediction.windows import apply_in_windows

    torch.manual_seed(0)
    network = create("convlstm_unet", steps=8)
    with torch.no_grad():
        for _ in range(20):  # norms as after training
            network.train()(torch.rand(4, 8, 1, 32, 32))
    network.eval()
    maps = np.random.default_rng(0).random((8, 1, 256, 256), dtype=np.float32)

    def forward(windows: list[FloatArray]) -> FloatArray:
        with torch.inference_mode():
            return network(torch.from_numpy(np.ascontiguousarray(windows[0]))[None]).numpy()

    whole = forward([maps])
    lines = [
        f"largest and mean difference to the whole map at once (its standard deviation {whole.std():.4f})"
    ]
    for name, reach in (
        ("exact margins", measure_reach(network, [(8, 1)])),
        ("cosine blend", Reach(halo=None, multiple=4)),
    ):
        apart = np.abs(apply_in_windows(forward, [maps], reach, side=64) - whole)
        lines.append(f"{name}: {apart.max():.3g}, {apart.mean():.3g}")
    return "\n".join(lines)


def main() -> int:
    """Run the study and print its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--samples", type=int, default=64, help="patches in an epoch")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", default="", help="part of the name of a stack")
    parser.add_argument("--way", default="both", choices=[*WAYS, "both"], help="what the network draws")
    parser.add_argument("--seams", action="store_true", help="measure what tiling changes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.seams:
        print(seams())
        return 0
    root = Path(os.environ.get("CUBEKIT_SHARED", "../shared")) / "data"
    if not root.is_dir():
        print(
            f"There are no stacks at {root}: set CUBEKIT_SHARED to the folder that holds data/.",
            file=sys.stderr,
        )
        return 2
    seeds = [int(seed) for seed in given.seeds.split(",")]
    start = monotonic()
    print(HEAD, flush=True)
    for name, stack in STACKS.items():
        if given.only.casefold() in name.casefold():
            study(name, stack, root, seeds, given)
    print(
        f"\n{monotonic() - start:.0f} s; {given.epochs} epochs of {given.samples} patches, seeds "
        f"{given.seeds}; "
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, 1 thread"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
