"""Prediction against a plain loop over whole arrays, with a NumPy model: no torch needed."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import numpy.testing as npt
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from dask.base import is_dask_collection
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from cubekit.cube.contract import Encoding, geobox_of, to_physical
from cubekit.errors import CubeError, ModelMismatchError, OptionError, PredictionError, StoreError
from cubekit.prediction.outputs import Output
from cubekit.prediction.predict import predict
from cubekit.typing import Array, FloatArray

cloudpickle.register_pickle_by_value(sys.modules[__name__])

CODING = Encoding(dtype="uint16", nodata=0, scale=1e-4, offset=-0.1)


@dataclass(frozen=True)
class Linear:
    """Softmax of a linear form of the mean over time: deterministic, order-free, NumPy only."""

    bands: tuple[str, ...] = ("red", "nir")
    names: tuple[str, ...] = ("water", "bare soil", "forest")
    fails_above: float = np.inf
    seen: list[int] = field(default_factory=list, compare=False)

    @property
    def card(self) -> Any:
        colours = ("#0072b2", "#e69f00", "#009e73")[: len(self.names)]
        codes = tuple(10 * (i + 1) for i in range(len(self.names)))
        return SimpleNamespace(classes=SimpleNamespace(names=self.names, colours=colours, codes=codes))

    def digest(self) -> str:
        return f"linear-{'-'.join(self.bands)}-{'-'.join(self.names)}-{self.fails_above}"

    def check(self, cube: xr.Dataset) -> None:
        missing = set(self.bands) - set(cube.indexes["band"])
        if missing:
            raise ModelMismatchError(f"The cube lacks bands {sorted(missing)}.")

    def select(self, cube: xr.Dataset) -> xr.Dataset:
        self.check(cube)
        return cube.sel(band=list(self.bands))

    def probabilities(self, x: FloatArray) -> FloatArray:
        self.seen.append(len(x))
        if np.nanmax(x) > self.fails_above:
            raise ValueError("too bright")
        count = np.isfinite(x).sum(axis=1)
        mean = np.nansum(x.astype("float64"), axis=1) / np.maximum(count, 1)
        weights = np.random.default_rng(3).normal(size=(len(self.bands), len(self.names))) * 8
        logits = mean @ weights
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: FloatArray = (powers / powers.sum(axis=1, keepdims=True)).astype("float32")
        return result


def make_cube(
    shape: tuple[int, int] = (70, 90), *, seed: int = 0, bands: tuple[str, ...] = ("nir", "blue", "red")
) -> xr.Dataset:
    """Random reflectances with gaps, a corner without any data, in memory."""
    rng = np.random.default_rng(seed)
    stored = rng.integers(1001, 11000, size=(5, len(bands), *shape)).astype("uint16")
    stored[rng.random(stored.shape) < 0.3] = 0
    stored[:, :, : shape[0] // 4, : shape[1] // 3] = 0
    box = GeoBox(shape, Affine(10, 0, 4e5, 0, -10, 4.5e6), "EPSG:32630")
    data = xr.DataArray(stored, dims=("time", "band", "y", "x"), attrs=CODING.attrs())
    coords = xr_coords(box) | {"time": pd.date_range("2023-01-01", periods=5, freq="MS"), "band": list(bands)}
    return xr.Dataset({"data": data}).assign_coords(coords).assign_attrs(title="Test", collection="made-up")


def expected(model: Linear, cube: xr.Dataset) -> FloatArray:
    """Probabilities of the whole scene at once, NaN where nothing was observed: (y, x, class)."""
    x = to_physical(cube["data"].sel(band=list(model.bands))).transpose("y", "x", "time", "band").to_numpy()
    flat = x.reshape(-1, *x.shape[2:])
    result = Linear(model.bands, model.names).probabilities(flat)
    result[~np.isfinite(flat).any(axis=(1, 2))] = np.nan
    return result.reshape(*x.shape[:2], -1)


def everything(cube: xr.Dataset, model: Any = None, **options: Any) -> dict[str, Array]:
    outputs: tuple[Output, ...] = ("class", "probability", "entropy", "margin")
    computed = predict(model or Linear(), cube, outputs=outputs, tile=options.pop("tile", None)).compute(
        **options
    )
    return {name: computed[name].to_numpy() for name in outputs}


def test_outputs_equal_the_whole_scene_at_once() -> None:
    cube = make_cube()
    p = expected(Linear(), cube)
    found = everything(cube)
    empty = np.isnan(p).any(axis=-1)
    assert empty.any()
    npt.assert_array_equal(found["class"], np.where(empty, 255, np.nan_to_num(p).argmax(axis=-1)))
    npt.assert_array_equal(found["probability"] == 255, np.broadcast_to(empty, (3, *empty.shape)))
    decoded = np.moveaxis(found["probability"], 0, -1)[~empty] / 250
    npt.assert_allclose(decoded, p[~empty], atol=0.5 / 250 + 1e-6)
    known = p[~empty].astype("float64")
    entropy = -(known * np.log(known)).sum(axis=-1) / np.log(3)
    npt.assert_allclose(found["entropy"][~empty] / 250, entropy, atol=0.5 / 250 + 1e-6)
    ordered = np.sort(known, axis=-1)
    npt.assert_allclose(found["margin"][~empty] / 250, ordered[:, -1] - ordered[:, -2], atol=0.5 / 250 + 1e-6)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    chunks=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(7, 60), st.integers(7, 60)),
    tile=st.one_of(st.none(), st.integers(5, 80)),
)
def test_any_chunks_and_tile_give_the_same_map(
    shape: tuple[int, int], chunks: tuple[int, int, int, int], tile: int | None
) -> None:
    cube = make_cube(shape)
    whole = everything(cube)
    cut = everything(cube.chunk(dict(zip(("time", "band", "y", "x"), chunks, strict=True))), tile=tile)
    for name, values in whole.items():
        npt.assert_array_equal(cut[name], values, err_msg=name)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
@pytest.mark.parametrize("workers", [1, 3])
def test_any_scheduler_and_workers_give_the_same_map(scheduler: str, workers: int) -> None:
    cube = make_cube().chunk({"y": 30, "x": 40})
    whole = everything(cube.compute())
    found = everything(cube, tile=32, scheduler=scheduler, num_workers=workers)
    for name, values in whole.items():
        npt.assert_array_equal(found[name], values, err_msg=name)


def test_the_result_is_lazy_and_one_task_predicts_a_block() -> None:
    model = Linear()
    cube = make_cube().chunk({"time": 2, "band": 1, "y": 35, "x": 45})
    prediction = predict(model, cube, tile=45)
    assert model.seen == []
    assert all(is_dask_collection(variable) for variable in prediction.data_vars.values())
    layers = prediction["class"].data.dask.layers
    blocks = [len(layer) for name, layer in layers.items() if name.startswith("predict-")]
    assert blocks == [4]
    prediction.compute(scheduler="synchronous")
    assert set(model.seen) == {1024}, "every call has one shape, whatever the block"
    assert len(model.seen) == 8, (
        "class and probability of a block come from one forward pass (2 batches, 4 blocks)"
    )


def test_grid_and_attributes_travel() -> None:
    cube = make_cube()
    prediction = predict(Linear(), cube, outputs=("class", "probability", "margin"))
    assert geobox_of(prediction) == geobox_of(cube)
    assert geobox_of(prediction["class"]) == geobox_of(cube)
    assert prediction["class"].dims == ("y", "x")
    assert prediction["class"].dtype == np.uint8
    assert prediction["probability"].dims == ("category", "y", "x")
    assert prediction["category"].to_numpy().tolist() == ["water", "bare soil", "forest"]
    attrs = prediction["class"].attrs
    assert (attrs["classes"], attrs["codes"]) == (["water", "bare soil", "forest"], [10, 20, 30])
    assert attrs["flag_values"] == [0, 1, 2]
    assert attrs["flag_meanings"] == "water bare_soil forest"
    assert prediction.attrs["title"] == "Test"
    assert prediction.attrs["model"] == Linear().digest()
    decoded = xr.decode_cf(prediction.compute())
    assert float(decoded["probability"].sum("category").max()) == pytest.approx(1, abs=0.007)
    assert np.isnan(decoded["class"].to_numpy()).any()


def test_equal_models_give_equal_graph_keys_and_others_do_not() -> None:
    cube = make_cube().chunk({"y": 35})
    names = [predict(model, cube)["class"].data.name for model in (Linear(), Linear(), Linear(fails_above=9))]
    assert names[0] == names[1] != names[2]


def test_a_model_that_fails_names_the_block() -> None:
    cube = make_cube((40, 40)).chunk({"y": 20, "x": 20})
    cube["data"].load()
    cube["data"][:, :, 25, 35] = 60000
    lazy = predict(Linear(fails_above=2.0), cube.chunk({"y": 20, "x": 20}), tile=20)
    with pytest.raises(PredictionError, match=r"Block \(1, 1\).*ValueError: too bright"):
        lazy.compute(scheduler="synchronous")


def test_probabilities_of_a_wrong_shape_are_refused() -> None:
    @dataclass(frozen=True)
    class Broken(Linear):
        def probabilities(self, x: FloatArray) -> FloatArray:
            return super().probabilities(x)[:, :2]

    with pytest.raises(PredictionError, match=r"shape \(1024, 2\), expected \(1024, 3\)"):
        predict(Broken(), make_cube()).compute(scheduler="synchronous")


def test_rows_without_finite_probabilities_become_nodata() -> None:
    @dataclass(frozen=True)
    class Shy(Linear):
        def probabilities(self, x: FloatArray) -> FloatArray:
            result = super().probabilities(x)
            result[x[:, 0, 0] > 0.5] = np.nan
            return result

    cube = make_cube()
    shy = to_physical(cube["data"].sel(band="red")).isel(time=0).to_numpy() > 0.5
    found = everything(cube, Shy())
    assert shy.any()
    for values in found.values():
        assert (values[..., shy] == 255).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ("class", "probabilty")}, "Did you mean 'probability'"),
        ({"outputs": ()}, "give a sequence"),
        ({"outputs": "class"}, "give a sequence"),
        ({"outputs": ("class", "class")}, "different names"),
        ({"tile": 0}, "at least one pixel"),
        ({"workers": 2}, "give out="),
        ({"scheduler": "threads"}, "give out="),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        predict(Linear(), make_cube(), **options)


def test_a_cube_that_does_not_fit_is_refused_before_anything_else() -> None:
    with pytest.raises(ModelMismatchError, match="red"):
        predict(Linear(), make_cube(bands=("nir", "blue")))
    with pytest.raises(CubeError, match="data"):
        predict(Linear(), make_cube().rename(data="values"))


def test_importing_prediction_loads_no_torch(tmp_path: Path) -> None:
    import subprocess

    code = "import sys, cubekit.prediction.predict; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_written_prediction_equals_the_lazy_one(tmp_path: Path) -> None:
    from cubekit.store.open import open_store

    model, cube = Linear(), make_cube().chunk({"time": 2, "y": 30, "x": 40})
    outputs: tuple[Output, ...] = ("class", "probability", "margin")
    written = predict(model, cube, out=tmp_path / "map.zarr", outputs=outputs, tile=45, progress=False)
    assert len(model.seen) == 8, "all outputs of a block come from one forward pass (2 batches, 4 blocks)"
    lazy = predict(Linear(), cube, outputs=outputs)
    xr.testing.assert_identical(written.drop_attrs().compute(), lazy.drop_attrs().compute())
    assert written["class"].attrs["classes"] == lazy["class"].attrs["classes"]
    assert written["class"].attrs["_FillValue"] == 255
    assert geobox_of(open_store(tmp_path / "map.zarr")) == geobox_of(cube)


def test_a_finished_prediction_is_not_made_again_and_another_is_refused(tmp_path: Path) -> None:
    cube, path = make_cube().chunk({"y": 35}), tmp_path / "map.zarr"
    predict(Linear(), cube, out=path, progress=False)
    again = Linear()
    predict(again, cube, out=path, progress=False)
    assert again.seen == []
    for options in ({"tile": 20}, {"outputs": ("class",)}):
        with pytest.raises(StoreError, match="another cube"):
            predict(Linear(), cube, out=path, progress=False, **options)
    with pytest.raises(StoreError, match="another cube"):
        predict(Linear(fails_above=9), cube, out=path, progress=False)
    with pytest.raises(StoreError, match="another cube"):
        predict(Linear(), make_cube(seed=1).chunk({"y": 35}), out=path, progress=False)


def test_a_run_that_fails_goes_on_with_the_rest(tmp_path: Path) -> None:
    box = GeoBox((1100, 1100), Affine(10, 0, 4e5, 0, -10, 4.5e6), "EPSG:32630")
    stored = np.full((1, 2, *box.shape), 5000, "uint16")
    stored[0, 1, ::3] = 9000
    stored[0, 0, 1090, 1090] = 60000
    times = pd.date_range("2023-01-01", periods=1)
    data = (("time", "band", "y", "x"), stored, CODING.attrs())
    cube = xr.Dataset({"data": data}).assign_coords(xr_coords(box) | {"time": times, "band": ["red", "nir"]})

    @dataclass(frozen=True)
    class Fragile(Linear):
        switch: list[float] = field(default_factory=list, compare=False)

        def probabilities(self, x: FloatArray) -> FloatArray:
            if self.switch and np.nanmax(x) > 2:
                raise ValueError("too bright")
            return super().probabilities(x)

    options: dict[str, Any] = {
        "out": tmp_path / "map.zarr",
        "outputs": ("class",),
        "tile": 512,
        "progress": False,
    }
    with pytest.raises(PredictionError, match=r"Block \(2, 2\)"):
        predict(Fragile(switch=[1]), cube, workers=1, **options)
    rest = Fragile()
    found = predict(rest, cube, **options)["class"].to_numpy()
    npt.assert_array_equal(found, expected(Linear(), cube).argmax(axis=-1))
    assert 0 < len(rest.seen) < 1100**2 // 1024, "blocks of the first run are kept"
