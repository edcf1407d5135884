import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from odc.geo.geobox import GeoBox
from scipy.ndimage import binary_dilation, binary_opening

from cubekit.catalog import open_catalog
from cubekit.cube.quality import MaskRule, grow, in_pixels, mask_rule, masked_by, shaped
from cubekit.errors import OptionError, UnknownNameError


def rule(collection: str, *names: str) -> MaskRule:
    quality = open_catalog().collection(collection).quality
    assert quality is not None
    return mask_rule(quality, names)


def test_scene_classes() -> None:
    codes = np.arange(12, dtype="uint8")[None]
    masked = masked_by(codes, rule("sentinel-2-l2a", "clouds", "shadows"))
    assert codes[masked].tolist() == [0, 1, 3, 8, 9, 10]


# Values of the Landsat 8-9 Collection 2 product guide (LSDS-1619), table of QA_PIXEL interpretations.
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1, True),  # fill
        (21824, False),  # clear
        (21952, False),  # clear over water
        (22280, True),  # high confidence cloud
        (23888, True),  # high confidence shadow
        (30048, False),  # snow
        (54596, True),  # high confidence cirrus
    ],
)
def test_landsat_bits(code: int, *, expected: bool) -> None:
    masked = masked_by(np.array([[code]], "uint16"), rule("landsat-c2-l2", "clouds", "shadows"))
    assert bool(masked.item()) is expected


def test_codes_of_any_integer_type() -> None:
    bits = MaskRule(kind="bits", select=(0, 15))
    for dtype in ("uint16", "int16", "uint32"):
        codes = np.array([[1, 2, 32_767]], dtype)
        assert masked_by(codes, bits).tolist() == [[True, False, True]]
    high = np.array([[-32_768]], "int16")
    assert masked_by(high, bits).tolist() == [[True]]
    negative = MaskRule(kind="classes", select=(-1, 3))
    assert masked_by(np.array([[255, 3]], "uint8"), negative).tolist() == [[False, True]]
    assert masked_by(np.array([[-1, 3]], "int8"), negative).tolist() == [[True, True]]


def test_wrong_wishes_are_refused() -> None:
    quality = open_catalog().collection("sentinel-2-l2a").quality
    assert quality is not None
    with pytest.raises(UnknownNameError, match="'clouds'"):
        mask_rule(quality, "clods")
    with pytest.raises(OptionError, match="dilate=-1"):
        mask_rule(quality, "clouds", dilate=-1)
    with pytest.raises(OptionError, match="float32"):
        masked_by(np.zeros((1, 1), "float32"), MaskRule(kind="bits", select=(1,)))


@given(arrays(bool, (9, 13)), st.integers(0, 4))
def test_growing_equals_scipy(masked: np.ndarray, by: int) -> None:
    square = np.ones((2 * by + 1, 2 * by + 1), bool)
    np.testing.assert_array_equal(grow(masked, by), binary_dilation(masked, square))


@given(arrays(bool, (15, 17)), st.integers(0, 2), st.integers(0, 2))
def test_opening_and_growing_equal_scipy(masked: np.ndarray, opening: int, dilate: int) -> None:
    rule = MaskRule(kind="classes", select=(9,), opening=opening, dilate=dilate)
    found = inner(masked, rule)
    padded = np.pad(masked, 8, mode="constant", constant_values=True)  # areas go on beyond the edge
    size = (2 * opening + 1,) * 2
    opened = binary_opening(padded, np.ones(size, bool))[8:-8, 8:-8] if opening else masked
    grown = binary_dilation(opened, np.ones((2 * dilate + 1,) * 2, bool)) if dilate else opened
    np.testing.assert_array_equal(found, grown)


def inner(masked: np.ndarray, rule: MaskRule) -> np.ndarray:
    """Shape a mask as a block is: with pixels around it that the scene does not cover."""
    around = rule.reach or 1
    covered = np.pad(np.ones_like(masked), around)
    return shaped(np.pad(masked, around), covered, rule)[around:-around, around:-around]


def test_an_area_at_the_edge_of_a_scene_is_no_speck() -> None:
    masked = np.zeros((9, 9), bool)
    masked[4, 4] = True  # a roof
    masked[:, :1] = True  # the edge of a cloud that goes on
    found = inner(masked, MaskRule(kind="classes", select=(9,), opening=1))
    assert found[:, 0].all()
    assert found.sum() == 9


@pytest.mark.parametrize(
    ("distance", "crs", "resolution", "expected"),
    [
        (3, "EPSG:32630", 10, 3),
        ("60 m", "EPSG:32630", 10, 6),
        ("61m", "EPSG:32630", 20, 4),
        ("0.5 km", "EPSG:32630", 30, 17),
        ("0 m", "EPSG:32630", 30, 0),
        ("100 m", "EPSG:4326", 0.001, 2),  # 55.7 m from west to east at 60 degrees north
        ("60 m", "EPSG:2227", 100, 2),  # US survey feet
    ],
)
def test_lengths_become_pixels(distance: int | str, crs: str, resolution: float, expected: int) -> None:
    bounds = (0, 59.9, 0.2, 60.1) if crs == "EPSG:4326" else (0, 0, 2000, 2000)
    box = GeoBox.from_bbox(bounds, crs, resolution=resolution)
    assert in_pixels("dilate", distance, box) == expected


@pytest.mark.parametrize("distance", [-1, 2.5, "6 ft", "-5 m", True, "wide"])
def test_lengths_that_are_none_are_refused(distance: int) -> None:
    box = GeoBox.from_bbox((0, 0, 100, 100), "EPSG:32630", resolution=10)
    with pytest.raises(OptionError, match=r"dilate=.*pixels, 0 or more, or a length such as '60 m'"):
        in_pixels("dilate", distance, box)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", ">u2", "<u2"])
def test_small_codes_of_any_type_are_judged_one_by_one(dtype: str) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    codes = np.array([[low, 0, 1, 3, 8], [high, 9, 10, 11, 7]]).astype(dtype)
    classes = MaskRule(kind="classes", select=(3, 8, high))
    np.testing.assert_array_equal(masked_by(codes, classes), np.isin(codes, [3, 8, high]))
    np.testing.assert_array_equal(masked_by(codes[:, ::-2], classes), np.isin(codes[:, ::-2], [3, 8, high]))
    bits = MaskRule(kind="bits", select=(1,))
    np.testing.assert_array_equal(masked_by(codes, bits), codes.astype(int) & 2 != 0)
