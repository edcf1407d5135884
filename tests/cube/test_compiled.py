"""Compiled kernels against NumPy, and that nothing is compiled where nobody asked for it."""

import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cubekit.cube import compiled
from cubekit.cube.kernels import reduce_dates

Array = npt.NDArray[Any]


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr("cubekit.cube.compiled.LEAST", 0)


def by_numpy(values: Array, nodata: int) -> Array:
    """Take the median the slow way: halves to the even number, never equal to nodata."""
    out = np.full(values.shape[1:], nodata, values.dtype)
    for place in np.ndindex(out.shape):
        seen = [int(value) for value in values[(slice(None), *place)] if value != nodata]
        if seen:
            middle = round(float(np.median(seen)))
            beside = nodata - 1 if nodata == np.iinfo(values.dtype).max else nodata + 1
            out[place] = beside if middle == nodata else middle
    return out


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize(("dtype", "nodata"), [("uint16", 0), ("int16", -9999), ("uint8", 255), ("int32", 7)])
@pytest.mark.parametrize("dates", [1, 2, 7, 24])
def test_compiled_medians(dtype: str, nodata: int, dates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(dates)
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, (dates, 3, 450), endpoint=True).astype(dtype)
    values[:, :, :40] = rng.integers(5, 10, (dates, 3, 40))
    values[rng.random(values.shape) < 0.4] = nodata
    values[:, 0, 0] = nodata
    found = reduce_dates(values, "median", nodata)
    np.testing.assert_array_equal(found, by_numpy(values, nodata))
    monkeypatch.setenv("CUBEKIT_NUMBA", "0")
    np.testing.assert_array_equal(reduce_dates(values, "median", nodata), found)


@pytest.mark.usefixtures("_small_blocks")
@given(arrays("uint16", st.tuples(st.integers(1, 9), st.integers(1, 5)), elements=st.integers(0, 65535)))
@settings(max_examples=60, deadline=None)
def test_any_numbers(values: Array) -> None:
    np.testing.assert_array_equal(reduce_dates(values, "median", 0), by_numpy(values, 0))


def test_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.delenv("CUBEKIT_NUMBA", raising=False)
    assert compiled.is_on()
    monkeypatch.setenv("CUBEKIT_NUMBA", "0")
    assert not compiled.is_on()


def test_numba_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys, numpy as np\n"
        "import cubekit.cube.composite\n"
        "from cubekit.cube.kernels import reduce_dates\n"
        "reduce_dates(np.ones((3, 5), 'uint16'), 'median', 0)\n"
        "print('numba' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
