"""Compiled kernels give NumPy's numbers, to the last bit, wherever they stand in for NumPy."""

from typing import Any

import numpy as np
import pytest
from odc.geo.geobox import GeoBox

from cubekit.cube import lay_numba
from cubekit.cube.contract import Encoding
from cubekit.cube.lay import Loaded, Recode, lay
from cubekit.cube.resample import Place, Window, positions, window_of
from cubekit.cube.status import READ

SOURCE = GeoBox.from_bbox((400_000, 4_400_000, 401_340, 4_401_060), "EPSG:32630", resolution=20)
TARGETS = {
    "its own": SOURCE[3:40, 5:60],
    "twice as fine": SOURCE.zoom_to(resolution=10)[2:90, 1:101],
    "shifted": GeoBox.from_bbox((399_905, 4_400_013, 401_100, 4_401_100), "EPSG:32630", resolution=7),
    "another CRS": GeoBox.from_bbox((3_107_900, 1_963_500, 3_109_300, 1_964_700), "EPSG:3035", resolution=10),
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("shift", [0, 1000, -1000])
def test_kernels_equal_numpy(
    target: GeoBox, method: str, shift: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(7)
    values = rng.integers(0, 2**16, SOURCE.shape).astype("uint16")
    values[rng.random(SOURCE.shape) < 0.2] = 0
    where = positions(SOURCE, target)
    window = window_of(where, SOURCE.shape.yx, 1)
    assert window is not None
    part = values[window.top : window.bottom, window.left : window.right]
    rule = Recode(coding=Encoding(dtype="uint16", nodata=0), scale=1, offset=0, shift=shift,
                  exact=method == "nearest", nodata=0, source="x")  # fmt: skip
    for hidden in (None, rng.random(target.shape) < 0.3):
        found: list[tuple[Any, Any]] = []
        for switch in ("1", "0"):
            monkeypatch.setenv("CUBEKIT_NUMBA", switch)
            out, status = np.zeros(target.shape, "uint16"), np.zeros(target.shape, "uint8")
            out[5], status[5] = 77, READ  # what another scene has given already
            lay(Loaded(part, 0, Place(where, window), method), rule, out, status, hidden)
            found.append((out, status))
        np.testing.assert_array_equal(found[0][0], found[1][0])
        np.testing.assert_array_equal(found[0][1], found[1][1])
        assert (found[0][0][5] == 77).all()
        assert 0.1 < (found[0][1] == READ).mean() < 1


def test_the_switch_leaves_everything_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBEKIT_NUMBA", "0")
    monkeypatch.setattr(lay_numba, "_prepared", lambda *_, **__: pytest.fail("compiled kernels were loaded"))
    out, status = np.zeros(SOURCE.shape, "uint8"), np.zeros(SOURCE.shape, "uint8")
    rule = Recode(coding=Encoding(dtype="uint8", nodata=0), scale=1, offset=0, shift=0, exact=True, nodata=0,
                  source="x")  # fmt: skip
    place = Place(positions(SOURCE, SOURCE), Window(0, 0, *SOURCE.shape.yx))
    lay(Loaded(out + 7, 0, place, "nearest"), rule, out, status, None)
    assert (out == 7).all()
