"""Forecasts of whole maps: seams, years that follow years, doubt."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

torch = pytest.importorskip("torch")

import cubekit as ck  # noqa: E402
from cubekit.errors import ModelMismatchError, OptionError  # noqa: E402
from cubekit.nn import create  # noqa: E402
from cubekit.nn.reach import Reach  # noqa: E402
from cubekit.prediction.rollout import forecast, hindcast  # noqa: E402
from cubekit.prediction.windows import apply_in_windows  # noqa: E402
from cubekit.training.bundle import Model  # noqa: E402
from cubekit.typing import FloatArray  # noqa: E402

pytestmark = pytest.mark.torch

WINDOW = 2


def cube_of(maps: FloatArray, *, first: int = 2001) -> xr.Dataset:
    """A cube of maps (t, y, x)."""
    box = GeoBox.from_bbox((0, 0, 30 * maps.shape[2], 30 * maps.shape[1]), "EPSG:32633", shape=maps.shape[1:])
    dates = np.array([f"{first + i}-01-01" for i in range(len(maps))], "M8[ns]")
    attrs = {"_FillValue": np.float32("nan"), "grid_mapping": "spatial_ref"}
    coords = {**xr_coords(box), "time": dates, "band": ["NDVI"]}
    return xr.Dataset({"data": (("time", "band", "y", "x"), maps[:, None].astype("float32"), attrs)}, coords)


@pytest.fixture(scope="module")
def maps() -> FloatArray:
    """Six maps of 50 x 43 pixels, neither side a multiple of 4, with one pixel never observed."""
    values = np.random.default_rng(0).normal(30, 5, (6, 50, 43)).astype("float32")
    values[:, 3, 4] = np.nan
    values[-1, 20, 20] = np.nan
    return values


@pytest.fixture(scope="module")
def model(maps: FloatArray) -> Model:
    """A network after one epoch, with dropout, on standardised values of about 30."""
    cube = cube_of(maps)
    split = ck.split_years(cube, window=WINDOW, patch=16)
    return ck.fit(
        "convlstm_unet",
        ck.year_batches(cube, split, "train", samples=8, batch=4),
        ck.year_batches(cube, split, "valid", samples=4, batch=4),
        epochs=1,
        normalise="standard",
        arguments={"dropout": 0.3},
        progress=False,
    )


def by_hand(model: Model, maps: FloatArray, steps: int = 1) -> FloatArray:
    """The whole map at once, sides grown to multiples of 4 as the predictor does, step by step."""
    past, found = maps[-WINDOW:], []
    for _ in range(steps):
        rows, columns = past.shape[1:]
        grown = np.pad(past, ((0, 0), (0, -rows % 4), (0, -columns % 4)), mode="reflect")
        newest = model.apply({"x": grown[None, :, None]})["predicted"][0, :rows, :columns]
        found.append(newest)
        past = np.concatenate([past[1:], newest[None]])
    return np.stack(found)


def test_tiles_equal_the_whole_map_in_the_unit_of_the_input(model: Model, maps: FloatArray) -> None:
    found = hindcast(model, cube_of(maps), [2005, 2006], tile=16)
    assert found["time"].dt.year.to_numpy().tolist() == [2005, 2006]
    for place, count in enumerate((4, 5)):
        expected = by_hand(model, maps[:count])[0]
        np.testing.assert_allclose(found["data"][place, 0], expected, atol=2e-4)
    assert np.isnan(found["data"][:, 0, 3, 4]).all()
    assert 20 < float(found["data"].mean()) < 40


def test_later_years_take_forecasts_as_input(model: Model, maps: FloatArray, tmp_path: Path) -> None:
    cube = ck.write(cube_of(maps), tmp_path / "cube.zarr", progress=False)
    found = forecast(model, cube, steps=3, out=tmp_path / "coming.zarr", progress=False)
    assert found["time"].to_numpy().astype("M8[D]").astype(str).tolist() == [
        "2007-01-01", "2008-01-01", "2009-01-01",
    ]  # fmt: skip
    assert set(found.data_vars) == {"data"}
    np.testing.assert_allclose(found["data"][:, 0], by_hand(model, maps, 3), atol=5e-4)
    again = ck.open(tmp_path / "coming.zarr")  # a cube like any other
    assert again["data"].dims == ("time", "band", "y", "x")


def test_doubt_grows_along_the_years(model: Model, maps: FloatArray) -> None:
    cube = cube_of(maps)
    found = forecast(model, cube, steps=2, passes=3).compute()
    single = [forecast(member, cube, steps=2).compute() for member in (model, model)]
    assert float(found["spread"].mean()) > 0
    pair: Any = forecast([model, model], cube, steps=2).compute()
    assert float(pair["spread"].max()) < 1e-5
    np.testing.assert_allclose(pair["data"], single[0]["data"], atol=1e-5)
    repeated = forecast(model, cube, steps=2, passes=3).compute()
    np.testing.assert_array_equal(found["data"], repeated["data"])  # drawn from seeds


def test_a_zone_is_kept(model: Model, maps: FloatArray) -> None:
    zone = xr.DataArray(np.arange(50 * 43).reshape(50, 43) % 2 == 0, dims=("y", "x"))
    found = forecast(model, cube_of(maps), zone=zone)["data"].to_numpy()[0, 0]
    assert np.isnan(found[~zone]).all()
    assert np.isfinite(found[zone.to_numpy() & np.isfinite(maps[-WINDOW:]).any(axis=0)]).all()


def test_blended_windows_stay_near_the_whole_map(model: Model, maps: FloatArray) -> None:
    cube = cube_of(maps)
    exact, blended = (forecast(model, cube, blend=each)["data"].to_numpy()[0, 0] for each in (None, 32))
    apart = np.abs(exact - blended)[np.isfinite(exact)]
    assert 0 < apart.mean() < 0.05 * np.nanstd(exact)
    with pytest.raises(OptionError, match="blend=0"):
        forecast(model, cube, blend=0)


def test_cosine_weights_of_neighbours_add_up_and_leave_less_of_a_seam() -> None:
    from cubekit.prediction.windows import plan_windows

    windows = plan_windows(Reach(halo=None, multiple=4), blend=32)
    spans = windows.spans(0, 96, 96)
    total = np.zeros(96)
    for span in spans:
        total[span.read] += windows.weights(span.read, 96)
    np.testing.assert_allclose(total, 1, atol=0.01)
    torch.manual_seed(0)
    network = create("convlstm_unet")
    with torch.no_grad():
        network(torch.rand(4, 2, 1, 16, 16))
    network.eval()

    def forward(images: Any) -> FloatArray:
        with torch.inference_mode():
            found: FloatArray = network(torch.from_numpy(images[0].copy())[None]).numpy()
        return found

    image = np.random.default_rng(0).random((2, 1, 96, 96), dtype=np.float32)
    whole = forward([image])
    exact = apply_in_windows(forward, [image], Reach(halo=22, multiple=4), side=32)
    np.testing.assert_allclose(exact, whole, atol=1e-5)


def test_what_cannot_be_forecast_is_refused(model: Model, maps: FloatArray) -> None:
    cube = cube_of(maps)
    with pytest.raises(ModelMismatchError, match="looks back on 2 years, the cube has 1"):
        forecast(model, cube.isel(time=slice(0, 1)))
    with pytest.raises(OptionError, match="missing"):
        forecast(model, cube.isel(time=[0, 1, 2, 4]))
    with pytest.raises(OptionError, match=r"not \[1999\]"):
        hindcast(model, cube, [1999])
    with pytest.raises(OptionError, match="steps=0"):
        forecast(model, cube, steps=0)
    with pytest.raises(OptionError, match="give out="):
        forecast(model, cube, workers=2)
    with pytest.raises(ModelMismatchError, match="does not forecast"):
        forecast(object(), cube)
    with pytest.raises(OptionError, match="drops nothing"):
        forecast(Model(create("convlstm_unet", steps=2), model.card), cube, passes=2)
