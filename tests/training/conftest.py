"""A small separable problem, and a model that has learned it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cubekit.batching.samples import Samples
from cubekit.cube.contract import Encoding
from cubekit.labels import ClassTable

if TYPE_CHECKING:
    from cubekit.training.bundle import Model

MONTHS = np.arange("2022-01", "2023-01", dtype="datetime64[M]").astype("datetime64[ns]")


def _samples(n: int, *, seed: int = 0, classes: int = 3) -> Samples:
    """Seasons with one, two or three peaks, as Sentinel-2 numbers, a fifth of the dates missing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    season = np.sin(np.arange(12)[None] / 12 * 2 * np.pi * (1 + y[:, None]))
    physical = 0.3 + 0.15 * season[:, :, None] * (1, -0.5) + rng.normal(0, 0.03, (n, 12, 2))
    stored = np.round((physical + 0.1) * 1e4).clip(1, 65535).astype("uint16")
    stored[rng.random((n, 12)) < 0.2] = 0
    return Samples(
        x=stored,
        y=y.astype("int16"),
        bands=("red", "nir"),
        times=MONTHS,
        classes=ClassTable.of(["bare soil", "crop", "double crop"], codes=[10, 20, 30]),
        group=np.arange(n),
        position=rng.uniform((500_000, 4_400_000), (505_000, 4_405_000), (n, 2)),
        crs="EPSG:32630",
        resolution=10.0,
        encoding=Encoding(dtype="uint16", nodata=0, scale=1e-4, offset=-0.1),
    )


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Keep torch's spinning threads from fighting with those of other test workers: seconds, not minutes."""
    pytest.importorskip("torch").set_num_threads(1)


@pytest.fixture(scope="session")
def make_samples() -> Callable[..., Samples]:
    return _samples


@pytest.fixture(scope="session")
def model() -> "Model":
    from cubekit.training.fit import fit

    return fit("tempcnn", _samples(400), _samples(150, seed=1), epochs=5, batch=64, progress=False)
