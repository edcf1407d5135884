import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from cubekit.errors import SecurityError, StoreError
from cubekit.store.open import open_store
from cubekit.store.verify import verify
from cubekit.store.write import write

CubeMaker = Callable[..., xr.Dataset]

LAYOUT: dict[str, int | tuple[int, int]] = {"y": (16, 48), "x": (16, 48)}


@pytest.fixture
def store(make_cube: CubeMaker, tmp_path: Path) -> Path:
    """Return a finished store."""
    write(make_cube(), tmp_path / "a.zarr", layout=LAYOUT)
    return tmp_path / "a.zarr"


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_sound_store(store: Path) -> None:
    report = verify(store)
    assert report.ok
    assert report.chunks == sum(1 for path in store.rglob("*") if path.is_file()) - 3  # root, plan, ledger
    assert "sound, finished" in str(report)


@pytest.mark.parametrize("key", ["data/c/0/0/1/2", "elevation/c/0/0", "time/c/0", "band/zarr.json"])
def test_deleted_objects_are_named(store: Path, key: str) -> None:
    (store / key).unlink()
    report = verify(store)
    assert not report.ok
    assert (report.missing, report.damaged) == ((key,), ())
    assert f"missing: {key}" in str(report)


@pytest.mark.parametrize("keep", [0, 1, 20_000, -1])
def test_truncated_objects_are_named(store: Path, keep: int) -> None:
    path = store / "data/c/0/0/0/1"
    path.write_bytes(path.read_bytes()[:keep])
    assert verify(store).damaged == ("data/c/0/0/0/1",)


def test_every_flipped_bit_is_found_and_named(store: Path) -> None:
    draw = np.random.default_rng(4)
    files = sorted(path for path in store.rglob("*") if path.is_file() and "plan.json" not in path.name)
    for _ in range(200):
        path = files[draw.integers(len(files))]
        bit = int(draw.integers(path.stat().st_size * 8))
        flip(path, bit)
        key = path.relative_to(store).as_posix()
        assert key in verify(store, progress=False).damaged, f"bit {bit} of {key}"
        flip(path, bit)
    assert verify(store).ok


def test_flips_are_found_without_the_ledger_too(store: Path) -> None:
    draw = np.random.default_rng(5)
    (store / ".cubekit/ledger.jsonl").unlink()
    files = sorted(path for path in (store / "data/c").rglob("*") if path.is_file())
    for _ in range(40):
        path = files[draw.integers(len(files))]
        bit = int(draw.integers(path.stat().st_size * 8))
        flip(path, bit)
        assert path.relative_to(store).as_posix() in verify(store, progress=False).damaged
        flip(path, bit)
    assert verify(store).damaged == (".cubekit/ledger.jsonl",)


def test_a_changed_plan_is_found(store: Path) -> None:
    plan = store / ".cubekit/plan.json"
    plan.write_bytes(plan.read_bytes().replace(b'"dtype": "uint16"', b'"dtype": "uint17"'))
    assert verify(store).damaged == (".cubekit/plan.json",)


def test_swapped_chunks_are_found(store: Path) -> None:
    one, other = store / "data/c/0/0/0/0", store / "data/c/0/0/0/1"
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)
    assert verify(store).damaged == ("data/c/0/0/0/0", "data/c/0/0/0/1")


def test_leftovers_are_listed_and_harmless(store: Path) -> None:
    (store / "data/c/0/0/0/0.abc.partial").write_bytes(b"torn")
    report = verify(store)
    assert report.ok
    assert report.leftover == ("data/c/0/0/0/0.abc.partial",)


def test_a_damaged_root_is_said(store: Path) -> None:
    root = store / "zarr.json"
    root.write_bytes(root.read_bytes()[:-40])
    report = verify(store)
    assert "zarr.json" in report.damaged
    with pytest.raises(StoreError, match="not a Zarr document"):
        open_store(store)


def test_an_edited_mark_is_refused(store: Path) -> None:
    root = store / "zarr.json"
    document = json.loads(root.read_bytes())
    document["attributes"]["title"] = "another"
    root.write_bytes(json.dumps(document).encode())
    with pytest.raises(StoreError, match="does not match its own digest"):
        open_store(store)


def test_reading_a_missing_or_damaged_chunk_raises_with_its_place(store: Path) -> None:
    cube = open_store(store)
    (store / "data/c/0/0/1/2").unlink()
    with pytest.raises(
        StoreError, match=r"'data' cannot be read at .*chunk data/c/0/0/1/2 is missing.*verify"
    ):
        cube["data"].load()
    flip(store / "observations/c/0/0/0", 5000)
    with pytest.raises(StoreError, match="'observations' cannot be read"):
        cube["observations"].load()


def test_writing_again_mends_what_is_missing(
    store: Path, make_cube: CubeMaker, digest: Callable[[Path], str]
) -> None:
    before = digest(store)
    (store / "data/c/0/0/1/2").unlink()
    content = (store / "data/c/0/0/0/0").read_bytes()
    (store / "data/c/0/0/0/0").write_bytes(content[:-7])
    write(make_cube(), store, layout=LAYOUT)
    assert digest(store) == before


def test_overwriting_with_the_same_cube_mends_flipped_bits_and_nothing_else(
    store: Path, make_cube: CubeMaker, digest: Callable[[Path], str]
) -> None:
    before, when = digest(store), (store / "data/c/0/0/0/2").stat().st_mtime_ns
    flip(store / "data/c/0/0/0/0", 999)
    write(make_cube(), store, layout=LAYOUT, overwrite=True)
    assert digest(store) == before
    assert (store / "data/c/0/0/0/2").stat().st_mtime_ns == when  # of another region


def test_an_unfinished_store_is_not_sound(store: Path, make_cube: CubeMaker, tmp_path: Path) -> None:
    def failing(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        raise ValueError("no")

    cube = make_cube()
    cube["data"] = cube["data"].copy(data=cube["data"].data.map_blocks(failing, dtype="uint16"))
    with pytest.raises(StoreError, match="Region"):
        write(cube, tmp_path / "b.zarr")
    report = verify(tmp_path / "b.zarr")
    assert report.state == "building"
    assert "data/c/0/0/0/0" in report.missing
    assert "not finished" in str(report)


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No store at"):
        verify(tmp_path / "nothing.zarr")


def test_foreign_stores_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "foreign.zarr"
    cube = xr.Dataset({"data": (("y", "x"), np.arange(400.0).reshape(20, 20))})
    cube.to_zarr(path, consolidated=False, encoding={"data": {"chunks": (10, 10)}})
    report = verify(path)
    assert (report.state, report.ok, report.damaged) == ("foreign", False, ())
    (path / "data/c/0/1").write_bytes(b"torn")
    assert verify(path).damaged == ("data/c/0/1",)


def test_foreign_codecs_are_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "foreign.zarr"
    zarr.create_array(path / "a", shape=(4,), dtype="i4")
    zarr.create_group(path)
    document = json.loads((path / "a/zarr.json").read_bytes())
    document["codecs"].append({"name": "numcodecs.pickle", "configuration": {}})
    (path / "a/zarr.json").write_bytes(json.dumps(document).encode())
    with pytest.raises(SecurityError, match=r"numcodecs\.pickle"):
        verify(path)
