import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

torch = pytest.importorskip("torch")

from cubekit.batching.normalise import Normalisation  # noqa: E402
from cubekit.evaluation.baselines import interpolate_gaps as interpolate_with_numpy  # noqa: E402
from cubekit.tasks.series import SeriesInput, interpolate_gaps  # noqa: E402

pytestmark = pytest.mark.torch

TIMES = np.array(
    ["2022-01-01", "2022-01-11", "2022-02-20", "2022-03-01", "2023-01-05"], dtype="datetime64[ns]"
)
DAYS = ((TIMES - TIMES[0]) / np.timedelta64(1, "D")).astype("float32")

shapes = st.tuples(st.integers(1, 4), st.just(len(TIMES)), st.integers(1, 3))
series = shapes.flatmap(
    lambda shape: st.tuples(
        hnp.arrays("float32", shape, elements=st.floats(-1, 2, width=32)),
        hnp.arrays("bool", shape),
    )
)


def same(bands: int) -> Normalisation:
    """Scaling that does nothing."""
    names = tuple("abc"[:bands])
    return Normalisation(method="percentile", bands=names, low=(0.0,) * bands, high=(1.0,) * bands)


def by_hand(x: np.ndarray) -> np.ndarray:
    """Fill each series with numpy.interp."""
    filled = np.zeros_like(x)
    for sample, band in np.ndindex(x.shape[0], x.shape[2]):
        values = x[sample, :, band]
        seen = ~np.isnan(values)
        if seen.any():
            filled[sample, :, band] = np.interp(DAYS, DAYS[seen], values[seen])
    return filled


@given(series)
@settings(deadline=None)
def test_gaps_are_filled_as_numpy_interp_does(case: tuple[np.ndarray, np.ndarray]) -> None:
    values, observed = case
    x = np.where(observed, values, np.float32(np.nan))
    filled, seen = interpolate_gaps(torch.from_numpy(x), torch.from_numpy(DAYS))
    np.testing.assert_allclose(filled.numpy(), by_hand(x), atol=1e-6)
    np.testing.assert_array_equal(seen.numpy(), observed)
    np.testing.assert_array_equal(filled.numpy()[observed], values[observed])
    np.testing.assert_allclose(interpolate_with_numpy(x, TIMES), by_hand(x), atol=1e-6)


def test_a_series_does_not_depend_on_its_neighbours() -> None:
    x = torch.rand(50, len(TIMES), 3)
    x[torch.rand(x.shape) < 0.5] = torch.nan
    together, _ = interpolate_gaps(x, torch.from_numpy(DAYS))
    for index in range(0, 50, 7):
        alone, _ = interpolate_gaps(x[index : index + 1], torch.from_numpy(DAYS))
        assert torch.equal(alone[0], together[index])


def test_a_band_that_was_never_observed_makes_a_series_unusable() -> None:
    x = torch.rand(3, len(TIMES), 2)
    x[1, :, 0] = torch.nan
    x[2, 1:] = torch.nan
    ready = SeriesInput(TIMES, same(2))(x)
    assert ready["usable"].tolist() == [True, False, True]
    assert torch.equal(ready["x"][1, :, 0], torch.zeros(len(TIMES)))
    assert torch.equal(ready["x"][2], x[2, :1].expand(len(TIMES), -1))
    assert torch.isfinite(ready["x"]).all()


def test_days_of_the_year_come_from_the_dates() -> None:
    ready = SeriesInput(TIMES, same(1))(torch.zeros(2, len(TIMES), 1))
    assert ready["doy"].tolist() == [[1, 11, 51, 60, 5]] * 2
