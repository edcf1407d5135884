"""Small real rasters and the items that describe them."""

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pystac
import pytest
import rasterio
from odc.geo.geobox import GeoBox

from cubekit.sources.items import Items

WriteRaster = Callable[..., Path]
MakeItem = Callable[..., pystac.Item]

MEDIA = "image/tiff; application=geotiff; profile=cloud-optimized"


@pytest.fixture
def write_raster(tmp_path: Path) -> WriteRaster:
    """Return a function that writes one GeoTIFF and returns its path."""

    def write(
        name: str, values: npt.NDArray[Any], box: GeoBox, *, nodata: float | None = 0, **options: Any
    ) -> Path:
        path = tmp_path / name
        values = values if values.ndim == 3 else values[None]
        profile = {
            "driver": "GTiff",
            "count": values.shape[0],
            "height": values.shape[1],
            "width": values.shape[2],
            "dtype": values.dtype,
            "crs": str(box.crs),
            "transform": box.transform,
            "nodata": nodata,
        }
        with rasterio.open(path, "w", **(profile | options)) as file:
            file.write(values)
        return path

    return write


@pytest.fixture
def make_item(write_raster: WriteRaster) -> MakeItem:
    """Return a function that writes the bands of a scene and returns the item over them."""

    def make(
        name: str,
        when: str,
        bands: dict[str, tuple[npt.NDArray[Any], GeoBox]],
        *,
        nodata: float | None = 0,
        coding: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
        projection: bool = True,
    ) -> pystac.Item:
        time = dt.datetime.fromisoformat(when).replace(tzinfo=dt.UTC)
        item = pystac.Item(name, None, None, time, dict(properties or {}))
        for band, (values, box) in bands.items():
            path = write_raster(f"{name}_{band}.tif", values, box, nodata=nodata)
            fields = describe(values, box, nodata, coding) if projection else {}
            item.add_asset(
                band, pystac.Asset(str(path), media_type=MEDIA, roles=["data"], extra_fields=fields)
            )
        return item

    return make


def describe(
    values: npt.NDArray[Any], box: GeoBox, nodata: float | None, coding: dict[str, Any] | None
) -> dict[str, Any]:
    raster: dict[str, Any] = {"data_type": str(values.dtype), **(coding or {})}
    if nodata is not None:
        raster["nodata"] = "nan" if np.isnan(nodata) else nodata
    return {
        "proj:code": f"EPSG:{box.crs.epsg}" if box.crs is not None else None,
        "proj:shape": list(values.shape),
        "proj:transform": list(box.transform)[:6],
        "raster:bands": [raster],
    }


@pytest.fixture
def as_items(tmp_path: Path) -> Callable[..., Items]:
    """Return a function that joins items with a collection of the catalog."""
    from cubekit.catalog import open_catalog

    def join(items: list[pystac.Item], collection: str | None = None, signer: str | None = None) -> Items:
        record = open_catalog().collection(collection) if collection else None
        return Items(tuple(items), record, root=tmp_path, signer=signer)

    return join
