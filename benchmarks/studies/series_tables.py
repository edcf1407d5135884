"""Networks of pixel series beside a random forest, on real tables: by groups in space, and at random.

``python -m benchmarks.studies.series_tables [--tables corsica,canada,mato_grosso] [--epochs 60] [--folds 5]``
prints one Markdown table for each data set; see docs/systems/tree_species.md for what the figures mean.
"""

import argparse
import os
import platform
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import pandas as pd

import cubekit as ck
from cubekit.batching.samples import Samples
from cubekit.cube.contract import Encoding
from cubekit.evaluation import baselines
from cubekit.evaluation.accuracy import Accuracy, assess

NETWORKS = ("lstm", "tempcnn", "conv1d", "ltae")
SETTINGS: dict[str, dict[str, Any]] = {
    "lstm": {"normalise": "standard"},
    "tempcnn": {"arguments": {"dropout": 0.3}},
    "conv1d": {},
    "ltae": {},
}
SENTINEL2 = Encoding(dtype="uint16", nodata=65535, scale=1e-4)
PLACES = {
    "1110": "winter wheat", "1120": "spring wheat", "1200": "maize", "1520": "spring barley",
    "4100": "soya", "5100": "potatoes", "7920": "perennial legumes", "9120": "permanent grass",
}  # fmt: skip


@dataclass(frozen=True)
class Study:
    """A data set, and what must stay together in it."""

    read: Callable[[Path, Path], Samples]
    split: dict[str, Any]
    said: str


def corsica(data: Path, scratch: Path) -> Samples:
    """Tree crops, vines, meadows of Corsica in 2022, one pixel a parcel; classes of ten and more."""
    table = pd.read_csv(data / "fra_2022_tree_and_crop_12months_500px.csv")
    counts = table["class_name"].value_counts()
    table[table["class_name"].map(counts) >= 10].to_csv(scratch / "corsica.csv", index=False)
    return ck.read_series(
        scratch / "corsica.csv",
        label="class_name",
        columns="B{band}_{step}",
        dates=[f"2022-{month:02d}-01" for month in range(1, 13)],
        encoding=SENTINEL2,
    )


def canada(data: Path, scratch: Path) -> Samples:
    """Crops of Canada in 2017, months that are not free of clouds; classes of 75 and more."""
    table = pd.read_parquet(data / "can_aafc_2017_monthly_long_3621px.parquet")
    table["crop"] = table["CROPTYPE_LABEL"].astype(int).astype(str).map(PLACES)
    table = table[table["crop"].notna()]
    table["timestamp"] = pd.to_datetime(table["timestamp"]) + pd.Timedelta(2, "h")  # midnight in Europe
    table.to_parquet(scratch / "canada.parquet")
    return ck.read_series(
        scratch / "canada.parquet",
        label="crop",
        date="timestamp",
        group="h3_l3_cell",
        bands=[f"S2-L2A-B{band}" for band in ("02", "03", "04", "05", "06", "07", "08", "11", "12")],
        encoding=SENTINEL2,
        steps="months",
        months=("2017-01", "2017-12"),
    )


def mato_grosso(data: Path, scratch: Path) -> Samples:
    """Land use of Mato Grosso, MODIS, agricultural years 2000 to 2015; without the classes of one place."""
    table = pd.read_parquet(data / "modis_mato_grosso_9classes_6bands.parquet")
    # All Forest lies within 3 km and all Soy_Fallow in two spots: no split in space can test them.
    table[~table["label"].isin(["Forest", "Soy_Fallow"])].to_parquet(scratch / "mato_grosso.parquet")
    return ck.read_series(
        scratch / "mato_grosso.parquet",
        bands=["RED", "NIR", "BLUE", "MIR", "ndvi", "evi"],
    )


STUDIES = {
    "corsica": Study(corsica, {"by": "blocks", "block": 10_000.0}, "blocks of 10 km"),
    "canada": Study(canada, {"by": "groups"}, "cells of H3 level 3, about 12,000 km2"),
    "mato_grosso": Study(mato_grosso, {"by": "blocks", "block": 25_000.0}, "blocks of 25 km"),
}


def scored(
    study: Study, samples: Samples, options: argparse.Namespace
) -> Iterator[tuple[str, str, Accuracy, float]]:
    """Yield kind of split, method, accuracy and seconds of training, fold by fold."""
    for kind, how in (("grouped", study.split), ("random", {"by": "random"})):
        for number, (train, valid, test) in enumerate(ck.folds(samples, k=options.folds, seed=0, **how)):
            majority = baselines.majority(train, test)
            yield kind, "majority", assess(test.y, majority, test.classes), 0.0
            start = process_time()
            forest = baselines.random_forest(train, test, trees=500)
            yield kind, "random forest", assess(test.y, forest, test.classes), process_time() - start
            for network in NETWORKS:
                start = process_time()
                model = ck.fit(
                    network,
                    train,
                    valid,
                    epochs=options.epochs,
                    batch=64,
                    patience=12,
                    learning_rate=1e-3,
                    seed=number,
                    progress=False,
                    **SETTINGS[network],
                )
                yield kind, network, model.score(test), process_time() - start


def table_of(found: dict[tuple[str, str], list[tuple[Accuracy, float]]]) -> str:
    """Write means and standard deviations over the folds."""
    lines = [
        "| method | overall, grouped | macro F1, grouped | overall, random | macro F1, random | CPU s |",
        "|---|---|---|---|---|---|",
    ]
    for method in ("majority", "random forest", *NETWORKS):
        cells = [method]
        for kind in ("grouped", "random"):
            runs = [accuracy for accuracy, _ in found[kind, method]]
            for name in ("overall", "macro_f1"):
                values = np.array([getattr(run, name) for run in runs])
                cells.append(f"{values.mean():.3f} ± {values.std(ddof=1):.3f}")
        seconds = np.mean([spent for kind in ("grouped", "random") for _, spent in found[kind, method]])
        lines.append("| " + " | ".join([*cells, f"{seconds:.1f}"]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run the studies asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", default=",".join(STUDIES))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    shared = Path(os.environ.get("CUBEKIT_SHARED", "../shared")) / "data" / "pixel_series"
    if not shared.is_dir():
        sys.exit(f"There are no tables at {shared}: set CUBEKIT_SHARED to the folder that holds data/.")
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread; at most "
        f"{options.epochs} epochs, patience 12, batch 64; mean ± standard deviation of {options.folds} folds"
    )
    for name in options.tables.split(","):
        study = STUDIES[name]
        with TemporaryDirectory() as scratch:
            samples = study.read(shared, Path(scratch))
        found: dict[tuple[str, str], list[tuple[Accuracy, float]]] = defaultdict(list)
        for kind, method, accuracy, seconds in scored(study, samples, options):
            found[kind, method].append((accuracy, seconds))
            told = f"{name}, {kind}, {method}: {accuracy.overall:.3f} {accuracy.macro_f1:.3f} {seconds:.1f} s"
            print(told, file=sys.stderr, flush=True)
        print(f"\n## {name}: grouped by {study.said}\n\n{samples!r}\n\n{table_of(found)}", flush=True)
        for method in ("random forest", "lstm"):
            runs = [accuracy for accuracy, _ in found["grouped", method]]
            total = Accuracy(classes=runs[0].classes, confusion=sum(run.confusion for run in runs))
            print(f"\n{method}, all grouped folds together\n\n```\n{total.table()}\n```", flush=True)


if __name__ == "__main__":
    main()
