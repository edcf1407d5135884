"""Shares of classes: against areas of polygons, and against exactextract over cells in another CRS."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import numpy.typing as npt
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from exactextract import exact_extract
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import wrap_xr

import cubekit as ck
from cubekit.batching.extract import extract
from cubekit.errors import LabelError, OptionError
from cubekit.labels import load_fractions

GRID = GeoBox.from_bbox((500_000, 5_000_000, 500_600, 5_000_600), "EPSG:32633", resolution=100)


def polygons(*boxes: tuple[str, tuple[float, float, float, float]]) -> gpd.GeoDataFrame:
    """Return boxes in metres from the lower left corner of the grid."""
    shapes = [
        shapely.box(500_000 + a, 5_000_000 + b, 500_000 + c, 5_000_000 + d) for _, (a, b, c, d) in boxes
    ]
    return gpd.GeoDataFrame({"class": [name for name, _ in boxes]}, geometry=shapes, crs="EPSG:32633")


def test_shares_of_polygons_are_areas() -> None:
    found = load_fractions(polygons(("a", (0, 0, 130, 600)), ("b", (130, 0, 600, 600))), GRID)
    assert found["category"].to_numpy().tolist() == ["a", "b"]
    np.testing.assert_allclose(found["fraction"][:, 2, 0], [1, 0])
    np.testing.assert_allclose(found["fraction"][:, 2, 1], [0.3, 0.7], rtol=1e-5)
    assert found["label"].to_numpy()[2].tolist() == [0, 1, 1, 1, 1, 1]


def test_pixels_covered_too_little_or_twice_have_no_label() -> None:
    table = polygons(
        ("a", (0, 0, 150, 600)),
        ("a", (100, 0, 190, 600)),
        ("b", (200, 0, 300, 600)),
        ("a", (290, 0, 400, 600)),
    )
    with pytest.warns(UserWarning, match="covered more than once"):
        found = load_fractions(table, GRID, min_coverage=0.85)
    assert found["label"].to_numpy()[0].tolist() == [0, 0, -1, 0, -1, -1]  # 1, 0.9 once, both, 1, 0, 0
    np.testing.assert_allclose(found["coverage"][0, :2], [1, 0.9], rtol=1e-5)
    assert np.isnan(found["fraction"][:, 0, 2]).all()
    with pytest.raises(LabelError, match="to 100%"):
        load_fractions(polygons(("a", (10, 10, 90, 90)), ("b", (110, 110, 190, 190))), GRID, min_coverage=1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), empty=st.floats(0, 0.9), shift=st.sampled_from([0.0, 7.0, -13.0]))
def test_averages_are_shares_of_fine_pixels(seed: int, empty: float, shift: float) -> None:
    random = np.random.default_rng(seed)
    values = random.choice(np.array([0, 3, 7, 9], "uint8"), (30, 30), p=[empty, *[(1 - empty) / 3] * 3])
    box = GeoBox((30, 30), Affine(20, 0, 500_000 + shift, 0, -20, 5_000_600), "EPSG:32633")
    fine = wrap_xr(values, box, nodata=0)
    try:
        found = load_fractions(fine, GRID, min_coverage=0.2)
    except LabelError:
        return  # nowhere a fifth
    names = found["category"].to_numpy().tolist()
    across, down = overlaps(shift), overlaps(0)
    shares = np.array([down @ (values == int(name)) @ across.T for name in names])
    np.testing.assert_allclose(found["coverage"], shares.sum(axis=0), atol=1e-5)
    known = found["label"].to_numpy() >= 0
    np.testing.assert_array_equal(known, shares.sum(axis=0) >= 0.2 - 1e-3)
    np.testing.assert_allclose(
        found["fraction"].to_numpy()[:, known], (shares / shares.sum(axis=0))[:, known], atol=1e-5
    )


def overlaps(shift: float) -> npt.NDArray[np.float64]:
    """Return the share of coarse pixel i (of 100 m) that fine pixel j (of 20 m) takes along one axis."""
    coarse, fine = np.arange(6)[:, None] * 100.0, np.arange(30)[None] * 20.0 + shift
    return np.clip(np.minimum(coarse + 100, fine + 20) - np.maximum(coarse, fine), 0, None) / 100  # type: ignore[no-any-return]


@pytest.mark.shared
def test_a_real_map_onto_coarse_pixels_of_another_crs(shared: Path) -> None:
    path = shared / "data/landsat_gewata_2001_vcf/lulc2011.tif"
    if not path.exists():
        path = next((shared / "data").rglob("lulc2011.tif"))
    with rasterio.open(path) as file:
        bounds = rasterio.warp.transform_bounds(file.crs, "EPSG:4326", *file.bounds)
    where = ck.grid(crs="ESRI:54009", resolution=1000, bbox=bounds)
    found = load_fractions(path, where, min_coverage=0.6)
    known = found["label"].to_numpy() >= 0
    assert known.sum() > 30
    np.testing.assert_allclose(found["fraction"].sum("category").to_numpy()[known], 1, rtol=1e-5)

    rows, columns = (axis[::5] for axis in np.nonzero(known))
    cells = [where[r : r + 1, c : c + 1].extent.geom for r, c in zip(rows, columns, strict=True)]
    frame = gpd.GeoDataFrame(geometry=cells, crs=str(where.crs)).to_crs(file.crs.to_wkt())
    exact = exact_extract(str(path), frame, ["unique", "frac"], output="pandas")
    names = found["category"].to_numpy().tolist()
    for row, column, values, shares in zip(rows, columns, exact["unique"], exact["frac"], strict=True):
        for value, share in zip(values, shares, strict=True):
            got = float(found["fraction"][names.index(str(int(value))), row, column])
            assert got == pytest.approx(share, abs=0.02)


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(1, 4, (120, 120), "uint8")
    fine = wrap_xr(values, GeoBox.from_bbox(GRID.boundingbox, resolution=5), nodata=0)
    whole = load_fractions(fine, GRID)
    monkeypatch.setattr("cubekit.labels.fractions._BLOCK", 900)
    xr.testing.assert_identical(load_fractions(fine, GRID), whole)


def test_samples_of_shares_carry_them() -> None:
    shares = load_fractions(polygons(("a", (0, 0, 130, 600)), ("b", (130, 0, 600, 600))), GRID)
    values = np.arange(36, dtype="uint16").reshape(1, 1, 6, 6) + 1
    cube = wrap_xr(values[0, 0], GRID).expand_dims(time=[np.datetime64("2022-01-01", "ns")], band=["red"])
    data = xr.Dataset({"data": cube.assign_attrs(cube.attrs)})
    samples = extract(data, shares)
    np.testing.assert_allclose(samples.y[:2], np.array([[1, 0], [0.3, 0.7]]), rtol=1e-5)
    assert samples.counts()["a"] == pytest.approx(6 * 1.3, rel=1e-5)


def test_what_has_no_shares_is_refused() -> None:
    points = gpd.GeoDataFrame(
        {"class": ["a"]}, geometry=[shapely.Point(500_050, 5_000_050)], crs="EPSG:32633"
    )
    with pytest.raises(LabelError, match="load_labels"):
        load_fractions(points, GRID)
    with pytest.raises(OptionError, match="min_coverage"):
        load_fractions(points, GRID, min_coverage=0)
