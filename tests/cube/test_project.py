"""Coordinates from one CRS to another are PROJ's, whatever thread asks."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pyproj import Transformer

from cubekit.cube.project import project


@pytest.mark.parametrize("count", [3, 20_000])
def test_it_gives_what_proj_gives_in_any_thread(count: int) -> None:
    x, y = np.linspace(3.9e6, 4.1e6, count), np.linspace(2.6e6, 2.9e6, count)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: project("EPSG:3035", "EPSG:32632", x, y), range(8)))
    exact = Transformer.from_crs("EPSG:3035", "EPSG:32632", always_xy=True).transform(x, y)
    for each in found:
        np.testing.assert_array_equal(each, exact)


def test_what_lies_beyond_the_domain_is_not_finite() -> None:
    east, north = project("EPSG:4326", "EPSG:3857", np.array([0.0, 0.0]), np.array([45.0, 91.0]))
    assert np.isfinite([east[0], north[0]]).all()
    assert not np.isfinite(north[1])


def test_one_thread_does_it_for_all() -> None:
    before = threading.active_count()
    for _ in range(5):
        project("EPSG:4326", "EPSG:32632", np.array([9.0]), np.array([47.0]))
    named = [thread.name for thread in threading.enumerate() if thread.name.startswith("cubekit-project")]
    assert len(named) == 1
    assert threading.active_count() <= before + 1
