"""Predictions whose workers die: healed, and the map is the same."""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import numpy.testing as npt
import pandas as pd
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.prediction.predict import predict
from cubekit.typing import FloatArray

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Deadly:
    """Kills its process with SIGKILL the first time that a bright pixel comes."""

    grave: Path | None = None

    @property
    def card(self) -> Any:
        names = ("dark", "bright")
        return SimpleNamespace(
            classes=SimpleNamespace(names=names, colours=("#000000", "#ffffff"), codes=(1, 2))
        )

    def digest(self) -> str:
        return "deadly"

    def select(self, cube: xr.Dataset) -> xr.Dataset:
        return cube

    def probabilities(self, x: FloatArray) -> FloatArray:
        if self.grave is not None and x.max() > 9000 and not self.grave.exists():
            self.grave.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        share = np.clip(x[:, 0, 0] / 10000, 0, 1)
        return np.stack([1 - share, share], axis=1).astype("float32")


def test_a_worker_killed_in_the_middle_is_replaced(tmp_path: Path) -> None:
    stored = np.random.default_rng(0).integers(1, 5000, (1, 1, 600, 600)).astype("uint16")
    stored[0, 0, 400, 500] = 9999
    box = GeoBox((600, 600), Affine(10, 0, 4e5, 0, -10, 4.5e6), "EPSG:32630")
    coords = xr_coords(box) | {"time": pd.date_range("2023-01-01", periods=1), "band": ["red"]}
    cube = (
        xr.Dataset({"data": (("time", "band", "y", "x"), stored)})
        .assign_coords(coords)
        .chunk({"y": 300, "x": 300})
    )
    expected = predict(Deadly(), cube).compute()
    grave = tmp_path / "grave"
    found = predict(
        Deadly(grave),
        cube,
        out=tmp_path / "map.zarr",
        scheduler="processes",
        workers=2,
        tile=300,
        progress=False,
    )
    assert grave.exists(), "a worker has died"
    for name in ("class", "probability"):
        npt.assert_array_equal(found[name].to_numpy(), expected[name].to_numpy())
