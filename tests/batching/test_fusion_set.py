import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from cubekit.batching.fusion_set import open_fusion_set
from cubekit.batching.pair_splits import split_pairs
from cubekit.cube import stack
from cubekit.cube.stack import open_stack
from cubekit.errors import ArchiveError, SourceError
from cubekit.sources.fusion_sets import FUSION_SETS, FusionSet
from cubekit.typing import Array

GRID = GeoBox.from_bbox((600_000, 5_000_000, 600_600, 5_000_300), "EPSG:32650", resolution=25)
FIRST = datetime(2002, 4, 1, tzinfo=UTC)
NAMES = {
    "CIA": ("L71093084_084{:%Y%m%d}_HRF_modtran_surf_ref_agd66.tif", "MOD09GA_A{:%Y%j}.sur_refl.tif"),
    "LGC": ("{:%Y%m%d}_TM.tif", "MOD09GA_A{:%Y%j}.sur_refl.tif"),
    "AHB": ("L_{0.year}-{0.month}-{0.day}.tif", "M_{0.year}-{0.month}-{0.day}.tif"),
    "DX": ("L_{0.year}-{0.month}-{0.day}.tif", "M_{0.year}-{0.month}-{0.day}.tif"),
    "TJ": ("L_{0.year}-{0.month}-{0.day}.tif", "M_{0.year}-{0.month}-{0.day}.tif"),
    "WH": ("G_{:%Y%m%d}.tif", "L_{:%Y%m%d}.tif"),
    "IC": ("S2_{:%Y%m%d}.tif", "S3_{:%Y%m%d}_real.tif"),
    "BC": ("S2_{:%Y%m%d}.tif", "S3_{:%Y%m%d}_real.tif"),
}
LANDSAT_MODIS_2016 = FusionSet(
    name="Landsat and MODIS 2016",
    fine="L_{date:%Y_%j}.tif",
    coarse="M_{date:%Y_%j}-bilinear.tif",
    fine_folder="",
    coarse_folder="",
    bands=("b1", "b2", "nir", "b4"),
)
KRANJ_2020 = FusionSet(
    name="Kranj 2020",
    fine="landsat_filled_{date:%Y%j}_*.tif",
    coarse="modis_filled_{date:%Y%j}_*.tif",
    fine_folder="",
    coarse_folder="",
    bands=("blue", "green", "red", "nir", "swir16", "swir22"),
    coarse_scale=1.0,
)


def save(path: Path, image: Array, *, grid: GeoBox | None = None, nodata: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands, rows, columns = image.shape
    place = {} if grid is None else {"crs": str(grid.crs), "transform": grid.transform}
    profile = {"driver": "GTiff", "count": bands, "height": rows, "width": columns, "dtype": image.dtype}
    with plain(path, "w", **profile, nodata=nodata, **place) as file:
        file.write(image)


@contextmanager
def plain(path: Path, mode: str = "r", **profile: Any) -> Iterator[Any]:
    """Open a file here, where no georeference is meant; the code under test must be quiet by itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, mode, **profile) as file:
            yield file


def image(layout: FusionSet, number: int, shape: tuple[int, int] = (12, 24)) -> Array:
    kind = {1.0: "float32", 255.0: "uint8"}.get(layout.scale, "int16")
    values = np.random.default_rng(number).random((len(layout.bands), *shape)) * layout.scale
    return values.astype(kind)


def write_set(root: Path, layout: FusionSet, *, dates: int = 4, grid: GeoBox | None = GRID) -> None:
    for number in range(dates):
        when = FIRST + timedelta(days=16 * number)
        for folder, name, seed in zip(("Landsat", "MODIS"), NAMES[layout.name], (0, 100), strict=True):
            save(root / folder / name.format(when), image(layout, number + seed), grid=grid)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_each_set_opens_by_its_published_names(tmp_path: Path, name: str) -> None:
    layout = FUSION_SETS[name]
    write_set(tmp_path / layout.folder, layout)
    pairs = open_fusion_set(name, tmp_path)
    assert (len(pairs), pairs.bands, pairs.grid) == (3, layout.bands, GRID)
    assert pairs.fine.chunks is not None
    images = pairs[1].load()
    expected = {"coarse_t1": 101, "coarse_t2": 102, "fine_t1": 1, "fine_t2": 2}
    for which, number in expected.items():
        np.testing.assert_allclose(images[which], image(layout, number) / layout.scale, rtol=1e-5, atol=1e-7)


def test_files_of_one_date_only_are_reported_and_dates_are_matched_not_zipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_set(tmp_path, FUSION_SETS["WH"])
    (tmp_path / "Landsat" / f"G_{FIRST:%Y%m%d}.tif").rename(tmp_path / "Landsat" / "G_20000101.tif")
    (tmp_path / "Landsat" / "preview.tif").touch()
    with caplog.at_level(logging.INFO, logger="cubekit"):
        pairs = open_fusion_set("WH", tmp_path)
    assert [str(date) for date in pairs.match.unmatched_fine] == ["2000-01-01"]
    assert [str(date) for date in pairs.match.unmatched_coarse] == ["2002-04-01"]
    np.testing.assert_allclose(
        pairs[0].load()["coarse_t1"], image(FUSION_SETS["WH"], 101) / 10_000, rtol=1e-5
    )
    assert "preview.tif" in caplog.text
    assert "2000-01-01" in caplog.text


def test_files_without_a_georeference_lie_where_the_user_says(tmp_path: Path) -> None:
    write_set(tmp_path, FUSION_SETS["WH"], grid=None)
    assert open_fusion_set("WH", tmp_path).grid is None
    assert open_fusion_set("WH", tmp_path, grid=GRID).grid == GRID
    with pytest.raises(ArchiveError, match="12"):
        open_fusion_set("WH", tmp_path, grid=GRID[:6, :])


@pytest.mark.parametrize("order", ["first", "last", "pages"])
def test_bands_may_be_the_first_axis_the_last_one_or_pages(tmp_path: Path, order: str) -> None:
    values = image(FUSION_SETS["WH"], 0, (40, 30))
    path = tmp_path / "image.tif"
    if order == "pages":
        pages = [Image.fromarray(band.astype("uint16")) for band in values]
        pages[0].save(path, save_all=True, append_images=pages[1:])
    else:
        save(path, values if order == "first" else np.ascontiguousarray(values.transpose(1, 2, 0)))
    cube = open_stack({FIRST: path}, FUSION_SETS["WH"].bands, scale=10_000)
    np.testing.assert_array_equal(cube["data"].to_numpy()[0], values)
    assert cube["data"].attrs["scale_factor"] == 1e-4


def test_large_images_come_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "_BLOCK", 32)
    values = np.arange(50 * 38, dtype="int32").reshape(1, 50, 38)
    save(tmp_path / "flat.tif", values)
    save(tmp_path / "lines.tif", np.ascontiguousarray(values.transpose(1, 2, 0)))
    for name in ("flat.tif", "lines.tif"):
        cube = open_stack({FIRST: tmp_path / name}, ["b"])["data"]
        assert cube.chunks is not None
        assert cube.chunks[2:] == ((32, 18), (32, 6))
        np.testing.assert_array_equal(cube.to_numpy()[0], values)


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    bands, other = FUSION_SETS["WH"].bands, tmp_path / "other.tif"
    save(tmp_path / "a.tif", image(FUSION_SETS["WH"], 0))
    both = {FIRST: tmp_path / "a.tif", FIRST + timedelta(days=1): other}
    save(other, image(FUSION_SETS["WH"], 0, (12, 23)))
    with pytest.raises(ArchiveError, match=r"other.tif.*\(4, 12, 23\)"):
        open_stack(both, bands)
    save(other, image(FUSION_SETS["CIA"], 0))
    with pytest.raises(ArchiveError, match=r"other\.tif holds 6 bands, expected 4"):
        open_stack(both, bands)
    save(other, np.zeros((9, 12, 24), "int16"))
    with pytest.raises(ArchiveError, match="neither the first nor the last"):
        open_stack(both, bands)
    other.write_bytes(b"II*\0 not a TIFF")
    with pytest.raises(SourceError, match=r"other.tif cannot be read"):
        open_stack(both, bands)


def test_nodata_of_the_files_or_the_user_becomes_a_gap(tmp_path: Path) -> None:
    values = image(FUSION_SETS["WH"], 0)
    values[0, 0, 0], values[1, 5, 5] = -1, -2
    save(tmp_path / "a.tif", values, nodata=-1)
    assert open_stack({FIRST: tmp_path / "a.tif"}, FUSION_SETS["WH"].bands)["data"].attrs["_FillValue"] == -1
    stated = open_stack({FIRST: tmp_path / "a.tif"}, FUSION_SETS["WH"].bands, nodata=-2)
    assert stated["data"].attrs["_FillValue"] == -2


def test_a_file_that_vanishes_is_named_when_it_is_read(tmp_path: Path) -> None:
    write_set(tmp_path, FUSION_SETS["WH"])
    pairs = open_fusion_set("WH", tmp_path)
    (tmp_path / "Landsat" / f"G_{FIRST:%Y%m%d}.tif").unlink()
    with pytest.raises(SourceError, match=r"G_20020401.tif cannot be read"):
        pairs[0].load()


@pytest.mark.shared
def test_real_landsat_and_modis_of_2016(shared: Path) -> None:
    pairs = open_fusion_set(LANDSAT_MODIS_2016, shared / "data" / "fusion_landsat_modis_2016")
    assert [str(date) for date in pairs.dates] == ["2016-08-07", "2016-08-23", "2016-08-30"]
    images = pairs[0].load()
    with plain(shared / "data" / "fusion_landsat_modis_2016" / "L_2016_220.tif") as file:
        np.testing.assert_allclose(images["fine_t1"], file.read() / 10_000, rtol=1e-5)
    assert images["fine_t2"].shape == (4, 444, 444)
    split = split_pairs(pairs, test=1, valid=0)
    assert (len(split.train), len(split.test)) == (1, 1)


@pytest.mark.shared
def test_real_landsat_and_daily_modis_of_kranj(shared: Path) -> None:
    pairs = open_fusion_set(KRANJ_2020, shared / "data" / "fusion_landsat_modis_kranj_2020")
    assert [str(date) for date in pairs.dates] == ["2020-03-08", "2020-03-17", "2020-04-02"]
    assert [str(date) for date in pairs.match.unmatched_fine] == ["2020-04-09"]  # MODIS ends with day 93
    assert len(pairs.match.unmatched_coarse) == 23
    assert pairs.grid is not None
    assert bool(pairs[1].valid.all())
    for values in pairs[1].load().values():
        assert 0 < values.mean() < 0.3  # both sensors in reflectance
