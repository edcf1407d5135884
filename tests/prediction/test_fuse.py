"""Fine images of whole scenes and of every date: as the network at once, wherever the scene is cut."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

torch = pytest.importorskip("torch")

import dask.array as da  # noqa: E402
from torch import Tensor, nn  # noqa: E402

import cubekit as ck  # noqa: E402
from cubekit.batching.pairs import open_pairs  # noqa: E402
from cubekit.errors import OptionError, UnknownNameError  # noqa: E402
from cubekit.nn import create, register  # noqa: E402
from cubekit.prediction.fuse import fuse_pair, fuse_series  # noqa: E402
from cubekit.prediction.fusion import FusionForward, fused_tiles, noise_field  # noqa: E402
from cubekit.tasks.examples import Examples  # noqa: E402
from cubekit.training.bundle import Model  # noqa: E402
from cubekit.training.card import ModelCard  # noqa: E402
from cubekit.training.fit import fit  # noqa: E402

pytestmark = pytest.mark.torch

BANDS = ("red", "nir")
DAYS = np.arange("2020-03-01", "2020-03-09", dtype="datetime64[D]")


@register("test-change", task="fuse", form="image")
class Change(nn.Module):
    """The fine image plus the coarse change, blurred over five pixels."""

    reach = 2

    def __init__(self, *, bands: int) -> None:
        super().__init__()
        self.blur = nn.AvgPool2d(5, stride=1, padding=2, count_include_pad=False)
        self.share = nn.Parameter(torch.ones(bands, 1, 1))

    def forward(self, coarse_t1: Tensor, coarse_t2: Tensor, fine_t1: Tensor) -> Tensor:
        return fine_t1 + self.share * self.blur(coarse_t2 - coarse_t1)  # type: ignore[no-any-return]


def cube(days: Any, seed: int, *, side: int = 24, cell: int = 1, grid: float = 10.0) -> xr.Dataset:
    """Build random numbers in blocks of `cell` pixels."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0.1, 0.6, (len(days), 2, side // cell, side // cell)).astype("float32")
    values = values.repeat(cell, axis=2).repeat(cell, axis=3)
    centres = (np.arange(side) + 0.5) * grid
    coords = {
        "time": np.asarray(days, "datetime64[ns]"),
        "band": list(BANDS),
        "y": 5e6 - centres,
        "x": 5e5 + centres,
    }
    data = xr.DataArray(values, coords, ("time", "band", "y", "x"))
    located: xr.Dataset = xr.Dataset({"data": data}).odc.assign_crs("EPSG:32633")
    return located


@lru_cache(maxsize=1)
def card() -> ModelCard:
    """Fill a card by a training of one step."""
    images = {
        name: np.full((2, 2, 16, 16), 0.3, "float32") for name in ("coarse_t1", "coarse_t2", "fine_t1", "y")
    }
    return fit("test-change", Examples(arrays=images, bands=BANDS), epochs=1, batch=2, progress=False).card


def fresh(name: str, **arguments: Any) -> Model:
    """Build a model with fresh weights."""
    torch.manual_seed(0)
    network = create(name, bands=2, **arguments)
    return Model(network, replace(card(), network=name, arguments={"bands": 2, **arguments}))


@pytest.mark.parametrize("name", ["edcstfn", "test-change"])
@pytest.mark.parametrize(("side", "tile", "window"), [(40, 16, 16), (37, 24, 8), (30, None, None)])
def test_cut_scenes_equal_the_network_at_once(
    name: str, side: int, tile: int | None, window: int | None
) -> None:
    model = fresh(name)
    pair = open_pairs(cube(DAYS[:2], 0, side=side), cube(DAYS[:2], 1, side=side))[0]
    images = {k: v[None] for k, v in pair.load().items() if k != "fine_t2"}
    expected = model.apply(images)["predicted"][0]
    found = fuse_pair(model, pair, tile=tile, window=window)
    assert found.dims == ("band", "y", "x")
    assert found.chunks is not None
    np.testing.assert_allclose(found, expected, atol=2e-6, rtol=0)


def seam_of(values: np.ndarray, borders: list[int]) -> float:
    """Return the mean jump across borders, divided by that everywhere else."""
    jumps = np.concatenate([np.abs(np.diff(values, axis=axis)).mean(axis=(0, 3 - axis)) for axis in (1, 2)])
    at = np.zeros(values.shape[1] - 1, bool)
    at[[border - 1 for border in borders]] = True
    return float(jumps[np.tile(at, 2)].mean() / jumps[~np.tile(at, 2)].mean())


@pytest.mark.parametrize("name", ["gan_stfm", "mlff_gan", "stfdiff"])
def test_blended_windows_leave_no_seam_and_tiles_do_not_show(name: str) -> None:
    model = fresh(name, **({"times": 4, "visits": 2} if name == "stfdiff" else {}))
    side, window = (44, 32) if name == "stfdiff" else (88, 64)
    dice = torch.Generator().manual_seed(0)
    small = torch.rand(3, 2, 7, 7, generator=dice)
    smooth = torch.nn.functional.interpolate(small, size=(side, side), mode="bicubic").numpy()
    images = [da.from_array(image, chunks=(2, 50, 31)) for image in smooth]  # type: ignore[no-untyped-call]
    large = fused_tiles(model, images, tile=10_000, window=window).compute()  # type: ignore[no-untyped-call]
    cut = fused_tiles(model, images, tile=window, window=window).compute()  # type: ignore[no-untyped-call]
    np.testing.assert_allclose(large, cut, atol=1e-6, rtol=0)
    step = window * 3 // 4
    borders = [edge for first in range(0, side - window + step, step) for edge in (first, first + window)]
    assert seam_of(large, [edge for edge in borders if 0 < edge < side]) < 1.35


def test_noise_belongs_to_places() -> None:
    whole = noise_field((2, 300, 520), seed=1)
    assert float(np.asarray(whole).std()) == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(noise_field((2, 270, 400), seed=1), whole[:, :270, :400])
    assert (noise_field((2, 20, 20), seed=2) != whole[:, :20, :20]).mean().compute() > 0.9


def test_gaps_stay_gaps_and_do_not_spread() -> None:
    network = Change(bands=2)
    images = np.random.default_rng(0).random((3, 2, 12, 12), dtype="float32")
    whole = FusionForward(network)([images])
    holed = images.copy()
    holed[2, 1, 3, 4] = np.nan
    holed[0, 0, 8, 8] = np.nan
    found = FusionForward(network)([holed])
    gaps = np.isnan(found)
    assert gaps.sum() == 4
    assert gaps[:, 3, 4].all()
    assert gaps[:, 8, 8].all()
    np.testing.assert_allclose(found[:, :3], whole[:, :3], atol=1e-6)


def test_a_dense_series_takes_the_nearest_known_date_and_keeps_what_was_seen() -> None:
    model = fresh("test-change")
    fine, coarse = cube(DAYS[[1, 6]], 0), cube(DAYS, 1, cell=4)
    fine["data"][0, 0, 2, 3] = np.nan
    series = fuse_series(model, fine, coarse)
    assert series["data"].dims == ("time", "band", "y", "x")
    assert series.indexes["time"].equals(coarse.indexes["time"])
    behind = series["known_date"].to_numpy().astype("datetime64[D]")
    assert behind.tolist() == DAYS[[1, 1, 1, 1, 6, 6, 6, 6]].tolist()
    seen = series["data"][1].to_numpy()
    known = np.isfinite(fine["data"][0].to_numpy())
    np.testing.assert_array_equal(seen[known], fine["data"][0].to_numpy()[known])
    assert np.isfinite(seen).all()  # the gap was predicted from the other date
    network = model.network
    one = (
        torch.from_numpy(image.to_numpy())[None]
        for image in (coarse["data"][6], coarse["data"][4], fine["data"][1])
    )
    expected = network(*one)[0].detach().numpy()
    np.testing.assert_allclose(series["data"][4], expected, atol=1e-5)
    chosen = fuse_series(model, fine, coarse, dates=["2020-03-05"], known="before")
    assert chosen["known_date"].to_numpy().astype("datetime64[D]").tolist() == [DAYS[1].item()]


@pytest.mark.parametrize("name", ["edcstfn", "test-change"])
def test_two_pairs_are_blended_and_one_is_enough(name: str) -> None:
    model = fresh(name)
    fine, coarse = cube(DAYS[[1, 6]], 0, side=16), cube(DAYS, 1, side=16)
    both = fuse_series(model, fine, coarse, known="both")["data"]
    arrays = {n: torch.from_numpy(c["data"].to_numpy()) for n, c in (("f", fine), ("c", coarse))}
    c2 = arrays["c"][3:4]
    before, after = (arrays["c"][1:2], arrays["f"][0:1]), (arrays["c"][6:7], arrays["f"][1:2])
    with torch.no_grad():
        if name == "edcstfn":
            expected = model.network.forward_pairs(c2, before, after)  # type: ignore[operator]
        else:
            ones = [model.network(c, c2, f) for c, f in (before, after)]
            weights = [1 / ((c2 - c).abs().mean(dim=1, keepdim=True) + 1e-3) for c, _ in (before, after)]
            expected = (ones[0] * weights[0] + ones[1] * weights[1]) / (weights[0] + weights[1])
    np.testing.assert_allclose(both[3], expected[0], atol=1e-5)
    alone = fuse_series(model, fine, coarse)["data"]
    np.testing.assert_allclose(both[0], alone[0], atol=1e-6)  # nothing is known before the first date
    fine["data"][0] = np.nan
    gappy = fuse_series(model, fine, coarse, known="both")["data"]
    single = fuse_series(model, fine.isel(time=[1]), coarse)["data"]
    np.testing.assert_allclose(gappy[3], single[3], atol=1e-6)


def test_a_written_series_is_a_store_that_goes_on(tmp_path: Path) -> None:
    model = fresh("test-change")
    fine, coarse = cube(DAYS[[1, 6]], 0) * 10_000, cube(DAYS[:4], 1, side=24, cell=8) * 10_000
    options: dict[str, Any] = {"scale": 10_000, "out": tmp_path / "dense.zarr", "progress": False}
    lazy = ck.fuse_series(model, fine, coarse, scale=10_000)
    calls = 0

    def fail(*images: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise RuntimeError("killed")
        return Change.forward(model.network, *images)  # type: ignore[arg-type]

    model.network.forward = fail
    with pytest.raises(ck.CubekitError):
        ck.fuse_series(model, fine, coarse, workers=1, **options)
    del model.network.forward
    written = ck.fuse_series(model, fine, coarse, workers=1, **options)
    np.testing.assert_allclose(written["data"], lazy["data"], atol=1e-6)
    assert float(written["data"].max()) < 2
    xr.testing.assert_equal(written["known_date"], lazy["known_date"])
    assert ck.open(tmp_path / "dense.zarr").odc.geobox == fine.odc.geobox


def test_sensors_that_differ_are_brought_together_first() -> None:
    model = fresh("test-change")
    fine, coarse = cube(DAYS[[1, 6]] + np.timedelta64(9, "h"), 0), cube(DAYS, 1)
    found = fuse_series(model, fine, coarse * 3000 + 40, harmonise=True)["data"]
    lined = coarse.copy(deep=True)
    for number in range(len(BANDS)):
        far, near = coarse["data"][:, number], fine["data"][:, number]
        slope, intercept = np.polyfit(far[[1, 6]].values.ravel(), near.values.ravel(), 1)
        lined["data"][:, number] = slope * far + intercept
    np.testing.assert_allclose(found, fuse_series(model, fine, lined)["data"], atol=1e-5)
    assert float(np.abs(found - fuse_series(model, fine, coarse)["data"]).max()) > 0.1


def test_what_does_not_fit_is_refused() -> None:
    model = fresh("test-change")
    fine, coarse = cube(DAYS[[1, 6]], 0), cube(DAYS, 1)
    with pytest.raises(OptionError, match="no image of 2021-01-01"):
        fuse_series(model, fine, coarse, dates=["2021-01-01"])
    with pytest.raises(OptionError, match="Raise tolerance="):
        fuse_series(model, fine, coarse.isel(time=[3]))
    with pytest.raises(OptionError, match="scale=0"):
        fuse_series(model, fine, coarse, scale=0)
    with pytest.raises(OptionError, match="expected one trained to fuse"):
        fuse_series(object(), fine, coarse)
    with pytest.raises(UnknownNameError, match="'red'"):
        fuse_series(model, fine.assign_coords(band=["rad", "nir"]), coarse)
    pair = open_pairs(fine, coarse.isel(time=[1, 6]), bands=["nir"])[0]
    with pytest.raises(OptionError, match=r"bands \['red', 'nir'\]"):
        fuse_pair(model, pair)
