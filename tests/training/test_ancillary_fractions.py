"""Fractions with ancillary variables: training, bundle, fine-tuning, prediction of a cube tile by tile."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

import cubekit as ck
from cubekit.batching.normalise import Normalisation
from cubekit.batching.samples import Samples
from cubekit.cube.contract import Encoding
from cubekit.errors import BundleError, ModelMismatchError, OptionError, UnknownNameError
from cubekit.labels import ClassTable

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

if TYPE_CHECKING:
    from cubekit.training.bundle import Model

BANDS, NAMES = ("red", "nir"), ("altitude", "slope")
TIMES = np.arange("2013-01", "2013-05", dtype="datetime64[M]").astype("datetime64[ns]")
CLASSES = ClassTable.of(["town", "field", "wood"], codes=[1, 2, 4])
SIZE = 24


def samples(n: int = 300, *, classes: ClassTable = CLASSES, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    y = rng.dirichlet(np.ones(len(classes)), n).astype("float32")
    x = rng.normal(0.2, 0.05, (n, 4, 2)) + 0.3 * y[:, None, :2]
    x[rng.random(x.shape) < 0.2] = np.nan
    known = np.column_stack([500 + 300 * y[:, -1], rng.normal(9, 3, n)])
    return Samples(
        x=x.astype("float32"),
        y=y,
        bands=BANDS,
        times=TIMES,
        classes=classes,
        group=np.arange(n),
        position=np.full((n, 2), np.nan),
        crs=None,
        resolution=None,
        encoding=Encoding(dtype="float32", nodata=np.nan),
        ancillary=known.astype("float32"),
        variables=NAMES,
    )


def fit(part: Samples, valid: Samples | None = None, **options: object) -> "Model":
    settings = {"epochs": 2, "batch": 100, "learning_rate": 3e-3, "progress": False} | options
    return ck.fit("brits", part, valid, arguments={"hidden": 12, "embedding": 5}, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    fit(samples(), samples(60, seed=1), out=path, epochs=4, schedule="cosine", clip=0.95)
    return path


def cube(*, chunks: int | None = None) -> xr.Dataset:
    rng = np.random.default_rng(5)
    values = rng.normal(0.3, 0.1, (4, 2, SIZE, SIZE)).astype("float32")
    values[rng.random(values.shape) < 0.3] = np.nan
    values[:, :, 3, 3] = (0.3, np.nan)  # a band never observed
    values[:, :, 5, 5] = np.nan  # nothing observed
    box = GeoBox((SIZE, SIZE), Affine(460, 0, 300_000, 0, -460, 4_100_000), "EPSG:32630")
    coords = {"time": TIMES, "band": list(BANDS), **xr_coords(box)}
    data = xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords, name="data")
    data.attrs |= {"grid_mapping": "spatial_ref", "_FillValue": np.float32(np.nan)}
    found = data.to_dataset()
    height = rng.normal(600, 100, (SIZE, SIZE)).astype("float32")
    height[7, 7] = np.nan
    found["altitude"] = ("y", "x"), height
    found["slope"] = ("y", "x"), rng.normal(9, 3, (SIZE, SIZE)).astype("float32")
    return found if chunks is None else found.chunk({"y": chunks, "x": chunks})


def test_the_model_knows_names_and_scaling_of_its_variables(folder: Path) -> None:
    model = ck.load_model(folder)
    assert model.ancillary == NAMES
    assert model.card.data.dropped == 0  # a band without a value is no reason where the network is told
    scaling, known = model.card.ancillary, samples().ancillary
    assert scaling is not None
    assert known is not None
    np.testing.assert_allclose(scaling.mean, known.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(scaling.std, known.std(axis=0), rtol=1e-5)
    assert "altitude, slope" in (folder / "README.md").read_text()
    assert model.card.settings["weight_decay"] == 0
    rows = [row["valid_rmse"] for row in model.card.history]
    assert model.card.metrics["valid_rmse"] == min(rows)  # what chooses the epoch
    with pytest.raises(OptionError, match="ancillary is missing"):
        model.apply({"x": samples().x})


def test_a_cube_is_predicted_as_its_pixels_are_whatever_the_tiles(folder: Path, tmp_path: Path) -> None:
    model, scene = ck.load_model(folder), cube()
    x = scene["data"].transpose("y", "x", "time", "band").to_numpy().reshape(-1, 4, 2)
    known = np.stack([scene[name].to_numpy().ravel() for name in NAMES], axis=1)
    expected = model.apply({"x": x, "ancillary": known}, batch=2048)["fractions"]
    whole = ck.predict(model, scene, outputs=("fractions", "class")).compute()
    shares = whole["fractions"].to_numpy().reshape(3, -1).T.astype("float64")
    lost = np.isnan(expected).any(axis=1)
    assert np.flatnonzero(lost).tolist() == [5 * SIZE + 5, 7 * SIZE + 7]  # nothing observed; height unknown
    np.testing.assert_allclose(shares[~lost] / 250, expected[~lost], atol=0.5 / 250 + 1e-6)
    assert (shares[lost] == 255).all()
    tiled = ck.predict(
        model, cube(chunks=7), tile=5, out=tmp_path / "map.zarr", outputs=("fractions", "class")
    )
    for name in ("fractions", "class"):
        np.testing.assert_array_equal(tiled[name], whole[name])
    assert tiled["fractions"].dims == ("category", "y", "x")


def test_a_cube_without_the_layers_is_refused(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="no layer 'slope'"):
        ck.predict(ck.load_model(folder), cube().drop_vars("slope"))


def test_fine_tuning_keeps_all_but_the_outputs_of_both_directions(folder: Path) -> None:
    source = ck.load_model(folder)
    others = ClassTable.of(["A", "B", "C", "D"])
    tuned = fit(samples(classes=others), weights=folder, epochs=1, learning_rate=1e-12)
    own, theirs = tuned.network.state_dict(), source.network.state_dict()
    replaced = {f"rits_{way}.out.{what}" for way in "fb" for what in ("weight", "bias")}
    for name, values in theirs.items():
        if name in replaced:
            assert len(own[name]) == 4
        else:
            torch.testing.assert_close(own[name], values, atol=1e-6, rtol=0)
    assert tuned.card.normalisation == source.card.normalisation
    assert tuned.card.ancillary == source.card.ancillary


def test_as_many_classes_of_other_names_are_others_and_the_same_ones_stay(folder: Path) -> None:
    source = ck.load_model(folder).network.state_dict()["rits_f.out.weight"]
    renamed = fit(
        samples(classes=ClassTable.of(["x", "y", "z"])), weights=folder, epochs=1, learning_rate=1e-12
    )
    same = fit(samples(), weights=folder, epochs=1, learning_rate=1e-12)
    assert (renamed.network.state_dict()["rits_f.out.weight"] - source).abs().max() > 1e-3
    torch.testing.assert_close(same.network.state_dict()["rits_f.out.weight"], source, atol=1e-6, rtol=0)


def test_fine_tuning_refuses_other_inputs(folder: Path) -> None:
    part = samples()
    with pytest.raises(ModelMismatchError, match="ancillary variables"):
        fit(replace(part, variables=NAMES[::-1]), weights=folder)
    with pytest.raises(ModelMismatchError, match="bands"):
        fit(replace(part, bands=BANDS[::-1]), weights=folder)
    with pytest.raises(BundleError, match="do not fit"):
        ck.fit("brits", part, weights=folder, epochs=1, batch=100, arguments={"hidden": 8}, progress=False)


def test_a_given_scaling_is_used_and_must_fit() -> None:
    given = Normalisation(method="standard", bands=NAMES, mean=(500.0, 9.0), std=(400.0, 6.0))
    assert fit(samples(), normalise_ancillary=given, epochs=1).card.ancillary == given
    wrong = replace(given, bands=NAMES[::-1])
    with pytest.raises(OptionError, match="normalise_ancillary"):
        fit(samples(), normalise_ancillary=wrong)
    with pytest.raises(OptionError, match="takes no ancillary"):
        ck.fit("tempcnn", samples(), task="fractions", epochs=1, batch=100, progress=False)
