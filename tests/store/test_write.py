import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import rasterio
import rioxarray  # noqa: F401  (registers the accessor)
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cubekit.cube.contract import geobox_of, to_physical
from cubekit.errors import MissingDependencyError, OptionError, StoreError
from cubekit.store.layout import plan_layout
from cubekit.store.open import open_store
from cubekit.store.verify import verify
from cubekit.store.write import write

CubeMaker = Callable[..., xr.Dataset]


@pytest.mark.parametrize("use", ["series", "patches", "maps", {"y": (16, 48), "x": (16, 48), "time": 3}])
def test_what_is_written_is_read(use: Any, make_cube: CubeMaker, tmp_path: Path) -> None:
    cube = make_cube()
    opened = write(cube, tmp_path / "a.zarr", layout=use)
    xr.testing.assert_identical(opened.compute(), cube.compute())
    assert opened["data"].dtype == "uint16"
    assert opened["filled"].dtype == bool
    assert verify(tmp_path / "a.zarr").ok


def test_a_cube_in_memory_is_written(make_cube: CubeMaker, tmp_path: Path) -> None:
    cube = make_cube(chunk=None)
    xr.testing.assert_identical(write(cube, tmp_path / "a.zarr").compute(), cube)


def test_plain_xarray_decodes_numbers_dates_and_crs(make_cube: CubeMaker, tmp_path: Path) -> None:
    cube = make_cube()
    write(cube, tmp_path / "a.zarr")
    plain = xr.open_zarr(tmp_path / "a.zarr")
    np.testing.assert_allclose(plain["data"], to_physical(cube["data"], dtype="float64"))
    assert int(np.isnan(plain["data"]).sum()) == int((cube["data"] == 0).sum()) > 0
    assert (plain["time"] == cube["time"]).all()
    assert plain["band"].data.tolist() == ["B00", "B01", "B02"]
    for found in (plain.rio, plain["data"].rio, plain["elevation"].rio):
        assert found.crs.to_epsg() == 32630
        assert found.transform() == geobox_of(cube).affine
    assert plain["data"].encoding["_FillValue"] == 0


def test_dates_are_pinned_to_integer_microseconds(make_cube: CubeMaker, tmp_path: Path) -> None:
    cube = make_cube()
    write(cube, tmp_path / "a.zarr")
    time: Any = zarr.open_array(tmp_path / "a.zarr", path="time", mode="r")
    assert time.dtype == "int64"
    assert time.attrs["units"] == "microseconds since 1970-01-01"
    expected = cube["time"].data.astype("datetime64[us]").astype("int64")
    assert (time[:] == expected).all()
    assert expected[0] % 1_000_000 == 24_000
    assert open_store(tmp_path / "a.zarr")["time"].dtype == "datetime64[ns]"


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (pd.DatetimeIndex(["2020-01-01T00:00:00.000000001", "2021-01-01"]), "finer than a microsecond"),
        (pd.DatetimeIndex(["2020-01-01", None]), "NaT"),
    ],
)
def test_dates_that_would_change_are_refused(
    times: pd.DatetimeIndex, message: str, make_cube: CubeMaker, tmp_path: Path
) -> None:
    cube = make_cube(times=2).assign_coords(time=times)
    with pytest.raises(StoreError, match=message):
        write(cube, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_conventions_describe_the_grid(make_cube: CubeMaker, tmp_path: Path) -> None:
    cube = make_cube()
    write(cube, tmp_path / "a.zarr")
    attributes = json.loads((tmp_path / "a.zarr/zarr.json").read_bytes())["attributes"]
    assert attributes["proj:code"] == "EPSG:32630"
    assert attributes["spatial:transform"] == [10, 0, 500_000, 0, -10, 4_007_000]
    assert attributes["spatial:bbox"] == [500_000, 4_006_100, 501_100, 4_007_000]
    conventions = pytest.importorskip("zarr_cm")
    conventions.validate_many(attributes, ["proj", "spatial"])
    for name in ("proj", "spatial"):
        assert dict(conventions.convention_metadata(name)) in attributes["zarr_conventions"]


def test_a_crs_without_code_and_a_crs_from_attributes(make_cube: CubeMaker, tmp_path: Path) -> None:
    text = "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210000 +R=6370997 +units=m"
    cube = make_cube().drop_vars("spatial_ref").assign_attrs(crs=text)
    for dim in ("y", "x"):
        cube[dim].attrs.clear()
    for name in cube.data_vars:
        cube[name].encoding.clear()
    write(cube, tmp_path / "a.zarr")
    attributes = json.loads((tmp_path / "a.zarr/zarr.json").read_bytes())["attributes"]
    assert "PROJCRS" in attributes["proj:wkt2"]
    opened = xr.open_zarr(tmp_path / "a.zarr")
    assert opened["data"].rio.crs == rasterio.crs.CRS.from_string(text)


def test_every_chunk_is_an_object_even_if_it_is_all_nodata(make_cube: CubeMaker, tmp_path: Path) -> None:
    cube = make_cube()
    cube["data"] = xr.zeros_like(cube["data"]).assign_attrs(cube["data"].attrs)
    write(cube, tmp_path / "a.zarr", layout={"y": 32, "x": 32})
    files = [path for path in (tmp_path / "a.zarr/data/c").rglob("*") if path.is_file()]
    assert len(files) == 3 * 4


def test_predictions_without_time_are_stored_as_maps(make_cube: CubeMaker, tmp_path: Path) -> None:
    random = da.random.default_rng(1)  # type: ignore[no-untyped-call]
    codes = random.integers(0, 5, (90, 110), chunks=40).astype("uint8")
    share = random.integers(0, 250, (5, 90, 110), chunks=(5, 40, 40)).astype("uint8")
    cube = make_cube()
    prediction = xr.Dataset(
        {
            "class": (("y", "x"), codes, {"_FillValue": 255, "classes": ["a", "b"], "colours": ["#000000"]}),
            "probability": (("class_name", "y", "x"), share, {"_FillValue": 255, "scale_factor": 1 / 250}),
        },
        coords={
            "class_name": list("abcde"),
            "y": cube["y"],
            "x": cube["x"],
            "spatial_ref": cube["spatial_ref"],
        },
    )
    opened = write(prediction, tmp_path / "a.zarr")
    xr.testing.assert_identical(opened.compute(), prediction.compute())
    assert opened["class"].rio.crs.to_epsg() == 32630


@settings(max_examples=20, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 70), st.integers(1, 70)),
    source=st.integers(3, 80),
    sides=st.tuples(st.integers(1, 5), st.integers(7, 30), st.integers(1, 4)),
    kind=st.tuples(
        st.sampled_from(["uint8", "int16", "uint16", "float32", "float64", "bool"]), st.integers(0, 99)
    ),
)
def test_written_equals_read_for_any_shape_chunks_and_type(
    shape: tuple[int, ...],
    source: int,
    sides: tuple[int, int, int],
    kind: tuple[str, int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    values = np.random.default_rng(kind[1]).integers(0, 2, shape).astype(kind[0])
    steps, chunk, many = sides
    cube = xr.Dataset({"data": (("time", "band", "y", "x"), values)}).chunk(
        {"y": source, "x": source, "time": 2}
    )
    path = tmp_path_factory.mktemp("any") / "a.zarr"
    layout = plan_layout(cube, {"time": steps, "y": (chunk, chunk * many), "x": (chunk, chunk * many)})
    opened = write(cube, path, layout=layout)
    np.testing.assert_array_equal(opened["data"], values)
    np.testing.assert_array_equal(xr.open_zarr(path)["data"], values)
    assert verify(path).ok


def test_writing_again_does_nothing(
    make_cube: CubeMaker, tmp_path: Path, digest: Callable[[Path], str]
) -> None:
    write(make_cube(), tmp_path / "a.zarr")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    write(make_cube(), tmp_path / "a.zarr")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path != tmp_path} == {
        path: when for path, when in before.items() if path != tmp_path
    }


def test_nothing_is_left_beside_the_store(make_cube: CubeMaker, tmp_path: Path) -> None:
    write(make_cube(), tmp_path / "a.zarr")
    write(make_cube(seed=1), tmp_path / "a.zarr", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_another_cube_is_refused_with_the_difference(make_cube: CubeMaker, tmp_path: Path) -> None:
    write(make_cube(), tmp_path / "a.zarr")
    with pytest.raises(
        StoreError, match=r"(?s)overwrite=True.*coordinates\.band.*'B03'.*variables\.data\.shape"
    ):
        write(make_cube(bands=4), tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"variables\.data\.source"):
        write(make_cube(seed=1), tmp_path / "a.zarr")
    with pytest.raises(StoreError, match=r"variables\.data\.chunks"):
        write(make_cube(), tmp_path / "a.zarr", layout={"y": 32, "x": 32})
    with pytest.raises(StoreError, match=r"attributes\.title"):
        write(make_cube().assign_attrs(title="other"), tmp_path / "a.zarr")
    assert verify(tmp_path / "a.zarr").ok


def test_overwrite_replaces_and_a_failed_one_keeps_the_old(make_cube: CubeMaker, tmp_path: Path) -> None:
    path, old, new = tmp_path / "a.zarr", make_cube(), make_cube(seed=1)
    write(old, path, layout={"y": 32, "x": 32})
    calls = 0

    def failing(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise RuntimeError("no more")
        return block

    broken = new.assign(data=new["data"].copy(data=new["data"].data.map_blocks(failing, dtype="uint16")))
    with pytest.raises(StoreError, match=r"Region time 0:4.*RuntimeError: no more"):
        write(broken, path, overwrite=True, layout={"y": 32, "x": 32}, workers=1)
    assert verify(path).ok
    xr.testing.assert_identical(open_store(path).compute(), old.compute())
    write(new, path, overwrite=True, layout={"y": 32, "x": 32})
    xr.testing.assert_identical(open_store(path).compute(), new.compute())
    assert [found.name for found in tmp_path.iterdir()] == ["a.zarr"]


def test_a_store_can_be_rewritten_from_itself(make_cube: CubeMaker, tmp_path: Path) -> None:
    path, cube = tmp_path / "a.zarr", make_cube()
    opened = write(cube, path)
    changed = write(opened.assign(observations=opened["observations"] + 1), path, overwrite=True)
    np.testing.assert_array_equal(changed["observations"], cube["observations"] + 1)
    with pytest.raises(StoreError, match="replaced since it was opened"):
        opened["observations"].compute()


def test_a_link_to_a_store_stays_a_link(make_cube: CubeMaker, tmp_path: Path) -> None:
    write(make_cube(), tmp_path / "a.zarr")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "a.zarr")
    write(make_cube(seed=1), tmp_path / "link.zarr", overwrite=True)
    assert (tmp_path / "link.zarr").is_symlink()
    xr.testing.assert_identical(open_store(tmp_path / "a.zarr").compute(), make_cube(seed=1).compute())


def test_what_is_no_store_is_never_replaced(make_cube: CubeMaker, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/dear.txt").write_text("keep me")
    for path in (tmp_path / "letters", tmp_path / "letters/dear.txt"):
        with pytest.raises(StoreError, match="not a Zarr store"):
            write(make_cube(), path, overwrite=True)
    assert (tmp_path / "letters/dear.txt").read_text() == "keep me"


def test_a_foreign_store_is_replaced_on_demand_only(make_cube: CubeMaker, tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    zarr.create_array(path / "old", shape=(3,), dtype="i4")
    zarr.create_group(path)
    with pytest.raises(StoreError, match="did not write"):
        write(make_cube(), path)
    write(make_cube(), path, overwrite=True)
    assert verify(path).ok


def test_lazy_arrays_that_lie_are_refused(tmp_path: Path) -> None:
    lying = da.zeros((20, 20), chunks=10, dtype="uint8").map_blocks(lambda block: block + 0.5, dtype="uint8")
    with pytest.raises(StoreError, match=r"'data': float64 .* computed, uint8 .* expected"):
        write(xr.Dataset({"data": (("y", "x"), lying)}), tmp_path / "a.zarr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_FillValue": -9999}, "nodata -9999"),
        ({"_FillValue": np.nan}, "nodata nan"),
        ({"made by": object()}, "'made by' is a object"),
        ({"href": "https://a.example/b.tif?se=1&sig=abc"}, "signature or token"),
    ],
)
def test_attributes_that_cannot_be_kept(
    change: dict[str, Any], message: str, make_cube: CubeMaker, tmp_path: Path
) -> None:
    cube = make_cube()
    cube["data"].attrs |= change
    with pytest.raises(StoreError, match=message):
        write(cube, tmp_path / "a.zarr")


def test_attributes_of_numpy_become_json(make_cube: CubeMaker, tmp_path: Path) -> None:
    cube = make_cube()
    cube["elevation"].attrs = {
        "n": np.int16(3),
        "list": np.arange(2),
        "bad": np.nan,
        "_FillValue": np.float32(-1),
    }
    opened = write(cube, tmp_path / "a.zarr")
    assert opened["elevation"].attrs == {"n": 3, "list": [0, 1], "bad": "nan", "_FillValue": -1.0}


@pytest.mark.parametrize("name", ["../up", "a/b", "__a", ""])
def test_names_that_leave_the_store_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be stored"):
        write(xr.Dataset({name: (("y", "x"), np.zeros((4, 4)))}), tmp_path / "a.zarr")


def test_a_layout_for_another_cube_is_refused(make_cube: CubeMaker, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="plan_layout"):
        write(make_cube(), tmp_path / "a.zarr", layout=plan_layout(make_cube(bands=2)))


def test_a_path_that_cannot_be_written_is_said_before_reading(make_cube: CubeMaker) -> None:
    cube = make_cube()

    def never(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        raise AssertionError("a source was read")

    cube["data"] = cube["data"].copy(data=cube["data"].data.map_blocks(never, dtype="uint16"))
    for path in ("/proc/cubekit/a.zarr", "/proc/a.zarr"):
        with pytest.raises(StoreError, match=r"Cannot .*/proc"):
            write(cube, path)
    with pytest.raises((StoreError, MissingDependencyError), match=r"s3://|cubekit\[cloud\]"):
        write(cube, "s3://bucket/a.zarr")


def test_chunks_that_do_not_fit_are_warned_of(tmp_path: Path) -> None:
    images = da.zeros((40, 600, 600), chunks=(1, 600, 600), dtype="uint8")
    layout = plan_layout(cube := xr.Dataset({"data": (("time", "y", "x"), images)}), "series", memory="2MB")
    with pytest.warns(UserWarning, match="will be computed .* times"):
        write(cube, tmp_path / "a.zarr", layout=layout)


@pytest.mark.shared
def test_real_sentinel_2_series(shared: Path, tmp_path: Path) -> None:
    with xr.open_dataset(
        shared / "data/s2_slovenia_eopatch/s2_l1c_13bands_5dates.nc",
        mask_and_scale=False,
        decode_coords="all",
    ) as scenes:
        bands = [name for name in scenes.data_vars if scenes[name].ndim == 3]
        attributes = scenes[bands[0]].attrs
        data = scenes[bands].to_dataarray("band", name="data").transpose("time", "band", "y", "x").load()
    data.attrs = attributes
    opened = write(data.to_dataset(), tmp_path / "a.zarr")
    np.testing.assert_array_equal(opened["data"], data)
    plain = xr.open_zarr(tmp_path / "a.zarr")["data"]
    np.testing.assert_allclose(plain, data * attributes["scale_factor"], rtol=1e-6)
    assert plain.rio.crs.to_epsg() == 32633
