"""What a run is said to take, against what it took."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch: Any = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from cubekit.nn.activations import activation_bytes  # noqa: E402
from cubekit.nn.reach import Reach  # noqa: E402
from cubekit.prediction.windows import SIDE, WINDOW_BYTES, plan_windows  # noqa: E402

PROBE = """
import sys
import numpy as np, pandas as pd, xarray as xr, dask.array as da, torch
from types import SimpleNamespace
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords
import cubekit as ck
from cubekit.batching.normalise import Normalisation
from cubekit.labels import ClassTable
from cubekit.nn.registry import create
from cubekit.prediction import windows

bands, times = [f"b{i}" for i in range(4)], pd.date_range("2023-01-01", periods=6, freq="MS")

def make_cube(rows):
    data = da.full((6, 4, rows, 512), 3000, dtype="uint16", chunks=(6, 4, 256, 256))
    box = GeoBox((rows, 512), Affine(10, 0, 4e5, 0, -10, 4.5e6), "EPSG:32630")
    cube = xr.Dataset({"data": (("time", "band", "y", "x"), data, {"_FillValue": np.uint16(0)})})
    return cube.assign_coords(xr_coords(box) | {"time": times, "band": bands})

class Plain:
    form = "patches"
    network = create("unet", bands=4, steps=6, classes=3, width=4, depth=1)
    card = SimpleNamespace(
        classes=ClassTable.of(["a", "b", "c"]),
        dates=times.to_numpy,
        normalisation=Normalisation(
            method="percentile", bands=tuple(bands), low=(0.,) * 4, high=(5000.,) * 4
        ),
    )
    def select(self, cube): return cube
    def digest(self): return "plain"

def peak():  # of this program alone: ru_maxrss of a child begins with what its parent held
    text = open("/proc/self/status").read()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024

windows._LONGEST = 256  # windows of a large scene, in a small one
for rows in (512, 2048):
    cost = ck.plan_prediction(Plain(), make_cube(rows), workers=2)
    ck.predict(Plain(), make_cube(rows), out=f"{sys.argv[1]}/{rows}.zarr", workers=2, progress=False)
    print(cost.memory, cost.tiles, peak())
"""


@pytest.mark.slow
def test_memory_stays_below_what_was_stated_and_does_not_grow_with_the_scene(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    small, large = (tuple(map(int, line.split())) for line in done.stdout.splitlines())
    assert small[0] == large[0], "what is stated does not depend on the size of the scene"
    assert large[1] == 4 * small[1]
    assert large[2] < large[0] < 3 * large[2]
    assert large[2] < 1.25 * small[2]


def test_activations_are_counted_at_their_peak() -> None:
    x = torch.zeros(1000, dtype=torch.float32)
    assert activation_bytes(lambda: x + 1) == 4000
    assert activation_bytes(lambda: ((x + 1) + 1) + 1) == 8000, "what is used up is given back"
    assert activation_bytes(lambda: torch.cat([x + 1, x + 2])) == 16000
    assert activation_bytes(lambda: (x + 1)[10:].view(-1)) == 4000, "views take nothing"
    assert activation_bytes(lambda: x[10:].view(-1) + 1) == 3960, "nor do those of what was there before"


def test_windows_of_wide_margins_are_larger() -> None:
    assert plan_windows(Reach(halo=5)).step == 256
    assert plan_windows(Reach(halo=94, multiple=16)).step == 384
    assert plan_windows(Reach(halo=553, multiple=16)).step >= 2 * 553


@given(
    st.tuples(st.integers(1, 12_000), st.integers(1, 12_000)),
    st.integers(1, 20_000),
    st.integers(0, 300),
    st.sampled_from([1, 4, 16]),
)
def test_windows_are_as_large_as_memory_allows(
    shape: tuple[int, int], pixel_bytes: int, halo: int, multiple: int
) -> None:
    windows = plan_windows(Reach(halo=halo, multiple=multiple), shape=shape, pixel_bytes=pixel_bytes)
    axes = [windows.spans(0, size, size) for size in shape]
    for spans, size in zip(axes, shape, strict=True):
        assert [span.kept.start for span in spans[1:]] == [span.kept.stop for span in spans[:-1]]
        assert spans[-1].kept.stop == size
    rows, columns = (max(span.read.stop - span.read.start for span in spans) for spans in axes)
    bounded = pixel_bytes * rows * columns <= 1.2 * WINDOW_BYTES  # steps are rounded up to the multiple
    assert bounded or windows.step <= max(SIDE, 2 * windows.margin) + multiple
    if max(shape) <= 1024 and pixel_bytes * shape[0] * shape[1] <= WINDOW_BYTES:
        assert [len(spans) for spans in axes] == [1, 1]


def test_windows_of_a_sentinel_2_tile() -> None:
    """A U-Net of depth 4 over 12 dates and 10 bands: 1.3 kB a pixel."""
    windows = plan_windows(Reach(halo=94, multiple=16), shape=(10_980, 10_980), pixel_bytes=1296)
    assert windows.step == 480
    spans = windows.spans(0, 10_980, 10_980)
    computed = sum(span.read.stop - span.read.start for span in spans) / 10_980
    assert computed**2 < 1.95, "with windows of 384 it was 2.22"
