import numpy as np
import pytest

from cubekit.errors import OptionError
from cubekit.evaluation.accuracy import Accuracy
from cubekit.evaluation.area import estimate_areas

NAMES = ("deforestation", "forest gain", "stable forest", "stable non-forest")
# Olofsson et al. 2014, table 8: rows map class, columns reference class.
COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
HECTARES = PIXELS * 0.09


def test_the_published_example_comes_out() -> None:
    found = estimate_areas(Accuracy(classes=NAMES, confusion=COUNTS.T), HECTARES)
    # Section 5.2 of the paper.
    np.testing.assert_allclose(found.area, [21158, 11686, 285770, 581386], atol=0.5)
    np.testing.assert_allclose(found.area_margin, [6158, 3756, 15510, 16282], atol=1)
    np.testing.assert_allclose(found.users, [0.88, 0.73, 0.93, 0.96], atol=0.005)
    np.testing.assert_allclose(found.users_margin, [0.07, 0.10, 0.04, 0.02], atol=0.005)
    np.testing.assert_allclose(found.producers, [0.75, 0.85, 0.93, 0.96], atol=0.005)
    assert found.overall == pytest.approx(0.95, abs=0.005)
    assert found.overall_margin == pytest.approx(0.02, abs=0.005)
    assert "581386 ± 16281.4" in found.table()


def test_margins_are_the_spread_of_repeated_samples() -> None:
    found = estimate_areas(Accuracy(classes=NAMES, confusion=COUNTS.T), HECTARES, level=0.6827)
    rng = np.random.default_rng(0)
    rows = [rng.multinomial(row.sum(), row / row.sum(), size=4000) for row in COUNTS]
    share = np.stack(rows, axis=1) / COUNTS.sum(axis=1)[None, :, None] * (HECTARES / HECTARES.sum())[:, None]
    producers = np.diagonal(share, axis1=1, axis2=2) / share.sum(axis=1)
    np.testing.assert_allclose(found.producers_margin, producers.std(axis=0), rtol=0.1)
    np.testing.assert_allclose(found.area_margin, share.sum(axis=1).std(axis=0) * HECTARES.sum(), rtol=0.1)
    assert found.overall_margin == pytest.approx(
        np.diagonal(share, axis1=1, axis2=2).sum(axis=1).std(), rel=0.06
    )


def test_a_class_without_samples_has_no_estimate() -> None:
    counts = COUNTS.copy()
    counts[1] = 0
    with pytest.raises(OptionError, match="'forest gain' has 0"):
        estimate_areas(Accuracy(classes=NAMES, confusion=counts.T), HECTARES)


@pytest.mark.parametrize(
    ("mapped", "level", "match"),
    [([1.0, 2.0], 0.95, "one area"), ([1, 1, 1, -1], 0.95, "-1"), (list(HECTARES), 95, "level=95")],
)
def test_wrong_areas_and_levels_are_refused(mapped: list[float], level: float, match: str) -> None:
    with pytest.raises(OptionError, match=match):
        estimate_areas(Accuracy(classes=NAMES, confusion=COUNTS.T), mapped, level=level)
