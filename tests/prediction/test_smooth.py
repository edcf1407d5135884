"""Smoothed maps against a plain loop over pixels, and against themselves cut into other blocks."""

import math
from typing import Any

import numpy as np
import numpy.testing as npt
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from cubekit.errors import CubeError, OptionError
from cubekit.prediction.smooth import smooth
from cubekit.typing import Array, FloatArray


def make_map(shape: tuple[int, int] = (30, 41), seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet((0.5, 0.5, 0.5), shape).transpose(2, 0, 1)
    stored = np.rint(p * 250).astype("uint8")
    stored[:, rng.random(shape) < 0.1] = 255
    classes = np.where(stored[0] == 255, 255, stored.argmax(axis=0)).astype("uint8")
    attrs: dict[str, Any] = {"classes": ["a", "b", "c"], "_FillValue": np.uint8(255)}
    return xr.Dataset(
        {"class": (("y", "x"), classes, attrs), "probability": (("category", "y", "x"), stored)}
    )


def bayes_by_hand(stored: Array, size: int, prior: float, share: float) -> FloatArray:
    half = size // 2
    _, rows, columns = stored.shape
    p = np.clip(stored / 250, 0.002, 0.998)
    logit = np.log(p / (1 - p))
    found = np.full(stored.shape, np.nan)
    for y in range(rows):
        for x in range(columns):
            if stored[0, y, x] == 255:
                continue
            for k in range(len(stored)):
                near = [
                    logit[k, j, i]
                    for j in range(max(0, y - half), min(rows, y + half + 1))
                    for i in range(max(0, x - half), min(columns, x + half + 1))
                    if stored[0, j, i] != 255
                ]
                top = sorted(near, reverse=True)[: math.ceil(len(near) * share)]
                mean = sum(top) / len(top)
                variance = sum((value - mean) ** 2 for value in top) / max(1, len(top) - 1)
                found[k, y, x] = (variance * logit[k, y, x] + prior * mean) / (variance + prior)
    odds = 1 / (1 + np.exp(-found))
    result: FloatArray = odds / odds.sum(axis=0)
    return result


def test_bayes_equals_a_loop_over_pixels() -> None:
    made = make_map((14, 17))
    found = smooth(made, size=5, smoothness=10, share=0.4)["probability"].compute().to_numpy()
    expected = bayes_by_hand(made["probability"].to_numpy(), 5, 10, 0.4)
    npt.assert_array_equal(found == 255, np.isnan(expected))
    npt.assert_allclose(np.where(found == 255, np.nan, found / 250), expected, atol=0.5 / 250 + 1e-5)


def test_majority_equals_a_loop_over_pixels() -> None:
    made = make_map((14, 17))
    own = made["class"].to_numpy()
    found = smooth(made, method="majority", size=3)["class"].compute().to_numpy()
    for (y, x), value in np.ndenumerate(own):
        near = own[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
        votes = [int((near == k).sum()) for k in range(3)]
        most = [k for k in range(3) if votes[k] == max(votes)]
        expected = 255 if value == 255 else (value if value in most else most[0])
        assert found[y, x] == expected


@settings(max_examples=12, deadline=None)
@given(
    method=st.sampled_from(["bayes", "majority", None]),
    chunks=st.tuples(st.integers(5, 41), st.integers(5, 41)),
    sieve=st.sampled_from([0, 4]),
)
def test_blocks_do_not_show(method: Any, chunks: tuple[int, int], sieve: int) -> None:
    if method is None and not sieve:
        return
    made = make_map()
    options: dict[str, Any] = {"method": method, "size": 5, "sieve": sieve}
    whole = smooth(made, **options).compute()
    cut = smooth(made.chunk({"y": chunks[0], "x": chunks[1], "category": 1}), **options).compute()
    xr.testing.assert_equal(cut, whole)


def test_sieve_is_that_of_gdal_on_the_whole_map() -> None:
    from rasterio.features import sieve

    made = make_map()
    own = made["class"].to_numpy()
    found = smooth(made, method=None, sieve=6)["class"].compute().to_numpy()
    expected = sieve(own, 6, mask=own != 255, connectivity=4)
    npt.assert_array_equal(found, np.where(own == 255, 255, expected))
    assert (found != own).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mode"}, "not accepted"),
        ({"size": 4}, "odd"),
        ({"smoothness": 0}, "above 0"),
        ({"method": None}, "Nothing to do"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        smooth(make_map(), **options)
    with pytest.raises(CubeError, match="probability"):
        smooth(make_map().drop_vars("probability"))
