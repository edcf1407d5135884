"""The packaged catalog against what is published about the products, and the schema against mistakes."""

from pathlib import Path

import pytest

from cubekit.catalog import Catalog, open_catalog
from cubekit.errors import CatalogError, UnknownNameError
from cubekit.sources.signing import signer

MINIMAL = """
collections:
  mine:
    title: Mine
    bands:
      a: {dtype: int16, resolution: 10, nodata: -1}
      b: {dtype: uint8, resolution: 20}
"""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return open_catalog()


def write(folder: Path, text: str, name: str = "own.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


# Sentinel-2 User Handbook, table of spectral bands: resolution in metres, nominal centre in nanometres.
SENTINEL2 = {
    "B01": (60, 443), "B02": (10, 490), "B03": (10, 560), "B04": (10, 665), "B05": (20, 705),
    "B06": (20, 740), "B07": (20, 783), "B08": (10, 842), "B8A": (20, 865), "B09": (60, 945),
    "B11": (20, 1610), "B12": (20, 2190),
}  # fmt: skip


@pytest.mark.parametrize("name", ["sentinel-2-l2a", "sentinel-2-c1-l2a"])
def test_sentinel2_bands_are_those_of_the_handbook(catalog: Catalog, name: str) -> None:
    collection = catalog.collection(name)
    for band, (resolution, wavelength) in SENTINEL2.items():
        record = collection.band(band)
        assert record.resolution == resolution
        assert record.wavelength == pytest.approx(wavelength / 1000, abs=0.002)
        assert (record.dtype, record.nodata, record.scale, record.offset) == ("uint16", 0, 1e-4, -0.1)
    reflective = [b.name for b in collection.bands if b.wavelength]
    assert sorted(reflective) == sorted(SENTINEL2)
    assert collection.harmonise == "sentinel2-baseline"


def test_sentinel2_l1c_has_the_cirrus_band_and_no_quality(catalog: Catalog) -> None:
    collection = catalog.collection("sentinel-2-l1c")
    assert {b.name for b in collection.bands} == {*SENTINEL2, "B10"}
    assert collection.quality is None


def test_scl_masks(catalog: Catalog) -> None:
    quality = catalog.collection("sentinel-2-l2a").quality
    assert quality is not None
    assert quality.kind == "classes"
    assert sorted(quality.meanings) == list(range(12))
    assert quality.select("clouds") == (0, 1, 8, 9, 10)
    assert quality.select("clouds+shadows") == quality.select(["clouds", "shadows"]) == (0, 1, 3, 8, 9, 10)
    assert quality.select(["snow", "water"]) == (0, 1, 6, 11)
    assert quality.select([]) == (0, 1)
    with pytest.raises(UnknownNameError, match="Did you mean 'clouds'"):
        quality.select("cloud")


def test_landsat_coding_and_bits(catalog: Catalog) -> None:
    collection = catalog.collection("landsat-c2-l2")
    red = collection.band("red")
    assert (red.dtype, red.nodata, red.scale, red.offset) == ("uint16", 0, 0.0000275, -0.2)
    thermal = collection.band("lwir11")
    assert (thermal.scale, thermal.offset, thermal.unit) == (0.00341802, 149.0, "K")
    assert collection.quality is not None
    assert collection.quality.kind == "bits"
    assert collection.quality.select("clouds+shadows") == (0, 1, 2, 3, 4)


def test_names_aliases_and_ids_find_the_record(catalog: Catalog) -> None:
    sentinel = catalog.collection("sentinel-2-l2a")
    assert [sentinel.band(n).name for n in ("B04", "red", "b4", "RED")] == ["B04"] * 4
    assert sentinel.band("rededge1").name == "B05"
    assert catalog.collection("modis-13Q1-061").name == "modis-13q1-061"
    assert catalog.collection("landsat-c2l2-sr").name == "landsat-c2-l2"
    assert catalog.match("nowhere") is None


def test_unknown_names_come_with_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'sentinel-2-l2a'"):
        catalog.collection("sentinel2-l2a")
    with pytest.raises(UnknownNameError, match="Did you mean 'nir08'"):
        catalog.collection("sentinel-2-l2a").band("nir8")
    with pytest.raises(UnknownNameError, match="Did you mean 'earth-search'"):
        catalog.provider("earthsearch")


def test_every_provider_maps_known_collections_and_names_a_known_signer(catalog: Catalog) -> None:
    assert {p.name: p.signer for p in catalog.providers.values()} == {
        "planetary-computer": "planetary-computer",
        "earth-search": None,
        "usgs-landsatlook": "usgs-landsat",
        "cdse": "cdse",
        "lpcloud": "earthdata",
        "brazil-data-cube": None,
    }
    for provider in catalog.providers.values():
        assert provider.url.startswith("https://")
        assert callable(signer(provider.signer))
        for name, id_ in provider.collections.items():
            if name != "landsat-c2-l1-tm":  # its items share their id with those of OLI
                assert catalog.match(id_) is catalog.collection(name)


def test_own_file_adds_and_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, MINIMAL)
    mine = open_catalog(path).collection("mine")
    assert mine.default_bands == ("a", "b")
    assert (mine.band("a").assets, mine.band("b").nodata) == (("a",), None)
    monkeypatch.setenv("CUBEKIT_CATALOGS", str(tmp_path))
    assert open_catalog().collection("mine") == mine
    write(tmp_path, MINIMAL.replace("Mine", "Changed"))
    assert open_catalog().collection("mine").title == "Changed"  # edits are seen in the same process
    over = write(tmp_path, MINIMAL.replace("mine", "sentinel-2-l2a"), "over.yaml")
    monkeypatch.delenv("CUBEKIT_CATALOGS")
    assert [b.name for b in open_catalog(over).collection("sentinel-2-l2a").bands] == ["a", "b"]


def test_like_inherits_bands_and_coding(tmp_path: Path) -> None:
    child = write(
        tmp_path, "collections: {child: {like: sentinel-2-l2a, bands: {X: {dtype: uint8, resolution: 5}}}}"
    )
    catalog = open_catalog(child)
    parent, record = catalog.collection("sentinel-2-l2a"), catalog.collection("child")
    assert record.bands[:-1] == parent.bands
    assert record.bands[-1].scale == 1.0  # the parent's defaults are for the parent's bands
    assert record.quality == parent.quality


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Mine", "title: Mine\n    tilte: x", "unknown key 'tilte'. Did you mean 'title'"),
        ("resolution: 20", "resolution: 20, wavelenght: 1", "unknown key 'bands.b.wavelenght'.*'wavelength'"),
        ("dtype: uint8", "dtype: uint7", "bands.b.dtype.*'uint7'"),
        ("dtype: uint8", "dtype: object", "bands.b.dtype.*'object' is not an integer or float type"),
        ("resolution: 20", "resolution: coarse", "bands.b.resolution.*'coarse'"),
        ("dtype: uint8, ", "", "bands.b.dtype"),
        ("resolution: 20", "resolution: 20, aliases: [A]", "'A' names two bands, a and b"),
        ("title: Mine", "title: Mine\n    default_bands: [c]", "default_bands names no band: 'c'"),
        ("title: Mine", "title: Mine\n    like: nothing", "like: nothing is not a collection"),
        ("title: Mine", "title: Mine\n    like: mine", "like: mine leads back to itself"),
        ("title: Mine", "title: no", "title.*False"),
        ("title: Mine", "title: Mine\n    title: Yours", "key 'title' repeats"),
        ("collections", "colections", "unknown key 'colections'. Did you mean 'collections'"),
        (
            "title: Mine",
            "title: Mine\n    quality: {band: b, kind: classes, meanings: {1: x}, masks: {m: [2]}}",
            "quality uses \\[2\\] without a meaning",
        ),
        (
            "title: Mine",
            "title: Mine\n    quality: {band: b, kind: classes, meaning: {}, masks: {}}",
            "unknown key 'quality.meaning'. Did you mean 'meanings'",
        ),
    ],
)
def test_mistakes_are_named_with_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in MINIMAL
    path = write(tmp_path, MINIMAL.replace(old, new))
    with pytest.raises(CatalogError, match=message) as raised:
        open_catalog(path)
    assert "own.yaml" in str(raised.value)


def test_one_record_in_two_files_of_a_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, MINIMAL)
    write(tmp_path, MINIMAL, "other.yaml")
    with pytest.raises(CatalogError, match=r"other\.yaml.*'mine'.*own\.yaml|own\.yaml.*'mine'.*other\.yaml"):
        open_catalog(tmp_path)


def test_a_provider_must_map_known_collections(tmp_path: Path) -> None:
    text = "providers: {p: {url: 'https://example.com', collections: {sentinel-2-l2b: x}}}"
    with pytest.raises(CatalogError, match=r"unknown collection .sentinel-2-l2b.*.sentinel-2-l2a."):
        open_catalog(write(tmp_path, text))


def test_a_missing_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"nothing\.yaml"):
        open_catalog(tmp_path / "nothing.yaml")
