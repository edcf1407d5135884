"""Seven fusion networks beside their baselines on real Landsat and MODIS pairs, with a small CPU budget.

``python -m benchmarks.studies.fusion`` reads the sets below ``CUBEKIT_SHARED``, trains every network on the
first pairs of dates, predicts the last date as a whole scene, and prints eleven scores, weights and seconds,
then what cutting the scene into windows does. ``--set kranj`` takes the small set; ``--networks`` a few;
``--times 10`` ten times the epochs. Models stay in ``--out``: finished ones are not trained again.
"""

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

import cubekit as ck
from benchmarks.studies.fusion_pairs import SETS
from cubekit.batching.pair_splits import split_pairs
from cubekit.batching.pairs import Pair
from cubekit.pipeline.fuse.job import compare_on
from cubekit.pipeline.fuse.spec import FusePipeline
from cubekit.pipeline.result import Workplace
from cubekit.training.bundle import Model
from cubekit.typing import FloatArray

VISITS = 2
"""Noise levels that STFDiff goes through; 50 as published take 25 times as long."""

WINDOW, PART = 128, 224
"""Two windows, a quarter of them shared, and the rows and columns that they cover: to look for seams."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """How a set is cut, and how much is spent on each network."""

    patch: int
    epochs: Mapping[str, int]
    stride: int | None = None


STUDIES: Mapping[str, Study] = {
    "2016": Study(
        patch=64,
        epochs={"edcstfn": 16, "ecpw_stfn": 10, "gan_stfm": 5, "srsf_gan": 2, "mlff_gan": 5, "stfdiff": 4,
                "swinstfm": 2},
    ),
    "kranj": Study(
        patch=32,
        stride=4,
        epochs={"edcstfn": 20, "ecpw_stfn": 15, "gan_stfm": 8, "mlff_gan": 8, "srsf_gan": 4, "stfdiff": 4,
                "swinstfm": 2},
    ),
}  # fmt: skip


def main() -> None:
    """Run a study and print its tables."""
    options = _options()
    study, pairs = STUDIES[options.set], SETS[options.set]
    shared, title = os.environ.get("CUBEKIT_SHARED"), pairs.layout.name
    if not shared or not (Path(shared) / "data" / title).is_dir():
        sys.exit(f"CUBEKIT_SHARED={shared!r} holds no data/{title}: set it to where the sets lie.")
    torch.set_num_threads(options.threads)
    split = split_pairs(pairs.ready(Path(shared) / "data"), valid=0, test=1)
    networks = options.networks.split(",") if options.networks else list(study.epochs)
    where = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    print(f"{split!r}; {where}", flush=True)
    spec = _spec(study, title, networks, times=options.times, threads=options.threads)
    result = compare_on(split, spec, Workplace(options.out / options.set), networks)
    print(result.table())
    if min(split.test.fine.shape[-2:]) < PART:
        return  # one window holds the scene
    for name in networks:
        print(_seams(ck.load_model(result.folder / "log" / title / name), split.test[-1], name))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=sorted(STUDIES), default="2016")
    parser.add_argument("--out", type=Path, default=Path("runs/fusion-study"))
    parser.add_argument("--networks", default="")
    parser.add_argument("--times", type=int, default=1, help="multiplies the epochs of every network")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _spec(study: Study, title: str, networks: list[str], *, times: int, threads: int) -> FusePipeline:
    return FusePipeline.model_validate(
        {
            "title": title,
            "task": "fuse",
            "data": {"name": title, "set": "-", "root": "-"},
            "train": {
                "networks": networks,
                "patch": study.patch,
                "stride": study.stride,
                "batch": 2,
                "epochs_of": {name: times * study.epochs[name] for name in networks},
                "arguments": {"stfdiff": {"visits": VISITS}} if "stfdiff" in networks else {},
                "threads": threads,
            },
        }
    )


def _seams(model: Model, pair: Pair, name: str) -> str:
    """Compare windows with the scene at once, or steps across their borders with all others."""
    part = replace(pair, **{key: image[:, :PART, :PART] for key, image in pair.images.items()})
    small = ck.fuse_pair(model, part, window=WINDOW).compute().to_numpy()
    if name == "edcstfn":
        whole = model.apply({key: image[None] for key, image in part.load().items() if key != "fine_t2"})
        apart = np.nanmax(np.abs(small - whole["predicted"][0]))
        return f"{name}: windows of 128 px differ from one shot by {apart:.1e} at most"
    truth = part.fine_t2.compute().to_numpy()
    steps = [_step(image) for image in (small, truth)]
    return (
        f"{name}: largest step across a window border {steps[0][0]:.2f} of the mean step elsewhere, largest "
        f"elsewhere {steps[0][1]:.2f}; in the true image {steps[1][0]:.2f} and {steps[1][1]:.2f}"
    )


def _step(image: FloatArray) -> tuple[float, float]:
    """Mean step across each line between pixels: the largest at the borders of windows, and elsewhere."""
    lines = [np.nanmean(np.abs(np.diff(image, axis=1 + axis)), axis=(0, 2 - axis)) for axis in (0, 1)]
    at = np.isin(np.arange(PART - 1), [PART - WINDOW - 1, WINDOW - 1])
    border, elsewhere = (np.concatenate([line[mask] for line in lines]) for mask in (at, ~at))
    return float(border.max() / elsewhere.mean()), float(elsewhere.max() / elsewhere.mean())


if __name__ == "__main__":
    main()
