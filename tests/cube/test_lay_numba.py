"""Compiled kernels give NumPy's numbers, to the last bit, wherever they stand in for NumPy."""

from typing import Any

import numpy as np
import pytest
from affine import Affine
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from scipy.ndimage import map_coordinates

from cubekit.cube import lay_numba
from cubekit.cube.contract import Encoding
from cubekit.cube.lay import Loaded, Recode, lay
from cubekit.cube.places import Positions
from cubekit.cube.resample import Place, Window, positions, window_of
from cubekit.cube.status import READ
from cubekit.typing import Array, BoolArray

SOURCE = GeoBox.from_bbox((400_000, 4_400_000, 401_340, 4_401_060), "EPSG:32630", resolution=20)
TURNED = GeoBox((53, 67), Affine(18, 6, 400_000, 5, -19, 4_401_000), "EPSG:32630")
TARGETS = {
    "its own": SOURCE[3:40, 5:60],
    "twice as fine": SOURCE.zoom_to(resolution=10)[2:90, 1:101],
    "twice as fine, beyond the rim": SOURCE.zoom_to(resolution=10).pad(5),
    "as fine as can be": SOURCE.zoom_to(resolution=10)[7:8, 9:10],
    "shifted": GeoBox.from_bbox((399_905, 4_400_013, 401_100, 4_401_100), "EPSG:32630", resolution=7),
    "another CRS": GeoBox.from_bbox((3_107_900, 1_963_500, 3_109_300, 1_964_700), "EPSG:3035", resolution=10),
    "degrees": GeoBox.from_bbox((-4.17, 39.745, -4.152, 39.756), "EPSG:4326", resolution=1e-4),
}


def rule_for(dtype: str = "uint16", *, shift: int = 0, method: str = "bilinear") -> Recode:
    return Recode(coding=Encoding(dtype=dtype, nodata=0), scale=1, offset=0, shift=shift,
                  exact=method == "nearest", nodata=0, source="x")  # fmt: skip


def numbers(dtype: str = "uint16", *, gaps: float = 0.2) -> Array:
    rng, limits = np.random.default_rng(7), np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, SOURCE.shape, endpoint=True).astype(dtype)
    values[values == 0] = 1
    values[20:] = np.where(rng.random((len(values) - 20, values.shape[1])) < gaps, 0, values[20:])
    return values


def place_of(source: GeoBox, target: GeoBox) -> Place:
    where = positions(source, target)
    window = window_of(where, source.shape.yx, 1)
    assert window is not None
    return Place(where, window)


def laid(
    values: Array, place: Place, rule: Recode, status: Array | None, hidden: BoolArray | None, **how: Any
) -> Array:
    """Lay a window where another scene has given row 5 of the block already."""
    around = np.zeros((200, 200), rule.coding.dtype)
    out = around[3 : 3 + how["shape"][0], 7 : 7 + how["shape"][1]]
    out[5:6] = 77
    window = place.window
    part = values[window.top : window.bottom, window.left : window.right]
    lay(Loaded(part, 0, place, how["method"]), rule, out, status, hidden)
    assert not around[:3].any()
    assert not around[:, :7].any()
    assert not around[:, 7 + how["shape"][1] :].any()
    return out


@pytest.mark.parametrize("source", [SOURCE, TURNED], ids=["north-up", "turned"])
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("shift", [0, 1000, -1000])
def test_kernels_equal_numpy(
    source: GeoBox, target: GeoBox, method: str, shift: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    values, rule, shape = numbers(), rule_for(shift=shift, method=method), target.shape.yx
    covered = 0.0
    for hidden in (None, np.random.default_rng(1).random(shape) < 0.3):
        for fresh in (True, False):
            found: list[tuple[Any, Any]] = []
            for switch in ("1", "0"):
                monkeypatch.setenv("CUBEKIT_NUMBA", switch)
                status = None if fresh else np.zeros(shape, "uint8")
                if status is not None:
                    status[5:6] = READ
                out = laid(values, place_of(source, target), rule, status, hidden, shape=shape, method=method)
                found.append((out, status))
            np.testing.assert_array_equal(found[0][0], found[1][0])
            np.testing.assert_array_equal(found[0][1], found[1][1])
            if not fresh:
                assert (found[0][0][5:6] == 77).all()
                covered = max(covered, (found[0][1] == READ).mean())
    assert covered > 0.1


@pytest.mark.parametrize("target", ["twice as fine", "another CRS"])
def test_signed_numbers_are_weighed_alike(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    values, box, found = numbers("int16"), TARGETS[target], {}
    for switch in ("1", "0"):
        monkeypatch.setenv("CUBEKIT_NUMBA", switch)
        place = place_of(SOURCE, box)
        out = laid(values, place, rule_for("int16"), None, None, shape=box.shape.yx, method="bilinear")
        found[switch] = out
    np.testing.assert_array_equal(found["1"], found["0"])
    assert (found["1"] < 0).any()


@pytest.mark.parametrize("switch", ["1", "0"])
def test_bilinear_between_crs_is_within_one_of_float64_at_exact_places(
    switch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBEKIT_NUMBA", switch)
    y, x = np.mgrid[: SOURCE.shape.y, : SOURCE.shape.x]
    values = (5000 + 2000 * np.sin(y / 9) * np.cos(x / 11)).astype("uint16")
    target = TARGETS["another CRS"]
    place = place_of(SOURCE, target)
    out = laid(values, place, rule_for(), None, None, shape=target.shape.yx, method="bilinear")
    lon, lat = np.meshgrid(target.coords["x"].values, target.coords["y"].values)
    east, north = Transformer.from_crs("EPSG:3035", "EPSG:32630", always_xy=True).transform(lon, lat)
    at = [(SOURCE.transform.f - north) / 20 - 0.5, (east - SOURCE.transform.c) / 20 - 0.5]
    inside = (at[0] > 0) & (at[1] > 0) & (at[0] < SOURCE.shape.y - 1) & (at[1] < SOURCE.shape.x - 1)
    exact = map_coordinates(values.astype(float), at, order=1, mode="nearest")
    assert inside.mean() > 0.5
    assert np.abs(out[inside] - exact[inside]).max() <= 1


def test_windows_are_those_of_all_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setenv("CUBEKIT_NUMBA", "1")
    target, seen = TARGETS["another CRS"], set()
    for shift in [(0, 0), (60, 0), (0, -90), (-100, 70), (400, 0), (105, 105)]:
        where = positions(SOURCE, target.translate_pix(*shift))
        found = window_of(where, SOURCE.shape.yx, 1)
        assert found == window_of(Positions(where.rows, where.cols), SOURCE.shape.yx, 1)
        seen.add(found)
    assert None in seen
    assert len(seen) > 3


def test_the_switch_leaves_everything_to_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBEKIT_NUMBA", "0")
    monkeypatch.setattr(lay_numba, "_prepared", lambda *_, **__: pytest.fail("compiled kernels were loaded"))
    out, status = np.zeros(SOURCE.shape, "uint8"), np.zeros(SOURCE.shape, "uint8")
    place = Place(positions(SOURCE, SOURCE), Window(0, 0, *SOURCE.shape.yx))
    lay(Loaded(out + 7, 0, place, "nearest"), rule_for("uint8", method="nearest"), out, status, None)
    assert (out == 7).all()
