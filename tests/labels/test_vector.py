from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.features import rasterize

from cubekit.errors import LabelError, OptionError, SecurityError, UnknownNameError
from cubekit.labels import class_table, load_labels

GRID = GeoBox.from_bbox((500_000, 5_000_000, 500_400, 5_000_300), "EPSG:32633", resolution=10)
DEGREES = GeoBox.from_bbox((15, 45, 15.4, 45.3), "EPSG:4326", resolution=0.01)


def fields(*boxes: tuple[float, float, float, float], names: list[object]) -> gpd.GeoDataFrame:
    """Rectangles in metres from the lower left corner of the grid."""
    shapes = [shapely.box(500_000 + a, 5_000_000 + b, 500_000 + c, 5_000_000 + d) for a, b, c, d in boxes]
    return gpd.GeoDataFrame({"class": names}, geometry=shapes, crs="EPSG:32633")


TWO = fields((0, 0, 150, 300), (200, 0, 400, 300), names=["b", "a"])


def test_label_and_group_are_the_polygon_that_covers_the_centre() -> None:
    labels = load_labels(TWO, GRID)
    expected = rasterize(
        zip(TWO.geometry, [1, 2], strict=True), out_shape=GRID.shape, transform=GRID.transform
    )
    np.testing.assert_array_equal(labels["group"], expected.astype(int) - 1)
    np.testing.assert_array_equal(labels["label"], np.array([-1, 1, 0])[expected])
    assert class_table(labels).names == ("a", "b")
    assert labels["label"].dtype == np.int16
    assert labels["group"].dtype == np.int32
    assert labels.odc.geobox == GRID


@settings(max_examples=25, deadline=None)
@given(inward=st.one_of(st.just(0.0), st.floats(0.1, 60)), angle=st.floats(0, 90), side=st.floats(150, 250))
def test_no_labelled_pixel_is_nearer_to_the_edge_than_the_buffer(
    inward: float, angle: float, side: float
) -> None:
    square = shapely.box(500_200 - side / 2, 5_000_150 - side / 2, 500_200 + side / 2, 5_000_150 + side / 2)
    turned = shapely.affinity.rotate(square, angle)
    frame = gpd.GeoDataFrame({"class": ["a"]}, geometry=[turned], crs="EPSG:32633")
    label = load_labels(frame, GRID, inward=inward)["label"]
    x, y = np.meshgrid(label["x"], label["y"])
    centres = shapely.points(x, y)
    depth = shapely.distance(turned.boundary, centres) * np.where(shapely.contains(turned, centres), 1, -1)
    np.testing.assert_array_equal(label.to_numpy()[depth > inward * 1.0004 + 1e-6], 0)
    np.testing.assert_array_equal(label.to_numpy()[depth < inward - 1e-6], -1)


def test_the_buffer_is_in_metres_whatever_the_crs_of_the_polygons() -> None:
    here, there = (load_labels(frame, GRID, inward=20)["label"] for frame in (TWO, TWO.to_crs("EPSG:3035")))
    assert (here != there).mean() < 0.01


def test_all_touched_agrees_with_rasterio() -> None:
    frame = fields((3, 3, 108, 47), names=["a"])
    label = load_labels(frame, GRID, all_touched=True)["label"]
    expected = rasterize(frame.geometry, out_shape=GRID.shape, transform=GRID.transform, all_touched=True)
    np.testing.assert_array_equal(label, expected.astype(int) - 1)


def test_overlap_of_one_class_belongs_to_the_first() -> None:
    labels = load_labels(fields((0, 0, 100, 100), (50, 0, 150, 100), names=["a", "a"]), GRID)
    assert (labels["group"] == 0).sum() == 100
    assert (labels["group"] == 1).sum() == 50
    assert labels.attrs["conflicting_pixels"] == 0


@pytest.mark.parametrize("names", [["a", "b"], ["b", "a"]])
def test_overlap_of_classes_is_left_out_and_counted(names: list[object]) -> None:
    frame = fields((0, 0, 100, 100), (50, 0, 150, 100), names=names)
    with pytest.warns(UserWarning, match="50 pixels"):
        labels = load_labels(frame, GRID)
    assert (labels["label"] >= 0).sum() == 100
    assert labels.attrs["conflicting_pixels"] == 50


def test_a_conflict_between_equal_neighbours_in_the_stack_is_seen() -> None:
    frame = fields((0, 0, 100, 100), (0, 0, 50, 100), (0, 0, 100, 100), names=["a", "b", "a"])
    with pytest.warns(UserWarning, match="50 pixels"):
        labels = load_labels(frame, GRID)
    assert (labels["label"] == 0).sum() == 50


def test_points_label_the_pixel_they_lie_in() -> None:
    points = gpd.GeoDataFrame(
        {"class": [30, 10]},
        geometry=shapely.points([500_012, 500_395], [5_000_299, 5_000_001]),
        crs="EPSG:32633",
    )
    labels = load_labels(points, GRID, classes={10: "water", 20: "sand", 30: "rock"})
    assert labels["label"].to_numpy()[0, 1] == 2
    assert labels["label"].to_numpy()[29, 39] == 0
    assert (labels["label"] >= 0).sum() == 2
    assert class_table(labels).codes == (10, 20, 30)
    with pytest.raises(OptionError, match="points"):
        load_labels(points, GRID, inward=5)


def test_empty_and_ignored_cells_carry_no_label() -> None:
    frame = fields((0, 0, 100, 300), (100, 0, 200, 300), (200, 0, 300, 300), names=["a", None, "?"])
    labels = load_labels(frame, GRID, ignore=["?"])
    assert labels["group"].to_numpy().max() == 0
    assert labels.attrs["features_without_class"] == 2


def test_bowties_are_mended_before_shrinking() -> None:
    bowtie = shapely.Polygon(
        [(500_000, 5_000_000), (500_300, 5_000_300), (500_300, 5_000_000), (500_000, 5_000_300)]
    )
    frame = gpd.GeoDataFrame({"class": ["a"]}, geometry=[bowtie], crs="EPSG:32633")
    assert (load_labels(frame, GRID, inward=10)["label"] == 0).sum() > 200


def test_a_polygon_keeps_its_number_for_every_grid(tmp_path: Path) -> None:
    TWO.to_file(tmp_path / "fields.gpkg")
    whole = load_labels(tmp_path / "fields.gpkg", GRID)
    right = load_labels(tmp_path / "fields.gpkg", GRID[:, 25:])
    np.testing.assert_array_equal(right["group"], whole["group"].to_numpy()[:, 25:])
    assert right["group"].to_numpy().max() == 2  # GeoPackage numbers its features from 1


def test_parquet_and_geojson_are_read(tmp_path: Path) -> None:
    TWO.to_parquet(tmp_path / "fields.parquet")
    TWO.to_crs("EPSG:4326").to_file(tmp_path / "fields.geojson")
    parquet = load_labels(tmp_path / "fields.parquet", GRID)
    geojson = load_labels(tmp_path / "fields.geojson", GRID)
    np.testing.assert_array_equal(parquet["label"], load_labels(TWO, GRID)["label"])
    assert (geojson["label"] != parquet["label"]).mean() < 0.01


def test_elsewhere_names_both_extents(tmp_path: Path) -> None:
    far = TWO.translate(100_000)
    frame = gpd.GeoDataFrame({"class": TWO["class"]}, geometry=far, crs="EPSG:32633")
    frame.to_file(tmp_path / "far.gpkg")
    for source in (frame, tmp_path / "far.gpkg"):
        with pytest.raises(LabelError, match=r"EPSG:32633 .*\(600000, 5000000.*\(500000, 5000000"):
            load_labels(source, GRID)


def test_vanishing_names_the_buffer() -> None:
    with pytest.raises(LabelError, match="inward buffer of 200 m"):
        load_labels(TWO, GRID, inward=200)


def test_slivers_between_centres_suggest_all_touched() -> None:
    sliver = fields((6, 0, 9, 300), names=["a"])
    with pytest.raises(LabelError, match="all_touched"):
        load_labels(sliver, GRID)
    assert (load_labels(sliver, GRID, all_touched=True)["label"] == 0).sum() == 30


def test_missing_column_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="'class'"):
        load_labels(TWO, GRID, column="clas")


def test_unknown_class_is_named() -> None:
    with pytest.raises(LabelError, match="'b'"):
        load_labels(TWO, GRID, classes=["a", "c"])


def test_metres_on_a_grid_in_degrees_are_refused() -> None:
    frame = gpd.GeoDataFrame(
        {"class": ["a"]}, geometry=[shapely.box(15.1, 45.1, 15.3, 45.2)], crs="EPSG:4326"
    )
    with pytest.raises(LabelError, match="metric grid"):
        load_labels(frame, DEGREES, inward=30)
    labels = load_labels(frame, DEGREES)
    assert (labels["label"] == 0).sum() == 200
    assert labels["label"].dims == ("y", "x")


def test_other_refusals() -> None:
    with pytest.raises(OptionError, match="inward=-5"):
        load_labels(TWO, GRID, inward=-5)
    with pytest.raises(LabelError, match="no CRS"):
        load_labels(TWO.set_crs(None, allow_override=True), GRID)
    with pytest.raises(LabelError, match="No label file"):
        load_labels("nowhere.gpkg", GRID)
    with pytest.raises(LabelError, match="float"):
        load_labels(TWO.assign(**{"class": [0.5, 1.0]}), GRID)
    lines = gpd.GeoDataFrame({"class": ["a"]}, geometry=TWO.boundary[:1], crs="EPSG:32633")
    with pytest.raises(LabelError, match="LineString"):
        load_labels(lines, GRID)
    with pytest.raises(OptionError, match="number: name"):
        load_labels(TWO.assign(**{"class": [1, 2]}), GRID, classes=["a", "b"])
    with pytest.raises(OptionError, match="whole numbers"):
        load_labels(TWO, GRID, classes={"a": "b"})  # type: ignore[dict-item]


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "fields.gpkg").write_text("not a geopackage")
    with pytest.raises(LabelError, match=r"fields\.gpkg"):
        load_labels(tmp_path / "fields.gpkg", GRID)


@pytest.mark.shared
def test_slovenian_land_cover_with_a_buffer_of_20_m(shared: Path) -> None:
    import rasterio

    folder = shared / "data/s2_slovenia_eopatch"
    with rasterio.open(folder / "lulc_10m.tif") as file:
        grid, published = GeoBox.from_rio(file), file.read(1)
    labels = load_labels(folder / "lulc_polygons.gpkg", grid, column="LULC_ID", inward=20, ignore=[0])
    codes = np.array(class_table(labels).codes)
    label = labels["label"].to_numpy()
    inside = label >= 0
    np.testing.assert_array_equal(codes[label[inside]], published[inside])

    polygons = gpd.read_file(folder / "lulc_polygons.gpkg", fid_as_index=True).to_crs(grid.crs)
    x, y = np.meshgrid(labels["x"], labels["y"])
    edges = polygons.geometry.boundary.loc[labels["group"].to_numpy()[inside]]
    assert shapely.distance(edges.to_numpy(), shapely.points(x[inside], y[inside])).min() >= 20 - 1e-6


@pytest.mark.parametrize("name", ["labels.gpkg", "labels.geojson", "labels.shp"])
def test_a_virtual_file_that_names_another_is_refused(tmp_path: Path, name: str) -> None:
    frame = gpd.GeoDataFrame({"class": ["a"]}, geometry=[shapely.box(0, 0, 100, 100)], crs="EPSG:32630")
    secret = tmp_path / "secret.gpkg"
    frame.to_file(secret)
    (tmp_path / name).write_text(
        f'<OGRVRTDataSource><OGRVRTLayer name="secret"><SrcDataSource>{secret}</SrcDataSource>'
        "</OGRVRTLayer></OGRVRTDataSource>"
    )
    with pytest.raises(SecurityError, match="leads elsewhere"):
        load_labels(tmp_path / name, GeoBox.from_bbox((0, 0, 100, 100), "EPSG:32630", resolution=10))
