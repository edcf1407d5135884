"""Tiles decoded without GDAL against rasterio's own read of the same files."""

import itertools
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.windows import Window as Place

from cubekit.cube import reader, tile_decode, tiles
from cubekit.cube.local_tiff import LocalTiffs
from cubekit.cube.reader import Form, Source, read_values
from cubekit.cube.resample import Window
from cubekit.cube.tiff import UnusualTiffError
from cubekit.errors import MetadataMismatchError, SourceError

BOX = GeoBox((150, 211), Affine(10, 0, 4e5, 0, -10, 4e6), "EPSG:32630")
TILED = {"tiled": True, "blockxsize": 64, "blockysize": 32}
STRIPPED = {"blockysize": 28}
WINDOWS = [
    Window(0, 0, 150, 211),
    Window(40, 30, 90, 120),
    Window(32, 64, 64, 128),
    Window(149, 210, 150, 211),
]
INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FLOATS = ("float32", "float64")
CODECS = [("none", 1), *itertools.product(("deflate", "lzw", "zstd"), (1, 2, 3))]


def numbers(dtype: str, bands: int = 2) -> npt.NDArray[Any]:
    random = np.random.default_rng(1)
    if dtype.startswith("float"):
        return random.normal(0, 1e4, (bands, 150, 211)).astype(dtype)
    limits = np.iinfo(dtype)
    ramp = np.sort(random.integers(limits.min, limits.max, (bands, 150, 211), dtype, endpoint=True))
    return np.where(random.random(ramp.shape) < 0.2, limits.max, ramp).astype(dtype)


def write(path: Path, values: npt.NDArray[Any], **options: Any) -> Path:
    count, height, width = values.shape
    profile = {"count": count, "height": height, "width": width, "dtype": values.dtype, "nodata": 0}
    place = {"crs": "EPSG:32630", "transform": BOX.transform}
    with rasterio.open(path, "w", driver="GTiff", **(profile | place | options)) as file:
        file.write(values)
    return path


def source(path: Path, dtype: str = "uint16", **form: Any) -> Source:
    options: dict[str, Any] = {"geobox": BOX, "dtype": dtype, "drivers": ("GTiff",)} | form
    return Source(href=str(path), form=Form(**options), item="S1", asset="red")


def ours(path: Path, window: Window, dtype: str, band: int) -> npt.NDArray[Any]:
    """Read without GDAL, or fail."""
    form = source(path, dtype, band=band).form
    return LocalTiffs().read(str(path), window, form, lambda: 0.0)[0]


def by_gdal(path: Path, window: Window, band: int = 1) -> npt.NDArray[Any]:
    with rasterio.open(path) as file:
        part = Place(window.left, window.top, window.right - window.left, window.bottom - window.top)
        found: npt.NDArray[Any] = file.read(band, window=part)
    return found


@pytest.mark.parametrize(("codec", "predictor"), CODECS)
def test_every_coding_equals_gdal(tmp_path: Path, codec: str, predictor: int) -> None:
    ways = itertools.cycle(itertools.product((TILED, STRIPPED), ("pixel", "band"), ("LITTLE", "BIG")))
    for number, dtype in enumerate(FLOATS if predictor == 3 else (*INTEGERS, *FLOATS)):
        for layout, interleave, order in itertools.islice(ways, 3):  # 3 and 8: all meet in time
            values = numbers(dtype)
            path = write(
                tmp_path / "a.tif",
                values,
                compress=codec,
                predictor=predictor,
                interleave=interleave,
                ENDIANNESS=order,
                BIGTIFF="YES" if number % 3 == 0 else "NO",
                **layout,
            )
            for window, band in zip(WINDOWS, (1, 2, 2, 1), strict=True):
                found = ours(path, window, dtype, band)
                assert found.dtype == dtype
                assert found.dtype.isnative
                np.testing.assert_array_equal(found, by_gdal(path, window, band))
                np.testing.assert_array_equal(
                    found, values[band - 1, window.top : window.bottom, window.left : window.right]
                )


@given(
    rows=st.tuples(st.integers(0, 149), st.integers(1, 150)),
    cols=st.tuples(st.integers(0, 210), st.integers(1, 211)),
    band=st.integers(1, 3),
    layout=st.sampled_from([TILED, STRIPPED, {"tiled": True, "blockxsize": 16, "blockysize": 256}]),
    interleave=st.sampled_from(["pixel", "band"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_window_equals_gdal(
    tmp_path: Path, rows: tuple[int, int], cols: tuple[int, int], band: int, layout: Any, interleave: str
) -> None:
    path = tmp_path / f"{interleave}-{'-'.join(map(str, layout.values()))}.tif"
    if not path.exists():
        write(path, numbers("uint16", 3), compress="deflate", predictor=2, interleave=interleave, **layout)
    window = Window(rows[0], cols[0], min(rows[0] + rows[1], 150), min(cols[0] + cols[1], 211))
    np.testing.assert_array_equal(ours(path, window, "uint16", band), by_gdal(path, window, band))


@pytest.mark.parametrize(
    "options",
    [
        {"compress": "jpeg", "photometric": "ycbcr", "count": 3, "interleave": "pixel"},
        {"compress": "webp", "count": 3, "interleave": "pixel"},
        {"compress": "packbits"},
        {"compress": "lzma"},
        {"compress": "lerc"},
        {"NBITS": 5},
        {"photometric": "cielab", "count": 3},
    ],
    ids=["jpeg", "webp", "packbits", "lzma", "lerc", "bits", "lab"],
)
def test_what_we_do_not_know_is_left_to_gdal(tmp_path: Path, options: dict[str, Any]) -> None:
    values = numbers("uint8", options.get("count", 1)) % 32
    path = write(tmp_path / "a.tif", values, **TILED, **options)
    with pytest.raises(UnusualTiffError):
        ours(path, WINDOWS[0], "uint8", 1)
    found, nodata = read_values(source(path, "uint8"), WINDOWS[1])
    np.testing.assert_array_equal(found, by_gdal(path, WINDOWS[1]))
    assert nodata == 0


@pytest.mark.parametrize("nodata", [7, None, -9999.0])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_sparse_tiles_hold_what_gdal_says(tmp_path: Path, nodata: float | None, dtype: str) -> None:
    path = tmp_path / "a.tif"
    nodata = None if nodata == -9999 and dtype == "uint16" else nodata
    values = np.zeros((1, 150, 211), dtype)
    values[:, :40, :80] = 5
    profile = {"count": 1, "height": 150, "width": 211, "dtype": dtype, "nodata": nodata, "SPARSE_OK": True}
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        crs="EPSG:32630",
        transform=BOX.transform,
        compress="deflate",
        **TILED,
        **profile,
    ) as file:
        file.write(values[0, :64, :128], 1, window=Place(0, 0, 128, 64))
    found, said = read_values(source(path, dtype), WINDOWS[0])
    np.testing.assert_array_equal(found, by_gdal(path, WINDOWS[0]))
    assert said == nodata
    assert (found[100:] == (nodata or 0)).all()


def test_files_that_gdal_reads_from_other_bits_are_its_own(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", numbers("float32"), compress="deflate", NBITS=16, **TILED)
    found, _ = read_values(source(path, "float32"), WINDOWS[0])  # half floats
    np.testing.assert_array_equal(found, by_gdal(path, WINDOWS[0]))


def test_the_switch_leaves_all_to_gdal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif", numbers("uint16"), compress="deflate", predictor=2, **TILED)

    def refuse(*_: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(tile_decode, "_unpacked", refuse)
        for name, value in (("CUBEKIT_DECODER", "gdal"), ("GDAL_DISABLE_READDIR_ON_OPEN", "FALSE")):
            with monkeypatch.context() as chosen:
                chosen.setenv(name, value)
                np.testing.assert_array_equal(
                    read_values(source(path), WINDOWS[1])[0], by_gdal(path, WINDOWS[1])
                )
        with pytest.raises(AssertionError):
            read_values(source(path), WINDOWS[1])
        patch.setattr(tile_decode, "_is_installed", lambda: False)
        np.testing.assert_array_equal(read_values(source(path), WINDOWS[1])[0], by_gdal(path, WINDOWS[1]))


def test_files_that_look_alike_are_opened_by_gdal_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_LOCAL", LocalTiffs())
    opened: list[str] = []
    whole = reader._open  # noqa: SLF001  (what is counted)

    def note(name: str, asset: Source) -> Any:
        opened.append(name)
        return whole(name, asset)

    monkeypatch.setattr(reader, "_open", note)
    wanted = source(tmp_path)
    for number in range(3):
        path = write(tmp_path / f"{number}.tif", numbers("uint16") + number, compress="deflate", **TILED)
        alike = Source(href=str(path), form=wanted.form, item="S1", asset="red")
        np.testing.assert_array_equal(read_values(alike, WINDOWS[1])[0], by_gdal(path, WINDOWS[1]))
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"transform": BOX.transform * Affine.translation(3, 0)}, "transform"),
        ({"crs": "EPSG:32631"}, "CRS"),
        ({"nodata": 9}, "nodata"),
        ({"dtype": "int16"}, "data type"),
        ({"height": 140}, "size"),
    ],
)
def test_files_that_look_otherwise_are_checked_again(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    form = source(tmp_path, nodata=0).form
    right = write(tmp_path / "a.tif", numbers("uint16"), compress="deflate", **TILED)
    read_values(Source(href=str(right), form=form, item="S1", asset="red"), WINDOWS[1])
    values = numbers("uint16")[:, : change.get("height", 150)].astype(change.get("dtype", "uint16"))
    wrong = write(tmp_path / "b.tif", values, compress="deflate", **TILED, **change)
    with pytest.raises(MetadataMismatchError, match=f"item 'S2', asset 'red'.*{said}"):
        read_values(Source(href=str(wrong), form=form, item="S2", asset="red"), WINDOWS[1])


def test_files_beside_a_tiff_say_nothing_as_before(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", numbers("uint16"), compress="deflate", nodata=None, **TILED)
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand></PAMDataset>'
    )
    (tmp_path / "a.tfw").write_text("20\n0\n0\n-20\n0\n0\n")
    assert read_values(source(path), WINDOWS[1])[1] is None


def test_a_file_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    window = WINDOWS[1]  # takes parts of tiles, which are kept
    for number in range(3):
        path = write(tmp_path / "a.tif", numbers("uint16") + number, compress="deflate", **TILED)
        np.testing.assert_array_equal(read_values(source(path), window)[0], by_gdal(path, window))


def test_threads_decode_a_tile_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.tif", numbers("uint16", 1), compress="deflate", predictor=2, **TILED)
    decoded: list[int] = []

    def note(*arguments: Any) -> None:
        decoded.append(1)
        tile_decode.decode(*arguments)

    monkeypatch.setattr(tiles, "decode", note)
    window = Window(1, 1, 149, 210)  # a part of each tile on the rim, of which there are 14 of 20
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: read_values(source(path), window)[0], range(24)):
            np.testing.assert_array_equal(found, by_gdal(path, window))
    assert len(decoded) == 14 + 24 * 6


def test_what_is_kept_is_bounded() -> None:
    kept: tiles.Kept[npt.NDArray[Any]] = tiles.Kept(limit=10_000)
    for number in range(50):
        kept.get((0, number), lambda: np.zeros(1000, "uint8"))
    assert sum(kept.find((0, number)) is not None for number in range(50)) == 10

    def fail() -> npt.NDArray[Any]:
        raise UnusualTiffError("no")

    with pytest.raises(UnusualTiffError):
        kept.get((1, 0), fail)
    assert kept.find((1, 0)) is None
    assert kept.get((1, 0), lambda: np.ones(1)) == 1


@pytest.mark.parametrize("shape", [(7, 9, 2), (1, 9, 1), (3, 1, 1)])
def test_rims_are_parts_of_the_tile(shape: tuple[int, int, int]) -> None:
    tile = np.arange(np.prod(shape)).reshape(shape)
    rims, beyond = tiles.Rims.of(tile), 0
    for top, left in np.ndindex(shape[:2]):
        for bottom, right in itertools.product(range(top + 1, shape[0] + 1), range(left + 1, shape[1] + 1)):
            found = rims.part(slice(top, bottom), slice(left, right))
            beyond += found is None
            if found is not None:
                np.testing.assert_array_equal(found, tile[top:bottom, left:right])
    assert (beyond > 0) == (min(shape[:2]) > 2 * tiles.RIM)


def test_blocks_that_look_over_their_rim_decode_each_tile_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.tif", numbers("uint16", 1), compress="deflate", predictor=2, **TILED)
    decoded: list[int] = []

    def note(*arguments: Any) -> None:
        decoded.append(1)
        tile_decode.decode(*arguments)

    monkeypatch.setattr(tiles, "decode", note)
    for top, left in itertools.product(range(0, 150, 32), range(0, 211, 64)):
        window = Window(max(top - 1, 0), max(left - 1, 0), min(top + 33, 150), min(left + 65, 211))
        np.testing.assert_array_equal(read_values(source(path), window)[0], by_gdal(path, window))
    assert len(decoded) == 20


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("predictor", [1, 2])
@pytest.mark.parametrize("compress", ["deflate", "lzw", "none"])
def test_damaged_files_are_errors_or_what_gdal_reads(tmp_path: Path, compress: str, predictor: int) -> None:
    path = write(tmp_path / "a.tif", numbers("uint16", 1), compress=compress, predictor=predictor, **TILED)
    whole, random = path.read_bytes(), np.random.default_rng(5)
    for trial in range(40):
        damaged = bytearray(whole)
        head = trial % 2
        for place in random.integers(0 if head else 700, 700 if head else len(whole), 4):
            damaged[place] ^= 1 << random.integers(8)
        bad = tmp_path / f"{trial}.tif"
        bad.write_bytes(damaged[: random.integers(8, len(whole))] if trial % 5 == 0 else damaged)
        try:
            found, _ = read_values(source(bad), WINDOWS[0])
        except (SourceError, MetadataMismatchError) as error:
            assert "item 'S1', asset 'red'" in str(error)  # noqa: PT017
        else:
            np.testing.assert_array_equal(found, by_gdal(bad, WINDOWS[0]))


def test_sizes_that_a_head_claims_take_no_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", numbers("uint16", 1), compress="deflate", **TILED)
    whole = bytearray(path.read_bytes())
    kind = struct.unpack_from("<H", whole, whole.index(struct.pack("<H", 325)) + 2)[0]
    entry = whole.index(struct.pack("<HHI", 325, kind, 20))
    (place,) = struct.unpack_from("<I", whole, entry + 8)
    struct.pack_into("<H" if kind == 3 else "<I", whole, place, 2**16 - 1 if kind == 3 else 2**32 - 1)
    path.write_bytes(whole)
    with pytest.raises(UnusualTiffError, match="ends within a tile" if kind == 3 else "too large"):
        ours(path, WINDOWS[0], "uint16", 1)


@pytest.mark.shared
@pytest.mark.parametrize(
    "pattern",
    ["landsat_c2*/*.TIF", "fusion*/modis*.tif", "fusion*/landsat*.tif", "modis_lai*/annual/*.tif"],
)
def test_real_files_equal_gdal(shared: Path, pattern: str) -> None:
    found = sorted((shared / "data").glob(pattern))[::5]
    assert found
    for path in found:
        with rasterio.open(path) as file:
            rows, cols = (min(side, 700) for side in file.shape)
            box = GeoBox(file.shape, file.transform, "EPSG:32630")
            dtype, band = file.dtypes[-1], file.count
        window = Window(rows // 3, cols // 4, rows, cols)
        form = source(path, dtype, band=band, geobox=box).form
        values, _ = LocalTiffs().read(str(path), window, form, lambda: None)
        np.testing.assert_array_equal(values, by_gdal(path, window, band))
