"""The demo end to end: archive, STAC API, cube, training, prediction, exports."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

import cubekit

if TYPE_CHECKING:
    from cubekit.pipeline.result import RunResult

pytest.importorskip("torch")
pytest.importorskip("rustac")
pytestmark = [pytest.mark.torch, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def result(folder: Path) -> "RunResult":
    return run(folder)


def run(folder: Path) -> "RunResult":
    from cubekit.demo import run_demo

    return run_demo(folder, settings={"epochs": 8}, sample={"size": 200, "dates": 24})


def test_it_leaves_a_sound_cube_and_a_map_on_its_grid(result: "RunResult") -> None:
    assert cubekit.verify(result.files["cube"]).ok
    cube = cubekit.open(result.files["cube"])
    assert cube["data"].dims == ("time", "band", "y", "x")
    assert cube.sizes["time"] == 12
    with rasterio.open(result.files["map"]) as opened:
        assert opened.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert opened.colormap(1)
        assert opened.shape == (cube.sizes["y"], cube.sizes["x"])
        stored = cubekit.open(result.files["sieved"])["class"].values
        assert np.array_equal(opened.read(1), stored)


def test_the_network_beats_the_majority_and_agrees_with_the_truth(result: "RunResult") -> None:
    assert result.scores["conv1d"].overall > result.scores["majority class"].overall + 0.3
    assert result.scores["map against the reference, away from labels"].overall > 0.7


def test_the_report_is_one_page_that_asks_for_nothing(result: "RunResult") -> None:
    page = result.files["report"].read_text()
    assert not re.search(r"(src|href)=.?https?:|@import|url\(", page)
    assert 'src="data:image/png;base64,' in page


def test_the_scores_lie_beside_it_as_json(result: "RunResult") -> None:
    written = json.loads(result.files["result"].read_text())
    assert written["scores"]["conv1d"]["overall"] == pytest.approx(result.scores["conv1d"].overall)


def test_running_it_again_changes_nothing(result: "RunResult", folder: Path) -> None:
    before = {
        name: path.stat().st_mtime_ns for name, path in result.files.items() if name in {"cube", "model"}
    }
    again = run(folder)
    after = {name: path.stat().st_mtime_ns for name, path in again.files.items() if name in before}
    assert after == before
    assert again.scores["conv1d"].overall == result.scores["conv1d"].overall


def test_a_file_without_sample_data_says_so(tmp_path: Path) -> None:
    from cubekit.demo import run_demo
    from cubekit.errors import PipelineError

    with pytest.raises(PipelineError, match="cbers_bahia names no sample data"):
        run_demo(tmp_path, "cbers_bahia")
