"""Series and patches on one split: scored on the same pixels, mapped, and put side by side."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import cubekit as ck
from cubekit.batching.extract import extract
from cubekit.batching.footprints import pixels_of
from cubekit.batching.split_record import load_split
from cubekit.cli import main
from cubekit.errors import OptionError, PipelineError
from cubekit.evaluation.accuracy import assess
from cubekit.labels import ClassTable
from cubekit.pipeline.comparison import Comparison
from cubekit.testing.archive import SampleArchive

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*have no valid value"),
    pytest.mark.filterwarnings("ignore:.*different classes"),  # the sample's polygons touch at their borders
]

SMALL = {"width": 4, "depth": 1}
QUICK: dict[str, Any] = {"epochs": 2, "batch": 32, "progress": False}


@pytest.fixture(scope="module")
def land() -> tuple[xr.Dataset, xr.Dataset]:
    """Give fields of two crops that differ at one date, 480 m a side, two thirds of them labelled."""
    rng = np.random.default_rng(0)
    field = np.kron(rng.integers(0, 2, (8, 8)), np.ones((6, 6), int))
    data = rng.normal(3000, 300, (4, 2, 48, 48))
    data[2, 1] += 3000 * field
    data[:, :, :3, :3] = 0  # never observed
    coords = xr_coords(GeoBox.from_bbox((0, 0, 480, 480), "EPSG:32631", resolution=10), always_yx=True)
    times = np.arange("2023-01", "2023-05", dtype="datetime64[M]").astype("datetime64[ns]")
    attrs = {"grid_mapping": "spatial_ref", "scale_factor": 1e-4, "add_offset": 0.0, "_FillValue": 0}
    cube = xr.Dataset(
        {"data": (("time", "band", "y", "x"), data.clip(0).astype("uint16"), attrs)},
        coords | {"time": times, "band": ["red", "nir"]},
    )
    label = np.where(rng.random((48, 48)) < 0.67, field, -1).astype("int16")
    table = ClassTable.of(["maize", "wheat"])
    labels = xr.Dataset(
        {
            "label": (("y", "x"), label, {"_FillValue": np.int16(-1), **table.attrs()}),
            "group": (("y", "x"), np.arange(48**2, dtype="int32").reshape(48, 48)),
        },
        coords,
    )
    return cube, labels


def test_both_kinds_are_scored_on_the_test_pixels_and_map_the_cube(
    land: tuple[xr.Dataset, xr.Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cubekit.pipeline import contest, patches

    cube, labels = land
    parts = ck.split(cube, labels, block=120)

    def compare() -> Comparison:
        return ck.compare(
            ["conv1d", "unet"], *parts, seeds=(0, 1), settings={**QUICK, "class_weights": "balanced"},
            cube=cube, arguments={"unet": SMALL}, patches={"size": 8, "stride": 4, "batch": 8, "epochs": 3},
            reference=labels["label"], out=tmp_path,
        )  # fmt: skip

    made = compare()
    with monkeypatch.context() as patch:
        patch.setattr(patches, "fit", None)
        patch.setattr(contest, "fit", None)  # what is trained is not trained again
        assert [(row.name, row.scores) for row in compare().rows] == [
            (row.name, row.scores) for row in made.rows
        ]
    rows = {row.name: row for row in made.rows}
    assert set(rows) == {"conv1d", "unet", "random forest", "majority class"}
    assert {row.runs for row in made.rows} == {2}
    test = parts[2]
    rows_, columns = pixels_of(test, cube)
    for name in ("conv1d", "unet"):
        each = []
        for seed in (0, 1):
            model = ck.load_model(tmp_path / f"{name}-{seed}")
            drawn = ck.predict(model, cube.chunk(y=17, x=20))["class"].to_numpy()
            each.append(assess(test.y, drawn[rows_, columns].astype(int), test.classes).overall)
            if name == "conv1d":
                own = model.classify(test.physical())
                np.testing.assert_array_equal(drawn[rows_, columns], np.where(own < 0, 255, own))
            if not seed:
                np.testing.assert_array_equal(made.maps[name], drawn)
        assert rows[name].scores["overall accuracy"][0] == pytest.approx(np.mean(each))
        assert rows[name].parameters == model.card.parameters
        assert rows[name].megapixels_per_second
    assert model.card.form == "patches"
    assert model.card.settings["epochs"] == 3
    assert {path.name for path in tmp_path.iterdir()} >= {
        "comparison.csv", "comparison.md", "comparison.png", "maps.png",
    }  # fmt: skip
    assert "Mpx/s" in made.table()


def test_the_loss_sees_only_training_pixels(
    land: tuple[xr.Dataset, xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cubekit.pipeline import patches

    seen: list[Any] = []

    def stop(_: str, *streams: Any, **__: object) -> None:
        seen.extend(streams)
        raise KeyboardInterrupt

    monkeypatch.setattr(patches, "fit", stop)
    cube, labels = land
    train, valid, test = ck.split(cube, labels, block=120)
    with pytest.raises(KeyboardInterrupt):
        ck.compare(["unet"], train, valid, test, cube=cube, patches={"size": 8, "stride": 4, "batch": 8})
    part = np.full(labels["label"].shape, -1)
    for number, each in enumerate((train, valid, test)):
        part[pixels_of(each, cube)] = number
    known = [sorted(map(tuple, np.argwhere(part == number))) for number in (0, 1)]
    for stream, allowed in zip(seen, known, strict=True):
        told = stream.stream.sources[0].readers["y"](slice(0, 48), slice(0, 48))
        assert sorted(map(tuple, np.argwhere(np.squeeze(told) >= 0))) == allowed
    foreign = np.isin(part, (1, 2))
    assert not seen[0].batcher.share(foreign).any()


def test_what_cannot_take_part_is_told_before_anything_is_trained(
    land: tuple[xr.Dataset, xr.Dataset],
) -> None:
    cube, labels = land
    parts = ck.split(cube, labels, block=120)
    with pytest.raises(OptionError, match="unet see patches: give the cube"):
        ck.compare(["conv1d", "unet"], *parts)
    with pytest.raises(OptionError, match=r"names 'unit'.* Did you mean 'unet'"):
        ck.compare(["unet"], *parts, cube=cube, arguments={"unit": {}})
    with pytest.raises(OptionError, match=r"patches= holds \['seed'\]"):
        ck.compare(["unet"], *parts, cube=cube, patches={"seed": 1})


def test_a_pipeline_file_names_its_contestants(
    sample_archive: SampleArchive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body: dict[str, Any] = {
        "title": "Job",
        "source": {"items": str(sample_archive.items)},
        "grid": {"crs": sample_archive.crs, "resolution": 20, "bbox": list(sample_archive.bbox)},
        "cube": {
            "bands": ["red", "nir"], "mask": "clouds", "fill": "linear",
            "composite": {"every": "3MS", "fallback": "unmasked"},
        },
        "labels": {"source": str(sample_archive.labels), "limit_per_class": 200},
        "split": {"by": "groups"},
        "train": {"network": "ltae", "epochs": 1, "batch": 64, "schedule": [1], "keep": "weighted_f1"},
        "predict": {"sieve": 4},
        "compare": {
            "networks": ["conv1d", "unet"], "arguments": {"unet": SMALL},
            "patches": {"size": 8, "stride": 2, "batch": 4},
        },
    }  # fmt: skip
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(body))
    assert main(["-q", "compare", str(file), "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert all(f"| {name} | " in out for name in ("conv1d", "unet", "random forest"))
    assert (tmp_path / "out/comparison/maps.png").read_bytes()[:4] == b"\x89PNG"
    result = ck.run(file, out=tmp_path / "out")  # on the cube that the comparison left
    assert result.files["attention"].read_bytes()[:4] == b"\x89PNG"
    assert (tmp_path / "out/attention.csv").read_text().startswith("category,time,weight,spread")
    assert (
        ck.open(result.files["sieved"])["class"].shape == ck.open(result.files["prediction"])["class"].shape
    )
    body["train"] |= {"network": "unet", "arguments": SMALL, "epochs": 2}
    body["patches"] = body.pop("compare")["patches"]
    file.write_text(yaml.safe_dump(body))
    result = ck.run(file, out=tmp_path / "out")  # a network that sees patches, on the same cube and split
    model = ck.load_model(result.files["model"])
    assert (model.card.network, model.card.form) == ("unet", "patches")
    assert model.card.settings["epochs"] == 2
    cube = ck.open(result.files["cube"])
    samples = extract(cube, ck.load_labels(sample_archive.labels, cube), limit_per_class=200, seed=0)
    test = load_split(result.files["split"]).apply(samples)[2]
    drawn = ck.predict(model, cube)["class"].to_numpy()[pixels_of(test, cube)]
    own = assess(test.y, drawn.astype(int), test.classes)
    np.testing.assert_array_equal(result.scores["unet"].confusion, own.confusion)
    file.write_text(yaml.safe_dump(body))
    with pytest.raises(PipelineError, match="names no networks"):
        ck.compare_pipeline(file, out=tmp_path / "other")


def test_a_comparison_without_maps_is_saved_without_them(tmp_path: Path) -> None:
    from cubekit.pipeline.comparison import Row

    row = Row(name="persistence", scores={"RMSE": (0.1, 0.0)}, runs=1)
    Comparison(rows=(row,)).save(tmp_path)
    assert not (tmp_path / "maps.png").exists()
    assert "| persistence | 0.1 | 1 | - | - |" in (tmp_path / "comparison.md").read_text()
