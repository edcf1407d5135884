"""Dates put into finished stores: where they fall, once, all or none, sharing what stays."""

from collections.abc import Callable
from pathlib import Path
from shutil import copyfile, copytree

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from odc.geo.geobox import GeoBox

import cubekit
from cubekit.cube.reader import read_values
from cubekit.errors import IncompleteStoreError, OptionError, StoreError
from cubekit.sources.items import Items
from cubekit.store import place
from cubekit.store.append import append, plan_append
from cubekit.store.ledger import read_ledger
from cubekit.store.objects import Objects
from cubekit.store.open import open_store
from cubekit.store.provenance import PROVENANCE, read_provenance
from cubekit.store.verify import verify
from cubekit.store.write import write
from cubekit.testing.archive import SampleArchive

CubeMaker = Callable[..., xr.Dataset]
Digest = Callable[[Path], str]

LAYOUT: dict[str, int | tuple[int, int]] = {"time": 2, "y": (16, 48), "x": (16, 48)}


@pytest.fixture
def dates(make_cube: CubeMaker) -> Callable[..., xr.Dataset]:
    """Return a maker of some dates of one cube of eight dates; seeds change their numbers."""

    def make(*numbers: int, seed: int = 0) -> xr.Dataset:
        whole = make_cube(times=8, chunk=None).drop_vars("elevation")
        if seed:
            whole["data"] = whole["data"].copy(data=make_cube(times=8, chunk=None, seed=seed)["data"].data)
        return whole.isel(time=list(numbers))

    return make


def inodes(path: Path) -> dict[str, int]:
    """Return the place on disk of each chunk of the main variable."""
    return {
        p.relative_to(path).as_posix(): p.stat().st_ino for p in (path / "data/c").rglob("*") if p.is_file()
    }


@pytest.mark.parametrize(
    ("before", "after", "rewritten"),
    [
        ((0, 1, 2, 3), (4, 5), {2}),  # full objects: only new ones are written
        ((0, 1, 2), (3, 4), {1, 2}),  # the last object was half full
        ((0, 1, 4, 5), (2, 3), {1, 2}),  # in the middle: all from there on
        ((2, 3, 4, 5), (0, 1), {0, 1, 2}),
        ((0, 2, 4), (1, 3, 5), {0, 1, 2}),
    ],
)
def test_dates_go_where_they_fall_and_what_stays_is_shared(
    before: tuple[int, ...],
    after: tuple[int, ...],
    rewritten: set[int],
    dates: Callable[..., xr.Dataset],
    memory_path: Path,
) -> None:
    path, fresh = memory_path / "a.zarr", memory_path / "fresh.zarr"
    write(dates(*before), path, layout=LAYOUT)
    there = inodes(path)
    planned = plan_append(dates(*after), path)
    result = append(dates(*after), path)
    whole = dates(*sorted(before + after))
    for name in whole.variables:
        np.testing.assert_array_equal(result[name], whole[name])
    write(whole, fresh, layout=LAYOUT)
    chunks = {key: (fresh / key).read_bytes() for key in inodes(fresh)}
    assert {key: (path / key).read_bytes() for key in inodes(path)} == chunks
    changed = {key for key, inode in inodes(path).items() if there.get(key) != inode}
    assert {int(key.split("/")[2]) for key in changed} == rewritten
    assert planned.written == 3 * len(changed)  # data and two companions
    assert planned.objects == 3 * len(chunks)
    assert verify(path).ok
    assert xr.open_zarr(path).time.encoding["dtype"] == "int64"
    assert sorted(p.name for p in memory_path.iterdir()) == ["a.zarr", "fresh.zarr"]


def test_the_same_call_twice_changes_nothing(
    dates: Callable[..., xr.Dataset], memory_path: Path, digest: Digest
) -> None:
    path = memory_path / "a.zarr"
    write(dates(0, 1), path, layout=LAYOUT)
    append(dates(1, 2), path)
    once = digest(path)
    append(dates(1, 2), path)
    assert digest(path) == once
    assert str(plan_append(dates(1, 2), path)).endswith("nothing to do, all dates are there (3 kept)")


def test_a_changed_date_takes_the_place_of_the_old_one(
    dates: Callable[..., xr.Dataset], memory_path: Path
) -> None:
    path = memory_path / "a.zarr"
    write(dates(0, 1, 2, 3), path, layout=LAYOUT)
    there = inodes(path)
    changes = plan_append(dates(2, seed=1), path)
    assert (len(changes.replaced), changes.appended, changes.inserted, changes.kept) == (1, (), (), 3)
    result = append(dates(2, seed=1), path)
    expected = dates(0, 1, 2, 3)["data"].copy()
    expected[2] = dates(2, seed=1)["data"][0]
    np.testing.assert_array_equal(result["data"], expected)
    assert {key.split("/")[2] for key, inode in inodes(path).items() if there[key] != inode} == {"1"}


def test_a_changed_date_is_kept_or_refused_on_demand(
    dates: Callable[..., xr.Dataset], memory_path: Path, digest: Digest
) -> None:
    path = memory_path / "a.zarr"
    write(dates(0, 1), path, layout=LAYOUT)
    before = digest(path)
    append(dates(1, seed=1), path, on_change="keep")
    with pytest.raises(StoreError, match="is there already, made from other scenes or numbers"):
        append(dates(1, seed=1), path, on_change="raise")
    assert digest(path) == before
    with pytest.raises(OptionError, match="Did you mean 'replace'"):
        append(dates(1), path, on_change="replaced")  # type: ignore[arg-type]


def test_variables_without_time_stay(make_cube: CubeMaker, memory_path: Path) -> None:
    path = memory_path / "a.zarr"
    cube = make_cube(times=5, chunk=None)
    write(cube.isel(time=[0, 1]), path, layout=LAYOUT)
    result = append(cube.isel(time=[2, 3, 4]), path)
    for name in cube.variables:
        np.testing.assert_array_equal(result[name], cube[name])
    assert verify(path).ok


def reversed_bands(cube: xr.Dataset) -> xr.Dataset:
    return cube.isel(band=[2, 1, 0])


def moved(cube: xr.Dataset) -> xr.Dataset:
    return cube.assign_coords(x=cube["x"] + 10)


def coarser(cube: xr.Dataset) -> xr.Dataset:
    return cube.isel(y=slice(0, 60))


def rescaled(cube: xr.Dataset) -> xr.Dataset:
    return cube.assign(data=cube["data"].assign_attrs(scale_factor=1e-3, _FillValue=np.uint16(9)))


def signed(cube: xr.Dataset) -> xr.Dataset:
    return cube.assign(data=cube["data"].astype("int16"))


def without(cube: xr.Dataset) -> xr.Dataset:
    return cube.drop_vars("observations").assign_attrs(mask="clouds")


def elsewhere(cube: xr.Dataset) -> xr.Dataset:
    return cube.odc.assign_crs("EPSG:32631")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (reversed_bands, r"band: is \[B00, B01, B02\], the cube's \[B02, B01, B00\]"),
        (moved, r"grid: is 90 x 110 pixels of 10 from 500000, 4007000, the cube's .* from 500010"),
        (coarser, r"grid: is 90 x 110 .* the cube's 60 x 110"),
        (rescaled, r"data: nodata is 0.0, the cube's 9.0\n  data: scale is 0.0001, the cube's 0.001"),
        (signed, "data: type is uint16, the cube's int16"),
        (without, r"(?s)the cube lacks 'observations'.*mask: is None, the cube's 'clouds'"),
        (elsewhere, "grid: CRS is EPSG:32630, the cube's EPSG:32631"),
    ],
)
def test_what_does_not_fit_is_said_and_nothing_is_touched(
    change: Callable[[xr.Dataset], xr.Dataset],
    message: str,
    dates: Callable[..., xr.Dataset],
    memory_path: Path,
    digest: Digest,
) -> None:
    path = memory_path / "a.zarr"
    write(dates(0, 1), path, layout=LAYOUT)
    before = digest(path)
    with pytest.raises(StoreError, match=message):
        append(change(dates(2)), path)
    assert digest(path) == before


def test_only_finished_stores_take_dates(dates: Callable[..., xr.Dataset], memory_path: Path) -> None:
    with pytest.raises(StoreError, match="there is nothing"):
        append(dates(0), memory_path / "none.zarr")
    (memory_path / "a.zarr/.cubekit").mkdir(parents=True)
    with pytest.raises(IncompleteStoreError):
        append(dates(0), memory_path / "a.zarr")
    repeated = xr.concat([dates(2), dates(2, seed=1)], "time")
    write(dates(0), memory_path / "b.zarr")
    with pytest.raises(StoreError, match="times of the cube repeat"):
        append(repeated, memory_path / "b.zarr")


def test_an_append_that_fails_can_be_repeated(
    dates: Callable[..., xr.Dataset], memory_path: Path, digest: Digest
) -> None:
    """Row 17: no duplicate dates, no dates without data, and the digest of an append that never failed."""
    path, clean = memory_path / "a/a.zarr", memory_path / "b/a.zarr"
    fails = True

    def failing(block: np.ndarray, block_info: dict[int, dict[str, tuple[int, ...]]]) -> np.ndarray:
        if fails and block_info[0]["chunk-location"][0] == 1:
            raise RuntimeError("second new date")
        return block

    def lazy(cube: xr.Dataset) -> xr.Dataset:
        values = da.from_array(cube["data"].data, (1, 3, 48, 48), name="n")  # type: ignore[no-untyped-call]
        values = values.map_blocks(failing, dtype="uint16", name="failing", meta=np.empty((0,) * 4, "uint16"))
        return cube.assign(data=cube["data"].copy(data=values))

    for folder in (path, clean):
        write(dates(0, 1), folder, layout=LAYOUT)
    before = digest(path)
    with pytest.raises(StoreError, match="second new date"):
        append(lazy(dates(2, 3)), path)
    assert digest(path) == before
    assert verify(path).ok
    fails = False
    for folder in (path, clean):
        np.testing.assert_array_equal(append(lazy(dates(2, 3)), folder)["time"], dates(0, 1, 2, 3)["time"])
    assert digest(path) == digest(clean)


def test_a_damaged_chunk_is_not_copied_into_new_ones(
    dates: Callable[..., xr.Dataset], memory_path: Path
) -> None:
    path = memory_path / "a.zarr"
    write(dates(0, 1, 2), path, layout=LAYOUT)
    content = bytearray((path / "data/c/1/0/0/0").read_bytes())
    content[len(content) // 2] ^= 1
    (path / "data/c/1/0/0/0").write_bytes(content)
    with pytest.raises(StoreError, match="cannot be read"):
        append(dates(3), path)  # dates 2 and 3 share an object
    assert verify(path).damaged == ("data/c/1/0/0/0",)
    (path / "data/c/0/0/0/0").unlink()
    with pytest.raises(StoreError, match=r"data/c/0/0/0/0 is missing.*repair"):
        append(dates(3), path)


def test_without_hard_links_objects_are_copied(
    dates: Callable[..., xr.Dataset], memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = memory_path / "a.zarr"
    write(dates(0, 1, 2, 3), path, layout=LAYOUT)
    copied = []

    def refused(*_: object) -> None:
        raise OSError(1, "not permitted")

    def counted(source: Path, target: Path) -> None:
        copied.append(source)
        copyfile(source, target)

    monkeypatch.setattr("os.link", refused)
    monkeypatch.setattr("shutil.copyfile", counted)
    monkeypatch.setattr(place, "_exchanged", lambda *_: False)
    result = append(dates(4), path)
    assert len(copied) == 3 * 6 * 2
    np.testing.assert_array_equal(result["data"], dates(0, 1, 2, 3, 4)["data"])
    assert verify(path).ok


def test_a_reader_of_the_old_state_is_told(dates: Callable[..., xr.Dataset], memory_path: Path) -> None:
    path = memory_path / "a.zarr"
    old = write(dates(0, 1), path, layout=LAYOUT)
    append(dates(2), path)
    with pytest.raises(StoreError, match="replaced since it was opened"):
        old["data"].load()


def test_a_store_of_an_older_version_takes_dates(dates: Callable[..., xr.Dataset], memory_path: Path) -> None:
    """A store without provenance: new dates go in, old ones are neither replaced nor lost unasked."""
    path = memory_path / "a.zarr"
    write(dates(0, 1), path, layout=LAYOUT)
    forget(path)
    assert read_provenance(Objects.at(path)) is None
    with pytest.raises(StoreError, match="does not say from which scenes"):
        append(dates(1, 2), path)
    result = append(dates(1, 2), path, on_change="keep")
    np.testing.assert_array_equal(result["data"], dates(0, 1, 2)["data"])
    assert [date.origin for date in read_provenance(Objects.at(path)).dates] == [-1, -1, 0]  # type: ignore[union-attr]


def forget(path: Path) -> None:
    """Take the provenance out of a store, as if an older version had written it."""
    from cubekit.store.ledger import Ledger, summed
    from cubekit.store.mark import marked, read_mark

    objects = Objects.at(path)
    root = objects.read("zarr.json") or b""
    mark = read_mark(root, "")
    digests = {key: digest for key, digest in read_ledger(objects)[1].items() if key != PROVENANCE}
    Ledger(objects, mark["plan"]).close(digests)
    (path / PROVENANCE).unlink()
    mark["arrays"] = {name: summed(digests, name) for name in mark["arrays"] if name != ".cubekit"}
    objects.write("zarr.json", marked(root, mark))
    assert verify(path).ok


@pytest.fixture(scope="module")
def items(sample_archive: SampleArchive) -> Items:
    """Return the scenes of the sample archive: two of each of twelve dates."""
    return cubekit.open_items(sample_archive.items, collection="sentinel-2-l2a")


def opened(items: Items, box: GeoBox) -> xr.Dataset:
    """Open scenes as a masked cube."""
    return cubekit.open_cube(items, box, bands=["B04", "B08"], mask="clouds")


@pytest.fixture(scope="module")
def box(items: Items) -> GeoBox:
    """Return a small grid in the overlap of two tiles."""
    found = cubekit.open_cube(items[:2], bands=["B04"]).odc.geobox[40:88, 100:148]
    assert isinstance(found, GeoBox)
    return found


STEPS: dict[str, int | tuple[int, int]] = {"time": 2, "y": (16, 32), "x": (16, 32)}


def test_a_growing_search_reads_only_new_scenes(
    items: Items, box: GeoBox, memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(opened(items[:8], box), memory_path / "a.zarr", layout=STEPS)
    read: set[str] = set()

    def noted(source: object, *arguments: object, **options: object) -> object:
        read.add(source.item)  # type: ignore[attr-defined]
        return read_values(source, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("cubekit.cube.ahead.read_values", noted)
    result = append(items[:12], memory_path / "a.zarr")  # items: opened with the options of the store
    assert read == {item.id for item in items[8:12]}
    np.testing.assert_array_equal(result["data"], opened(items[:12], box)["data"])
    assert result.attrs["items"] == [item.id for item in items[:12]]
    provenance = read_provenance(Objects.at(memory_path / "a.zarr"))
    assert provenance is not None
    assert [len(origin.opened[0].scenes) for origin in provenance.origins] == [8, 4]


def test_composites_append_by_period_and_the_last_one_is_completed(
    items: Items, box: GeoBox, memory_path: Path
) -> None:
    path = memory_path / "a.zarr"
    first = cubekit.composite(opened(items[:9], box), every="61D")  # the ninth scene is half a date
    write(first, path, layout=STEPS)
    changes = plan_append(items, path)
    assert (len(changes.replaced), len(changes.appended), changes.inserted) == (1, 3, ())
    result = append(items, path)
    whole = cubekit.composite(opened(items, box), every="61D")
    for name in ("data", "observations", "time"):
        np.testing.assert_array_equal(result[name], whole[name])
    assert not plan_append(items, path).any
    with pytest.raises(StoreError, match="overlaps the one from"):
        append(cubekit.composite(opened(items, box), every="61D", start="2022-12-01"), path)


def test_a_scene_is_not_lost_by_a_replacement(items: Items, box: GeoBox, memory_path: Path) -> None:
    path = memory_path / "a.zarr"
    write(opened(items[:4], box), path, layout=STEPS)
    with pytest.raises(StoreError, match=rf"{items[0].id} too, which the cube lacks"):
        append(items[1:2], path)
    newer = [items[0].clone(), items[1]]
    newer[0].id = items[0].id.replace("R122", "R122_N0511")
    again = Items(scenes=tuple(newer), collection=items.collection, signer=items.signer, root=items.root)
    changes = plan_append(again, path)
    assert (len(changes.replaced), changes.kept) == (1, 1)
    result = append(again, path)
    assert newer[0].id in result.attrs["items"]
    assert items[0].id not in result.attrs["items"]
    copytree(path, memory_path / "b.zarr")
    append(items[1:2], memory_path / "b.zarr", on_change="replace")
    assert open_store(memory_path / "b.zarr").attrs["items"] == [item.id for item in items[1:4]]


def test_filled_cubes_depend_on_all_dates(items: Items, box: GeoBox, memory_path: Path) -> None:
    path = memory_path / "a.zarr"
    write(cubekit.fill_gaps(opened(items[:8], box)), path, layout=STEPS)
    changes = plan_append(items[:10], path)
    assert (len(changes.replaced), len(changes.appended), changes.kept) == (4, 1, 0)
    whole = cubekit.fill_gaps(opened(items[:10], box))
    np.testing.assert_array_equal(append(items[:10], path)["data"], whole["data"])


def test_a_store_with_other_codecs_keeps_them(
    dates: Callable[..., xr.Dataset], memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zarr.codecs import ZstdCodec

    path = memory_path / "a.zarr"
    with monkeypatch.context() as older:
        older.setattr("cubekit.store.metadata.codecs", lambda: (ZstdCodec(level=1),))
        write(dates(0, 1), path, layout=LAYOUT)
    before = (path / "data/zarr.json").read_bytes()
    append(dates(2, 3), path)
    assert b"zstd" in before
    assert b"blosc" not in (path / "data/zarr.json").read_bytes()
    assert verify(path).ok
    xr.testing.assert_equal(open_store(path).compute(), dates(0, 1, 2, 3).compute())


@pytest.mark.parametrize(
    "address", ["s3://bucket/a.zarr", "memory://cubes/a.zarr", "icechunk:///data/a@main"]
)
def test_elsewhere_than_in_folders_the_next_step_is_said(
    address: str, dates: Callable[..., xr.Dataset]
) -> None:
    for call in (append, plan_append):
        with pytest.raises(StoreError, match=r"needs a store in a local folder\. Append to a local copy, or"):
            call(dates(0), address)


def test_overviews_of_the_old_dates_go(dates: Callable[..., xr.Dataset], memory_path: Path) -> None:
    path = memory_path / "a.zarr"
    write(dates(0, 1), path, layout=LAYOUT)
    cubekit.add_overviews(path, levels=1)
    append(dates(2), path)
    assert not (path / "overviews").exists()
    assert verify(path).ok
    assert b"overviews" not in (path / "zarr.json").read_bytes()
    level = cubekit.add_overviews(path, levels=1)[2]
    assert level.sizes["time"] == 3
