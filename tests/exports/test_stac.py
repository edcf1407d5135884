"""Items are read back with pystac and compared with what rasterio says of the file."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pystac
import pytest
import rasterio
import rasterio.warp
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.projection import ProjectionExtension

from cubekit.errors import ExportError, OptionError, UnknownNameError
from cubekit.exports.export import export
from cubekit.exports.stac import stac_item

ALBERS = "+proj=aea +lat_0=0 +lon_0=-54 +lat_1=-1 +lat_2=-29 +x_0=0 +y_0=0 +ellps=GRS80 +units=m +no_defs"
TIMES = {"time_coverage_start": "2023-01-01", "time_coverage_end": "2023-12-31"}
YEAR = [datetime(2023, 1, 1, tzinfo=UTC), datetime(2023, 12, 31, tzinfo=UTC)]


def prediction(crs: str = "EPSG:32630", **attrs: Any) -> xr.Dataset:
    box = GeoBox((60, 80), Affine(10, 0, 4e5, 0, -10, 4.5e6), crs)
    values = np.random.default_rng(0).integers(0, 3, (60, 80)).astype("uint8")
    table = {
        "classes": ["water", "bare soil", "Wald"],
        "colours": ["#0072b2", "#e69f00", "#117733"],
        "codes": [1, 2, 5],
    }
    coding = {"_FillValue": np.uint8(255), "scale_factor": 1 / 250, "add_offset": 0.0}
    return xr.Dataset(
        {
            "class": (("y", "x"), values, {"_FillValue": np.uint8(255)} | table),
            "probability": (("category", "y", "x"), np.stack([values] * 3), coding),
        },
        attrs={"title": "Test map", "model": "abc"} | attrs,
    ).assign_coords(xr_coords(box) | {"category": table["classes"]})


def test_an_item_says_what_the_file_is(tmp_path: Path) -> None:
    file = export(prediction(**TIMES), tmp_path / "map.tif")
    item = stac_item(file)
    again = pystac.Item.from_dict(json.loads(json.dumps(item.to_dict(include_self_link=False))))
    assert again.id == "map"
    assert [again.common_metadata.start_datetime, again.common_metadata.end_datetime] == YEAR
    assert again.properties["title"] == "Test map"
    projection = ProjectionExtension.ext(again)
    with rasterio.open(file) as raster:
        assert projection.epsg == 32630
        assert projection.shape == [raster.height, raster.width]
        assert projection.transform == list(raster.transform)[:6]
        bounds = rasterio.warp.transform_bounds(raster.crs, "EPSG:4326", *raster.bounds)
    assert again.bbox is not None
    npt.assert_allclose(again.bbox, bounds, atol=1e-5)
    asset = again.assets["data"]
    assert (asset.href, asset.media_type, asset.roles) == ("map.tif", pystac.MediaType.COG, ["data"])
    band = asset.extra_fields["bands"][0]
    assert (band["data_type"], band["nodata"]) == ("uint8", 255)
    assert [c["title"] for c in band["classification:classes"]] == ["water", "bare soil", "Wald"]
    assert band["classification:classes"][1] == {
        "value": 1,
        "name": "bare_soil",
        "title": "bare soil",
        "color_hint": "E69F00",
    }
    assert ClassificationExtension.get_schema_uri() in again.stac_extensions
    assert ProjectionExtension.get_schema_uri() in again.stac_extensions


def test_scaled_bands_and_a_crs_without_code(tmp_path: Path) -> None:
    file = export(prediction(ALBERS, **TIMES), tmp_path / "p.tif", variable="probability")
    item = stac_item(file)
    assert item.properties["proj:code"] is None
    assert "Albers" in item.properties["proj:wkt2"]
    bands = item.assets["data"].extra_fields["bands"]
    assert [band["name"] for band in bands] == ["water", "bare soil", "Wald"]
    assert bands[0]["raster:scale"] == 1 / 250
    assert not any("classification" in uri for uri in item.stac_extensions)


def test_a_time_is_demanded(tmp_path: Path) -> None:
    file = export(prediction(), tmp_path / "map.tif")
    with pytest.raises(ExportError, match="pass start= and end="):
        stac_item(file)
    item = stac_item(file, start=YEAR[0])
    assert item.datetime == YEAR[0]


def test_json_writes_the_item_and_the_missing_file(tmp_path: Path) -> None:
    target = export(prediction(**TIMES), tmp_path / "map.json")
    assert target == tmp_path / "map.json"
    item = pystac.Item.from_file(str(target))
    href = item.assets["data"].get_absolute_href()
    assert href is not None
    with rasterio.open(href) as raster:
        npt.assert_array_equal(raster.read(1), prediction()["class"].to_numpy())
    other = prediction(**TIMES).isel(y=slice(0, 30))
    with pytest.raises(ExportError, match="another grid"):
        export(other, target, overwrite=True)


def test_the_suffix_chooses_and_hints(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"Did you mean '\.tif'"):
        export(prediction(), tmp_path / "map.tfi")
    with pytest.raises(OptionError, match="ends in ''"):
        export(prediction(), tmp_path / "map")
    with pytest.raises(UnknownNameError, match="Did you mean 'probability'"):
        export(prediction(), tmp_path / "map.tif", variable="probabilty")
    with pytest.raises(UnknownNameError, match="Say which variable"):
        export(prediction().drop_vars("class").assign(other=("y", np.zeros(60))), tmp_path / "map.tif")
    export(prediction(), tmp_path / "map.png")
    with pytest.raises(ExportError, match="overwrite=True"):
        export(prediction(), tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes()[:4] == b"\x89PNG"


def test_one_variable_of_a_dataset_needs_no_name(tmp_path: Path) -> None:
    export(prediction()[["probability"]], tmp_path / "p.tif")
    export(prediction()["class"], tmp_path / "c.tif")
    with rasterio.open(tmp_path / "p.tif") as p, rasterio.open(tmp_path / "c.tif") as c:
        assert (p.count, c.count) == (3, 1)


def test_exports_import_without_torch() -> None:
    import subprocess
    import sys

    modules = "export, cog, stac, figures, report"
    code = f"import sys; from cubekit.exports import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_zarr_holds_the_whole_dataset_or_one_variable(tmp_path: Path) -> None:
    from cubekit.store.open import open_store

    whole = open_store(export(prediction(), tmp_path / "map.zarr", progress=False))
    assert set(whole.data_vars) == {"class", "probability"}
    npt.assert_array_equal(whole["class"].to_numpy(), prediction()["class"].to_numpy())
    one = open_store(export(prediction(), tmp_path / "one.zarr", variable="class", progress=False))
    assert set(one.data_vars) == {"class"}
    file = export(whole, tmp_path / "again.tif")
    with rasterio.open(file) as raster:
        npt.assert_array_equal(raster.read(1), prediction()["class"].to_numpy())
        assert raster.colormap(1)[2] == (17, 119, 51, 255)
