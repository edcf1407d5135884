import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pytest
import xarray as xr
import zarr

from cubekit.cube.eager import load
from cubekit.errors import IncompleteStoreError, SecurityError, StoreError
from cubekit.store.objects import Objects
from cubekit.store.open import StoredArray, open_store
from cubekit.store.trust import check_trusted
from cubekit.store.write import write

CubeMaker = Callable[..., xr.Dataset]


def test_chunks_are_whole_objects_and_the_same_for_companions(
    make_cube: CubeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cubekit.store.open._READ_BYTES", 4 * 3 * 2 * 128**2)
    write(make_cube(side=(300, 300)), tmp_path / "a.zarr", layout={"y": (32, 64), "x": (32, 64)})
    opened = open_store(tmp_path / "a.zarr")
    assert opened["data"].chunksizes["y"] == opened["elevation"].chunksizes["y"] == (128, 128, 44)
    assert opened.chunksizes["time"] == (4,)
    narrow = open_store(tmp_path / "a.zarr", chunks={"y": 64, "x": 64, "time": 2})
    assert narrow["data"].chunks == ((2, 2), (3,), (64,) * 4 + (44,), (64,) * 4 + (44,))
    xr.testing.assert_identical(narrow.compute(), opened.compute())


def test_names_of_lazy_arrays_repeat_so_that_work_on_them_can_be_resumed(
    make_cube: CubeMaker, tmp_path: Path
) -> None:
    write(make_cube(), tmp_path / "a.zarr")
    names = [open_store(tmp_path / "a.zarr")["data"].data.name for _ in range(2)]
    assert names[0] == names[1]
    write(make_cube(seed=1), tmp_path / "a.zarr", overwrite=True)
    assert open_store(tmp_path / "a.zarr")["data"].data.name != names[0]


def test_lazy_arrays_pickle_small(make_cube: CubeMaker, tmp_path: Path) -> None:
    opened = write(make_cube(side=(400, 400)), tmp_path / "a.zarr")
    payload = cloudpickle.dumps(opened["data"].data)
    assert len(payload) < 20_000
    np.testing.assert_array_equal(cloudpickle.loads(payload).compute(), opened["data"])


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No store at"):
        open_store(tmp_path / "a.zarr")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_foreign_stores_open_on_demand(version: Any, consolidated: bool, tmp_path: Path) -> None:  # noqa: FBT001
    path = tmp_path / "foreign.zarr"
    cube = xr.Dataset(
        {"data": (("time", "y", "x"), np.arange(24, dtype="int16").reshape(2, 3, 4), {"scale_factor": 0.1})},
        coords={"time": np.array(["2020-01-01", "2020-03-01"], dtype="datetime64[ns]")},
    )
    cube.to_zarr(path, zarr_format=version, consolidated=consolidated)
    with pytest.raises(IncompleteStoreError, match="no completion mark"):
        open_store(path)
    opened = open_store(path, allow_incomplete=True)
    np.testing.assert_array_equal(opened["data"], cube["data"])
    assert opened["data"].dtype == "int16"
    assert opened["data"].attrs["scale_factor"] == 0.1
    assert (opened["time"].values == cube["time"].values).all()


def foreign(path: Path, **change: Any) -> Objects:
    """Make a v3 store whose one array says something else in its metadata."""
    zarr.create_array(path / "a", shape=(8, 8), chunks=(4, 4), dtype="i4")
    document = json.loads((path / "a/zarr.json").read_bytes()) | change
    (path / "a/zarr.json").write_bytes(json.dumps(document).encode())
    root = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    (path / "zarr.json").write_bytes(json.dumps(root).encode())
    return Objects.at(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]}, "codec 'numcodecs.pickle'"),
        (
            {
                "codecs": [
                    {"name": "sharding_indexed", "configuration": {"chunk_shape": [4, 4], "codecs": ["x"]}}
                ]
            },
            "codec 'x'",
        ),
        ({"data_type": "object"}, "type 'object'"),
        ({"data_type": {"name": "structured", "configuration": {}}}, "type 'structured'"),
        ({"shape": [2**40, 2**40], "chunk_grid": {"configuration": {"chunk_shape": [2**20, 2**20]}}}, "GB"),
        ({"shape": [8] * 9, "chunk_grid": {"configuration": {"chunk_shape": [4] * 9}}}, "shape"),
        ({"chunk_grid": {"configuration": {"chunk_shape": [0, 4]}}}, "chunks"),
        (
            {
                "shape": [2**40, 8],
                "chunk_grid": {"configuration": {"chunk_shape": [2**40, 4]}},
                "codecs": [
                    {
                        "name": "sharding_indexed",
                        "configuration": {
                            "chunk_shape": [4, 4],
                            "codecs": ["bytes"],
                            "index_codecs": ["bytes"],
                        },
                    }
                ],
            },
            "chunks in one shard",
        ),
        (
            {"data_type": {"name": "null_terminated_bytes", "configuration": {"length_bytes": 2**40}}},
            "one chunk takes",
        ),
        (
            {
                "codecs": [
                    {
                        "name": "sharding_indexed",
                        "configuration": {
                            "chunk_shape": [4, 4],
                            "codecs": ["bytes"],
                            "index_codecs": ["numcodecs.pickle"],
                        },
                    }
                ]
            },
            "codec 'numcodecs.pickle'",
        ),
    ],
)
def test_dangerous_v3_metadata_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    objects = foreign(tmp_path / "f.zarr", **change)
    with pytest.raises(SecurityError, match=message):
        check_trusted(objects, "f.zarr")
    with pytest.raises(SecurityError, match=message):
        open_store(tmp_path / "f.zarr", allow_incomplete=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "|O", "filters": [{"id": "pickle"}]}, "codec 'pickle'"),
        ({"dtype": "|O", "filters": []}, "type '|O'"),
        ({"dtype": [["a", "<i4"]]}, "type"),
        ({"compressor": {"id": "msgpack2"}}, "codec 'msgpack2'"),
        ({"dtype": "|O", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]}, "codec 'pickle'"),
        ({"dtype": "|O", "filters": [{"id": "vlen-bytes"}]}, "codec 'vlen-bytes'"),
        ({"dtype": "|S1099511627776"}, "one chunk takes"),
        ({"chunks": [2**40]}, "one chunk takes"),
    ],
)
def test_dangerous_v2_metadata_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "f.zarr"
    zarr.create_group(path, zarr_format=2)
    zarr.create_array(path / "a", shape=(8,), chunks=(4,), dtype="i4", zarr_format=2)
    document = json.loads((path / "a/.zarray").read_bytes()) | change
    (path / "a/.zarray").write_bytes(json.dumps(document).encode())
    with pytest.raises(SecurityError, match=message.replace("|", r"\|")):
        open_store(path, allow_incomplete=True)


def test_names_that_lead_out_are_refused(tmp_path: Path) -> None:
    objects = foreign(tmp_path / "f.zarr")
    array = json.loads(objects.read("a/zarr.json") or b"")
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {},
        "consolidated_metadata": {"metadata": {"../../secret": array}},
    }
    objects.write("zarr.json", json.dumps(root).encode())
    with pytest.raises(SecurityError, match="must not lead out"):
        open_store(tmp_path / "f.zarr", allow_incomplete=True)


@pytest.mark.parametrize("whole", [True, False])
def test_links_that_lead_out_are_refused(whole: bool, make_cube: CubeMaker, tmp_path: Path) -> None:  # noqa: FBT001
    path = tmp_path / "a.zarr"
    if whole:
        write(make_cube(), path, layout={"y": 32, "x": 32})
    else:
        xr.Dataset({"data": (("y", "x"), np.zeros((32, 32)))}).to_zarr(
            path, encoding={"data": {"compressors": None}}, consolidated=False
        )
    (tmp_path / "secret").write_bytes(b"password" * 1024)
    chunk = next(found for found in (path / "data/c").rglob("*") if found.is_file())
    chunk.unlink()
    chunk.symlink_to(tmp_path / "secret")
    with pytest.raises(SecurityError, match="leads out of the store"):
        open_store(path, allow_incomplete=not whole)["data"].load()


@pytest.mark.parametrize("version", [2, 3])
def test_one_metadata_document_does_not_vouch_for_another(version: Any, tmp_path: Path) -> None:
    """A harmless document of the other version, or of another array, must not spare the one that is read."""
    objects = foreign(tmp_path / "f.zarr", data_type="object")
    harmless = {"zarr_consolidated_format": 1, "metadata": {".zgroup": {"zarr_format": 2}}}
    if version == 2:
        objects.write(".zmetadata", json.dumps(harmless).encode())
    else:
        objects.write(".zgroup", json.dumps({"zarr_format": 2}).encode())
    with pytest.raises(SecurityError, match="type 'object'"):
        open_store(tmp_path / "f.zarr", allow_incomplete=True)


def test_metadata_that_is_no_json(tmp_path: Path) -> None:
    objects = foreign(tmp_path / "f.zarr")
    objects.write("a/zarr.json", b"{")
    with pytest.raises(StoreError, match="metadata is damaged"):
        open_store(tmp_path / "f.zarr", allow_incomplete=True)


def test_own_stores_pass_their_own_check(make_cube: CubeMaker, tmp_path: Path) -> None:
    write(make_cube(), tmp_path / "a.zarr", layout={"y": (16, 48), "x": (16, 48)})
    check_trusted(Objects.at(tmp_path / "a.zarr"), "a.zarr", every=True)


@pytest.mark.parametrize("direct", ["1", "0"])
def test_loading_a_whole_store_gives_what_computing_gives(
    direct: str, make_cube: CubeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBEKIT_CHUNK_READER", direct)
    monkeypatch.setattr("cubekit.store.open._PIECE_BYTES", 40_000)
    cube = make_cube(side=(150, 170))
    opened = write(cube, tmp_path / "a.zarr", layout={"y": (32, 64), "x": (32, 64)}, progress=False)
    assert len(list(_source(opened["data"]).pieces())) > 3 * 3
    loaded = load(opened, workers=2, progress=False)
    xr.testing.assert_identical(loaded, opened.compute())
    np.testing.assert_array_equal(loaded["data"], cube["data"])
    part = opened.isel(time=slice(1, 3), y=slice(10, 90))
    xr.testing.assert_identical(load(part, progress=False), part.compute())


def test_a_damaged_chunk_stops_loading(make_cube: CubeMaker, tmp_path: Path) -> None:
    opened = write(make_cube(), tmp_path / "a.zarr", progress=False)
    path = tmp_path / "a.zarr/elevation/c/0/0"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match=r"variable 'elevation' cannot be read at .*checksum"):
        load(opened, progress=False)


def _source(variable: xr.DataArray) -> StoredArray:
    (layer,) = variable.data.dask.layers.values()
    return next(each for each, _ in layer.indices if isinstance(each, StoredArray))
