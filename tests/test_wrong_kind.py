"""Arguments of the wrong kind, as they slip in when calls are typed: each error names the next step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import cubekit as ck
from cubekit.errors import CubekitError

LOOSE: Any = ck  # the type checker would find these mistakes too


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: LOOSE.open_cube("items.json"), "cubekit.open_items"),
        (lambda: LOOSE.open_cube(Path("items.json")), "cubekit.open_items"),
        (lambda: LOOSE.open_cube(ck.open_items([]), "EPSG:32633"), "cubekit.grid"),
        (lambda: LOOSE.split(np.zeros(3), xr.Dataset()), "cubekit.open"),
        (lambda: LOOSE.grid(crs="EPSG:32633", resolution=10, bbox="1,2,3,4"), "four numbers"),
        (lambda: LOOSE.grid(crs="EPSG:32633", resolution=10, bbox=(1, 2, 3)), "four numbers"),
        (lambda: LOOSE.grid(crs="EPSG:32633", resolution="10 m", bbox=(1, 2, 3, 4)), "units of the CRS"),
    ],
)
def test_the_cube_half(call: Callable[[], object], said: str) -> None:
    with pytest.raises(CubekitError, match=said):
        call()


@pytest.mark.torch
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: LOOSE.fit("tempcnn", xr.Dataset()), "cubekit.split"),
        (lambda: LOOSE.batches(xr.Dataset()), "cubekit.split"),
        (lambda: LOOSE.predict("model", "cube.zarr"), "cubekit.open"),
    ],
)
def test_the_learning_half(call: Callable[[], object], said: str) -> None:
    pytest.importorskip("torch")
    with pytest.raises(CubekitError, match=said):
        call()
