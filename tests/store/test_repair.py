"""Stores mended from the scenes that they remember: byte for byte, or with what has changed."""

from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import rasterio
from odc.geo.geobox import GeoBox

import cubekit
from cubekit.cli import main
from cubekit.cube.reader import read_values
from cubekit.sources.items import Items
from cubekit.store.append import append
from cubekit.store.repair import repair
from cubekit.store.verify import verify
from cubekit.store.write import write
from cubekit.testing.archive import SampleArchive

LAYOUT: dict[str, int | tuple[int, int]] = {"time": 2, "y": (16, 32), "x": (16, 32)}


@pytest.fixture(scope="module")
def archive(sample_archive: SampleArchive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the scenes that a test may change."""
    folder = tmp_path_factory.mktemp("scenes") / "archive"
    copytree(sample_archive.folder, folder)
    return folder / sample_archive.items.relative_to(sample_archive.folder)


@pytest.fixture(scope="module")
def items(archive: Path) -> Items:
    """Return the first five dates."""
    return cubekit.open_items(archive, collection="sentinel-2-l2a")[:10]


@pytest.fixture
def store(items: Items, memory_path: Path) -> Path:
    """Return a store that was written, and appended to."""
    box = cubekit.open_cube(items[:2], bands=["B04"]).odc.geobox[40:88, 100:148]
    assert isinstance(box, GeoBox)
    cube = cubekit.open_cube(items[:6], box, bands=["B04", "B08"], mask="clouds")
    write(cubekit.add_indices(cube, "NDVI"), memory_path / "a.zarr", layout=LAYOUT)
    append(items, memory_path / "a.zarr")
    return memory_path / "a.zarr"


def contents(path: Path) -> dict[str, bytes]:
    """Return all files of a store."""
    return {
        file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()
    }


def test_every_kind_of_object_is_mended_byte_for_byte(store: Path) -> None:
    before = contents(store)
    assert str(repair(store)).endswith("sound, nothing to mend")
    draw = np.random.default_rng(7)
    chunks = sorted(key for key in before if key.startswith("data/c/"))
    bad = [*draw.choice(chunks, 4, replace=False), "time/c/0", "x/c/0", "band/zarr.json", "data/zarr.json"]
    for number, key in enumerate(bad):
        content = bytearray(before[key])
        content[len(content) // 2] ^= 4
        (store / key).write_bytes(bytes(content) if number % 2 else content[: len(content) // 3])
    (store / bad[0]).unlink()
    assert not verify(store).ok
    report = repair(store)
    assert report.ok, report
    assert report.mended == tuple(sorted(bad))
    assert contents(store) == before
    (store / ".cubekit/ledger.jsonl").write_bytes(before[".cubekit/ledger.jsonl"][:100])
    assert repair(store).mended == (".cubekit/ledger.jsonl",)
    assert contents(store) == before


def test_only_the_scenes_of_what_is_damaged_are_read(
    store: Path, items: Items, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = set[str]()

    def noted(source: object, *arguments: object, **options: object) -> object:
        read.add(source.item)  # type: ignore[attr-defined]
        return read_values(source, *arguments, **options)  # type: ignore[arg-type]

    (store / "data/c/2/0/0/0").unlink()  # the fifth date alone
    monkeypatch.setattr("cubekit.cube.ahead.read_values", noted)
    assert repair(store).ok
    assert read <= {item.id for item in items[8:]}
    assert read


def test_a_scene_that_has_changed_is_said_and_taken_on_demand_only(store: Path, items: Items) -> None:
    asset = Path(items.href(items[8].assets["red"] if "red" in items[8].assets else items[8].assets["B04"]))
    kept = asset.read_bytes()
    damaged = (store / "data/c/2/0/0/0").read_bytes()[:50]
    try:
        with rasterio.open(asset, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
            file.write(np.full(file.shape, 4321, "uint16"), 1)
        (store / "data/c/2/0/0/0").write_bytes(damaged)
        report = repair(store)
        assert not report.ok
        assert list(report.changed) == ["data/c/2/0/0/0"]
        assert items[8].id in report.changed["data/c/2/0/0/0"]
        assert (store / "data/c/2/0/0/0").read_bytes() == damaged
        others = {
            key: value for key, value in contents(store).items() if "/c/" in key and key != "data/c/2/0/0/0"
        }
        report = repair(store, accept_changed=True)
        assert report.ok
        assert report.accepted == ("data/c/2/0/0/0",)
        assert verify(store).ok
        assert {key: contents(store)[key] for key in others} == others
        assert float(cubekit.open(store)["data"][4, 0, 5, 5]) == pytest.approx((4321) * 1e-4, abs=0.11)
    finally:
        asset.write_bytes(kept)


def test_what_cannot_be_read_again_is_said(
    store: Path, items: Items, capsys: pytest.CaptureFixture[str]
) -> None:
    asset = Path(items.href(items[8].assets["red"] if "red" in items[8].assets else items[8].assets["B04"]))
    aside = asset.rename(asset.with_suffix(".gone"))
    try:
        (store / "data/c/2/0/0/0").unlink()
        (store / "data/c/0/0/0/0").unlink()
        assert main(["repair", str(store)]) == 1
        said = capsys.readouterr().out
        assert "mended: data/c/0/0/0/0" in said
        assert "failed: data/c/2/0/0/0: Cannot read" in said
    finally:
        aside.rename(asset)
    assert main(["repair", str(store)]) == 0


def test_numbers_in_memory_are_mended_from_the_cube(store: Path, memory_path: Path) -> None:
    cube = cubekit.open(store).load()
    path = memory_path / "b.zarr"
    write(cube, path, layout=LAYOUT)
    before = contents(path)
    (path / "data/c/1/0/1/0").unlink()
    assert "give the cube" in repair(path).failed["data/c/1/0/1/0"]
    assert repair(path, cube).ok
    assert contents(path) == before


def test_a_saved_origin_may_not_ask_for_anything(store: Path) -> None:
    """A store from elsewhere: its addresses and drivers are checked before they are opened."""
    import gzip
    import json

    from cubekit.cube.saved import plan_from_json, plan_to_json

    saved = json.loads(gzip.decompress((store / ".cubekit/provenance.json.gz").read_bytes()))["origins"][0][
        "plans"
    ][0]
    assert json.loads(json.dumps(plan_to_json(plan_from_json(saved)))) == saved
    for change, message in (
        ({"hrefs": [["vrt://x"] * 3] * len(saved["hrefs"])}, "vrt"),
        ({"hrefs": [["http://169.254.169.254/a.tif"] * 3] * len(saved["hrefs"])}, "169.254"),
        ({"forms": [[*form[:5], ["VRT"], *form[6:]] for form in saved["forms"]]}, "driver 'VRT'"),
    ):
        with pytest.raises(PermissionError, match=message):
            plan_from_json(saved | change)
    with pytest.raises(ValueError, match="cannot be read"):
        plan_from_json({"grids": []})


def test_a_store_with_overviews_is_mended(store: Path) -> None:
    cubekit.add_overviews(store, levels=1)
    before = contents(store)
    (store / ".cubekit/ledger.jsonl").unlink()
    (store / "data/c/0/0/0/0").write_bytes(b"")
    assert repair(store).failed
    (store / "data/c/0/0/0/0").write_bytes(before["data/c/0/0/0/0"])
    assert repair(store).mended == (".cubekit/ledger.jsonl",)
    assert contents(store) == before
    (store / "overviews/2/data/c/0/0/0/0").unlink()
    assert "add_overviews" in repair(store).failed["overviews/2/data/c/0/0/0/0"]
    cubekit.add_overviews(store, levels=1)
    assert contents(store) == before


def test_other_pixels_are_accepted_without_the_old_overviews(store: Path, memory_path: Path) -> None:
    cube = cubekit.open(store).load()
    path = memory_path / "b.zarr"
    write(cube, path, layout=LAYOUT)
    cubekit.add_overviews(path, levels=1)
    (path / "data/c/1/0/1/0").unlink()
    other = cube.copy(deep=True)
    other["data"] += 1
    assert repair(path, other, accept_changed=True).accepted == ("data/c/1/0/1/0",)
    assert verify(path).ok
    assert b"overviews" not in (path / "zarr.json").read_bytes()


def test_a_store_in_an_object_store_is_mended_and_explained(store: Path, items: Items) -> None:
    pytest.importorskip("obstore")
    from cubekit.errors import StoreError
    from cubekit.store.remote import Remote, RemoteObjects

    box = cubekit.open(store).odc.geobox
    address = "memory://cubes/mended.zarr"
    cube = cubekit.open_cube(items[:6], box, bands=["B04", "B08"], mask="clouds")
    opened = write(cube, address, layout=LAYOUT)
    objects = RemoteObjects(Remote.at(address))
    before = {key: objects.read(key) for key in objects.keys()}  # noqa: SIM118
    with pytest.raises(StoreError, match=r"local folder\. Mend a local copy"):
        repair(address, accept_changed=True)
    objects.delete("data/c/0/0/0/0", ".cubekit/ledger.jsonl")
    assert not repair(address).ok  # the ledger cannot vouch for what is missing
    objects.write(".cubekit/ledger.jsonl", before[".cubekit/ledger.jsonl"] or b"")
    assert repair(address).mended == ("data/c/0/0/0/0",)
    assert {key: objects.read(key) for key in objects.keys()} == before  # noqa: SIM118
    assert cubekit.diff(address, address).equal
    place = box.coordinates["x"].values[5], box.coordinates["y"].values[5]
    assert cubekit.why(opened, x=place[0], y=place[1], time=str(opened.time.values[0])[:10]).scenes
