"""The report as a browser paints it."""

import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.evaluation.accuracy import Accuracy
from cubekit.evaluation.area import estimate_areas
from cubekit.evaluation.calibration import reliability
from cubekit.exports.landcover import ClassMap, class_map_report
from cubekit.exports.report import write_report
from cubekit.labels import ClassTable

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
CLASSES = ClassTable.of(["water", "forest", "maize"])


def result() -> ClassMap:
    rng = np.random.default_rng(0)
    box = GeoBox.from_bbox((500_000, 4_400_000, 500_800, 4_400_800), "EPSG:32630", resolution=10)
    rows, columns = np.mgrid[:80, :80]
    stored = ((rows + columns) // 60).astype("uint8")
    layer = xr.DataArray(
        stored,
        dims=("y", "x"),
        attrs={
            "classes": list(CLASSES.names),
            "colours": list(CLASSES.colours),
            "codes": list(CLASSES.codes),
            "_FillValue": 255,
        },
    )
    prediction = xr.Dataset({"class": layer}).assign_coords(xr_coords(box))
    accuracy = Accuracy(
        classes=CLASSES.names, confusion=np.array([[50, 4, 1], [3, 60, 6], [0, 8, 40]], dtype=np.int64)
    )
    likely = rng.dirichlet((0.4, 0.4, 0.4), 300)
    part = SimpleNamespace(
        position=rng.uniform((500_000, 4_400_000), (500_800, 4_400_800), (60, 2)),
        y=rng.integers(0, 3, 60),
        bands=("red", "nir"),
        times=np.arange("2022-01", "2022-07", dtype="datetime64[M]").astype("datetime64[ns]"),
        classes=CLASSES,
        crs="EPSG:32630",
        physical=lambda: rng.uniform(0.1, 0.5, (60, 6, 2)),
    )
    return ClassMap(
        title="Land cover of a plain",
        prediction=prediction,
        accuracy=accuracy,
        baselines={"majority class": accuracy},
        areas=estimate_areas(accuracy, np.bincount(stored.ravel(), minlength=3) * 0.01),
        areas_note="Drawn at random.",
        calibration=reliability(likely.argmax(axis=1) * (rng.random(300) < 0.7), likely),
        parts={"training": part, "test": part},
        history=[
            {"epoch": i, "train_loss": 1 / i, "valid_loss": 1.2 / i, "valid_accuracy": 1 - 0.4 / i}
            for i in (1, 2, 3)
        ],
        settings={"network": "tempcnn"},
    )


def test_areas_and_calibration_are_on_the_page() -> None:
    report = class_map_report(result())
    titles = {section.title: section for section in report.sections}
    (counted, estimated) = titles["Map"].tables
    assert "Olofsson" in estimated.caption
    assert [row[0] for row in estimated.rows] == list(CLASSES.names)
    assert "±" in estimated.rows[0][2]
    assert counted.rows
    assert any("share that is right" in picture.caption for picture in titles["Accuracy"].pictures)
    captions = [picture.caption for picture in titles["Samples and training"].pictures]
    assert captions[0] == "Samples by part of the split."
    assert captions[-1] == "Loss and scores by epoch."


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_paints_the_whole_page(tmp_path: Path) -> None:
    page, picture = write_report(tmp_path / "report.html", class_map_report(result())), tmp_path / "page.png"
    options = [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
        "--disable-background-networking", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
        "--window-size=1100,3600", f"--screenshot={picture}", "--virtual-time-budget=2000",
    ]  # fmt: skip
    ran = subprocess.run(
        [str(CHROMIUM), *options, page.as_uri()], capture_output=True, check=False, timeout=60
    )
    assert picture.is_file(), ran.stderr[-500:]
    from matplotlib.image import imread

    painted = imread(picture)[..., :3]
    assert painted.shape[:2] == (3600, 1100)
    ink = (np.abs(painted - painted[-1, 0]).max(axis=2) > 0.05).any(axis=1)
    assert ink[:2500].mean() > 0.5  # text or pictures on most lines
    water = np.array([int(CLASSES.colours[0][i : i + 2], 16) for i in (1, 3, 5)]) / 255
    assert (np.abs(painted - water).max(axis=2) < 0.03).sum() > 5000  # the map's own colours
