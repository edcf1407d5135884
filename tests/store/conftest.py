"""Small cubes on a real grid, and a digest of everything in a store."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import numpy as np
import odc.geo.xr
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox

CubeMaker = Callable[..., xr.Dataset]


@pytest.fixture(scope="session")
def make_cube() -> CubeMaker:
    """Return a maker of integer cubes with companions; times have milliseconds, bands names."""

    def make(
        *,
        times: int = 4,
        bands: int = 3,
        side: tuple[int, int] = (90, 110),
        chunk: int | None = 32,
        seed: int = 0,
    ) -> xr.Dataset:
        rng = np.random.default_rng(seed)
        data = rng.integers(1, 9000, (times, bands, *side)).astype("uint16")
        data[rng.random(data.shape) < 0.1] = 0
        box = GeoBox(side, Affine(10.0, 0, 500_000, 0, -10.0, 4_007_000), "EPSG:32630")
        cube = xr.Dataset(
            {
                "data": (("time", "band", "y", "x"), data),
                "observations": (("time", "y", "x"), rng.integers(0, 5, (times, *side)).astype("uint16")),
                "filled": (("time", "y", "x"), rng.random((times, *side)) < 0.5),
                "elevation": (("y", "x"), rng.normal(300, 50, side).astype("float32")),
            },
            coords={
                "time": pd.date_range("2020-01-01T10:30:31.024", periods=times, freq="16D").as_unit("ns"),
                "band": [f"B{band:02}" for band in range(bands)],
                "wavelength": ("band", np.linspace(0.4, 2.2, bands)),
                **odc.geo.xr.xr_coords(box),
            },
            attrs={"title": "a cube", "items": ["scene-1", "scene-2"]},
        )
        cube["data"].attrs = {"_FillValue": np.uint16(0), "scale_factor": 1e-4, "add_offset": -0.1}
        for name in cube.data_vars:
            cube[name].encoding["grid_mapping"] = "spatial_ref"
        return cube if chunk is None else cube.chunk({"y": chunk, "x": chunk})

    return make


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """Return an empty folder in memory where there is one: disks take milliseconds to sync a file."""
    memory = Path("/dev/shm")  # noqa: S108
    folder = Path(mkdtemp(prefix="cubekit-", dir=memory if memory.is_dir() else None))
    yield folder
    rmtree(folder)


def tree_digest(folder: Path) -> str:
    """Return one SHA-256 over the names and bytes of all files of a store."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(folder).as_posix().encode() + b"\0")
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


@pytest.fixture(scope="session")
def digest() -> Callable[[Path], str]:
    """Return the digest of a folder."""
    return tree_digest
