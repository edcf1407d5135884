"""Figures: what they say is read from their parts and their pixels, not from how they were made."""

import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.array as da
import matplotlib.image
import numpy as np
import numpy.testing as npt
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.errors import ExportError, UnknownNameError
from cubekit.exports.figures import (
    confusion_figure,
    curve_figure,
    map_figure,
    png_bytes,
    rgb_figure,
    save_figure,
    series_figure,
    split_figure,
)
from cubekit.exports.maps import class_areas
from cubekit.labels import ClassTable
from cubekit.typing import Array

TABLE = ClassTable.of(["water", "bare soil", "forest"], colours=["#0072b2", "#e69f00", "#117733"])


def grid(shape: tuple[int, int], crs: str = "EPSG:32630", size: float = 10) -> Any:
    return xr_coords(
        GeoBox(shape, Affine(size, 0, 4e5 if size > 1 else 5, 0, -size, 4.5e6 if size > 1 else 50), crs)
    )


def class_map(shape: tuple[int, int] = (60, 100)) -> xr.Dataset:
    values = np.zeros(shape, "uint8")
    values[: shape[0] // 2] = 2
    values[:, : shape[1] // 10] = 255
    attrs = {"_FillValue": np.uint8(255)} | TABLE.attrs()
    return xr.Dataset({"class": (("y", "x"), values, attrs)}, attrs={"title": "Cover"}).assign_coords(
        grid(shape)
    )


def make_cube(bands: tuple[str, ...] = ("red", "green", "blue", "nir")) -> xr.Dataset:
    rng = np.random.default_rng(0)
    values = rng.integers(1200, 4000, (3, len(bands), 50, 60)).astype("uint16")
    values[0] += 5000  # a cloudy date
    values[1, :, :, 30:] = 0  # half a swath
    attrs = {"_FillValue": np.uint16(0), "scale_factor": 1e-4, "add_offset": -0.1}
    cube = xr.Dataset({"data": (("time", "band", "y", "x"), values, attrs)})
    times = pd.to_datetime(["2023-01-05", "2023-02-05", "2023-03-05"])
    return cube.assign_coords(grid((50, 60)) | {"time": times, "band": list(bands)})


def texts(figure: Any) -> str:
    import matplotlib.text

    figure.canvas.draw()
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def colours(figure: Any) -> set[tuple[int, ...]]:
    pixels = matplotlib.image.imread(io.BytesIO(png_bytes(figure)))[..., :3].reshape(-1, 3)
    return set(map(tuple, np.rint(pixels * 255).astype(int).tolist()))


def test_a_class_map_shows_names_shares_areas_colours_and_scale() -> None:
    figure = map_figure(class_map())
    told = texts(figure)
    assert "Cover" in told
    for part in ("water\n50.0% · 27.0 ha", "forest\n50.0%", "bare soil\n0.0%", "no data\n10.0% of the map"):
        assert part in told
    for part in ("Easting (km)", "EPSG:32630 · 10 m pixels", "200 m", "N"):
        assert part in told
    assert {(0, 114, 178), (17, 119, 51), (230, 230, 230)} <= colours(figure)


def test_shares_of_a_lazy_thinned_map_are_exact_and_blocks_computed_once() -> None:
    computed: list[int] = []
    values = np.random.default_rng(0).integers(0, 3, (3000, 500)).astype("uint8")

    def block(part: Array) -> Array:
        computed.append(1)
        return part

    source: Any = da.from_array(values, chunks=(1000, 500))  # type: ignore[no-untyped-call]
    lazy = source.map_blocks(block, dtype="uint8", meta=values[:0, :0])
    attrs = {"_FillValue": np.uint8(255)} | TABLE.attrs()
    variable = xr.DataArray(lazy, dims=("y", "x"), attrs=attrs, name="class").assign_coords(
        grid(values.shape)
    )
    told = texts(map_figure(variable))
    assert len(computed) == 3
    for index, name in enumerate(TABLE.names):
        assert f"{name}\n{(values == index).mean():.1%}" in told
    npt.assert_array_equal(class_areas(variable), np.bincount(values.ravel()))


def test_values_get_a_colour_bar_in_physical_units() -> None:
    stored = np.tile(np.arange(100, dtype="int16") * 100, (50, 1))
    attrs = {
        "_FillValue": np.int16(-1),
        "scale_factor": 1e-4,
        "add_offset": 0.0,
        "units": "1",
        "long_name": "ndvi",
    }
    variable = xr.DataArray(stored, dims=("y", "x"), attrs=attrs, name="v").assign_coords(grid(stored.shape))
    figure = map_figure(variable, title="Green")
    low, high = figure.axes[0].images[0].get_clim()
    npt.assert_allclose((low, high), np.percentile(stored * 1e-4, (2, 98)), rtol=1e-5)
    assert "ndvi (1)" in texts(figure)


def test_degrees_have_no_kilometres() -> None:
    geographic = (
        class_map().drop_vars(["spatial_ref", "y", "x"]).assign_coords(grid((60, 100), "EPSG:4326", 0.01))
    )
    geographic = (
        geographic.rename(latitude="y", longitude="x") if "latitude" in geographic.dims else geographic
    )
    told = texts(map_figure(geographic))
    assert "Longitude (°)" in told
    assert "km" not in told


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (400, 2)])
def test_odd_shapes_are_drawn(shape: tuple[int, int]) -> None:
    assert png_bytes(map_figure(class_map(shape)))[:4] == b"\x89PNG"


def test_a_map_without_any_data_is_drawn() -> None:
    empty = class_map()
    empty["class"][:] = 255
    assert "no data\n100.0% of the map" in texts(map_figure(empty))
    blank = xr.DataArray(np.full((5, 5), np.nan), dims=("y", "x"), name="v").assign_coords(grid((5, 5)))
    assert png_bytes(map_figure(blank))


def test_cubes_are_no_maps() -> None:
    with pytest.raises(ExportError, match=r"isel\(time=0\)"):
        map_figure(make_cube())


def test_rgb_takes_the_clear_full_date_and_stretches_each_band() -> None:
    cube = make_cube()
    figure = rgb_figure(cube)
    assert "True colour, 2023-03-05" in texts(figure)
    shown = np.asarray(figure.axes[0].images[0].get_array())
    assert shown.shape == (50, 60, 3)
    red = cube["data"].sel(band="red").isel(time=2).to_numpy().astype("float64")
    low, high = np.percentile(red, (2, 98))
    npt.assert_allclose(shown[..., 0], np.clip((red - low) / (high - low), 0, 1) ** (1 / 1.4), atol=1e-3)


def test_rgb_paints_missing_pixels_grey_and_finds_dates() -> None:
    shown = np.asarray(rgb_figure(make_cube(), time="2023-02-01").axes[0].images[0].get_array())
    npt.assert_allclose(shown[:, 30:], 230 / 255)
    assert "2023-01-05" in texts(rgb_figure(make_cube(), time=0))


def test_a_cube_without_colours_shows_its_first_band() -> None:
    told = texts(rgb_figure(make_cube(("ndvi", "evi"))))
    assert "NDVI, 2023-03-05" in told
    assert "Nir, blue, green" in texts(rgb_figure(make_cube(), bands=("nir", "blue", "green"), time=0))
    with pytest.raises(UnknownNameError, match="Did you mean 'nir'"):
        rgb_figure(make_cube(), bands=("nirr", "red", "blue"))
    with pytest.raises(ExportError, match="three bands, or one"):
        rgb_figure(make_cube(), bands=("nir", "red"))


def test_a_confusion_matrix_shows_counts_and_both_accuracies() -> None:
    counts = np.array([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    figure = confusion_figure(SimpleNamespace(classes=TABLE.names, confusion=counts))
    told = texts(figure).split("\n")
    for part in ("8", "9", "80%", "90%", "89%", "82%", "water", "true", "predicted"):
        assert part in told
    shares = np.asarray(figure.axes[0].images[0].get_array())
    npt.assert_allclose(shares[0], [0.8, 0.2, 0.0])


def test_many_classes_are_drawn_without_numbers_in_cells() -> None:
    names = tuple(f"class {i}" for i in range(20))
    figure = confusion_figure(SimpleNamespace(classes=names, confusion=np.full((20, 20), 777)))
    assert "777" not in texts(figure)


def test_curves_mark_the_epoch_that_was_kept() -> None:
    history = [
        {"epoch": 1, "train_loss": 1.0, "valid_loss": 0.9, "valid_f1": 0.5, "seconds": 1.0},
        {"epoch": 2, "train_loss": 0.5, "valid_loss": 0.4, "valid_f1": 0.8, "seconds": 2.0},
        {"epoch": 3, "train_loss": 0.4, "valid_loss": 0.6, "valid_f1": 0.7, "seconds": 3.0},
    ]
    figure = curve_figure(history)
    assert "kept: 2" in texts(figure)
    losses, scores = figure.axes
    assert [line.get_label() for line in losses.lines][:2] == ["training loss", "validation loss"]
    npt.assert_array_equal(scores.lines[0].get_ydata(), [0.5, 0.8, 0.7])
    assert len(curve_figure([{"train_loss": 1.0}]).axes) == 1
    with pytest.raises(ExportError, match="no epoch"):
        curve_figure([])


@dataclass
class Series:
    stored: Array
    y: Array
    position: Array
    bands: tuple[str, ...] = ("red", "nir")
    classes: ClassTable = TABLE

    @property
    def times(self) -> Array:
        return pd.date_range("2023-01-01", periods=self.stored.shape[1], freq="MS").to_numpy()

    def physical(self) -> Array:
        return self.stored

    def __len__(self) -> int:
        return len(self.y)


def make_series() -> Series:
    rng = np.random.default_rng(0)
    values = rng.uniform(0.05, 0.5, (40, 12, 2)).astype("float32")
    values[:, 3] = np.nan
    position = np.stack([4e5 + rng.random(40) * 1000, 4.5e6 - rng.random(40) * 600], axis=1)
    return Series(values, np.repeat([0, 2], 20), position)


def test_series_show_the_mean_of_each_class_with_gaps() -> None:
    samples = make_series()
    figure = series_figure(samples)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert set(lines) == {"water (20)", "forest (20)"}
    red, nir = samples.stored[..., 0], samples.stored[..., 1]
    ndvi = (nir - red) / (nir + red)
    npt.assert_allclose(
        np.delete(np.asarray(lines["forest (20)"].get_ydata()), 3),
        np.delete(ndvi[20:], 3, axis=1).mean(axis=0),
        rtol=1e-5,
    )
    assert np.isnan(np.asarray(lines["water (20)"].get_ydata())[3])
    assert "NDVI by class" in texts(figure)
    assert "red by class" in texts(series_figure(samples, value="red"))
    with pytest.raises(ExportError, match="swir"):
        series_figure(samples, value="swir")


def test_a_split_shows_every_part_with_and_without_a_map() -> None:
    samples = make_series()
    parts = {"training": samples, "test": samples}
    for background in (None, class_map()["class"]):
        told = texts(split_figure(parts, background=background))
        assert "training (40)" in told
        assert "test (40)" in told


def test_figures_are_the_same_bytes_each_time_and_leave_pyplot_alone(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    one, two = (save_figure(map_figure(class_map()), tmp_path / "new" / f"{name}.png") for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    assert dict(mpl.rcParams) == before
    import sys

    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
