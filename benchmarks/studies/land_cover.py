"""Land cover on real patches: seven networks on one split beside a random forest and the majority, by folds.

``python -m benchmarks.studies.land_cover`` reads the places below ``CUBEKIT_SHARED``, deals blocks of land to
folds, and trains every network once a fold: on series, or on patches in which no pixel of another part lies.
Every pixel is tested once. The table gives means and standard deviations over the folds, of the mean over the
seeds. The map rate is that of the place repeated three times along both sides, in pixels a second of
processor time.
"""

import argparse
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import cubekit as ck
from cubekit.cube.contract import geobox_of
from cubekit.pipeline.comparison import Comparison, Row

NETWORKS = ("conv1d", "tempcnn", "ltae", "lstm", "unet", "deeplabv3plus", "utae")
ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "unet": {"width": 16, "depth": 2},  # patches of 12 pixels have no more to halve
    "deeplabv3plus": {"width": 16, "image_pooling": False},
}
REPEATED = 3


@dataclass(frozen=True, kw_only=True)
class Place:
    """A patch of land with labels."""

    root: str
    archive: Mapping[str, Any]
    labels: str
    options: Mapping[str, Any]
    bands: Sequence[str] | None = None
    mask: str | None = None
    composite: Mapping[str, Any] | None = None
    block: float = 160
    buffer: float = 20
    colours: Mapping[str, str] = field(default_factory=dict)

    def open(self, shared: Path, folder: Path) -> tuple[xr.Dataset, xr.Dataset]:
        """Make the cube and put the labels on it."""
        root = shared / self.root
        items = ck.open_archive(root, on_unmatched="skip", **self.archive)
        cube = ck.open_cube(items, bands=self.bands, mask=self.mask)
        if self.composite is not None:
            cube = ck.composite(cube, **self.composite)
        cube = ck.write(ck.fill_gaps(cube), folder / "cube.zarr", overwrite=True, progress=False)
        return cube, ck.load_labels(root / self.labels, cube, **self.options)


BANDS = ("blue", "green", "red", "rededge1", "rededge2", "rededge3", "nir", "nir08", "swir16", "swir22")
FLANDERS = Place(
    root="s2_l8_s1_flanders_patch",
    archive={"pattern": ["S2_L2A_10m_*.nc", "S2_L2A_20m_*.nc"], "collection": "sentinel-2-l2a"},
    labels="OUTPUT_POLY-110_10m_00002806639B424A_32631_2017-08-01_2018-11-30.nc",
    options={
        "column": "LC",
        "classes": {11: "cropland", 13: "grassland", 60: "built-up", 99: "other land"},
        "colours": {
            "cropland": "#e3b04b", "grassland": "#9ccb6b", "built-up": "#c8442f", "other land": "#9aa0a6",
        },
    },
    bands=BANDS,
    mask="clouds+shadows",
    composite={"every": "1MS", "start": "2017-08-01", "end": "2018-11-30"},
)  # fmt: skip
PLACES: Mapping[str, Place] = {
    "flanders-land-cover": FLANDERS,
    "flanders-crops": replace(
        FLANDERS,
        options={
            "column": "CT",
            "classes": {1200: "maize", 9120: "grass"},
            "ignore": [0, 2130, 5100, 7900],  # no crop, and fields too few to be split
        },
    ),
    "slovenia": Place(
        root="s2_slovenia_eopatch",
        archive={"pattern": "s2_l1c_13bands_5dates.nc", "collection": "sentinel-2-l1c"},
        labels="lulc_polygons.gpkg",
        options={
            "column": "LULC_NAME",
            "inward": 10,
            "ignore": ["artificial surface", "cultivated land", "schrubland"],  # under 60 pixels each
        },
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the networks on every place and print the tables."""
    options = _options(arguments)
    shared = Path(os.environ.get("CUBEKIT_SHARED", ""))
    if not os.environ.get("CUBEKIT_SHARED") or not shared.is_dir():
        print("Set CUBEKIT_SHARED to the folder of real data.", file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread\n")
    for name in options.places:
        start = perf_counter()
        table = study(PLACES[name], shared / "data", options.out / name, options)
        print(f"## {name}\n\n{table}\n\n{perf_counter() - start:.0f} s in all\n", flush=True)
    return 0


def study(place: Place, data: Path, out: Path, options: argparse.Namespace) -> str:
    """Compare the networks on one place, fold by fold."""
    cube, labels = place.open(data, out)
    found = []
    for number, parts in enumerate(
        ck.folds(cube, labels, k=options.folds, block=place.block, buffer=place.buffer, seed=0)
    ):
        found.append(
            ck.compare(
                options.networks,
                *parts,
                seeds=range(options.seeds),
                settings={"epochs": options.epochs, "batch": 64, "patience": 10, "progress": False},
                arguments={name: each for name, each in ARGUMENTS.items() if name in options.networks},
                cube=cube,
                patches={"size": 12, "stride": 2, "batch": 16, "epochs": options.patch_epochs},
                reference=labels["label"],
                out=out / f"fold-{number}",
            )
        )
        print(
            f"fold {number}: {[len(part) for part in parts]}\n{found[-1].table()}\n",
            file=sys.stderr,
            flush=True,
        )
    rates = {name: map_rate(out / "fold-0" / f"{name}-0", cube) for name in options.networks}
    return (
        over_folds(found, rates)
        .table()
        .replace("| seeds |", "| folds |")
        .replace("| Mpx/s |", "| Mpx/CPU s |")
    )


def map_rate(model: Path, cube: xr.Dataset) -> float:
    """Map the place several times over; million pixels a second of processor time, whatever else runs."""
    grid = geobox_of(cube)
    rows, columns = grid.shape
    large = GeoBox((rows * REPEATED, columns * REPEATED), grid.affine, grid.crs)
    data = np.tile(cube["data"].to_numpy(), (1, 1, REPEATED, REPEATED))
    coords = xr_coords(large, always_yx=True) | {"time": cube["time"], "band": cube["band"]}
    whole = xr.Dataset({"data": (cube["data"].dims, data, cube["data"].attrs)}, coords, cube.attrs)
    start = process_time()
    ck.predict(ck.load_model(model), whole.chunk(y=128, x=128), outputs=("class",))["class"].compute()
    return data[0, 0].size / 1e6 / (process_time() - start)


def over_folds(found: Sequence[Comparison], rates: Mapping[str, float]) -> Comparison:
    """Put the folds together: mean and standard deviation of every score."""
    rows = []
    for name in (row.name for row in found[0].rows):
        own = [row for each in found for row in each.rows if row.name == name]
        scores = {
            score: (
                float(np.mean([row.scores[score][0] for row in own])),
                float(np.std([row.scores[score][0] for row in own], ddof=1)),
            )
            for score in own[0].scores
        }
        spent = [row.train_seconds for row in own if row.train_seconds is not None]
        rows.append(
            Row(
                name=name, scores=scores, runs=len(own), parameters=own[0].parameters,
                train_seconds=float(np.mean(spent)) if spent else None,
                megapixels_per_second=rates.get(name),
            )
        )  # fmt: skip
    first = next(iter(rows[0].scores))
    return Comparison(rows=tuple(sorted(rows, key=lambda row: -row.scores[first][0])))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.studies.land_cover", description=__doc__)
    parser.add_argument("places", nargs="*", default=list(PLACES), help=f"of {', '.join(PLACES)}")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each network in each fold")
    parser.add_argument("--epochs", type=int, default=30, help="of series")
    parser.add_argument("--patch-epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("runs/studies/land_cover"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
