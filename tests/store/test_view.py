"""Parts of stored variables against what Dask computes from the same selection."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.testing as npt
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.store.open import open_store
from cubekit.store.view import stored_view
from cubekit.store.write import write

Select = Callable[[xr.DataArray], xr.DataArray]


@pytest.fixture(
    scope="module", params=[{"time": 6, "band": 3, "y": (16, 48), "x": 32}, {"time": 2, "band": 1}]
)
def data(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> xr.DataArray:
    """A stored variable in two layouts, several blocks along rows and columns."""
    values = np.random.default_rng(0).integers(0, 9999, (6, 3, 100, 70)).astype("uint16")
    box = GeoBox((100, 70), Affine(10, 0, 4e5, 0, -10, 4.5e6), "EPSG:32630")
    cube = xr.Dataset({"data": (("time", "band", "y", "x"), values, {"_FillValue": np.uint16(0)})})
    times = pd.date_range("2023-01-01", periods=6, freq="MS")
    cube = cube.assign_coords(xr_coords(box) | {"time": times, "band": ["a", "b", "c"]})
    path: Path = tmp_path_factory.mktemp("store") / "cube.zarr"
    write(cube, path, layout=request.param, progress=False)
    return open_store(path)["data"]


@pytest.mark.parametrize(
    "select",
    [
        lambda data: data,
        lambda data: data.sel(band=["c", "a"]),
        lambda data: data.isel(y=slice(7, 93), x=slice(40)),
        lambda data: data.isel(band=[1], time=slice(1, 5), y=slice(50, None)).sel(band=["b"]),
        lambda data: data.isel(time=slice(1, 6, 2)).isel(band=[2, 0]).isel(x=slice(33, 60)),
    ],
)
def test_a_selection_is_read_straight_from_its_store(select: Select, data: xr.DataArray) -> None:
    chosen = select(data)
    view = stored_view(chosen.data)
    assert view is not None
    assert (view.shape, view.dtype) == (chosen.shape, chosen.dtype)
    lead = tuple(slice(0, size) for size in chosen.shape[:-2])
    for rows, columns in ((slice(0, chosen.sizes["y"]), slice(0, 5)), (slice(3, 31), slice(9, 20))):
        found = pickle.loads(pickle.dumps(view))[(*lead, rows, columns)]  # noqa: S301  (our own)
        npt.assert_array_equal(found, chosen.isel(y=rows, x=columns).to_numpy())


@pytest.mark.parametrize(
    "select",
    [
        lambda data: data + 1,
        lambda data: data.astype("float32"),
        lambda data: data.isel(y=slice(None, None, 2)),
        lambda data: data.isel(y=slice(None, None, -1)),
        lambda data: data.isel(x=[3, 5, 6]),
        lambda data: data.transpose("band", "time", "y", "x"),
        lambda data: data.isel(y=slice(0)),
        lambda data: xr.concat([data, data], "time"),
    ],
)
def test_anything_else_is_left_to_dask(select: Select, data: xr.DataArray) -> None:
    assert stored_view(select(data).data) is None
