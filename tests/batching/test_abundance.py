"""Published pixels: files as the specification describes them, written here and read back."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import cubekit as ck
from cubekit.batching.abundance import abundance_samples, as_inputs
from cubekit.batching.levels import read_level
from cubekit.errors import CubekitError, LabelError, OptionError, SourceError, UnknownNameError

N1 = read_level("N1")
USUAL = dict(zip(N1.ancillary.bands, N1.ancillary.mean, strict=True))
IDS = (239, 7, 236)


def series(number: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(number)
    return rng.uniform(500, 4000, (12, 7)), (rng.random((12, 7)) > 0.3).astype(int)


def write_pixel(folder: Path, number: int, *, form: str = "inference", **changes: float) -> None:
    values, mask = series(number)
    junk = np.where(mask, values, -9999).tolist()
    point = {"type": "Point", "coordinates": [-4.5 + number / 1000, 37.4]}
    record = {"values": junk, "masks": mask.tolist()}
    content: dict[str, Any] = {"metadata": {"square_id": number, ".geo": json.dumps(point)}}
    if form == "inference":
        known = USUAL | {"longitude": -4.5 + number / 1000, "latitude": 37.4} | changes
        # the order of keys differs from file to file, and means nothing
        content |= {"ts_data": record | {"deltas": 1}, "ancillary_data": dict(reversed(known.items()))}
    else:
        wrong = {"values": np.zeros((12, 7)).tolist(), "masks": np.ones((12, 7)).tolist()}
        content |= {"ts_data": {"forward": record, "backward": wrong}}
    (folder / f"{number:07d}.json").write_text(json.dumps(content))


def write_labels(path: Path, ids: tuple[int, ...] = IDS, **changes: float) -> Path:
    table = pd.DataFrame(np.tile([0.1, 0.2, 0.3, 0.4], (len(ids), 1)), columns=["5", "1", "4", "2"])
    table.insert(0, "square_id", ids)
    table["Class_max"], table["Other"] = 2, "x"
    table.assign(**changes).to_csv(path, index=False)
    return path


def test_pixels_become_a_dataset_with_gaps(tmp_path: Path) -> None:
    for number in IDS:
        write_pixel(tmp_path, number)
    found = ck.read_abundance(tmp_path, labels=write_labels(tmp_path / "labels.csv"))
    assert found["pixel"].to_numpy().tolist() == sorted(IDS)
    for number in IDS:
        values, mask = series(number)
        expected = np.where(mask, values / 1e4, np.nan)
        np.testing.assert_allclose(found["reflectance"].sel(pixel=number), expected, rtol=1e-6)
    assert found["variable"].to_numpy().tolist() == list(N1.ancillary.bands)  # by name, not as in the file
    assert float(found["ancillary"].sel(pixel=7, variable="slope")) == pytest.approx(USUAL["slope"])
    # columns by code: Artificial (1), Agricultural (2), Terrestrial (4), Wetlands (5)
    np.testing.assert_allclose(found["abundance"].sel(pixel=7), [0.2, 0.4, 0.3, 0.1], rtol=1e-6)
    assert found["longitude"].to_numpy() == pytest.approx(-4.5 + np.array(sorted(IDS)) / 1000)
    assert np.datetime_as_string(found["time"].to_numpy()[[0, -1]], "M").tolist() == ["2013-01", "2013-12"]


def test_the_dataset_survives_zarr_and_becomes_samples(tmp_path: Path) -> None:
    for number in IDS:
        write_pixel(tmp_path, number)
    found = ck.read_abundance(tmp_path, labels=write_labels(tmp_path / "labels.csv"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Zarr, about text that no standard names
        found.to_zarr(tmp_path / "native.zarr", consolidated=False)
    again = xr.open_zarr(tmp_path / "native.zarr", consolidated=False).load()
    xr.testing.assert_allclose(again, found)
    samples = abundance_samples(again)
    assert (samples.x.shape, samples.y.shape) == ((3, 12, 7), (3, 4))
    assert samples.variables == N1.ancillary.bands
    assert samples.classes.codes == (1, 2, 4, 5)
    apart = np.linalg.norm(samples.position[2] - samples.position[1])
    assert apart == pytest.approx(0.003 * 111_320 * np.cos(np.radians(37.4)), rel=0.01)
    samples.save(tmp_path / "samples.zarr")
    assert type(samples).load(tmp_path / "samples.zarr").digest() == samples.digest()


def test_backward_records_are_never_trusted(tmp_path: Path) -> None:
    write_pixel(tmp_path, 7, form="training")
    table = pd.DataFrame([{"square_id": 7, **USUAL}]).drop(columns="slope")
    table.to_csv(tmp_path / "ancillary.csv", index=False)
    found = ck.read_abundance(tmp_path, ancillary=tmp_path / "ancillary.csv")
    values, mask = series(7)
    np.testing.assert_allclose(
        found["reflectance"].sel(pixel=7), np.where(mask, values / 1e4, np.nan), rtol=1e-6
    )
    assert "slope" not in found["variable"].to_numpy()
    inputs = as_inputs(found, ("altitude", "longitude"), ("nir", "red"))
    np.testing.assert_array_equal(inputs["x"][..., 1], found["reflectance"].sel(band="red"))
    np.testing.assert_allclose(inputs["ancillary"], [[USUAL["altitude"], USUAL["longitude"]]], rtol=1e-6)
    with pytest.raises(OptionError, match="'slope'"):
        as_inputs(found, ("slope",), ("red",))


def test_odd_and_exchanged_values_are_told(tmp_path: Path) -> None:
    write_pixel(tmp_path, 236, precipitation=5423, evapotranspiration=2662)  # as in a published sample
    write_pixel(tmp_path, 239, precipitation=2664, evapotranspiration=5383)  # its neighbour
    write_pixel(tmp_path, 7, slope=60)
    with pytest.warns(UserWarning, match="Ancillary values") as told:
        ck.read_abundance(tmp_path)
    messages = [str(warning.message) for warning in told]
    assert any("look exchanged in 1 pixels: 236" in message for message in messages)
    assert any("slope of 1 pixels" in message and message.endswith(": 7.") for message in messages)
    assert not any("239" in message for message in messages)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"1": 0.5}, LabelError, "do not sum to one"),
        ({"square_id": [7, 7, 236]}, LabelError, "several rows for 1 pixels: 7"),
        ({"square_id": [7, 8, 236]}, SourceError, "lacks 1 of 3 pixels of the labels: 0000008.json"),
    ],
)
def test_wrong_labels_are_refused(
    tmp_path: Path, change: dict[str, Any], error: type[CubekitError], message: str
) -> None:
    for number in IDS:
        write_pixel(tmp_path, number)
    with pytest.raises(error, match=message):
        ck.read_abundance(tmp_path, labels=write_labels(tmp_path / "labels.csv", **change))


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no JSON"):
        ck.read_abundance(tmp_path)
    write_pixel(tmp_path, 7)
    with pytest.raises(UnknownNameError, match="no column '21'"):
        ck.read_abundance(tmp_path, labels=write_labels(tmp_path / "l.csv", (7,)), level="N2")
    (tmp_path / "0000008.json").write_text('{"ts_data": {"values": [[1]], "masks": [[1]]}}')
    with pytest.raises(SourceError, match=r"expected \(months, 7\)"):
        ck.read_abundance(tmp_path)
    (tmp_path / "0000008.json").write_text("no JSON")
    with pytest.raises(SourceError, match="is no pixel"):
        ck.read_abundance(tmp_path)


def test_levels_are_those_of_the_specification() -> None:
    n2 = read_level("N2")
    assert n2.classes.codes == (1, 21, 22, 23, 31, 35, 41, 42, 47, 51)
    assert n2.classes.names[4] == "Combinations of croplands and natural vegetation"
    assert n2.reflectance.mean[0] == pytest.approx(0.17780370)
    assert n2.ancillary == N1.ancillary
    assert N1.scaling(("slope", "longitude")).std == (6.635986, 1.42003659)
    with pytest.raises(OptionError, match="N1"):
        read_level("n1")
