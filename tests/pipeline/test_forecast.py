"""A whole forecast on its sample data, and its words."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml

from cubekit.errors import PipelineError
from cubekit.specs import find

pytest.importorskip("torch")

import cubekit as ck
from cubekit.cli import main
from cubekit.demo import run_demo
from cubekit.pipeline.result import RunResult
from cubekit.pipeline.schema import read_pipeline

pytestmark = pytest.mark.torch

SMALL: dict[str, Any] = {
    "window": 2, "patch": 16, "batch": 8, "train_samples": 16, "valid_samples": 8, "epochs": 2, "steps": 2,
    "hold_out": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    """A run on a small archive."""
    folder = tmp_path_factory.mktemp("veg")
    return run_demo(folder, "vegetation_forecast", settings=SMALL, sample={"size": 40, "years": 7})


def test_everything_is_left_behind(ran: RunResult) -> None:
    for name in ("cube", "model", "prediction", "map", "map 2009", "maps", "scatter", "curves", "picture",
                 "history", "metrics", "report", "result"):  # fmt: skip
        assert ran.files[name].exists(), name
    with np.load(ran.files["history"]) as losses:
        assert set(losses.files) == {"train_losses", "val_losses"}
        assert len(losses["train_losses"]) == len(losses["val_losses"]) == 2
    with rasterio.open(ran.files["map"]) as file:
        values = file.read(1, masked=True)
        assert file.crs.to_epsg() == 32650
    zone = ck.open(ran.files["cube"])["zone_buffer"].to_numpy()
    assert not np.isfinite(values.filled(np.nan)[~zone]).any()
    assert np.isfinite(values.filled(np.nan)[zone]).all()


def test_the_network_stands_beside_the_baselines(ran: RunResult) -> None:
    (scores,) = ran.scores.values()
    rows = {(row.forecaster, row.year, row.zone) for row in scores.rows}
    assert ("persistence", "2006", "mine") in rows
    assert ("convlstm_unet", "all", "total") in rows
    assert {year for _, year, _ in rows} == {"2006", "2007", "all"}  # the last two of 2001 to 2007
    assert "persistence" in ran.verdict
    told = json.loads(ran.files["result"].read_text())
    assert told["scores"]["convlstm_unet"]["rmse"] == pytest.approx(scores.overall)


def test_a_model_of_the_same_maps_is_used_again(ran: RunResult) -> None:
    before = (ran.files["model"] / "weights.safetensors").stat().st_mtime_ns
    again = run_demo(ran.folder, "vegetation_forecast", settings=SMALL, sample={"size": 40, "years": 7})
    assert (ran.files["model"] / "weights.safetensors").stat().st_mtime_ns == before
    (old,), (new,) = ran.scores.values(), again.scores.values()
    assert new.overall == old.overall


def test_commands_do_the_same_one_by_one(
    ran: RunResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = ran.folder / "archive"
    mine = archive / "mine" / "NDVI"
    first, mask, cube, model = (
        mine / "Landsat_NDVI_2001.tif",
        *(tmp_path / n for n in ("m.tif", "c.zarr", "m")),
    )

    def run(*words: object) -> None:
        assert main(["veg", *map(str, words)]) == 0, capsys.readouterr().err

    run("mask", first, "--out", mask)
    with rasterio.open(first) as one, rasterio.open(mask) as other:
        np.testing.assert_array_equal(one.read(1) != 0, other.read(1) == 1)
    run("cube", archive, "--index", "NDVI", "--zone", "buffer", "--outside", 0, "--mask", f"mine={mask}",
        "--out", cube)  # fmt: skip
    run("train", cube, "--index", "NDVI", "--out", model, "--window", 2, "--patch", 16, "--batch", 8,
        "--epochs", 1, "--lr", 0.002, "--workers", 1, "--patience", 3, "--train-samples", 8,
        "--valid-samples", 8)  # fmt: skip
    run("evaluate", model, cube, "--out", tmp_path / "metrics.txt")
    assert "damped persistence" in (tmp_path / "metrics.txt").read_text()
    run("predict", model, cube, "--steps", 2, "--out", tmp_path / "f.zarr")
    assert ck.open(tmp_path / "f.zarr")["time"].dt.year.to_numpy().tolist() == [2008, 2009]
    assert main(["veg", "predict", str(model), str(cube), "--within", "lake", "--out", "x"]) == 2
    assert "zones ['mine']" in capsys.readouterr().err
    assert main(["veg", "mask", "nowhere.tif", "--out", str(tmp_path / "n.tif")]) == 2
    assert "nowhere.tif" in (told := capsys.readouterr().err)
    assert "Unexpected" not in told


def test_a_published_npz_gives_the_forecast_of_the_rasters(ran: RunResult, tmp_path: Path) -> None:
    archive = ran.folder / "archive"
    maps = ck.open(ran.files["cube"])["data"].sel(band="NDVI")
    valid, years = np.isfinite(maps.to_numpy()), maps["time"].dt.year.to_numpy()
    backwards = slice(None, None, -1)  # such files are in any order
    np.savez(
        tmp_path / "maps.npz",
        data=np.where(valid, maps.to_numpy(), -9)[backwards],
        valid_mask=valid[backwards],
        years=years[backwards],
    )
    buffer, mine = (archive / zone / "NDVI" / "Landsat_NDVI_2001.tif" for zone in ("buffer", "mine"))
    job = yaml.safe_load(find("pipelines", "vegetation_forecast").read_text())
    job["maps"] = {"npz": {"path": str(tmp_path / "maps.npz"), "like": str(buffer)}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    settings = SMALL | {"root": "", "zones": {"mine": str(mine), "buffer": str(buffer)}}
    found = ck.run(tmp_path / "job.yaml", out=tmp_path / "run", settings=settings)
    (old,), (new,) = ran.scores.values(), found.scores.values()
    assert new.overall == pytest.approx(old.overall, rel=1e-5)
    with rasterio.open(found.files["map"]) as one, rasterio.open(ran.files["map"]) as other:
        assert one.transform == other.transform
        np.testing.assert_allclose(one.read(1), other.read(1), rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maps": {}}, "exactly one of years, npz, store, scenes"),
        ({"sampling": {"patch": 30}}, "multiples of 4"),
        ({"sampling": {"windows": 3}}, "Unknown key 'sampling.windows'. Did you mean 'window'"),
        ({"train": {"class_weights": "balanced"}}, "for classes"),
        ({"within": "lake"}, "not among the zones"),
    ],
)
def test_words_that_are_wrong_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    words = {"title": "t", "task": "forecast", "index": "NDVI", "maps": {"store": "x.zarr"}, "zones": {}}
    words["maps"] = {"years": {"root": "."}}
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(words | change))
    with pytest.raises(PipelineError, match=message):
        read_pipeline(path)


def test_the_shipped_file_sets_everything_that_the_task_knows() -> None:
    text = find("pipelines", "vegetation_forecast").read_text()
    words = "window patch batch epochs learning_rate workers patience train_samples valid_samples root index"
    for word in words.split():
        assert f"  {word}:" in text
