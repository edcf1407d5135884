"""Scenes whose pixels bear out what their metadata says about the offset, and scenes whose pixels do not."""

from typing import Any

import numpy as np
import pystac
import pytest
from odc.geo.geobox import GeoBox

from cubekit.cli import main
from cubekit.cube.audit import audit_offsets
from cubekit.cube.cost import plan
from cubekit.cube.load import open_cube
from cubekit.errors import CubeError, OptionError
from cubekit.sources.items import Items, open_items
from cubekit.testing.archive import SampleArchive

BOX = GeoBox.from_bbox((400_000, 4_400_000, 410_240, 4_410_240), "EPSG:32630", resolution=10)  # 1024²
COG = {"driver": "COG", "blocksize": 256}
FLAG = "earthsearch:boa_offset_applied"


def reflectance(darkest: float) -> Any:
    """Return land from dark to bright, numbers of reflectance * 10000, with a margin without data."""
    values = np.random.default_rng(0).gamma(2.0, 600.0, BOX.shape.yx) + darkest
    values[:, :100] = -10_000
    return values


@pytest.fixture
def scene(make_item: Any, as_items: Any) -> Any:
    """Return a function that makes items of one scene, with or without the offset in its pixels."""

    def make(baseline: str, *, flag: bool | None, offset: bool, darkest: float = 50.0) -> Items:
        land = reflectance(darkest)
        stored = np.where(land < -5000, 0, land + 1000 * offset).round().astype("uint16")
        properties = {"s2:processing_baseline": baseline} | ({} if flag is None else {FLAG: flag})
        bands = {"B02": (stored, BOX), "B04": (stored, BOX)}
        item: pystac.Item = make_item("scene", "2023-05-01", bands, properties=properties)
        joined: Items = as_items([item], "sentinel-2-l2a")
        return joined

    return make


CASES = [  # baseline, flag, whether the offset is in the pixels by this metadata
    ("03.01", None, False),
    ("03.01", True, False),
    ("03.01", False, False),
    ("04.00", None, True),
    ("04.00", True, False),
    ("04.00", False, True),
    ("05.10", None, True),
    ("05.10", True, False),
    ("05.10", False, True),
]


@pytest.mark.parametrize(("baseline", "flag", "offset"), CASES)
def test_pixels_that_agree(scene: Any, baseline: str, *, flag: bool | None, offset: bool) -> None:
    items = scene(baseline, flag=flag, offset=offset)
    (finding,) = audit_offsets(items).findings
    assert (finding.baseline, finding.flag, finding.offset) == (baseline, flag, offset)
    assert finding.verdict == "agrees"
    assert plan(open_cube(items, bands=["B04"])).shifts == (0 if offset else 1000,)
    # The oracle: the share in all pixels, of which the audit sees a quarter.
    land = reflectance(50.0)
    below = (land[land > -5000] + 1000 * offset < 1000).mean()
    assert finding.below == pytest.approx(below, abs=0.02)


@pytest.mark.parametrize(("baseline", "flag", "offset"), CASES)
def test_pixels_that_contradict_are_an_error_with_the_evidence(
    scene: Any, baseline: str, *, flag: bool | None, offset: bool
) -> None:
    items = scene(baseline, flag=flag, offset=not offset)
    with pytest.raises(CubeError, match=f"baseline {baseline}.*of valid pixels.*looked at scene") as caught:
        audit_offsets(items)
    assert FLAG in str(caught.value)
    report = audit_offsets(items, on_contradiction="record")
    assert not report.ok
    assert "contradicts" in str(report)


def test_bright_scenes_without_offset_say_nothing(scene: Any) -> None:
    (finding,) = audit_offsets(scene("03.01", flag=None, offset=False, darkest=4000.0)).findings
    assert finding.verdict == "unclear"


def test_a_little_darkness_is_no_contradiction(scene: Any) -> None:
    # Shadow and water a little below zero reflectance are valid with the offset.
    (finding,) = audit_offsets(scene("05.10", flag=None, offset=True, darkest=-80.0)).findings
    assert finding.below > 0
    assert finding.verdict == "agrees"


def test_scenes_without_a_valid_pixel_say_nothing(scene: Any) -> None:
    (finding,) = audit_offsets(scene("05.10", flag=None, offset=True, darkest=-60_000.0)).findings
    assert finding.verdict == "unclear"


def test_each_kind_of_scene_is_looked_at(sample_archive: SampleArchive) -> None:
    items = open_items(sample_archive.items)
    report = audit_offsets(items, scenes=2)
    assert report.ok
    assert sum(finding.items for finding in report.findings) == len(items)
    assert {finding.offset for finding in report.findings} == {True, False}
    assert all(1 <= len(finding.looked_at) <= 2 for finding in report.findings)


def test_the_command_audits_on_request(
    sample_archive: SampleArchive, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--quiet", "plan", str(sample_archive.items), "--bands", "red", "--audit"]) == 0
    assert "agrees" in capsys.readouterr().out


def test_other_collections_and_wrong_options_are_refused(scene: Any, as_items: Any) -> None:
    items = scene("05.10", flag=None, offset=True)
    with pytest.raises(CubeError, match="Only Sentinel-2"):
        audit_offsets(as_items(list(items)))
    with pytest.raises(OptionError, match="scenes=0"):
        audit_offsets(items, scenes=0)
