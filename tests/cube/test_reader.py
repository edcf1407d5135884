"""Pixels against rasterio: windows where nothing is resampled, GDAL's warper or exact PROJ where it is."""

import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import rasterio.warp
import rioxarray  # noqa: F401  (registers the accessor)
import xarray as xr
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from scipy.ndimage import map_coordinates

from cubekit.cube import reader
from cubekit.cube.gdal import GDAL_SETTINGS
from cubekit.cube.places import Positions
from cubekit.cube.reader import Form, Source, drivers_for, read_onto
from cubekit.cube.resample import Pixels, Window, sample_bilinear
from cubekit.errors import MetadataMismatchError, SourceError
from cubekit.sources.signing import register_signer

SOUTH_UP = GeoBox((53, 37), Affine(10, 0, 400_000, 0, 10, 4_400_000), "EPSG:32630")
NORTH_UP = GeoBox((53, 37), Affine(10, 0, 400_000, 0, -10, 4_400_530), "EPSG:32630")
ROTATED = GeoBox((53, 37), Affine(8, 3, 400_000, 3, -8, 4_400_530), "EPSG:32630")
ONE_PIXEL = GeoBox((1, 1), Affine(10, 0, 400_100, 0, -10, 4_400_300), "EPSG:32630")
WIDE = GeoBox((500, 600), Affine(10, 0, 400_000, 0, -10, 4_405_000), "EPSG:32630")


def numbers(box: GeoBox, dtype: str = "uint16", seed: int = 0) -> npt.NDArray[Any]:
    values = np.random.default_rng(seed).integers(1, 10_000, box.shape.yx)
    values[np.random.default_rng(seed + 1).random(box.shape.yx) < 0.1] = 0
    return values.astype(dtype)


def source(path: Path | str, box: GeoBox, dtype: str = "uint16", **form: Any) -> Source:
    options: dict[str, Any] = {"nodata": 0, "drivers": ("GTiff",)} | form
    return Source(href=str(path), form=Form(geobox=box, dtype=dtype, **options), item="S1", asset="red")


def stored(found: Pixels) -> npt.NDArray[Any]:
    return np.where(found.valid, found.values, 0)


def by_gdal(path: Path, target: GeoBox, kernel: str) -> npt.NDArray[Any]:
    with rasterio.open(path) as file:
        out = np.zeros(target.shape.yx, file.dtypes[0])
        rasterio.warp.reproject(
            rasterio.band(file, 1),
            out,
            src_nodata=0,
            dst_nodata=0,
            dst_transform=target.transform,
            dst_crs=str(target.crs),
            resampling=Resampling[kernel],
        )
    return out


def exact_nearest(values: npt.NDArray[Any], box: GeoBox, target: GeoBox) -> npt.NDArray[Any]:
    """Look up each pixel centre through PROJ, one by one."""
    a, inverse = target.transform, ~box.transform
    x = a.c + (np.arange(target.shape.x) + 0.5) * a.a
    y = a.f + (np.arange(target.shape.y) + 0.5) * a.e
    there = Transformer.from_crs(str(target.crs), str(box.crs), always_xy=True)
    x, y = there.transform(*np.meshgrid(x, y))
    col = np.floor(inverse.a * x + inverse.b * y + inverse.c).astype(int)
    row = np.floor(inverse.d * x + inverse.e * y + inverse.f).astype(int)
    inside = (col >= 0) & (col < box.shape.x) & (row >= 0) & (row < box.shape.y)
    return np.where(inside, values[np.where(inside, row, 0), np.where(inside, col, 0)], 0)


@pytest.mark.parametrize(
    "box", [NORTH_UP, SOUTH_UP, ROTATED, ONE_PIXEL], ids=["north", "south", "rot", "one"]
)
@pytest.mark.parametrize("resolution", [10, 5, 20, 7.3])
def test_nearest_equals_gdal_in_one_crs(write_raster: Any, box: GeoBox, resolution: float) -> None:
    values = numbers(box)
    path = write_raster("a.tif", values, box)
    left, bottom, right, top = box.boundingbox.bbox
    # Off the edges of source pixels, where rounding would decide.
    target = GeoBox.from_bbox(
        (left - 33.3, bottom - 21.7, right + 40, top + 50), box.crs, resolution=resolution
    )
    target = target.translate_pix(0.13, 0.21)
    np.testing.assert_array_equal(
        stored(read_onto(source(path, box), target)), by_gdal(path, target, "nearest")
    )


@given(
    factor=st.sampled_from([2, 3, 6]),
    corner=st.tuples(st.integers(-30, 300), st.integers(-30, 300)),
    shape=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_coarse_bands_on_a_fine_grid_equal_gdal(
    tmp_path: Path, factor: int, corner: tuple[int, int], shape: tuple[int, int]
) -> None:
    coarse = GeoBox((47, 53), Affine(10 * factor, 0, 400_000, 0, -10 * factor, 4_400_000), "EPSG:32630")
    path = tmp_path / f"{factor}.tif"
    values = numbers(coarse)
    if not path.exists():
        profile = {"driver": "GTiff", "count": 1, "dtype": "uint16", "nodata": 0}
        place = {"height": 47, "width": 53, "crs": "EPSG:32630", "transform": coarse.transform}
        with rasterio.open(path, "w", **profile, **place) as file:
            file.write(values, 1)
    origin = Affine(10, 0, 400_000 + 10 * corner[1], 0, -10, 4_400_000 - 10 * corner[0])
    target = GeoBox(shape, origin, "EPSG:32630")
    np.testing.assert_array_equal(
        stored(read_onto(source(path, coarse), target)), by_gdal(path, target, "nearest")
    )


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:3035", "EPSG:4326"])
def test_nearest_between_crs_equals_exact_proj(write_raster: Any, crs: str) -> None:
    values = numbers(WIDE)
    path = write_raster("a.tif", values, WIDE)
    target = GeoBox.from_bbox(
        rasterio.warp.transform_bounds("EPSG:32630", crs, *WIDE.boundingbox.bbox),
        crs,
        resolution=10 if crs != "EPSG:4326" else 1e-4,
    )
    found = stored(read_onto(source(path, WIDE), target))
    exact = exact_nearest(values, WIDE, target)
    assert (exact > 0).mean() > 0.5
    assert (found != exact).mean() < 1e-3


@pytest.mark.parametrize("kernel", ["nearest", "bilinear"])
@pytest.mark.parametrize("crs", ["EPSG:3035", "EPSG:32630"])
def test_a_pixel_does_not_depend_on_its_block(write_raster: Any, kernel: str, crs: str) -> None:
    path = write_raster("a.tif", numbers(WIDE), WIDE)
    bounds = rasterio.warp.transform_bounds("EPSG:32630", crs, *WIDE.boundingbox.bbox)
    target = GeoBox.from_bbox(bounds, crs, resolution=13)
    whole = read_onto(source(path, WIDE), target, resampling=kernel)
    for rows, cols in (
        (slice(0, 101), slice(0, 97)),
        (slice(100, 333), slice(64, 130)),
        (slice(7, 8), slice(9, 10)),
    ):
        part = read_onto(source(path, WIDE), target[rows, cols], resampling=kernel)
        np.testing.assert_array_equal(part.values[part.valid], whole.values[rows, cols][part.valid])
        np.testing.assert_array_equal(part.valid, whole.valid[rows, cols])


def test_large_windows_are_read_in_parts(write_raster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_raster("a.tif", numbers(WIDE), WIDE)
    target = WIDE.zoom_out(7.7)
    whole = read_onto(source(path, WIDE), target)
    monkeypatch.setattr(reader, "MAX_WINDOW", 1000)
    parts = read_onto(source(path, WIDE), target)
    np.testing.assert_array_equal(stored(parts), stored(whole))


def test_bilinear_is_near_to_gdal(write_raster: Any) -> None:
    smooth = (np.add.outer(np.arange(500) * 3, np.arange(600) * 5) + 100).astype("uint16")
    path = write_raster("a.tif", smooth, WIDE)
    target = GeoBox.from_bbox((401_003, 4_401_004, 403_000, 4_403_000), "EPSG:32630", resolution=7)
    found = read_onto(source(path, WIDE), target, resampling="bilinear")
    assert found.valid.all()
    gdal = by_gdal(path, target, "bilinear").astype(float)
    assert np.abs(np.rint(found.values) - gdal).max() <= 1


@pytest.mark.parametrize("dtype", ["uint16", "float64"])
def test_bilinear_on_parallel_axes_is_bilinear_anywhere(dtype: str) -> None:
    random = np.random.default_rng(3)
    values = random.integers(1, 60_000, (40, 50)).astype(dtype)
    valid = random.random(values.shape) > 0.2
    window = Window(5, 7, 45, 57)
    rows, cols = np.sort(random.uniform(3, 47, (90, 1)), axis=0), np.sort(random.uniform(5, 59, (1, 70)))
    whole = tuple(np.ascontiguousarray(part) for part in np.broadcast_arrays(rows, cols))
    found = sample_bilinear(Pixels(values, valid), window, Positions(rows, cols))
    anywhere = sample_bilinear(Pixels(values, valid), window, Positions(*whole))
    np.testing.assert_array_equal(found.valid, anywhere.valid)
    np.testing.assert_array_equal(found.values, anywhere.values)
    assert found.valid.mean() > 0.5
    at = [part[found.valid] - half for part, half in zip(whole, (5.5, 7.5), strict=True)]
    weights = map_coordinates(valid.astype(float), at, order=1, mode="nearest")
    exact = map_coordinates(np.where(valid, values, 0.0), at, order=1, mode="nearest") / weights
    np.testing.assert_allclose(found.values[found.valid], exact, rtol=1e-5)


def test_bilinear_leaves_out_neighbours_without_data(write_raster: Any) -> None:
    box = GeoBox((1, 3), Affine(10, 0, 0, 0, -10, 10), "EPSG:32630")
    path = write_raster("a.tif", np.array([[100, 0, 300]], "uint16"), box)
    target = GeoBox((1, 6), Affine(5, 0, 0, 0, -5, 7.5), "EPSG:32630")
    found = read_onto(source(path, box), target, resampling="bilinear")
    np.testing.assert_array_equal(found.valid[0], [True, True, False, False, True, True])
    np.testing.assert_array_equal(found.values[0][found.valid[0]], [100, 100, 300, 300])


@pytest.mark.parametrize("kernel", ["average", "mode", "min", "max", "cubic"])
def test_area_kernels_are_gdals(write_raster: Any, kernel: str) -> None:
    path = write_raster("a.tif", numbers(WIDE, "float32"), WIDE)
    target = WIDE.zoom_out(5)[10:60, 20:80]
    found = read_onto(source(path, WIDE, "float32"), target, resampling=kernel)
    np.testing.assert_allclose(stored(found), by_gdal(path, target, kernel), rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "nodata", "holes"),
    [
        ("uint8", 0, [0]),
        ("int16", -9999, [-9999]),
        ("float32", float("nan"), [np.nan]),
        ("float32", -3.4028234663852886e38, [np.finfo("float32").min, np.nan]),
        ("float32", -9999.0, [-9999, np.nan]),
        ("uint16", None, []),
    ],
)
def test_every_form_of_nodata_becomes_the_same_mask(
    write_raster: Any, dtype: str, nodata: float | None, holes: list[float]
) -> None:
    values = np.full((4, 5), 7, dtype)
    for place, hole in enumerate(holes):
        values[place, place] = hole
    box = NORTH_UP[:4, :5]
    path = write_raster("a.tif", values, box, nodata=nodata)
    for stated in (nodata, None):  # from the item, or from the file alone
        found = read_onto(source(path, box, dtype, nodata=stated), box)
        assert (~found.valid).sum() == len(holes)
        assert (found.values[found.valid] == 7).all()


def test_nothing_is_valid_outside_the_source(write_raster: Any) -> None:
    path = write_raster("a.tif", numbers(NORTH_UP), NORTH_UP)
    away = NORTH_UP.translate_pix(1000, 0)
    assert not read_onto(source(path, NORTH_UP), away).valid.any()


def test_bands_of_a_file_are_numbered_from_one(write_raster: Any) -> None:
    layers = np.stack([np.full((53, 37), n, "uint16") for n in (5, 6, 7)])
    path = write_raster("a.tif", layers, NORTH_UP)
    assert (read_onto(source(path, NORTH_UP, band=3), NORTH_UP).values == 7).all()
    with pytest.raises(MetadataMismatchError, match="number of bands"):
        read_onto(source(path, NORTH_UP, band=4), NORTH_UP)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "uint8"}, "data type of the file is uint16, its metadata says uint8"),
        ({"box": GeoBox((53, 37), NORTH_UP.transform, "EPSG:32631")}, "CRS of the file is EPSG:32630"),
        ({"box": GeoBox((50, 37), NORTH_UP.transform, "EPSG:32630")}, r"size .* is \(53, 37\)"),
        ({"box": NORTH_UP.translate_pix(0, 0.5)}, "transform of the file"),
        ({"nodata": 9}, "nodata of the file is 0.0, its metadata says 9"),
    ],
)
def test_files_that_differ_from_their_metadata_are_refused(
    write_raster: Any, change: dict[str, Any], message: str
) -> None:
    path = write_raster("a.tif", numbers(NORTH_UP), NORTH_UP)
    options = {"box": NORTH_UP} | change
    with pytest.raises(MetadataMismatchError, match=message) as caught:
        read_onto(source(path, **options), options["box"])
    assert "item 'S1', asset 'red'" in str(caught.value)


def test_nodata_that_the_user_has_set_wins_over_the_file(write_raster: Any) -> None:
    values = numbers(NORTH_UP)
    path = write_raster("a.tif", values, NORTH_UP)
    found = read_onto(source(path, NORTH_UP, nodata=values[3, 3], nodata_given=True), NORTH_UP)
    np.testing.assert_array_equal(found.valid, values != values[3, 3])


def test_a_vrt_named_tif_is_refused(write_raster: Any, tmp_path: Path) -> None:
    secret = write_raster("secret.tif", numbers(NORTH_UP), NORTH_UP)
    text = f"""<VRTDataset rasterXSize="37" rasterYSize="53"><SRS>EPSG:32630</SRS>
    <GeoTransform>400000,10,0,4400530,0,-10</GeoTransform><VRTRasterBand dataType="UInt16" band="1">
    <SimpleSource><SourceFilename>{secret}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>
    </VRTRasterBand></VRTDataset>"""
    path = tmp_path / "looks_like.tif"
    path.write_text(text)
    with rasterio.open(path) as file:
        assert file.read(1).any()  # what an open without a list of drivers gives away
    for media in ("image/tiff", None, "text/strange"):
        drivers = drivers_for(str(path), media)
        with pytest.raises(SourceError, match="not a raster of the stated type"):
            read_onto(source(path, NORTH_UP, drivers=drivers), NORTH_UP)
    for href in (f"/vsisubfile/0_10,{path}", text):
        with pytest.raises(SourceError, match="virtual files are not read"):
            read_onto(source(href, NORTH_UP), NORTH_UP)


def test_damaged_and_missing_files_name_item_asset_and_next_step(write_raster: Any, tmp_path: Path) -> None:
    path = write_raster(
        "a.tif", numbers(WIDE), WIDE, compress="deflate", tiled=True, blockxsize=128, blockysize=128
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SourceError, match=r"item 'S1', asset 'red' \(.*a\.tif\)"):
        read_onto(source(path, WIDE), WIDE)
    with pytest.raises(SourceError, match="Check that the file exists"):
        read_onto(source(tmp_path / "none.tif", WIDE), WIDE)


SERVER = """
    import http.server, pathlib, re, sys, urllib.parse
    folder, script = pathlib.Path(sys.argv[1]), {name: list(map(int, codes.split(","))) for name, codes in
                                                 (part.split("=") for part in sys.argv[2:])}
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_HEAD(self): self.answer(head=True)
        def do_GET(self): self.answer(head=False)
        def answer(self, head):
            url = urllib.parse.urlsplit(self.path)
            print(self.command, self.path, self.headers.get("Range"), flush=True, file=sys.stderr)
            name = url.path.lstrip("/")
            todo = script.get(name, [])
            code = todo.pop(0) if todo else 200
            if name.startswith("signed") and "sig=good" not in url.query: code = 403
            path = folder / name
            if code == 200 and not path.exists(): code = 404
            if code not in (200, 206, 0): return self.reply(code, b"no", head)
            data, kind = path.read_bytes(), 200
            span = re.match(r"bytes=(\\d+)-(\\d+)", self.headers.get("Range", ""))
            extra = {"Accept-Ranges": "bytes"}
            if span:
                a, b = int(span[1]), min(int(span[2]), len(data) - 1)
                extra["Content-Range"] = f"bytes {a}-{b}/{len(data)}"
                data, kind = data[a:b + 1], 206
            if code == 0:  # promise more than is sent
                self.send_response(kind)
                self.send_header("Content-Length", str(len(data)))
                [self.send_header(*pair) for pair in extra.items()]
                self.end_headers()
                if not head: self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return
            self.reply(kind, data, head, extra)
        def reply(self, code, data, head, extra={}):
            self.send_response(code)
            self.send_header("Content-Length", str(len(data)))
            [self.send_header(*pair) for pair in extra.items()]
            self.end_headers()
            if not head: self.wfile.write(data)
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


class FaultServer:
    """A range server in another process, since GDAL may hold the interpreter lock while it waits."""

    def __init__(self, folder: Path, script: dict[str, str]) -> None:
        arguments = [f"{name}={codes}" for name, codes in script.items()]
        self.log = folder / "requests.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(SERVER), str(folder), *arguments],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def requests(self, name: str) -> int:
        return sum(f"/{name}" in line for line in self.log.read_text().splitlines())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def fault_server(write_raster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultServer]:
    for name in ("down", "short", "signed", "fine", "page"):
        write_raster(f"{name}.tif", numbers(NORTH_UP), NORTH_UP)
    (tmp_path / "page.tif").write_text("<html>please log in</html>")
    # GDAL's own retries off, to see ours; waits short.
    monkeypatch.setitem(GDAL_SETTINGS, "GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setattr("cubekit.cube.reader.time.sleep", lambda _: None)
    server = FaultServer(tmp_path, {"down.tif": "503,503,503", "short.tif": "200,0,0,200"})
    yield server
    server.close()


@pytest.mark.parametrize("name", ["fine", "down", "short"])
def test_failures_that_pass_are_healed_although_gdal_remembers_them(
    fault_server: FaultServer, name: str
) -> None:
    found = read_onto(source(f"{fault_server.url}/{name}.tif", NORTH_UP), NORTH_UP)
    np.testing.assert_array_equal(stored(found), numbers(NORTH_UP))


def test_a_missing_file_is_asked_for_once_and_a_login_page_makes_no_storm(fault_server: FaultServer) -> None:
    with pytest.raises(SourceError, match="response code: 404"):
        read_onto(source(f"{fault_server.url}/none.tif?token=SECRET", NORTH_UP), NORTH_UP)
    assert fault_server.requests("none.tif") <= 2
    with pytest.raises(SourceError, match="login page"):
        read_onto(source(f"{fault_server.url}/page.tif", NORTH_UP), NORTH_UP)
    assert fault_server.requests("page.tif") <= 6


def test_signing_happens_at_read_time_once_more_after_a_refusal_and_stays_secret(
    fault_server: FaultServer, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[bool] = []

    def sign(href: str, *, fresh: bool = False) -> str:
        asked.append(fresh)
        return f"{href}?sig={'good' if fresh else 'SECRETold'}"

    register_signer("reader-test", sign)
    href = f"{fault_server.url}/signed.tif"
    signed = Source(href=href, form=source(href, NORTH_UP).form, item="S1", asset="red", signer="reader-test")
    assert b"SECRET" not in pickle.dumps(signed)
    with caplog.at_level("DEBUG", logger="cubekit"):
        np.testing.assert_array_equal(stored(read_onto(signed, NORTH_UP)), numbers(NORTH_UP))
    assert asked == [False, True]
    assert "SECRET" not in "".join(
        record.getMessage() for record in caplog.records if "cubekit" in record.name
    )


def test_errors_of_signed_reads_show_no_signature(fault_server: FaultServer) -> None:
    register_signer("reader-bad", lambda href, *, fresh=False: f"{href}?sig=SECRET{fresh}")
    href = f"{fault_server.url}/signed.tif"
    signed = Source(href=href, form=source(href, NORTH_UP).form, item="S1", asset="red", signer="reader-bad")
    with pytest.raises(SourceError, match="item 'S1', asset 'red'") as caught:
        read_onto(signed, NORTH_UP)
    error: BaseException | None = caught.value
    while error is not None:
        assert "SECRET" not in str(error)
        error = error.__cause__ or error.__context__


def test_netcdf_variables_are_read_north_up(tmp_path: Path) -> None:
    y, x = np.arange(4_400_005, 4_400_035, 10.0), np.arange(400_005, 400_045, 10.0)
    values = np.arange(24, dtype="int16").reshape(2, 3, 4) + 1
    data = xr.Dataset({"red": (("time", "y", "x"), values), "nir": (("time", "y", "x"), values * 10)})
    data = data.assign_coords(time=[0, 1], y=y, x=x).rio.write_crs("EPSG:32630").rio.write_coordinate_system()
    for name in ("red", "nir"):
        data[name].attrs["_FillValue"] = np.int16(-1)
    path = tmp_path / "a.nc"
    data.to_netcdf(path, engine="scipy")
    box = GeoBox((3, 4), Affine(10, 0, 400_000, 0, -10, 4_400_030), "EPSG:32630")
    drivers = drivers_for(str(path), "application/x-netcdf")
    wanted = source(path, box, "int16", nodata=-1, band=2, variable="nir", drivers=drivers)
    # y grows upwards in the file: the northernmost row comes first.
    np.testing.assert_array_equal(read_onto(wanted, box).values, values[1, ::-1] * 10)


@pytest.mark.shared
def test_real_netcdf_equals_xarray(shared: Path) -> None:
    path = shared / "data" / "s2_slovenia_eopatch" / "s2_l1c_13bands_5dates.nc"
    with xr.open_dataset(path, decode_cf=False) as data:
        band = data["B04"].to_numpy()
    with rasterio.open(f'netcdf:"{path}":B04') as file:
        box = GeoBox(file.shape, file.transform, "EPSG:32633")
    drivers = drivers_for(str(path), "application/netcdf")
    for date in range(5):
        wanted = source(path, box, nodata=65535, band=date + 1, variable="B04", drivers=drivers)
        np.testing.assert_array_equal(read_onto(wanted, box).values, band[date])
