import numpy as np
import pytest

from cubekit.batching import series_kernels
from cubekit.batching.series_kernels import put_series


@pytest.mark.parametrize("switch", ["0", "1"])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "int16", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(24, 100), (8, 1), (7, 65), (3, 32)])
def test_series_are_pixels_over_values(
    monkeypatch: pytest.MonkeyPatch, switch: str, dtype: str, shape: tuple[int, int]
) -> None:
    monkeypatch.setenv("CUBEKIT_NUMBA", switch)
    monkeypatch.setattr(series_kernels, "LEAST", 1)
    random = np.random.default_rng(0)
    values = random.integers(-3000 if dtype == "int16" else 0, 60_000, shape).astype(dtype)
    if dtype == "float32":
        values[1, 0] = np.nan
    rows = random.permutation(shape[1])
    out = np.full(shape[::-1], 1, dtype)
    put_series(values, rows, out)
    for pixel, row in enumerate(rows):
        assert out[row].tobytes() == values[:, pixel].tobytes()


def test_a_part_of_a_block_need_not_be_contiguous(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_kernels, "LEAST", 1)
    values = np.arange(16 * 200, dtype="uint16").reshape(16, 200)[::2, 3::2]
    out = np.empty((99, 8), "uint16")
    put_series(values, np.arange(99)[::-1].copy(), out)
    np.testing.assert_array_equal(out, values.T[::-1])
