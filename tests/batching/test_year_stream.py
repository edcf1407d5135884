"""Windows of years as batches: what they hold, and that epochs differ."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

torch = pytest.importorskip("torch")

import cubekit as ck  # noqa: E402
from cubekit.batching.torch.years import YearStream, year_batches  # noqa: E402
from cubekit.batching.years import YearSplit, split_years  # noqa: E402
from cubekit.errors import OptionError  # noqa: E402
from cubekit.typing import FloatArray  # noqa: E402

pytestmark = pytest.mark.torch

MAPS = (1000.0 * np.arange(10)[:, None, None] + np.arange(256).reshape(16, 16)).astype("float32")
"""Ten maps whose pixels tell their year and place."""


def cube_of(maps: FloatArray) -> xr.Dataset:
    """A cube of maps (t, y, x) from 2001 on."""
    box = GeoBox.from_bbox((0, 0, 480, 480), "EPSG:32633", shape=maps.shape[1:])
    dates = np.array([f"{2001 + i}-01-01" for i in range(len(maps))], "M8[ns]")
    attrs = {"_FillValue": np.float32("nan"), "grid_mapping": "spatial_ref"}
    coords = {**xr_coords(box), "time": dates, "band": ["NDVI"]}
    return xr.Dataset({"data": (("time", "band", "y", "x"), maps[:, None], attrs)}, coords)


def parts(*, by: Literal["blocks", "years"] = "blocks") -> tuple[YearSplit, YearStream, YearStream]:
    """A split and both streams."""
    cube = cube_of(MAPS)
    split = split_years(cube, window=3, patch=8, hold_out=2, by=by, block=4)
    train = year_batches(cube, split, "train", samples=24, batch=8)
    return split, train, year_batches(cube, split, "valid", samples=10, batch=8)


def test_inputs_are_the_years_before_and_targets_belong_to_the_part() -> None:
    split, train, valid = parts()
    for stream, part in ((train, "train"), (valid, "valid")):
        for each in stream:
            assert set(each) == {"x", "y", "index"}
            for x, y in zip(each["x"].numpy(), each["y"].numpy(), strict=True):
                known = np.isfinite(y)
                assert known.any()
                year = int(np.unique(y[known] // 1000).item())
                assert year not in split.test
                np.testing.assert_array_equal((x // 1000)[:, 0, 0, 0], [year - 3, year - 2, year - 1])
                place = (y[known] % 1000).astype(int)
                assert split.targets(part).ravel()[place].all()  # type: ignore[arg-type]
                np.testing.assert_array_equal((x % 1000)[0, 0][known], place)


def test_every_epoch_draws_anew_and_from_the_seed_alone() -> None:
    _, train, valid = parts()
    first, second = train.draw(0), train.draw(1)
    assert len(np.unique(first, axis=0)) == 24  # none twice
    assert len({*map(tuple, first.tolist())} & {*map(tuple, second.tolist())}) < 24
    np.testing.assert_array_equal(parts()[1].draw(1), second)
    np.testing.assert_array_equal(valid.draw(0), valid.draw(7))
    whole = train.split.corners["train"]
    more = YearStream(train.cube, train.split, "train", 2 * 5 * len(whole) + 1, 8, 0, None, 2)
    counts = np.unique(more.draw(0), axis=0, return_counts=True)[1]
    assert sorted(counts.tolist())[-2:] == [2, 3]  # as evenly as can be


def test_passes_go_on_by_themselves_and_resume_where_they_stood() -> None:
    _, stream, _ = parts()
    epochs = [[each["x"] for each in stream] for _ in range(2)]
    assert not torch.equal(epochs[0][0], epochs[1][0])
    stream.set_epoch(0)
    torch.testing.assert_close([each["x"] for each in stream], epochs[0])
    stream.set_epoch(1)
    taking = iter(stream)
    next(taking)
    state = stream.state_dict()
    _, other, _ = parts()
    other.load_state_dict(state)
    torch.testing.assert_close([each["x"] for each in other], epochs[1][1:])
    assert stream.digest() == parts()[1].digest() != parts()[2].digest()


def test_what_cannot_be_streamed_is_refused() -> None:
    cube = cube_of(MAPS)
    split = split_years(cube, window=3, patch=8, block=4)
    two = xr.concat([cube, cube.assign_coords(band=["EVI"])], "band")
    with pytest.raises(OptionError, match="one model forecasts one"):
        year_batches(two, split)
    with pytest.raises(OptionError, match="positive"):
        year_batches(cube, split, samples=0)
    with pytest.raises(OptionError, match="part='test'"):
        year_batches(cube, split, "test")  # type: ignore[arg-type]


def test_a_constant_cube_is_learned_and_forecast(tmp_path: Path) -> None:
    maps = np.full((8, 16, 16), 0.4, "float32")
    maps += np.random.default_rng(0).normal(0, 0.01, maps.shape).astype("float32")
    cube = cube_of(maps)
    cube = ck.write(cube, tmp_path / "cube.zarr", progress=False)
    split = split_years(cube, window=3, patch=8, block=4)
    streams = (
        year_batches(cube, split, "train", samples=24, batch=3),
        year_batches(cube, split, "valid", samples=8, batch=8),
    )
    model = ck.fit(
        "convlstm_unet", *streams, epochs=6, learning_rate=0.01, schedule="plateau", progress=False,
        precision="bf16",
    )  # fmt: skip
    assert model.card.times[-1].startswith("2006")  # 2008 is held out, 2007 the last target
    constant = xr.full_like(cube["data"].compute(), 0.4)
    coming = ck.forecast(model, cube.assign(data=constant), steps=2)["data"]
    assert coming["time"].dt.year.to_numpy().tolist() == [2009, 2010]
    assert float(abs(coming.isel(time=0) - 0.4).mean()) < 0.05
