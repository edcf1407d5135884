import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cubekit.batching.decode import day_of_year
from cubekit.batching.samples import Samples
from cubekit.cube.contract import Encoding, to_physical
from cubekit.errors import OptionError, StoreError
from cubekit.labels import ClassTable

Make = Callable[..., Samples]


def test_physical_values_are_those_of_the_cube_contract(make_samples: Make) -> None:
    samples = make_samples()
    stored = xr.DataArray(samples.x, attrs=samples.encoding.attrs())
    np.testing.assert_array_equal(samples.physical(), to_physical(stored))
    np.testing.assert_array_equal(samples.valid(), samples.x != 0)
    assert samples.physical().dtype == np.float32


@pytest.mark.parametrize("nodata", [np.nan, None, -9999.0])
def test_nan_is_never_data(make_samples: Make, nodata: float | None) -> None:
    samples = make_samples()
    x = samples.x.astype("float32")
    x[0, 0] = np.nan
    x[1, 1] = -9999
    floats = replace(samples, x=x, encoding=Encoding(dtype="float32", nodata=nodata))
    assert not floats.valid()[0, 0].any()
    assert floats.valid()[1, 1].all() == (nodata != -9999)
    np.testing.assert_array_equal(np.isnan(floats.physical()), ~floats.valid())


def test_day_of_year_agrees_with_pandas() -> None:
    times = pd.date_range("2019-12-30", "2021-01-02", freq="19h")
    np.testing.assert_array_equal(day_of_year(times.to_numpy()), times.day_of_year)


def test_take_keeps_what_belongs_together(make_samples: Make) -> None:
    samples = make_samples(10)
    by_mask, by_index = samples.take(samples.y == 1), samples.take(np.flatnonzero(samples.y == 1)[::-1])
    assert len(by_mask) == samples.counts()["class 1"] > 0
    for name in ("x", "y", "group", "position"):
        np.testing.assert_array_equal(getattr(by_mask, name), getattr(samples, name)[samples.y == 1])
        np.testing.assert_array_equal(getattr(by_mask, name), getattr(by_index, name)[::-1])
    assert len(samples.take([])) == 0


@pytest.mark.parametrize("nodata", [0, None, float("nan")])
def test_saved_samples_come_back_the_same(make_samples: Make, tmp_path: Path, nodata: float | None) -> None:
    samples = make_samples()
    if nodata != 0:
        samples = replace(
            samples,
            x=samples.x.astype("float32"),
            encoding=Encoding(dtype="float32", nodata=nodata),
            crs=None,
        )
    samples.save(tmp_path / "a" / "samples.zarr")
    loaded = Samples.load(tmp_path / "a" / "samples.zarr")
    assert loaded.digest() == samples.digest()
    assert loaded.classes == samples.classes
    assert loaded.x.dtype == samples.x.dtype
    np.testing.assert_array_equal(loaded.physical(), samples.physical())
    np.testing.assert_array_equal(loaded.times, samples.times)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["samples.zarr"]


def test_saving_over_something_is_refused_unless_asked_for(make_samples: Make, tmp_path: Path) -> None:
    make_samples(10).save(tmp_path / "samples.zarr")
    with pytest.raises(StoreError, match="overwrite"):
        make_samples(20).save(tmp_path / "samples.zarr")
    make_samples(20).save(tmp_path / "samples.zarr", overwrite=True)
    assert len(Samples.load(tmp_path / "samples.zarr")) == 20


def test_loading_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no Zarr group"):
        Samples.load(tmp_path / "nowhere.zarr")
    xr.Dataset({"a": 1}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(StoreError, match="no samples"):
        Samples.load(tmp_path / "other.zarr")


def test_digest_sees_every_part(make_samples: Make) -> None:
    samples = make_samples()
    changed = [
        replace(samples, x=samples.x + np.uint16(1)),
        replace(samples, y=samples.y[::-1].copy()),
        replace(samples, times=samples.times + np.timedelta64(1, "D")),
        replace(samples, bands=("B01", "B00")),
        replace(samples, group=samples.group + 1),
        replace(samples, position=samples.position + 1),
        replace(samples, encoding=Encoding(dtype="uint16", nodata=0, scale=1e-4)),
        replace(samples, classes=ClassTable.of(["class 0", "class 1", "other"])),
    ]
    assert len({each.digest() for each in [samples, *changed]}) == len(changed) + 1
    big_endian = replace(samples, x=samples.x.astype(">u2"))
    assert big_endian.digest() == samples.digest() == make_samples().digest()


def test_repr_says_what_is_in(make_samples: Make) -> None:
    text = repr(make_samples(30))
    assert "30 series of 5 steps x 2 bands (B00, B01), 2021-01-01 to 2021-08-29" in text
    assert f"class 0 {make_samples(30).counts()['class 0']}" in text


def test_shares_of_classes_may_stand_for_one_class(make_samples: Make) -> None:
    shares = np.full((10, 3), 1 / 3, "float32")
    samples = replace(make_samples(10), y=shares)
    assert samples.counts() == pytest.approx({"class 0": 10 / 3, "class 1": 10 / 3, "class 2": 10 / 3})
    assert samples.take([1, 2]).y.shape == (2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.zeros((10, 5, 3), "uint16")}, r"Samples.x has shape \(10, 5, 3\), expected \(10, 5, 2\)"),
        ({"group": np.zeros(9, "int64")}, "Samples.group"),
        ({"position": np.zeros((10, 3))}, "Samples.position"),
        ({"y": np.zeros((10, 2), "float32")}, "Samples.y"),
        ({"y": np.full(10, 3, "int16")}, "0 to 2"),
        ({"y": np.full(10, -1, "int16")}, "-1 to -1"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    make_samples: Make, change: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        replace(make_samples(10), **change)  # type: ignore[arg-type]


def test_the_torch_free_half_loads_no_torch() -> None:
    modules = (
        "labels",
        "batching.extract",
        "batching.series",
        "batching.split",
        "batching.normalise_fit",
        "batching.folds",
        "batching.leakage",
    )
    imports = "; ".join(f"import cubekit.{name}" for name in modules)
    code = f"import sys; {imports}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False).returncode == 0
