"""Rules on bits: against arithmetic on whole numbers, and against published quality codes."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cubekit.catalog import bit_test, open_catalog
from cubekit.cube.quality import mask_rule, masked_by
from cubekit.errors import CatalogError, UnknownNameError


@given(st.integers(0, 15), st.integers(1, 4), st.data())
def test_a_field_is_a_slice_of_the_binary_number(low: int, width: int, data: st.DataObject) -> None:
    high = min(low + width, 16) - 1
    value = data.draw(st.integers(0, 2 ** (high - low + 1) - 1))
    stored = data.draw(st.integers(0, 65535))
    mask, expected = bit_test(f"{low}-{high}={value}")
    digits = f"{stored:016b}"[::-1][low : high + 1][::-1]
    assert (stored & mask == expected) == (int(digits, 2) == value)


@pytest.mark.parametrize("wrong", [-1, 32, "0-1", "1-0=1", "0-1=4", "a", "0-40=1", ""])
def test_rules_that_are_none_are_refused(wrong: int | str) -> None:
    with pytest.raises(ValueError, match=r"bit number|neither|does not fit"):
        bit_test(wrong)


# collection, stored code, what it means, masks that must hide it, masks that must not
CODES = [
    ("modis-09a1-061", 0b0000_0000_0000_1000, "clear land", [], ["clouds", "shadows", "snow"]),
    ("modis-09a1-061", 0b0000_0000_0000_1001, "cloudy land", ["clouds"], ["shadows", "snow"]),
    ("modis-09a1-061", 0b0000_0000_0000_1010, "mixed", ["clouds"], ["shadows"]),
    ("modis-09a1-061", 0b0000_0000_0000_1011, "not set, taken for clear", [], ["clouds"]),
    ("modis-09a1-061", 0b0000_0000_0000_1100, "shadow", ["shadows", "clouds+shadows"], ["clouds"]),
    ("modis-09a1-061", 0b0001_0000_0000_1000, "snow", ["snow"], ["clouds"]),
    ("modis-09a1-061", 0b0000_0001_0000_1000, "small cirrus", [], ["clouds", "cirrus"]),
    ("modis-09a1-061", 65535, "fill", ["clouds", "snow"], []),
    ("modis-09ga-061", 0b0000_0011_0000_1000, "high cirrus", ["clouds", "cirrus"], ["shadows"]),
    ("modis-15a2h-061", 0, "main algorithm, clear", [], ["clouds", "backup"]),
    ("modis-15a2h-061", 8, "significant clouds", ["clouds"], ["backup"]),
    ("modis-15a2h-061", 24, "cloud state not defined", [], ["clouds"]),
    ("modis-15a2h-061", 97, "back-up algorithm", ["backup"], ["clouds"]),
    ("modis-15a2h-061", 157, "not produced", ["clouds", "backup"], []),
    ("modis-11a1-061", 0, "good", [], ["clouds", "uncertain"]),
    ("modis-11a1-061", 2, "not produced, clouds", ["clouds"], []),
    ("modis-11a1-061", 0b1000_0001, "error up to 3 K", ["uncertain"], ["clouds"]),
    ("hls2-s30", 0b0000_0000, "clear", [], ["clouds", "shadows", "snow", "water"]),
    ("hls2-s30", 0b0000_0010, "cloud", ["clouds"], ["shadows"]),
    ("hls2-l30", 0b1100_0000, "aerosol high", ["aerosol"], ["clouds"]),
    ("hls2-l30", 0b1000_1000, "shadow, aerosol moderate", ["shadows"], ["aerosol"]),
    ("hls2-l30", 255, "fill", ["water", "snow"], []),
    ("landsat-c2-l1", 21824, "clear, low confidences", [], ["clouds", "shadows", "snow", "water"]),
    ("landsat-c2-l2", 22280, "cloud, high confidence", ["clouds"], ["shadows"]),
    ("landsat-c2-l1-tm", 5440, "clear", [], ["clouds", "shadows"]),
]


@pytest.mark.parametrize(
    ("collection", "code", "hidden", "kept"),
    [pytest.param(name, code, hidden, kept, id=f"{name}-{what}") for name, code, what, hidden, kept in CODES],
)
def test_codes_of_the_products_guides(collection: str, code: int, hidden: list[str], kept: list[str]) -> None:
    record = open_catalog().collection(collection)
    quality = record.quality
    assert quality is not None
    stored = np.full((2, 2), code, record.band(quality.band).dtype)
    for name in hidden:
        assert masked_by(stored, mask_rule(quality, name)).all(), name
    for name in kept:
        assert not masked_by(stored, mask_rule(quality, name)).any(), name


def test_masks_join_by_name() -> None:
    quality = open_catalog().collection("hls2-s30").quality
    assert quality is not None
    assert quality.select("clouds+snow+water") == ("0-7=255", 1, 4, 5)
    for wrong, near in (
        ("clouds+shadow", "clouds+shadows"),
        ("snow+watre", "snow+water"),
        ("cloud", "clouds"),
    ):
        with pytest.raises(UnknownNameError, match=re.escape(f"{wrong!r}. Did you mean {near!r}")):
            quality.select(wrong)


@pytest.mark.parametrize(
    ("kind", "dtype", "flag", "message"),
    [
        ("bits", "uint8", "8", "8 is no flag that q \\(uint8\\) can hold"),
        ("bits", "uint8", "6-8=1", "'6-8=1' is no flag"),
        ("bits", "float32", "1", "1 is no flag"),
        ("classes", "uint8", "256", "256 is no code"),
        ("classes", "uint8", "0-1=1", "'0-1=1' is no code"),
        ("bits", "uint8", "0-1=5", "does not fit in its bits"),
        ("bits", "uint8", "cloud", "neither a number nor bits"),
    ],
)
def test_rules_that_the_band_cannot_hold_are_refused(
    tmp_path: Path, kind: str, dtype: str, flag: str, message: str
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        f"collections: {{mine: {{title: Mine, bands: {{q: {{dtype: {dtype}, resolution: 1}}}}, quality: "
        f"{{band: q, kind: {kind}, meanings: {{{flag}: x}}, masks: {{m: [{flag}]}}}}}}}}"
    )
    with pytest.raises(CatalogError, match=message) as raised:
        open_catalog(path)
    assert "own.yaml" in str(raised.value)
