"""Class maps side by side: one legend, whatever the order of the classes in each map."""

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.errors import ExportError
from cubekit.exports.panels import panels_figure
from cubekit.labels import ClassTable

COLOURS = {"forest": "#117733", "water": "#0072b2", "urban": "#cc3311"}


def drawn(
    values: list[list[int]], names: list[str], *, colours: dict[str, str] | None = None
) -> xr.DataArray:
    grid = GeoBox.from_bbox((0, 0, 20, 20), "EPSG:32631", resolution=10)
    attrs = {"_FillValue": np.uint8(255), **ClassTable.of(names, colours=colours).attrs()}
    return xr.DataArray(np.array(values, "uint8"), xr_coords(grid, always_yx=True), ("y", "x"), attrs=attrs)


def test_a_class_has_one_colour_in_all_maps() -> None:
    reference = drawn([[0, 1], [2, 255]], ["water", "urban", "forest"])
    model = drawn([[1, 2], [0, 0]], ["forest", "water", "urban"], colours=COLOURS)
    figure = panels_figure({"reference": reference, "model": model}, notes={"model": "0.75"}, title="All")
    first, second = (axes.images[0].get_array() for axes in figure.axes)
    green, blue, red, grey = (0x11, 0x77, 0x33), (0x00, 0x72, 0xB2), (0xCC, 0x33, 0x11), (0xE6, 0xE6, 0xE6)
    np.testing.assert_array_equal(first, [[blue, red], [green, grey]])
    np.testing.assert_array_equal(second, [[blue, red], [green, green]])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["forest", "water", "urban"]


def test_classes_that_one_map_lacks_join_the_legend() -> None:
    figure = panels_figure(
        {"a": drawn([[0, 1], [1, 1]], ["water", "ice"]), "b": drawn([[0, 0], [0, 0]], ["water"])}
    )
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["water", "ice"]


def test_what_is_no_map_or_lies_elsewhere_is_refused() -> None:
    own = drawn([[0, 0], [0, 0]], ["water"])
    with pytest.raises(ExportError, match="no map"):
        panels_figure({})
    with pytest.raises(ExportError, match="'b' lies on another grid"):
        panels_figure({"a": own, "b": own.isel(y=slice(1))})
    with pytest.raises(ExportError, match="'b' is no class map"):
        panels_figure({"a": own, "b": own.assign_attrs(classes=None).drop_attrs()})
