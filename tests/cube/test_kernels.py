"""Reductions against NumPy's, over every dtype that cubes have."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cubekit.cube import kernels
from cubekit.cube.kernels import REDUCTIONS, middle, reduce_dates, valid_in

Array = npt.NDArray[Any]

stacks = st.sampled_from(
    [("uint8", 0), ("uint16", 0), ("int16", -9999), ("int32", 7), ("uint16", 65_535)]
).flatmap(
    lambda kind: st.tuples(
        st.integers(1, 12).flatmap(
            lambda n: arrays(
                kind[0],
                (n, 2, 3),
                elements=st.one_of(
                    st.just(kind[1]), st.integers(int(np.iinfo(kind[0]).min), int(np.iinfo(kind[0]).max))
                ),
            )
        ),
        st.just(kind[1]),
    )
)


def oracle(values: Array, how: str, nodata: float) -> Array:
    data = np.where(values == nodata, np.nan, values.astype(float))
    function: Any = {"median": np.nanmedian, "mean": np.nanmean, "min": np.nanmin, "max": np.nanmax}[how]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        exact = function(data, axis=0)
    rounded = np.rint(exact)
    step = -1 if nodata == np.iinfo(values.dtype).max else 1
    rounded = np.where(rounded == nodata, rounded + step, rounded)
    return np.where(np.isnan(exact), nodata, rounded).astype(values.dtype)


@pytest.mark.parametrize("how", ["median", "mean", "min", "max"])
@settings(max_examples=60, deadline=None)
@given(stack=stacks)
def test_integers_equal_numpy(how: str, stack: tuple[Array, int]) -> None:
    values, nodata = stack
    np.testing.assert_array_equal(reduce_dates(values, how, nodata), oracle(values, how, nodata))


@settings(max_examples=60, deadline=None)
@given(stack=stacks, seed=st.integers(0, 99))
def test_the_order_of_dates_does_not_matter(stack: tuple[Array, int], seed: int) -> None:
    values, nodata = stack
    shuffled = np.random.default_rng(seed).permutation(values, axis=0)
    for how in ("median", "mean", "min", "max"):
        np.testing.assert_array_equal(reduce_dates(shuffled, how, nodata), reduce_dates(values, how, nodata))


@settings(max_examples=60, deadline=None)
@given(stack=stacks, copies=st.integers(1, 4))
def test_dates_without_data_change_nothing(stack: tuple[Array, int], copies: int) -> None:
    values, nodata = stack
    empty = np.full((copies, *values.shape[1:]), nodata, values.dtype)
    padded = np.concatenate([empty, values, empty])
    for how in REDUCTIONS:
        np.testing.assert_array_equal(reduce_dates(padded, how, nodata), reduce_dates(values, how, nodata))


@given(
    values=arrays(
        "float32", (7, 3, 3), elements=st.floats(-1000, 1000, width=32) | st.just(np.float32("nan"))
    )
)
def test_floats_equal_numpy(values: Array) -> None:
    for how, function in (
        ("median", np.nanmedian),
        ("min", np.nanmin),
        ("max", np.nanmax),
        ("mean", np.nanmean),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            expected = function(values.astype(float), axis=0)
        found = reduce_dates(values, how, float("nan"))
        assert found.dtype == "float32"
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_first_takes_the_first_date_with_data() -> None:
    values = np.array([[0, 0, 5], [0, 3, 6], [9, 4, 7]], "uint16")[:, None]
    assert reduce_dates(values, "first", 0).tolist() == [[9, 3, 5]]


def test_a_mean_that_equals_nodata_stays_data() -> None:
    values = np.array([[-10_000], [-9_998]], "int16")
    assert reduce_dates(values, "median", -9999).tolist() == [-9998]


def test_pieces_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 50, (9, 4, 31, 17)).astype("uint16")
    whole = reduce_dates(values, "median", 0)
    monkeypatch.setattr(kernels, "_PIECE", 100)
    np.testing.assert_array_equal(reduce_dates(values, "median", 0), whole)


@given(st.integers(0, 255), st.integers(0, 255))
def test_middle_rounds_halves_to_even(one: int, other: int) -> None:
    found = middle(np.array(one, "uint8"), np.array(other, "uint8"))
    assert int(found) == round((one + other) / 2)


@given(st.integers(-128, 127), st.integers(-128, 127))
def test_middle_of_signed_numbers(one: int, other: int) -> None:
    assert int(middle(np.array(one, "int8"), np.array(other, "int8"))) == round((one + other) / 2)


def test_nodata_that_a_type_cannot_hold_hides_nothing() -> None:
    assert valid_in(np.zeros(3, "uint8"), float("nan")).all()
    assert valid_in(np.zeros(3, "uint8"), -9999).all()
    assert not valid_in(np.full(3, np.nan), None).any()
