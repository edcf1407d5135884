"""Scenes whose pixels bear out what their metadata says about the offset, and scenes whose pixels do not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from odc.geo.geobox import GeoBox

import cubekit
from cubekit.cli import main
from cubekit.cube.audit import Finding, audit_offsets, look_at, record_offsets
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
    assert finding.looks[0].below == pytest.approx(below, abs=0.02)


@pytest.mark.parametrize(("baseline", "flag", "offset"), CASES)
def test_pixels_that_contradict_are_an_error_with_the_evidence(
    scene: Any, baseline: str, *, flag: bool | None, offset: bool
) -> None:
    items = scene(baseline, flag=flag, offset=not offset)
    with pytest.raises(CubeError, match=f"baseline {baseline}.*looked at scene.*of valid pixels") as caught:
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
    assert finding.looks[0].below > 0
    assert finding.verdict == "agrees"


def test_scenes_without_a_valid_pixel_say_nothing(scene: Any) -> None:
    (finding,) = audit_offsets(scene("05.10", flag=None, offset=True, darkest=-60_000.0)).findings
    assert finding.verdict == "unclear"


def test_each_kind_of_scene_is_looked_at(sample_archive: SampleArchive) -> None:
    items = open_items(sample_archive.items)
    report = audit_offsets(items, scenes=2)
    assert report.ok
    assert sum(len(finding.scenes) for finding in report.findings) == len(items)
    assert {finding.offset for finding in report.findings} == {True, False}
    assert all(1 <= len(finding.looks) <= 2 for finding in report.findings)


def test_the_command_audits_on_request(
    sample_archive: SampleArchive, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--quiet", "plan", str(sample_archive.items), "--bands", "red", "--audit"]) == 0
    assert "agrees" in capsys.readouterr().out
    out = tmp_path / "cube.zarr"
    command = ["--quiet", "build", str(sample_archive.items), "--out", str(out), "--bands", "red", "--audit"]
    assert main(command) == 0
    assert '"pixels": "agrees"' in cubekit.open(out).attrs["offset_audit"]


def test_other_collections_and_wrong_options_are_refused(scene: Any, as_items: Any) -> None:
    items = scene("05.10", flag=None, offset=True)
    with pytest.raises(CubeError, match="Only Sentinel-2"):
        audit_offsets(as_items(list(items)))
    with pytest.raises(OptionError, match="scenes=0"):
        audit_offsets(items, scenes=0)


def test_decisions_travel_with_the_cube(sample_archive: SampleArchive, tmp_path: Path) -> None:
    items = open_items(sample_archive.items)
    report = audit_offsets(items, scenes=1)
    cube = record_offsets(open_cube(items, bands=["red"]), report)
    records = json.loads(cube.attrs["offset_audit"])
    assert [record["item"] for record in records] == cube.attrs["items"]
    shifts = cube.attrs["item_shifts"]
    assert [record["offset"] for record in records] == [shift == 0 for shift in shifts]
    assert {record["pixels"] for record in records} <= {"agrees", "unclear"}
    with pytest.raises(CubeError, match="knows nothing of"):
        record_offsets(cube, audit_offsets(items[:2]))


def test_the_clearest_scenes_are_looked_at(make_item: Any, as_items: Any) -> None:
    made = []
    for day, cover in enumerate([90, 10, 50, 80, 70, 5], 1):
        properties = {"s2:processing_baseline": "05.10", "eo:cloud_cover": cover}
        stored = np.full((4, 4), 1100, "uint16")
        box = BOX[:4, :4]
        bands = {"B02": (stored, box), "B04": (stored, box)}
        made.append(make_item(f"d{day}", f"2023-05-0{day}", bands, properties=properties))
    (finding,) = audit_offsets(as_items(made, "sentinel-2-l2a"), scenes=2).findings
    assert [look.item for look in finding.looks] == ["d2", "d6"]


def finding(values: list[Any], *, offset: bool) -> str:
    looks = tuple(look_at(str(number), bands) for number, bands in enumerate(values))
    return Finding(baseline="", flag=None, scenes=(), looks=looks, offset=offset).verdict


def real_scenes(shared: Path) -> dict[str, tuple[list[Any], float]]:
    """Return valid red and blue of every date, and its share of cloud; none of them has the offset."""
    import xarray as xr

    scenes: dict[str, tuple[list[Any], float]] = {}
    folder = shared / "data/s2_l8_s1_flanders_patch"
    ten, twenty = (
        xr.open_dataset(next(folder.glob(f"S2_L2A_{size}m_*.nc")), mask_and_scale=False) for size in (10, 20)
    )
    with ten, twenty:
        for step in range(ten.sizes["time"]):
            bands = [ten[name][step].to_numpy() for name in ("B02", "B04")]
            cloudy = float(np.isin(twenty["SCL"][step].to_numpy(), [0, 1, 3, 8, 9, 10]).mean())
            scenes[f"flanders {step}"] = [band[band > 0].astype(int) for band in bands], cloudy
    with xr.open_dataset(
        shared / "data/s2_slovenia_eopatch/s2_l1c_13bands_5dates.nc", mask_and_scale=False
    ) as top:
        for step in range(5):
            bands = [top[name][step].to_numpy().astype(int) for name in ("B02", "B04")]
            scenes[f"slovenia {step}"] = [band[band > 0] for band in bands], float(step in (1, 2))
    for name in ("2020-08_2022-03_croptypes", "2020-12_2021-11_cropland"):
        file = shared / f"data/s2_monthly_belgium/s2_s1_meteo_{name}.nc"
        with xr.open_dataset(file, mask_and_scale=False) as months:
            blue, red = ("B2", "B4") if "B2" in months else ("B02", "B04")
            for step in range(months.sizes["t"]):
                bands = [months[band][step].to_numpy().astype("uint16").astype(int) for band in (blue, red)]
                valid = [band[band < 65535] for band in bands]
                scenes[f"{name} {step}"] = valid, 1.0 - valid[0].size / bands[0].size
    return scenes


@pytest.mark.shared
def test_thresholds_hold_on_real_pixels(shared: Path) -> None:
    scenes = real_scenes(shared)
    assert len(scenes) == 118 + 5 + 20 + 12
    clear = {name: bands for name, (bands, cloudy) in scenes.items() if cloudy < 0.5}
    assert len(clear) > 80
    as_they_are = [look_at(name, bands).offset for name, bands in clear.items()]
    assert as_they_are.count(True) == 0
    assert as_they_are.count(False) >= 0.95 * len(clear)  # snow and cloud taken for land say nothing
    for name, (bands, _) in scenes.items():  # as they would be with the offset
        assert look_at(name, [band + 1000 for band in bands]).offset in (True, None), name
    hazy = [name for name, (bands, _) in scenes.items() if look_at(name, bands).offset is True]
    assert len(hazy) <= 6  # what haze hides is why the clearest scenes are looked at


@pytest.mark.shared
def test_verdicts_on_real_pixels(shared: Path) -> None:
    clear = [bands for bands, cloudy in real_scenes(shared).values() if cloudy < 0.2]
    told = 0
    for first in range(0, len(clear) - 2, 3):
        three = clear[first : first + 3]
        shifted = [[band + 1000 for band in bands] for bands in three]
        assert finding(three, offset=False) == "agrees"
        assert finding(three, offset=True) == "contradicts"
        assert finding(shifted, offset=True) != "contradicts"
        assert finding(shifted, offset=False) != "agrees"
        told += finding(shifted, offset=False) == "contradicts"
    assert told >= 0.9 * len(range(0, len(clear) - 2, 3))
