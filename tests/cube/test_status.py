"""Every pixel of every band and date ends with a status, and what failed is named, also from a store."""

import pickle
import re
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pystac
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox

import cubekit
from cubekit.cube.composite import composite
from cubekit.cube.contract import MAIN
from cubekit.cube.cost import plan
from cubekit.cube.fuse import FailedReadWarning
from cubekit.cube.gdal import GDAL_SETTINGS
from cubekit.cube.indices import add_indices
from cubekit.cube.load import open_cube
from cubekit.cube.reader import read_values
from cubekit.cube.status import EMPTY, FAILED, MASKED, MISSING, OUTSIDE, READ, STATUS, read_status
from cubekit.errors import CubeError, OptionError
from cubekit.sources.signing import register_signer
from cubekit.store.open import open_store
from cubekit.store.write import write
from cubekit.testing.servers import Fault, file_server

TEN = GeoBox.from_bbox((400_000, 4_400_000, 400_960, 4_400_640), "EPSG:32630", resolution=10)  # 64 x 96
LEFT, RIGHT = TEN[:, :48], TEN[:, 48:]
pytestmark = pytest.mark.filterwarnings("ignore::cubekit.cube.scenes.MissingAssetWarning")


def full(value: int, box: GeoBox = TEN, dtype: str = "uint16") -> Any:
    return np.full(box.shape, value, dtype), box


def asset(item: pystac.Item, key: str) -> Path:
    return Path(item.assets[key].href)


def status_of(cube: xr.Dataset) -> Any:
    with dask.config.set(scheduler="synchronous"):
        return cube[STATUS].values


def test_every_pixel_has_its_reason(make_item: Any, as_items: Any) -> None:
    quality, values = full(4, LEFT, "uint8"), full(500, LEFT)
    quality[0][:10] = 9  # clouds
    values[0][10:20] = 0  # nodata
    item = make_item("S2A_a", "2023-05-01", {"B04": values, "B08": full(7, LEFT), "SCL": quality},
                     properties={"s2:processing_baseline": "05.10"})  # fmt: skip
    items = as_items([item], "sentinel-2-l2a")
    cube = open_cube(
        items, TEN, bands=["B04", "B08"], mask="clouds", on_error="record", chunks={"y": 15, "x": 40}
    )
    red, nir = status_of(cube)[0]
    assert (red[:, 48:] == OUTSIDE).all()
    assert (red[:10, :48] == MASKED).all()
    assert (red[10:20, :48] == EMPTY).all()
    assert (red[20:, :48] == READ).all()
    assert (nir[10:, :48] == READ).all()
    np.testing.assert_array_equal(cube[MAIN].values[0] != 0, status_of(cube)[0] == READ)


def test_missing_assets_and_failed_reads_are_noted_where_nothing_else_has_data(make_item: Any) -> None:
    first = make_item("a", "2023-05-01", {"red": full(1, LEFT), "nir": full(1, LEFT)})
    second = make_item("b", "2023-05-01T01:00", {"red": full(2)})
    asset(first, "red").unlink()
    cube = open_cube([first, second], TEN, on_error="record")
    with pytest.warns(FailedReadWarning, match="item 'a', asset 'red'"):
        red, nir = status_of(cube)[0]
    assert (red == READ).all()  # the second scene has the pixels
    assert (nir[:, :48] == READ).all()
    assert (nir[:, 48:] == MISSING).all()
    asset(second, "red").unlink()
    with pytest.warns(FailedReadWarning):
        red = status_of(cube)[0, 0]
    assert (red == FAILED + 1).all()  # the gravest: the second scene covers everything


def test_a_quality_band_that_fails_takes_its_scene_out_and_says_so(make_item: Any, as_items: Any) -> None:
    bands = {"B04": full(500), "SCL": full(4, dtype="uint8")}
    item = make_item("S2A_a", "2023-05-01", bands, properties={"s2:processing_baseline": "05.10"})
    asset(item, "SCL").write_bytes(b"no raster")
    items = as_items([item], "sentinel-2-l2a")
    cube = open_cube(items, TEN, bands=["B04"], mask="clouds", on_error="record")
    with pytest.warns(FailedReadWarning, match="asset 'SCL'"):
        assert (status_of(cube) == FAILED).all()


def test_failures_are_named_from_lazy_cubes_parts_and_stores(make_item: Any, tmp_path: Path) -> None:
    items = [make_item(n, f"2023-05-0{d}", {"red": full(d), "nir": full(d)})
             for n, d in (("a", 1), ("b", 2), ("c", 2))]  # fmt: skip
    for key, item in (("red", items[1]), ("red", items[2]), ("nir", items[0])):
        asset(item, key).write_bytes(b"II*\0 cut off")
    cube = open_cube(items, TEN, on_error="record", chunks={"time": 1, "y": 32, "x": 48})
    with pytest.warns(FailedReadWarning):
        stored = write(cube, tmp_path / "cube.zarr", progress=False)
    for found in (stored, open_store(tmp_path / "cube.zarr")):
        report = read_status(found)
        assert [(str(f.time)[:10], f.band, f.item, f.pixels) for f in report.failures] == [
            ("2023-05-01", "nir", "a", TEN.shape.x * TEN.shape.y),
            ("2023-05-02", "red", "c", TEN.shape.x * TEN.shape.y),
        ]
        assert not report.ok
        assert report.pixels == {"outside": 0, "read": 2 * 6144, "empty": 0, "masked": 0, "missing": 0,
                                 "failed": 2 * 6144}  # fmt: skip
        assert "failed: 2023-05-02 red: item 'c', 6,144 pixels" in str(report)
    part = read_status(stored.isel(time=slice(1, 2), x=slice(10, 20)))
    assert [f.item for f in part.failures] == ["c"]
    assert stored[STATUS].attrs["flag_meanings"].split()[:6] == list(cubekit.cube.status.NAMES)


def test_values_and_status_come_from_one_read(make_item: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [make_item(f"i{d}", f"2023-05-0{d}", {"red": full(d)}) for d in (1, 2)]
    reads: list[str] = []

    def counted(source: Any, *arguments: Any) -> Any:
        reads.append(source.item)
        return read_values(source, *arguments)

    monkeypatch.setattr("cubekit.cube.ahead.read_values", counted)
    cube = open_cube(items, TEN, on_error="record", chunks={"time": 1})
    cube.compute(scheduler="synchronous")
    assert len(reads) == 2
    known = plan(cube)
    assert known.windows == 2
    assert known.outputs[STATUS] == known.outputs[MAIN] // 2


def test_status_stands_in_nobodys_way(make_item: Any) -> None:
    coding = {"scale": 1e-4, "offset": -0.1}
    item = make_item("a", "2023-05-01", {"red": full(3000), "nir": full(6000)}, coding=coding)
    cube = open_cube([item], TEN, on_error="record")
    assert STATUS not in composite(cube)
    assert STATUS not in add_indices(cube, "NDVI")
    assert pickle.loads(pickle.dumps(cube)).identical(cube)  # noqa: S301  (our own)


def test_a_cube_without_status_says_how_to_get_one(make_item: Any) -> None:
    cube = open_cube([make_item("a", "2023-05-01", {"red": full(1)})])
    assert STATUS not in cube
    with pytest.raises(CubeError, match="on_error='record'"):
        read_status(cube)
    with pytest.raises(OptionError, match="expected Dataset"):
        read_status("cube.zarr")  # type: ignore[arg-type]


def login_page(path: Path) -> list[Fault]:
    path.write_bytes(b"<html>please log in</html>")
    return []


def other_file(path: Path) -> list[Fault]:
    path.write_bytes(path.with_name("other_red.tif").read_bytes())
    return []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: [Fault(path=f"/{path.name}", status=503)],
        lambda path: [Fault(path=f"/{path.name}", short=0.4)],
        login_page,
        other_file,
    ],
    ids=["503 for ever", "short bodies", "login page", "swapped file"],
)
def test_failures_of_a_server_are_recorded_without_signature(
    make_item: Any, as_items: Any, tmp_path: Path, spoil: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBEKIT_ALLOW_HOSTS", "127.0.0.1")
    monkeypatch.setattr("cubekit.cube.reader.time.sleep", lambda _: None)
    monkeypatch.setitem(GDAL_SETTINGS, "GDAL_HTTP_MAX_RETRY", "0")
    register_signer("status-test", lambda href, *, fresh=False: f"{href}?sig=SECRET{fresh}")
    make_item("other", "2023-05-09", {"red": full(9, LEFT)})
    items = [make_item(n, f"2023-05-0{d}", {"red": full(d)}) for n, d in (("a", 1), ("b", 2))]
    with file_server(tmp_path, faults=spoil(asset(items[1], "red"))) as server:
        for item in items:
            item.assets["red"].href = f"{server.url}/{asset(item, 'red').name}"
        cube = open_cube(as_items(items, signer="status-test"), TEN, on_error="record")
        with pytest.warns(FailedReadWarning) as caught:
            report = read_status(cube.compute(scheduler="synchronous"))
        assert sum(request["path"] == "/b_red.tif" for request in server.requests()) < 20
    assert [f.item for f in report.failures] == ["b"]
    said = str(report) + "".join(str(warning.message) for warning in caught) + str(cube.attrs)
    assert "SECRET" not in said
    assert re.search("item 'b', asset 'red'", said)
