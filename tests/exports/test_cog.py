"""COGs are read back with rasterio, and through GDAL's VRT driver where rasterio has no door."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import dask.array as da
import numpy as np
import numpy.testing as npt
import pandas as pd
import pytest
import rasterio
import rasterio.shutil
import rasterio.warp
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.errors import CubeError, ExportError
from cubekit.exports.cog import write_cog
from cubekit.typing import Array

UTM = "EPSG:32630"
ALBERS = "+proj=aea +lat_0=0 +lon_0=-54 +lat_1=-1 +lat_2=-29 +x_0=0 +y_0=0 +ellps=GRS80 +units=m +no_defs"
CLASSES: dict[str, Any] = {
    "classes": ["water", "bare soil & rock", "Wald <Süd>"],
    "colours": ["#0072b2", "#e69f00", "#117733"],
    "codes": [10, 20, 35],
}


def on_grid(values: Any, *, crs: str = UTM, name: str = "class", **attrs: Any) -> xr.DataArray:
    dims = ("layer", "y", "x")[-values.ndim :]
    box = GeoBox(values.shape[-2:], Affine(10, 0, 4e5, 0, -10, 4.5e6), crs)
    return xr.DataArray(values, dims=dims, attrs=attrs, name=name).assign_coords(xr_coords(box))


def lazy_blocks(function: Any, **options: Any) -> Any:
    return da.map_blocks(function, **options)  # type: ignore[no-untyped-call]


def read_xml(path: Path) -> ET.Element:
    return ET.fromstring(path.read_text("utf-8"))  # noqa: S314  (what GDAL has just written)


def class_values(shape: tuple[int, int] = (1300, 1100)) -> Array:
    coarse = np.random.default_rng(0).integers(0, 3, (shape[0] // 20 + 1, shape[1] // 20 + 1))
    values = np.kron(coarse, np.ones((20, 20))).astype("uint8")[: shape[0], : shape[1]]
    values[:100, :200] = 255
    return values


def class_map(values: Array | da.Array | None = None, **options: Any) -> xr.DataArray:
    values = class_values() if values is None else values
    return on_grid(values, _FillValue=np.uint8(255), **(CLASSES | options))


def test_a_class_map_is_a_cog_with_pixels_colours_overviews_and_crs(tmp_path: Path) -> None:
    path = write_cog(class_map(title="Bahía", time_coverage_start="2018-08-29"), tmp_path / "map.tif")
    with rasterio.open(path) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.profile["tiled"]
        assert file.block_shapes == [(512, 512)]
        assert file.profile["compress"] == "deflate"
        assert file.overviews(1) == [2, 4]
        npt.assert_array_equal(file.read(1), class_values())
        assert (file.crs, file.transform) == (
            rasterio.CRS.from_epsg(32630),
            Affine(10, 0, 4e5, 0, -10, 4.5e6),
        )
        assert (file.nodata, file.dtypes) == (255, ("uint8",))
        colours = file.colormap(1)
        assert [colours[i] for i in range(3)] == [(0, 114, 178, 255), (230, 159, 0, 255), (17, 119, 51, 255)]
        assert file.descriptions == ("class",)
        tags = file.tags()
        assert tags["TIFFTAG_SOFTWARE"].startswith("cubekit ")
        assert "2 Wald <Süd>" in tags["TIFFTAG_IMAGEDESCRIPTION"]
        assert tags["time_coverage_start"] == "2018-08-29"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml"]


def test_gdal_finds_category_names_and_attribute_table(tmp_path: Path) -> None:
    path = write_cog(class_map(), tmp_path / "map.tif")
    rasterio.shutil.copy(path, tmp_path / "map.vrt", driver="VRT")
    band = read_xml(tmp_path / "map.vrt").find("VRTRasterBand")
    assert band is not None
    assert [c.text for c in band.findall("CategoryNames/Category")] == CLASSES["classes"]
    # GDAL keeps the table beside the file until 3.10, and inside it from 3.11 on, where the VRT shows it.
    places = (tmp_path / "map.tif.aux.xml", tmp_path / "map.vrt")
    found = [row for place in places for row in read_xml(place).findall(".//GDALRasterAttributeTable/Row")]
    rows = [[cell.text for cell in row] for row in found]
    assert rows[2] == ["2", "Wald <Süd>", "35", "17", "119", "51"]


def test_overviews_of_classes_hold_the_most_frequent_class(tmp_path: Path) -> None:
    values = np.zeros((1200, 1200), "uint8")
    values[::2, ::2] = 2
    with rasterio.open(write_cog(class_map(values), tmp_path / "map.tif"), overview_level=0) as file:
        assert file.shape == (600, 600)
        npt.assert_array_equal(file.read(1), 0)


def test_a_custom_crs_without_code_survives(tmp_path: Path) -> None:
    variable = class_map(crs=ALBERS)
    with rasterio.open(write_cog(variable, tmp_path / "map.tif")) as file:
        assert file.crs.to_epsg() is None
        x, y = rasterio.warp.transform(file.crs, "EPSG:4326", [4e5], [4.5e6])
        wanted = rasterio.warp.transform(ALBERS, "EPSG:4326", [4e5], [4.5e6])
        npt.assert_allclose((x, y), wanted, atol=1e-9)
        assert file.crs.to_dict()["proj"] == "aea"


def test_probabilities_keep_scale_and_band_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 251, (3, 700, 600)).astype("uint8")
    values[:, :50] = 255
    variable = on_grid(
        values, name="probability", _FillValue=np.uint8(255), scale_factor=1 / 250, add_offset=0.0
    )
    variable = variable.rename(layer="category").assign_coords(category=["a", "b", "c"])
    with rasterio.open(write_cog(variable, tmp_path / "p.tif")) as file:
        assert file.descriptions == ("a", "b", "c")
        assert file.scales == (1 / 250,) * 3
        assert file.nodatavals == (255,) * 3
        npt.assert_array_equal(file.read(), values)
        assert file.profile["interleave"] in {"band", "pixel"}
    with rasterio.open(tmp_path / "p.tif", overview_level=0) as file:
        inside = values[:, 50:, :].reshape(3, 325, 2, 300, 2).mean(axis=(2, 4))
        npt.assert_allclose(file.read()[:, 25:], inside, atol=0.51)
    assert not (tmp_path / "p.tif.aux.xml").exists()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64", "int32", "bool", "float16"])
def test_every_type_reads_back(dtype: str, tmp_path: Path) -> None:
    values = np.arange(60 * 70).reshape(60, 70).astype(dtype)
    attrs = {} if dtype == "bool" else {"units": "m"}
    with rasterio.open(write_cog(on_grid(values, name="v", **attrs), tmp_path / "v.tif")) as file:
        npt.assert_array_equal(file.read(1), values)
        assert file.units == ((None,) if dtype == "bool" else ("m",))


def test_dates_name_the_bands(tmp_path: Path) -> None:
    variable = on_grid(np.zeros((2, 9, 9), "int16"), name="ndvi").rename(layer="time")
    variable = variable.assign_coords(time=pd.to_datetime(["2023-01-01", "2023-02-01"]))
    with rasterio.open(write_cog(variable, tmp_path / "v.tif")) as file:
        assert file.descriptions == ("2023-01-01", "2023-02-01")


@pytest.mark.parametrize("chunks", [(64, 64), (1000, 300), (1300, 1100), (7, 1100)])
def test_each_block_is_computed_once_and_memory_holds_rows_of_blocks(
    chunks: tuple[int, int], tmp_path: Path
) -> None:
    computed: list[tuple[int, int]] = []
    held: list[int] = []
    whole = class_values()

    def block(block_info: Any = None) -> Array:
        (y0, y1), (x0, x1) = block_info[None]["array-location"]
        computed.append((y0, x0))
        return whole[y0:y1, x0:x1]

    lazy = lazy_blocks(
        block, chunks=da.zeros(whole.shape, chunks=chunks).chunks, dtype="uint8", meta=whole[:0, :0]
    )
    variable = class_map(lazy)
    real = xr.DataArray.isel

    def spy(self: xr.DataArray, *args: Any, **kwargs: Any) -> xr.DataArray:
        part = real(self, *args, **kwargs)
        held.append(part.sizes["y"])
        return part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(xr.DataArray, "isel", spy)
        path = write_cog(variable, tmp_path / "map.tif")
    with rasterio.open(path) as file:
        npt.assert_array_equal(file.read(1), whole)
    assert len(computed) == len(set(computed)) == lazy.npartitions
    assert max(held) < max(512 + chunks[0], chunks[0] + 1)


def test_labels_with_negative_numbers_become_bytes(tmp_path: Path) -> None:
    values = np.array([[-1, 0], [1, 2]], "int16")
    with rasterio.open(write_cog(on_grid(values, name="label", **CLASSES), tmp_path / "l.tif")) as file:
        npt.assert_array_equal(file.read(1), [[255, 0], [1, 2]])
        assert file.nodata == 255


def test_existing_files_stay_unless_told(tmp_path: Path) -> None:
    path = write_cog(class_map(), tmp_path / "map.tif")
    before = path.read_bytes()
    with pytest.raises(ExportError, match="overwrite=True"):
        write_cog(class_map(np.zeros((5, 5), "uint8")), path)
    assert path.read_bytes() == before
    write_cog(on_grid(np.zeros((5, 5), "int16"), name="v"), path, overwrite=True)
    assert not Path(f"{path}.aux.xml").exists(), "names of the old classes must not describe the new file"


def test_the_same_map_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (write_cog(class_map(), tmp_path / name / "map.tif") for name in "ab")
    assert one.read_bytes() == two.read_bytes()


def test_a_failing_block_leaves_nothing_behind_and_the_old_file(tmp_path: Path) -> None:
    path = write_cog(class_map(), tmp_path / "map.tif")
    before = path.read_bytes()

    def fail() -> Array:
        raise RuntimeError("no such scene")

    lazy = lazy_blocks(fail, chunks=((600, 600), (1100,)), dtype="uint8", meta=np.empty((0, 0), "uint8"))
    with pytest.raises(RuntimeError, match="no such scene"):
        write_cog(class_map(lazy), path, overwrite=True)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["map.tif", "map.tif.aux.xml"]


def test_what_no_geotiff_can_hold_is_refused(tmp_path: Path) -> None:
    cube = xr.DataArray(np.zeros((2, 3, 4, 5), "uint8"), dims=("time", "band", "y", "x"), name="data")
    with pytest.raises(ExportError, match=r"isel\(time=0\)"):
        write_cog(cube, tmp_path / "x.tif")
    with pytest.raises(ExportError, match="complex64"):
        write_cog(on_grid(np.zeros((4, 5), "complex64"), name="v"), tmp_path / "x.tif")
    with pytest.raises(CubeError, match="CRS"):
        write_cog(xr.DataArray(np.zeros((4, 5), "uint8"), dims=("y", "x"), name="v"), tmp_path / "x.tif")
    assert list(tmp_path.iterdir()) == []
