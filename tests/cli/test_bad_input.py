"""What a user may get wrong, typed as a user would: an exit code and one paragraph that says what to do."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import xarray as xr

import cubekit as ck
from cubekit import errors
from cubekit.cli import main
from cubekit.testing.archive import SampleArchive
from cubekit.testing.servers import stac_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("always:.*different classes"),  # the sample's polygons touch at their borders
]

Tell = Callable[..., str]


@dataclass(frozen=True)
class Place:
    """What the commands are tried on."""

    archive: SampleArchive
    cube: Path
    other: Path
    labels: Path
    broken: Path


@pytest.fixture(scope="module")
def place(sample_archive: SampleArchive, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Build two small cubes, and files that are wrong in one way each."""
    folder = tmp_path_factory.mktemp("bad")
    cube, other, broken = folder / "cube.zarr", folder / "other.zarr", folder / "broken"
    grid = ("--crs", sample_archive.crs, "--resolution", "20")
    build = ("-q", "build", str(sample_archive.items), "--fill", "linear", *grid)
    assert main([*build, "--bands", "red,nir", "--every", "3MS", "--out", str(cube)]) == 0
    assert main([*build, "--bands", "red,green", "--every", "4MS", "--out", str(other)]) == 0
    broken.mkdir()
    _break(gpd.read_file(sample_archive.labels), sample_archive, broken)
    return Place(sample_archive, cube, other, sample_archive.labels, broken)


def _break(frame: gpd.GeoDataFrame, archive: SampleArchive, folder: Path) -> None:
    """Write labels and files that are wrong in one way each."""
    for name, wrong in {
        "far": frame.set_geometry(frame.translate(50_000, 0)),
        "one": frame[frame["class"] == "maize"],
        "lines": frame.set_geometry(frame.boundary),
        "unnamed": frame.drop(columns="class"),
        "empty": frame.assign(**{"class": None}),
    }.items():
        wrong.to_file(folder / f"{name}.gpkg")
    with pytest.warns(UserWarning, match="crs"):
        frame.set_crs(None, allow_override=True).to_file(folder / "nowhere.gpkg")
    whole = archive.labels.read_bytes()
    (folder / "cut.gpkg").write_bytes(whole[:5000])
    (folder / "torn.gpkg").write_bytes(whole[:3000] + bytes(6000) + whole[9000:])
    for name in ("text.gpkg", "text.tif", "text.nc", "text.json", "text.parquet"):
        (folder / name).write_text("hello")
    codes = xr.DataArray(np.ones((3, 3), "int16"), dims=("y", "x"))
    xr.Dataset({"land": codes, "cover": codes}).to_netcdf(folder / "two.nc", engine="netcdf4")
    image = next(archive.folder.glob("*/*_B02_10m.tif"))
    shutil.copy(image, folder / "image.tif")
    with rasterio.open(image) as file:
        profile = file.profile | {"transform": rasterio.Affine(10, 0, 0, 0, -10, 0), "driver": "GTiff"}
        with rasterio.open(folder / "off.tif", "w", **profile) as off:
            off.write(np.ones((1, *file.shape), file.dtypes[0]))


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Run a command that must fail, and return what it says."""

    def run(*words: object, code: int) -> str:
        capsys.readouterr()
        found = main(["--quiet", *map(str, words)])
        said = capsys.readouterr().err
        assert found == code, said
        assert "Traceback" not in said
        assert "Unexpected" not in said
        assert len(said) < 1500, "a paragraph, not a page"
        return re.sub(r"\s+", " ", said)

    return run


DEAD = ("--url", "http://127.0.0.1:9")

SEARCHES = [
    (("sentinel2-l2a",), 2, "Did you mean 'sentinel-2-l2a'"),
    (("sentinel-2-l2a", "--provider", "earthsearch"), 2, "Did you mean 'earth-search'"),
    (("sentinel-2-l2a", "--url", "localhost:80"), 2, "must be the http"),
    (("sentinel-2-l2a", *DEAD, "--bbox", "40,50,30,60"), 2, r"Try \(30.0, 50.0, 40.0, 60.0\)"),
    (("sentinel-2-l2a", *DEAD, "--bbox", "10,140,11,141"), 2, "latitude and longitude swapped"),
    (("sentinel-2-l2a", *DEAD, "--bbox", "10,41,11,40"), 2, "order is west, south, east, north"),
    (("sentinel-2-l2a", *DEAD, "--bbox", "a,b,c,d"), 2, "4 numbers with commas"),
    (("sentinel-2-l2a", *DEAD, "--datetime", "last year"), 2, "write '2023'"),
    (("sentinel-2-l2a", *DEAD, "--datetime", "2023/2022"), 2, "ends before it starts"),
    (("sentinel-2-l2a", *DEAD, "--max-items", "0"), 2, "at least 1"),
]


@pytest.mark.parametrize(("words", "code", "said"), SEARCHES)
def test_search(words: tuple[str, ...], code: int, said: str, tell: Tell) -> None:
    assert re.search(said, tell("search", *words, code=code))


def test_an_empty_search_echoes_the_query(place: Place, tell: Tell) -> None:
    pytest.importorskip("rustac")
    with stac_server(place.archive.item_collection("https://example.org/files")) as api:
        words = ("search", "sentinel-2-l2a", "--url", api, "--bbox", "1,2,3,4", "--datetime", "1999")
        said = tell(*words, code=1)
        assert all(part in said for part in ("EmptySearchError", "1999", "sentinel-2-l2a", "Widen"))
        with pytest.raises(errors.EmptySearchError, match="1999"):
            ck.search("sentinel-2-l2a", url=api, bbox=(1, 2, 3, 4), datetime="1999")


BUILDS = [
    (("--bands", "redd"), 2, "Did you mean 'red'"),
    (("--bands", "red,red"), 2, "each once"),
    (("--mask", "cloud+shadow"), 2, r"Did you mean 'clouds\+shadows'"),
    (("--collection", "sentinel-2-l2b"), 2, "Did you mean 'sentinel-2-l2a'"),
    (("--crs", "utm33", "--resolution", "10"), 2, "not a known coordinate reference system"),
    (("--crs", "EPSG:32633"), 2, "Give a resolution"),
    (("--crs", "EPSG:32633", "--resolution", "0"), 2, "not zero"),
    (("--bbox", "14.6,48.2,14.4,48.3", "--resolution", "10"), 2, "Swap them"),
    (("--bbox", "4.4,8.2,4.6,8.3", "--resolution", "10"), 1, "None of the 24 items touches the grid"),
    (("--every", "monthly"), 2, "write '1MS'"),
    (("--every", "1MS", "--how", "mediann"), 2, "'median'"),
    (("--pattern", "{date:%Y}_{band}.tif"), 2, "--pattern is for a folder"),
]


@pytest.mark.parametrize(("words", "code", "said"), BUILDS)
def test_build(
    words: tuple[str, ...], code: int, said: str, place: Place, tell: Tell, tmp_path: Path
) -> None:
    assert re.search(
        said, tell("build", place.archive.items, "--out", tmp_path / "x.zarr", *words, code=code)
    )
    assert not list(tmp_path.iterdir())


def test_plan(place: Place, tell: Tell) -> None:
    assert "Did you mean 'red'" in tell("plan", place.archive.items, "--bands", "redd", code=2)
    said = tell("plan", place.archive.items, "--bands", "red", "--memory", "lots", code=2)
    assert "memory='lots' is not accepted: write bytes, or text such as '8GB'" in said


def test_build_from_something_else_than_items(place: Place, tell: Tell, tmp_path: Path) -> None:
    def build(source: Path, *words: str, code: int) -> str:
        return tell("build", source, "--out", tmp_path / "x.zarr", *words, code=code)

    assert "There is no file at" in build(tmp_path / "no.json", code=1)
    assert "--pattern" in build(place.archive.folder, code=2)
    for name in ("text.json", "image.tif", "far.gpkg"):
        assert "Give JSON that a search saved" in build(place.broken / name, code=1)
    (tmp_path / "none.json").write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    assert "There are no items" in build(tmp_path / "none.json", code=1)


def test_files_without_pattern_or_date_are_listed(place: Place, tell: Tell, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name in ("a_20230101_red.tif", "a_20231301_red.tif", "other.tif"):
        shutil.copy(place.broken / "image.tif", folder / name)
    (folder / "a_20230102_red.tif").write_text("hello")

    def build(pattern: str, code: int) -> str:
        return tell("build", folder, "--pattern", pattern, "--out", tmp_path / "x.zarr", code=code)

    said = build("a_{date:%Y%m%d}_{band}.tif", 1)
    assert "not indexed" in said
    assert "1 file(s) fit no pattern" in said
    assert "other.tif" in said
    assert "'20231301' is no date of the form %Y%m%d" in said
    assert "a_20230102_red.tif cannot be read" in said
    with pytest.raises(errors.ArchiveError, match=r"other\.tif"):
        ck.open_archive(folder, "a_{date:%Y%m%d}_{band}.tif")
    assert "brace without its partner" in build("a_{date:%Y", 2)
    assert "date code '%Q' is not supported" in build("a_{date:%Q}_{band}.tif", 2)
    assert "no {date}" in build("{name}.tif", 1)
    assert not (tmp_path / "x.zarr").exists()


def test_places_that_cannot_hold_a_store(place: Place, tell: Tell, tmp_path: Path) -> None:
    items = place.archive.items
    (tmp_path / "file").write_text("mine")
    assert "left alone" in tell("build", items, "--out", tmp_path / "file", code=1)
    assert "left alone" in tell("build", items, "--out", place.archive.folder, code=1)
    assert "Cannot make" in tell("build", items, "--out", tmp_path / "file" / "x.zarr", code=1)
    said = tell("build", items, "--out", place.cube, "--bands", "red", code=1)
    assert "--overwrite" in said
    assert "['red', 'nir'], now ['red']" in said
    assert not re.search(r"'[0-9a-f]{16}'", said), "digests mean nothing to people"
    assert (tmp_path / "file").read_text() == "mine"


def test_what_is_no_store(place: Place, tell: Tell, tmp_path: Path) -> None:
    for command in (["verify"], ["export"]):
        rest = [str(tmp_path / "map.tif")] if command == ["export"] else []
        assert "there is nothing" in tell(*command, tmp_path / "no.zarr", *rest, code=1)
        assert "no Zarr store" in tell(*command, place.broken / "image.tif", *rest, code=1)
        assert "no Zarr store" in tell(*command, place.archive.folder, *rest, code=1)
    assert "There is nothing at" in tell("info", tmp_path / "nothing", code=1)


LABELS = [
    ("no.gpkg", 1, "No label file"),
    (".", 1, "is a folder"),
    ("far.gpkg", 1, "No label touches the grid.*Check the area and the CRS"),
    ("lines.gpkg", 1, "must be polygons or points"),
    ("unnamed.gpkg", 2, "no column 'class'"),
    ("empty.gpkg", 1, "none has a class"),
    ("nowhere.gpkg", 1, "states no CRS"),
    ("cut.gpkg", 1, "not a readable vector file"),
    ("torn.gpkg", 1, "not a readable vector file"),
    ("text.gpkg", 1, "not a readable vector file"),
    ("text.parquet", 1, "not a readable vector file"),
    ("text.tif", 1, "cannot be read as a raster"),
    ("text.nc", 1, "cannot be read as a raster"),
    ("two.nc", 2, "no variable 'class'.*Known are: cover, land"),
    ("image.tif", 1, "at most 254 can be classes"),
    ("off.tif", 1, "does not reach the grid"),
]


@pytest.mark.torch
@pytest.mark.parametrize(("name", "code", "said"), LABELS)
def test_labels(name: str, code: int, said: str, place: Place, tell: Tell, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    source = place.broken / name
    assert re.search(said, tell("train", place.cube, "--labels", source, "--out", tmp_path / "m", code=code))
    assert not list((tmp_path / "m").iterdir())
    with pytest.raises(errors.UnknownNameError if code == 2 else errors.LabelError):
        ck.load_labels(source, ck.open(place.cube))


@pytest.mark.torch
def test_samples_that_cannot_train(place: Place, tell: Tell, tmp_path: Path) -> None:
    pytest.importorskip("torch")

    def train(*words: object, labels: Path = place.labels, code: int) -> str:
        return tell("train", place.cube, "--labels", labels, "--out", tmp_path / "m", *words, code=code)

    assert "of one class (maize)" in train(labels=place.broken / "one.gpkg", code=1)
    assert "fewer than one batch of 100000: lower batch" in train("--batch", 100_000, code=1)
    said = train("--buffer", 5000, code=1)
    assert "smaller buffer" in said
    assert "Warning: 126 pixels are covered by features of different classes" in said
    assert "cli.py" not in said, "a warning tells no line of code"
    assert "Did you mean 'tempcnn'" in train("--network", "tempcn", code=2)
    assert "not to classify series" in train("--network", "unet", code=2)
    assert "Use a smaller inward" in train("--inward", 5000, code=1)
    assert not list((tmp_path / "m").iterdir())


@pytest.mark.torch
def test_a_model_is_not_written_over_something_else(place: Place, tell: Tell, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    before = sorted(place.other.iterdir())
    for target, said in ((place.other, "holds a Zarr store"), (place.broken / "text.tif", "Cannot make")):
        words = ("train", place.cube, "--labels", place.labels, "--out", target, "--epochs", 1)
        assert said in tell(*words, code=1)
    assert sorted(place.other.iterdir()) == before


@pytest.mark.torch
def test_models_and_maps(place: Place, tell: Tell, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model, prediction, picture = tmp_path / "model", tmp_path / "map.zarr", tmp_path / "map.tif"
    train = ("train", place.cube, "--labels", place.labels, "--epochs", 1, "--batch", 64, "--by", "groups")
    assert main(["-q", *map(str, train), "--out", str(model)]) == 0
    assert main(["-q", "predict", str(model), str(place.cube), "--out", str(prediction)]) == 0
    assert main(["-q", "export", str(prediction), str(picture)]) == 0

    said = tell("predict", model, place.other, "--out", tmp_path / "x.zarr", code=1)
    assert "band 'nir' is missing" in said
    assert "3 time steps, the model learned from 4" in said
    assert "holds no model" in tell("predict", place.cube, model, "--out", tmp_path / "x.zarr", code=1)
    assert "needs a variable 'data'" in tell("predict", model, prediction, "--out", tmp_path / "x", code=1)
    assert "holds another cube" in tell("predict", model, place.cube, "--out", place.other, code=1)
    words = ("predict", model, place.cube, "--out", tmp_path / "x.zarr")
    assert "Did you mean 'threads'" in tell(*words, "--scheduler", "thread", code=2)

    assert "exists. Pass --overwrite" in tell("export", prediction, picture, code=1)
    assert main(["-q", "export", str(prediction), str(picture), "--overwrite"]) == 0
    assert "Known are: .json, .png" in tell("export", prediction, tmp_path / "map.doc", code=2)
    assert "Did you mean 'class'" in tell(
        "export", prediction, tmp_path / "a.tif", "--variable", "clas", code=2
    )
    assert "isel(time=0)" in tell("export", place.cube, tmp_path / "a.tif", code=1)
    for ending in ("tif", "png", "json"):
        assert "Cannot write" in tell("export", prediction, picture / f"x.{ending}", code=1)

    weights = model / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert "Copy the folder anew" in tell(*words, code=1)
    (model / "model.json").write_text("{")
    assert "is not JSON" in tell("info", model, code=1)


def test_debug_shows_where_and_keeps_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "search", "sentinel2"]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert main(["verify", "nowhere.zarr", "--debug"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "No store at" in said


def test_quiet_is_quiet(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cubekit.progress.QUIET_SECONDS", -1.0)
    capsys.readouterr()
    assert main(["verify", str(place.cube)]) == 0
    assert "verify: " in capsys.readouterr().err
    assert main(["--quiet", "verify", str(place.cube)]) == 0
    assert capsys.readouterr().err == ""


INTERRUPT = """
import os, signal, sys
from {module} import {owner}

def stop(*arguments, before={owner}.{method}, **named):
    answer = before(*arguments, **named)
    os.kill(os.getpid(), signal.SIGINT)
    return answer

{owner}.{method} = stop
from cubekit.cli import run_process
run_process()
"""


def interrupted(module: str, owner: str, method: str, *words: object) -> str:
    """Run a command in a process that gets Ctrl-C after the first call of a method."""
    code = INTERRUPT.format(module=module, owner=owner, method=method)
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(Path(ck.__file__).parents[1])},
    )
    assert ran.returncode == 130, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Interrupted" in ran.stderr
    return ran.stderr


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="signals of POSIX")
def test_an_interrupted_build_is_refused_and_goes_on(
    place: Place, tell: Tell, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "cube.zarr"
    words = ["build", str(place.archive.items), "--bands", "red,nir", "--layout", "maps", "--out", str(store)]
    interrupted("cubekit.store.ledger", "Ledger", "add", *words)
    with pytest.raises(errors.IncompleteStoreError, match="goes on where it stopped"):
        ck.open(store)
    assert "not finished" in tell("export", store, tmp_path / "a.png", code=1)
    assert main(["info", str(store)]) == 0
    assert "Not a finished store" in capsys.readouterr().out
    assert main(["-q", *words]) == 0
    assert ck.verify(store).ok


PLUGIN = """
from torch import nn
from cubekit.nn import register

@register("cli-linear", task="classify", form="series")
class Linear(nn.Module):
    def __init__(self, *, bands: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(bands, classes)

    def forward(self, x):
        return self.head(x.mean(dim=1))
"""


@pytest.mark.torch
def test_a_network_of_ones_own_on_the_command_line(
    place: Place,
    tell: Tell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clinet.py").write_text(PLUGIN)
    shared = (place.cube, "--labels", place.labels, "--batch", 64, "--by", "groups", "--epochs", 1)
    own = ("--network", "cli-linear", "--plugin", "clinet")
    assert "no such module" in tell("train", *shared, "--out", "m", "--plugin", "clinett", code=2)
    said = tell("train", *shared, *own, "--out", "m", "--set", "schedul=cosine", code=2)
    assert "Did you mean 'schedule'" in said
    assert main(["-q", *map(str, ("train", *shared, *own, "--out", "m", "--set", "schedule=cosine"))]) == 0
    out = capsys.readouterr().out
    assert "majority class" in out
    assert "expected calibration error" in out
    assert (tmp_path / "m/curves.png").is_file()
    assert ck.load_model("m").card.settings["schedule"] == "cosine"
    assert "whole numbers" in tell("compare", *shared, "cli-linear", "--seeds", "a", "--out", "c", code=2)
    assert main(["-q", *map(str, ("compare", *shared, "cli-linear", "m", "--out", "c"))]) == 0
    assert "| cli-linear | " in capsys.readouterr().out
    assert "no such module" not in tell("import-weights", "none.pt", *own, "--out", "w.safetensors", "--set",
                                        "bands=2", "--set", "classes=2", code=1)  # fmt: skip


@pytest.mark.torch
def test_an_interrupted_training_leaves_no_model(place: Place, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    model = tmp_path / "model"
    words = ("train", place.cube, "--labels", place.labels, "--batch", 64, "--by", "groups", "--out", model)
    interrupted("cubekit.training.loop", "KeepBest", "on_train_epoch_end", *words, "--epochs", 50)
    assert not (model / "model.json").exists()
    assert main(["-q", *map(str, words), "--epochs", "1"]) == 0
    interrupted(
        "cubekit.store.ledger", "Ledger", "add", "predict", model, place.cube, "--out", tmp_path / "m.zarr"
    )
    assert main(["-q", "predict", str(model), str(place.cube), "--out", str(tmp_path / "m.zarr")]) == 0
    assert ck.verify(tmp_path / "m.zarr").ok
