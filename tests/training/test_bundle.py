import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import odc.geo.xr  # noqa: E402
import pystac  # noqa: E402
import xarray as xr  # noqa: E402
from odc.geo.geobox import GeoBox  # noqa: E402
from pystac.extensions.mlm import MLMExtension  # noqa: E402

from cubekit.batching.samples import Samples  # noqa: E402
from cubekit.errors import BundleError, ModelMismatchError, OptionError  # noqa: E402
from cubekit.training.bundle import Model, load_model  # noqa: E402

pytestmark = pytest.mark.torch

Make = Callable[..., Samples]


@pytest.fixture
def folder(model: Model, tmp_path: Path) -> Path:
    return model.save(tmp_path / "model")


def cube(
    bands: tuple[str, ...] = ("blue", "nir", "red"),
    *,
    start: str = "2023-01",
    steps: int = 12,
    resolution: float = 10,
    crs: str = "EPSG:32630",
    dtype: str = "uint16",
    attrs: dict[str, float] | None = None,
) -> xr.Dataset:
    left, bottom = (-3, 40) if crs == "EPSG:4326" else (500_000, 4_400_000)
    right, top = left + 4 * resolution, bottom + 4 * resolution
    box = GeoBox.from_bbox((left, bottom, right, top), crs, resolution=resolution)
    first = np.datetime64(start, "M")
    data = xr.DataArray(
        np.ones((steps, len(bands), *box.shape), dtype=dtype),
        dims=("time", "band", *box.dims),
        coords={
            "time": np.arange(first, first + steps).astype("datetime64[ns]"),
            "band": list(bands),
            **odc.geo.xr.xr_coords(box),
        },
        attrs={"_FillValue": 0, "scale_factor": 1e-4, "add_offset": -0.1} if attrs is None else attrs,
    )
    return data.rename(dict(zip(box.dims, ("y", "x"), strict=True))).to_dataset(name="data")


def test_a_saved_model_gives_the_same_answers(model: Model, folder: Path, make_samples: Make) -> None:
    loaded = load_model(folder)
    x = make_samples(100, seed=5).physical()
    np.testing.assert_array_equal(loaded.probabilities(x), model.probabilities(x))
    assert loaded.card == model.card
    assert "tempcnn" in repr(loaded)


def test_probabilities_do_not_depend_on_batch_partners(model: Model, make_samples: Make) -> None:
    x = make_samples(300, seed=6).physical()
    whole = model.probabilities(x)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.nansum(whole, axis=1), 1, atol=1e-5)
    for batch in (1, 7, 299):
        np.testing.assert_allclose(model.probabilities(x, batch=batch), whole, atol=1e-6)


def test_a_series_without_a_band_gets_no_class(model: Model, make_samples: Make) -> None:
    x = make_samples(4, seed=7).physical()
    x[1, :, 0] = np.nan
    assert np.isnan(model.probabilities(x)[1]).all()
    assert np.isfinite(model.probabilities(x)[[0, 2, 3]]).all()
    assert model.classify(x)[1] == -1
    assert model.probabilities(x[:0]).shape == (0, 3)


def test_other_shapes_are_refused(model: Model) -> None:
    with pytest.raises(OptionError, match=r"\(5, 2, 12\), expected \(n, 12, 2\)"):
        model.probabilities(np.zeros((5, 2, 12), np.float32))


def test_the_record_is_a_stac_item_of_a_model(folder: Path, model: Model) -> None:
    item = pystac.Item.from_file(folder / "model.json")
    mlm = MLMExtension.ext(item)
    assert item.properties["mlm:name"] == "cubekit-tempcnn"
    assert item.properties["mlm:input"][0]["bands"] == [{"name": "red"}, {"name": "nir"}]
    assert mlm.input[0].input.shape == [-1, 12, 2]
    assert mlm.total_parameters == model.card.parameters
    classes = mlm.output[0].classes
    assert classes is not None
    assert [(entry.value, entry.title) for entry in classes] == [
        (10, "bare soil"),
        (20, "crop"),
        (30, "double crop"),
    ]
    assert item.bbox is not None
    west, south, east, north = item.bbox
    assert -3.0001 < west < east < -2.9
    assert 39.7 < south < north < 39.9
    assert item.assets["weights"].href.endswith("weights.safetensors")


def test_the_card_tells_the_facts(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    for fact in ("red, nir", "double crop", "400 training", "EPSG:32630", "2022-01-01", "epochs 5"):
        assert fact in card


def test_a_flipped_byte_is_refused(folder: Path) -> None:
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    with pytest.raises(BundleError, match=r"weights\.safetensors is not the file .* SHA-256"):
        load_model(folder)


def edit(folder: Path, **fields: object) -> None:
    record = json.loads((folder / "model.json").read_text())
    record["properties"]["cubekit:card"].update(fields)
    (folder / "model.json").write_text(json.dumps(record))


def test_an_edited_band_order_is_refused(folder: Path) -> None:
    edit(folder, bands=["nir", "red"])
    with pytest.raises(ModelMismatchError, match=r'bands: the weights were trained with \["red", "nir"\]'):
        load_model(folder)


def test_an_edited_class_list_is_refused(folder: Path) -> None:
    edit(folder, classes={"names": ["a", "b", "c"], "colours": ["#000000"] * 3, "codes": [1, 2, 3]})
    with pytest.raises(ModelMismatchError, match="classes"):
        load_model(folder)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"bands": 3}, "bands"),
        ({"suprise": 1}, "suprise"),
        ({"data": {"digest": "x"}}, "data.train"),
        ({"arguments": None}, "arguments"),
    ],
)
def test_a_damaged_record_is_refused(folder: Path, fields: dict[str, object], match: str) -> None:
    edit(folder, **fields)
    with pytest.raises(BundleError, match=match):
        load_model(folder)


def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no model\.json"):
        load_model(tmp_path)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(BundleError, match=r"no weights\.safetensors"):
        load_model(folder)
    (folder / "model.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        load_model(folder)


def test_weights_of_another_network_are_refused(folder: Path) -> None:
    from torch import nn

    with pytest.raises(BundleError, match=r"do not fit network 'tempcnn'"):
        load_model(folder, network=nn.Sequential(nn.Linear(2, 3)))


def test_an_edited_temperature_is_refused(folder: Path) -> None:
    edit(folder, temperature=3.5)
    with pytest.raises(ModelMismatchError, match=r"temperature: the weights were trained with .* says 3\.5"):
        load_model(folder)


def test_bands_are_chosen_by_name(model: Model) -> None:
    selected = model.select(cube())
    assert selected["band"].values.tolist() == ["red", "nir"]
    assert selected["data"].attrs["scale_factor"] == 1e-4


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"bands": ("red", "nir1")}, "band 'nir' is missing. Did you mean 'nir1'"),
        ({"steps": 11}, "11 time steps, the model learned from 12"),
        ({"start": "2023-04"}, "12 of 12 dates lie at another time of the year"),
        ({"resolution": 20}, "pixels measure 20, the model learned from 10"),
        ({"crs": "EPSG:4326", "resolution": 0.0001}, "lies in degrees"),
        ({"attrs": {"_FillValue": 0}}, r"uint16 x 1 \+ 0, the model learned from uint16 x 0.0001 \+ -0.1"),
    ],
)
def test_each_difference_is_told(model: Model, changes: dict[str, object], match: str) -> None:
    with pytest.raises(ModelMismatchError, match=match):
        model.check(cube(**changes))  # type: ignore[arg-type]


def test_all_differences_are_told_at_once(model: Model) -> None:
    with pytest.raises(ModelMismatchError) as caught:
        model.check(cube(("red",), steps=3, resolution=30))
    assert str(caught.value).count("\n- ") == 3


def test_decoded_cubes_and_small_shifts_fit(model: Model) -> None:
    model.check(cube(dtype="float32", attrs={}))
    fitting = cube()
    model.check(fitting.assign_coords(time=fitting["time"] + np.timedelta64(10, "D")))


def test_a_model_learned_on_plain_floats_takes_scaled_integers(make_samples: Make) -> None:
    from dataclasses import replace

    from cubekit.cube.contract import Encoding
    from cubekit.training.fit import fit

    stored = make_samples(64)
    plain = replace(stored, x=stored.physical(), encoding=Encoding(dtype="float32", nodata=float("nan")))
    model = fit("tempcnn", plain, epochs=1, batch=32, progress=False)
    model.check(cube())
    with pytest.raises(ModelMismatchError, match="uint16 x 1"):
        model.check(cube(attrs={"_FillValue": 0}))
