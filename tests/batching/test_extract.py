from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from zarr.storage import LocalStore, WrapperStore

from cubekit.batching.extract import extract
from cubekit.errors import CubeError, LabelError, OptionError
from cubekit.labels import load_labels

MakeCube = Callable[..., xr.Dataset]

pytestmark = pytest.mark.filterwarnings("ignore:.*labelled pixels have no valid value:UserWarning")


class CountingStore(WrapperStore[LocalStore]):
    """Counts how often each chunk is fetched."""

    def __init__(self, store: LocalStore, fetched: Counter[str]) -> None:
        super().__init__(store)
        self.fetched = fetched

    def _with_store(self, store: LocalStore) -> "CountingStore":
        return CountingStore(store, self.fetched)

    async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
        self.fetched[key] += 1
        return await super().get(key, *args, **kwargs)


def test_samples_are_the_labelled_pixels(make_cube: MakeCube, make_labels: MakeCube) -> None:
    cube = make_cube()
    labels = make_labels(cube)
    samples = extract(cube.chunk({"y": 5, "x": 7, "time": 2}), labels)
    rows, columns = np.nonzero(labels["label"].to_numpy() >= 0)
    np.testing.assert_array_equal(samples.x, cube["data"].to_numpy()[:, :, rows, columns].transpose(2, 0, 1))
    np.testing.assert_array_equal(samples.y, labels["label"].to_numpy()[rows, columns])
    np.testing.assert_array_equal(samples.group, labels["group"].to_numpy()[rows, columns])
    np.testing.assert_allclose(samples.position[:, 0], cube["x"].to_numpy()[columns])
    np.testing.assert_allclose(samples.position[:, 1], cube["y"].to_numpy()[rows])
    assert samples.bands == ("B00", "B01", "B02")
    assert samples.classes.names == ("water", "forest", "crop")
    assert samples.crs == "EPSG:32633"
    assert samples.resolution == 10
    assert samples.encoding.scale == 1e-4
    np.testing.assert_array_equal(samples.times, cube["time"])


def test_the_result_does_not_depend_on_the_chunks(make_cube: MakeCube, make_labels: MakeCube) -> None:
    cube = make_cube()
    labels = make_labels(cube)
    digests = {
        extract(cube.chunk(chunks), labels).digest()
        for chunks in ({}, {"y": 1}, {"x": 4, "band": 1}, {"y": 9, "x": 9})
    }
    assert digests == {extract(cube, labels).digest()}


@pytest.mark.parametrize("chunks", [{}, None], ids=["dask", "no dask"])
def test_each_chunk_is_read_once_and_only_where_there_are_labels(
    make_cube: MakeCube, make_labels: MakeCube, tmp_path: Path, chunks: dict[str, int] | None
) -> None:
    made = make_cube(rows=40, columns=40)
    made.to_zarr(tmp_path / "cube.zarr", encoding={"data": {"chunks": (4, 3, 8, 8)}}, consolidated=False)
    labels = make_labels(made)
    labels["label"][8:32] = -1
    labels["label"][:, :8] = -1

    fetched: Counter[str] = Counter()
    store = CountingStore(LocalStore(tmp_path / "cube.zarr", read_only=True), fetched)
    cube = xr.open_zarr(store, chunks=chunks, mask_and_scale=False, consolidated=False)
    samples = extract(cube, labels)

    expected = {f"data/c/0/0/{row}/{column}": 1 for row in (0, 4) for column in (1, 2, 3, 4)}
    assert {key: count for key, count in fetched.items() if key.startswith("data/c/")} == expected
    assert samples.digest() == extract(made, labels).digest()


def test_a_limit_draws_at_random_but_repeatably(make_cube: MakeCube, make_labels: MakeCube) -> None:
    cube = make_cube()
    labels = make_labels(cube)
    few = extract(cube, labels, limit_per_class=20, seed=1)
    assert set(few.counts().values()) == {20}
    assert few.digest() == extract(cube.chunk({"y": 4}), labels, limit_per_class=20, seed=1).digest()
    assert few.digest() != extract(cube, labels, limit_per_class=20, seed=2).digest()
    assert len(extract(cube, labels, limit_per_class=10_000)) == len(extract(cube, labels))
    with pytest.raises(OptionError, match="limit_per_class=0"):
        extract(cube, labels, limit_per_class=0)


def test_pixels_never_observed_are_left_out_loudly(make_cube: MakeCube, make_labels: MakeCube) -> None:
    cube = make_cube(rows=8, columns=8)
    cube["data"] = cube["data"].where(cube["data"] != 0, 1000).astype("uint16")
    labels = make_labels(cube, share=1)
    cube["data"][:, :, 0, :] = 0
    with pytest.warns(UserWarning, match="8 of 64 labelled pixels"):
        samples = extract(cube, labels)
    assert len(samples) == 56
    cube["data"][:] = 0
    with pytest.raises(LabelError, match="None of 64"):
        extract(cube, labels)


def test_positions_of_a_grid_in_degrees_are_in_metres(make_cube: MakeCube, make_labels: MakeCube) -> None:
    cube = make_cube(crs="EPSG:4326", rows=30, columns=40)
    samples = extract(cube, make_labels(cube, share=1))
    east, north = np.ptp(samples.position, axis=0)
    assert east == pytest.approx(39e-4 * 78_850, rel=0.01)  # a degree of longitude at 45 degrees north
    assert north == pytest.approx(29e-4 * 111_130, rel=0.01)
    assert samples.resolution == pytest.approx(1e-4 * np.sqrt(78_850 * 111_130), rel=0.01)


def test_labels_of_another_grid_are_refused(make_cube: MakeCube, make_labels: MakeCube) -> None:
    cube = make_cube()
    labels = make_labels(cube)
    for other in (make_cube(rows=24), cube.assign_coords(x=cube["x"] + 5)):
        with pytest.raises(LabelError, match="another grid"):
            extract(other, labels)
    nudged = labels.assign_coords(x=labels["x"] + 1e-4)
    del nudged["spatial_ref"].attrs["GeoTransform"]
    assert len(extract(cube, nudged)) == len(extract(cube, labels))


def test_nothing_to_extract_is_refused(make_cube: MakeCube, make_labels: MakeCube) -> None:
    cube = make_cube()
    with pytest.raises(LabelError, match="No pixel"):
        extract(cube, make_labels(cube, share=0))
    with pytest.raises(LabelError, match="group"):
        extract(cube, make_labels(cube)[["label"]])
    with pytest.raises(CubeError):
        extract(cube.rename(data="reflectance"), make_labels(cube))


@pytest.mark.shared
def test_flanders_fields_from_a_cube_of_10_m_bands(shared: Path) -> None:
    folder = shared / "data/s2_l8_s1_flanders_patch"
    names = ["B02", "B03", "B04", "B08"]
    with xr.open_dataset(
        next(folder.glob("S2_L2A_10m_*.nc")), mask_and_scale=False, decode_coords="all"
    ) as file:
        bands = file[names].load()
    data = bands.to_dataarray("band").transpose("time", "band", "y", "x")
    cube = xr.Dataset({"data": data.drop_duplicates("time").sortby("time").assign_attrs(bands["B02"].attrs)})
    path = next(folder.glob("OUTPUT_POLY-110_10m_*.nc"))
    labels = load_labels(path, cube, column="LC", ignore=[0, 99])
    samples = extract(cube.chunk({"y": 16, "x": 16}), labels)
    assert samples.counts() == {"11": 1401, "13": 835, "60": 107}
    assert samples.crs == "EPSG:32631"
    row, column = np.argwhere(labels["label"].to_numpy() >= 0)[1000]
    np.testing.assert_array_equal(samples.x[1000], cube["data"][:, :, row, column])


def test_progress_may_be_silent(make_cube: MakeCube, make_labels: MakeCube, capsys: Any) -> None:
    cube = make_cube()
    extract(cube, make_labels(cube), progress=False)
    assert capsys.readouterr() == ("", "")
