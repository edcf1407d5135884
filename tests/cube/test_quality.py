import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import binary_dilation

from cubekit.catalog import open_catalog
from cubekit.cube.quality import MaskRule, grow, mask_rule, masked_by
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
