"""File name patterns against names of real archives, and against names built from random fields."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubekit.errors import OptionError
from cubekit.sources.patterns import FilePattern


@pytest.mark.parametrize(
    ("pattern", "name", "band", "day", "others"),
    [
        (
            "CB4_64_16D_STK_022024_{date:%Y-%m-%d}_{end:%Y-%m-%d}_{band}.tif",
            "CB4_64_16D_STK_022024_2018-08-29_2018-09-13_NDVI.tif", "NDVI", date(2018, 8, 29), {},
        ),
        (
            "TERRA_MODIS_{tile}_{band}_{date}.jp2",
            "TERRA_MODIS_012010_NDVI_2013-09-14.jp2", "NDVI", date(2013, 9, 14), {"tile": "012010"},
        ),
        (
            "MOD13Q1.A{date:%Y%j}.{tile}.061.*.250m_16_days_{band}.tif",
            "MOD13Q1.A2022017.h12v11.061.2022035070812.250m_16_days_NDVI.tif", "NDVI", date(2022, 1, 17),
            {"tile": "h12v11"},
        ),
        (
            "**/T{tile}_{date:%Y%m%dT%H%M%S}_{band}_*.jp2",
            "S2A.SAFE/GRANULE/L2A/IMG_DATA/R10m/T31UDS_20170804T105031_B04_10m.jp2", "B04", date(2017, 8, 4),
            {"tile": "31UDS"},
        ),
        ("{tile}/{date:%Y}/{tile}_{band}.tif", "h1/2020/h1_a.tif", "a", date(2020, 1, 1), {"tile": "h1"}),
        ("**/{date:%d%b%Y}.tif", "01Mar2020.tif", None, date(2020, 3, 1), {}),
        ("LE07_{date:%y%m%d}+({band}).tif", "LE07_010305+(B1).tif", "B1", date(2001, 3, 5), {}),
    ],
)  # fmt: skip
def test_real_names(pattern: str, name: str, band: str, day: date, others: dict[str, str]) -> None:
    found = FilePattern(pattern).match(name)
    assert found is not None
    assert found.date is not None
    assert (found.band, found.date.date(), found.others) == (band, day, others)
    assert found.date.tzinfo is UTC


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("{date:%Y%m%d}_{band}.tif", "2020011_B1.tif"),
        ("{date:%Y%m%d}_{band}.tif", "folder/20200101_B1.tif"),
        ("{date:%Y%m%d}_{band}.tif", "20200101_B1.tif.aux.xml"),
        ("{date:%Y%m%d}_{band}.tif", "20200101_B1xtif"),
        ("{tile}/{tile}_{band}.tif", "h1/h2_a.tif"),
        ("*/{band}.tif", "a/b/c.tif"),
    ],
)
def test_other_names_do_not_match(pattern: str, name: str) -> None:
    assert FilePattern(pattern).match(name) is None


def test_digits_that_are_no_date_are_an_error() -> None:
    with pytest.raises(ValueError, match="is no date of the form"):
        FilePattern("{date:%Y%m%d}.tif").match("20201301.tif")


@pytest.mark.parametrize("pattern", ["{date:%Q}.tif", "{band:%Y}.tif", "{date:%Y%}.tif"])
def test_wrong_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(OptionError, match="Pattern"):
        FilePattern(pattern).match("2020.tif")


@pytest.mark.parametrize(
    ("pattern", "base", "depth"),
    [
        ("{band}.tif", "", 0),
        ("a/b/{band}.tif", "a/b/", 2),
        ("a/b_{x}/{band}.tif", "a/", 2),
        ("a/**/{band}.tif", "a/", None),
        ("a/b.tif", "a/", 1),
    ],
)
def test_where_a_pattern_looks(pattern: str, base: str, depth: int | None) -> None:
    assert (FilePattern(pattern).base, FilePattern(pattern).depth) == (base, depth)


WORDS = st.text(st.characters(categories=["Lu", "Ll", "Nd"], include_characters="-."), min_size=1, max_size=8)


@given(
    band=WORDS,
    tile=WORDS,
    time=st.datetimes(datetime(1972, 1, 1), datetime(2100, 1, 1)).map(lambda t: t.replace(microsecond=0)),  # noqa: DTZ001
    form=st.sampled_from(["%Y%m%dT%H%M%S", "%Y-%m-%d_%H%M%S", "%Y%j%H%M%S", "%Y.%m.%d.%H.%M.%S"]),
)
def test_fields_come_back_as_they_were_written(band: str, tile: str, time: datetime, form: str) -> None:
    name = f"x+({tile})_{time.strftime(form)}_{band}.tif"
    found = FilePattern("x+({tile})_{date:" + form + "}_{band}.tif").match(name)
    assert found is not None
    assert (found.band, found.others["tile"]) == (band, tile)
    assert found.date == time.replace(tzinfo=UTC)
