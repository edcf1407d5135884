"""HDF4 grids: files that pyhdf writes in the layout of MODIS products, against numpy and GeoTIFF."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox

import cubekit
from cubekit.errors import ArchiveError, MissingDependencyError, SourceError
from cubekit.sources.archive import open_archive
from cubekit.sources.headers import read_layers

sd = pytest.importorskip("pyhdf.SD")

SIDE = 463.312716525
TILE = (-6671703.118, 1111950.519667)  # upper left corner of h12v08's row and column
PATTERN = "{product}.A{date:%Y%j}.{tile}.*.{produced:%Y%j%H%M%S}.hdf"


def grid(name: str, rows: int, columns: int, fields: list[str], size: float = SIDE) -> str:
    """Return the part of StructMetadata that describes one grid, as HDF-EOS writes it."""
    left, top = TILE
    listed = "\n".join(
        f'\t\t\tOBJECT=DataField_{n}\n\t\t\t\tDataFieldName="{field}"\n\t\t\t\tDataType=DFNT_INT16\n'
        f'\t\t\t\tDimList=("YDim","XDim")\n\t\t\tEND_OBJECT=DataField_{n}'
        for n, field in enumerate(fields, 1)
    )
    return (
        f'\t\tGridName="{name}"\n\t\tXDim={columns}\n\t\tYDim={rows}\n'
        f"\t\tUpperLeftPointMtrs=({left:f},{top:f})\n"
        f"\t\tLowerRightMtrs=({left + columns * size:f},{top - rows * size:f})\n"
        "\t\tProjection=GCTP_SNSOID\n\t\tProjParams=(6371007.181000,0,0,0,0,0,0,0,0,0,0,0,0)\n"
        f"\t\tSphereCode=-1\n\t\tGridOrigin=HDFE_GD_UL\n\t\tGROUP=DataField\n{listed}\n\t\tEND_GROUP=DataField\n"
    )


def write_hdf(path: Path, grids: list[str], data: dict[str, Any], **attributes: dict[str, Any]) -> None:
    """Write a file of grids."""
    kinds = {"int16": sd.SDC.INT16, "uint16": sd.SDC.UINT16, "uint8": sd.SDC.UINT8}
    file = sd.SD(str(path), sd.SDC.WRITE | sd.SDC.CREATE)
    for name, values in data.items():
        layer = file.create(name, kinds[str(values.dtype)], values.shape)
        own = dict(attributes.get(name, {}))
        if "_FillValue" in own:
            layer.setfillvalue(own.pop("_FillValue"))
        for key, value in own.items():
            setattr(layer, key, value)
        layer[:] = values
        layer.endaccess()
    text = "GROUP=SwathStructure\nEND_GROUP=SwathStructure\nGROUP=GridStructure\n"
    text += "".join(f"\tGROUP=GRID_{n}\n{part}\tEND_GROUP=GRID_{n}\n" for n, part in enumerate(grids, 1))
    setattr(file, "StructMetadata.0", text + "END_GROUP=GridStructure\n")
    file.end()


RED = np.arange(20 * 30, dtype="int16").reshape(20, 30)
STATE = np.where(RED % 7 == 0, 1, 8).astype("uint16")
MOD09 = {"sur_refl_b01": {"_FillValue": -28672, "scale_factor": 10000.0, "add_offset": 0.0}}


def write_mod09a1(folder: Path, name: str, red: Any = RED) -> Path:
    path = folder / name
    fields = ["sur_refl_b01", "sur_refl_state_500m"]
    write_hdf(
        path,
        [grid("MOD_Grid_500m_Surface_Reflectance", 20, 30, fields)],
        {"sur_refl_b01": red, "sur_refl_state_500m": STATE},
        **MOD09,
    )
    return path


def test_headers_say_grid_type_and_coding(tmp_path: Path) -> None:
    path = write_mod09a1(tmp_path, "MOD09A1.A2013257.h12v08.061.2021234123456.hdf")
    red, state = read_layers(path)
    assert (red.variable, red.dtype, red.nodata, red.scale) == ("sur_refl_b01", "int16", -28672, 1e-4)
    assert (state.variable, state.dtype, state.nodata, state.scale) == (
        "sur_refl_state_500m",
        "uint16",
        None,
        1,
    )
    assert red.grid.shape == (20, 30)
    assert red.grid.transform == pytest.approx((SIDE, 0, TILE[0], 0, -SIDE, TILE[1]))
    sinusoidal = rasterio.CRS.from_proj4("+proj=sinu +lon_0=0 +R=6371007.181 +units=m")
    assert rasterio.CRS.from_user_input(red.grid.crs).to_proj4() == sinusoidal.to_proj4()


def test_an_archive_of_hdf_becomes_a_masked_cube(tmp_path: Path) -> None:
    write_mod09a1(tmp_path, "MOD09A1.A2013257.h12v08.061.2021234123456.hdf")
    write_mod09a1(tmp_path, "MOD09A1.A2013265.h12v08.061.2021234123456.hdf", RED + 1000)
    items = open_archive(tmp_path, PATTERN, collection="modis-09a1-061")
    assert items.bands == ("red", "state")
    assert [str(day)[:10] for day in items.datetimes] == ["2013-09-14", "2013-09-22"]
    cube = cubekit.open_cube(items, bands=["red"], mask="clouds", chunks={"y": 8, "x": 8})
    assert (cube["data"].attrs["scale_factor"], cube["data"].attrs["_FillValue"]) == (1e-4, -28672)
    for step, added in ((0, 0), (1, 1000)):
        expected = np.where(STATE == 1, -28672, RED + added)
        np.testing.assert_array_equal(cube["data"].values[step, 0], expected)


def test_a_window_onto_another_grid_equals_the_same_data_as_geotiff(tmp_path: Path) -> None:
    write_mod09a1(tmp_path, "MOD09A1.A2013257.h12v08.061.2021234123456.hdf")
    items = open_archive(tmp_path, PATTERN, collection="modis-09a1-061")
    layer = read_layers(tmp_path / "MOD09A1.A2013257.h12v08.061.2021234123456.hdf")[0]
    tif = tmp_path / "tif" / "red_2013257.tif"
    tif.parent.mkdir()
    profile = {"driver": "GTiff", "width": 30, "height": 20, "count": 1, "dtype": "int16", "nodata": -28672}
    with rasterio.open(
        tif, "w", crs=layer.grid.crs, transform=rasterio.Affine(*layer.grid.transform), **profile
    ) as file:
        file.write(RED, 1)
    same = open_archive(tif.parent, "{band}_{date:%Y%j}.tif", collection="modis-09a1-061")
    target = GeoBox.from_bbox(items.bbox, "EPSG:4326", resolution=0.003)
    ours = cubekit.open_cube(items, target, bands=["red"])["data"].values
    np.testing.assert_array_equal(ours, cubekit.open_cube(same, target, bands=["red"])["data"].values)
    assert (ours != -28672).sum() > 300


def test_fields_of_two_grids_lie_where_each_grid_says(tmp_path: Path) -> None:
    path = tmp_path / "MOD09GA.A2013257.h12v08.061.2021234123456.hdf"
    coarse = np.full((10, 15), 8, "uint16")
    write_hdf(
        path,
        [
            grid("MODIS_Grid_1km_2D", 10, 15, ["state_1km_1"], 2 * SIDE),
            grid("MODIS_Grid_500m_2D", 20, 30, ["sur_refl_b01_1"]),
        ],
        {"state_1km_1": coarse, "sur_refl_b01_1": RED, "cube": np.zeros((3, 4, 5), "uint8")},
    )
    found = {layer.variable: layer.grid for layer in read_layers(path)}
    assert sorted(str(name) for name in found) == ["state_1km_1", "sur_refl_b01_1"]
    assert found["state_1km_1"].transform[0] == pytest.approx(2 * SIDE)
    items = open_archive(tmp_path, PATTERN, collection="modis-09ga-061", bands=["red"])
    assert items.bands == ("red",)


def test_of_two_productions_of_one_day_the_newer_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_mod09a1(tmp_path, "MOD09A1.A2013257.h12v08.006.2015234123456.hdf", RED + 7)
    write_mod09a1(tmp_path, "MOD09A1.A2013257.h12v08.061.2021234123456.hdf")
    with caplog.at_level("INFO"):
        items = open_archive(tmp_path, PATTERN, collection="modis-09a1-061")
    assert "left out: ['MOD09A1.A2013257.h12v08.006.2015234123456.hdf']" in caplog.text
    assert cubekit.open_cube(items, bands=["red"])["data"].values[0, 0, 0, 1] == 1
    with pytest.raises(ArchiveError, match="give a band of one date again"):
        open_archive(tmp_path, "{product}.A{date:%Y%j}.{tile}.*.hdf")


def test_other_files_named_hdf_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "MOD09A1.A2013257.h12v08.061.2021234123456.hdf"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(SourceError, match="is no HDF4 file"):
        read_layers(path)
    path.write_bytes(b"\x0e\x03\x13\x01" + bytes(50))
    with pytest.raises(SourceError, match=r"cannot be read as HDF4|holds no grid"):
        read_layers(path)
    path.unlink()
    write_hdf(path, [], {"a": RED})
    with pytest.raises(SourceError, match="holds no grid"):
        read_layers(path)
    path.unlink()
    write_hdf(path, [grid("g", 20, 30, ["a"]).replace("SNSOID", "LAMAZ")], {"a": RED})
    with pytest.raises(ArchiveError, match="projection LAMAZ; known are SNSOID"):
        open_archive(tmp_path, PATTERN)


def test_degrees_are_packed(tmp_path: Path) -> None:
    path = tmp_path / "cmg.hdf"
    text = grid("g", 20, 30, ["a"]).replace("GCTP_SNSOID", "GCTP_GEO")
    left, top = TILE
    text = text.replace(f"({left:f},{top:f})", "(-54030000.00,12015000.00)")
    right, bottom = left + 30 * SIDE, top - 20 * SIDE
    text = text.replace(f"({right:f},{bottom:f})", "(-24030000.00,-7045000.00)")
    write_hdf(path, [text], {"a": RED})
    (layer,) = read_layers(path)
    assert layer.grid.crs == "EPSG:4326"
    assert layer.grid.transform == pytest.approx((1.0, 0, -54.5, 0, -1.0, 12.25))


def test_without_pyhdf_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_mod09a1(tmp_path, "MOD09A1.A2013257.h12v08.061.2021234123456.hdf")
    monkeypatch.setitem(__import__("sys").modules, "pyhdf.SD", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'cubekit\[hdf4\]'"):
        read_layers(path)
