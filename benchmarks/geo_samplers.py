"""Patches drawn from the scenes themselves by torchgeo, which lies in a folder of its own.

torchgeo needs torchvision, of which package indexes often hold builds for GPUs only; beside torch for CPUs
such a build breaks torchmetrics. Here it is put on the path of this one case, and the operators it lacks are
declared, never called.
"""

import sys
import tempfile
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.inputs import BANDS, DATES, Inputs
from benchmarks.measure import Clock, Facts

SITE = Path(sys.prefix) / "torchgeo"
"""Where ``make bench`` installs it."""

BATCH, SAMPLES = 8, 24


def torchgeo_version() -> str | None:
    """Return the version that is installed there, if one is."""
    return next((found.version for found in distributions(name="torchgeo", path=[str(SITE)])), None)


def with_torchgeo(inputs: Inputs, clock: Clock, patch: int) -> Facts:
    """Draw patches of one date at random places; as many as the dates of the cube count as one patch."""
    import torch

    library: Any = torch.library.Library  # untyped
    sys.path.append(str(SITE))
    declared = library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        declared.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    datasets: Any = import_module("torchgeo.datasets")
    samplers: Any = import_module("torchgeo.samplers")
    with tempfile.TemporaryDirectory() as folder:
        _as_safe(inputs.folder / "archive", Path(folder))
        scenes = datasets.Sentinel2(folder, bands=BANDS, res=(10, 10))
        torch.manual_seed(0)

        def draw(count: int) -> int:
            loader = torch.utils.data.DataLoader(
                scenes,
                batch_size=BATCH,
                sampler=samplers.RandomGeoSampler(scenes, size=patch, length=count),
                collate_fn=datasets.stack_samples,
            )
            return sum(each["image"].numel() for each in loader)

        draw(1)
        with clock:
            values = draw(SAMPLES)
    patches = SAMPLES / DATES
    return {
        "check": float(values / patches),
        "patches_per_s": patches / clock.facts["wall"],
        "cpu_ms": clock.facts["cpu"] / patches * 1e3,
        "ms": clock.facts["wall"] / patches * 1e3,
    }


def _as_safe(archive: Path, folder: Path) -> None:
    """Link the files into folders named by resolution, as torchgeo expects Sentinel-2."""
    for path in archive.glob("*/*_B*m.tif"):
        target = folder / path.parent.name / f"R{path.stem.rsplit('_', 1)[1]}"
        target.mkdir(parents=True, exist_ok=True)
        (target / path.name).symlink_to(path.resolve())
