import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow.parquet
import pytest
import xarray as xr

from cubekit.batching.patches import PatchPlan
from cubekit.batching.samples import Samples
from cubekit.batching.split import plan_split, split
from cubekit.batching.split_record import load_split
from cubekit.batching.units import By
from cubekit.errors import SplitError
from cubekit.labels import class_table

Make = Callable[..., Samples]
MakeCube = Callable[..., xr.Dataset]


@pytest.mark.parametrize("by", ["blocks", "groups", "random"])
def test_a_saved_split_gives_the_same_parts_again(make_samples: Make, tmp_path: Path, by: By) -> None:
    samples = make_samples(300)
    made = plan_split(samples, by=by, buffer=30, seed=3)
    made.save(tmp_path / "deep" / "split.parquet")
    again = load_split(tmp_path / "deep" / "split.parquet")
    assert again.digest() == made.digest()
    assert again.options == json.loads(json.dumps(made.options))
    expected = [part.digest() for part in split(samples, by=by, buffer=30, seed=3)]
    assert [part.digest() for part in again.apply(samples)] == expected
    assert plan_split(samples, by=by, buffer=30, seed=4).digest() != made.digest()


def test_other_tools_read_the_points_and_their_parts(make_samples: Make, tmp_path: Path) -> None:
    samples = make_samples(90)
    made = plan_split(samples, by="blocks", buffer=50)
    table = gpd.read_parquet(made.save(tmp_path / "split.parquet"))
    assert table.crs.to_epsg() == 32633
    np.testing.assert_array_equal(table.geometry.x, samples.position[:, 0])
    assert table["part"].value_counts().to_dict() == {
        name: count
        for name, count in zip(
            ("train", "valid", "test", "dropped"),
            np.bincount(made.part % 4, minlength=4).tolist(),
            strict=True,
        )
        if count
    }
    assert table["class"].tolist() == [samples.classes.names[index] for index in samples.y]


def test_data_that_do_not_fit_are_refused(make_samples: Make, tmp_path: Path) -> None:
    samples = make_samples(100)
    made = load_split(plan_split(samples, by="groups").save(tmp_path / "s.parquet"))
    moved = samples.position.copy()
    moved[7] += 10
    span = np.full((100, 2), np.datetime64("2001-01-01", "ns"))
    for other, message in (
        (samples.take(np.arange(99)), "of 100 samples, these are 99"),
        (replace(samples, position=moved), "1 of 100 samples have another position .* number 7"),
        (replace(samples, crs="EPSG:32632"), "another position"),
        (replace(samples, group=samples.group + 1), "another group"),
        (replace(samples, span=span), "another dates"),
        (replace(samples, y=(samples.y + 1) % 3), "another class"),
    ):
        with pytest.raises(SplitError, match=message):
            made.apply(other)
    nudged = replace(samples, position=samples.position + 1e-6)  # as another PROJ would give
    assert len(made.apply(nudged)[0]) == len(made.apply(samples)[0])


def test_files_that_hold_no_split_are_refused(make_samples: Make, tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="There is no split"):
        load_split(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("part")
    with pytest.raises(SplitError, match="holds no split"):
        load_split(tmp_path / "text.parquet")
    path = plan_split(make_samples(60), by="groups").save(tmp_path / "s.parquet")
    table = pyarrow.parquet.read_table(path)
    parts = table["part"].to_pylist()
    parts[parts.index("test")] = "train"
    changed = table.set_column(table.column_names.index("part"), "part", [parts])
    pyarrow.parquet.write_table(changed, path)
    with pytest.raises(SplitError, match="was changed"):
        load_split(path)


def test_splits_of_patches_are_saved_and_drawn(make_cube: MakeCube, tmp_path: Path) -> None:
    cube = make_cube(rows=120, columns=160)
    patches = PatchPlan(cube, 8)
    made = load_split(plan_split(patches, by="blocks", block=200, buffer=10).save(tmp_path / "s.parquet"))
    parts = made.apply(patches)
    layer = made.layer(cube)
    assert layer.dtype == "int8"
    assert class_table(layer).names == ("train", "valid", "test", "dropped")
    for number, part in enumerate(parts):
        drawn = np.zeros((120, 160), bool)
        for top, bottom, left, right in part.windows.bounds.tolist():
            drawn[top:bottom, left:right] = True
        np.testing.assert_array_equal(layer.values == number, drawn)


def test_splits_of_pixels_are_drawn_where_they_lie(
    make_cube: MakeCube, make_labels: Callable[..., xr.Dataset]
) -> None:
    for crs in ("EPSG:32633", "EPSG:4326"):
        cube = make_cube(rows=40, columns=50, crs=crs)
        labels = make_labels(cube)
        made = plan_split(cube, labels, by="groups", buffer=10)
        layer = made.layer(cube)
        np.testing.assert_array_equal(layer.values >= 0, labels["label"].values >= 0)
        assert [int((layer == number).sum()) for number in (0, 1, 2)] == [
            len(part) for part in made.apply(cube, labels)
        ]
