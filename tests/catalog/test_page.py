"""The page on the catalog says what the files say, and what it calls checked has been opened."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from cubekit.catalog import Band, Collection, Provider, Quality, open_catalog
from cubekit.catalog.page import START, main, tables
from cubekit.sources.items import open_items
from cubekit.sources.signing import _SIGNERS

PAGE = Path(__file__).parents[2] / "docs/catalog.md"


def test_the_page_is_up_to_date(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.endswith(f"{START}\n\n{tables(open_catalog())}"), "run python -m cubekit.catalog.page"
    copy = tmp_path / "page.md"
    copy.write_text(text.split(START)[0] + START + "\n\nold", encoding="utf-8")
    main(copy)
    assert copy.read_text(encoding="utf-8") == text


def test_every_key_of_the_schema_and_every_signer_is_documented() -> None:
    described = PAGE.read_text(encoding="utf-8").split(START)[0]
    for record in (Collection, Band, Quality, Provider):
        for key in fields(record):
            assert f"`{key.name}`" in described, key.name
    for signer in set(_SIGNERS) - {"none"}:
        assert f"`{signer}`" in described


def test_the_example_of_the_page_is_a_catalog(tmp_path: Path) -> None:
    example = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    assert set(yaml.safe_load(example)) == {"collections", "providers"}
    path = tmp_path / "my.yaml"
    path.write_text(example)
    catalog = open_catalog(path)
    assert catalog.collection("MYPRODUCT_v1").name == "my-product"
    quality = catalog.collection("my-product").quality
    assert quality is not None
    assert quality.select("clouds+shadows") == ("0-1=1", "0-1=2", 2)


FOLDERS = {  # of the shared data, and whose items they hold
    "planetary_computer": "planetary-computer",
    "earth_search_v0": "earth-search-v0",
    "earth_search_v1": "earth-search",
    "usgs": "usgs-landsatlook",
    "dea": "dea",
    "modis_13q1_061": "stactools",
}


@pytest.mark.shared
def test_what_is_called_checked_has_been_opened(shared: Path) -> None:
    seen: set[tuple[str, str]] = set()
    for folder, provider in FOLDERS.items():
        for file in (shared / "data/stac" / folder).glob("*.*json"):
            if "collection.json" in file.name and "item_collection" not in file.name:
                continue
            items = open_items(file)
            assert items.collection is not None, file
            found = [band.name for band in items.collection.bands if items.asset(items[0], band.name)]
            assert set(items.collection.default_bands) <= set(found), file
            seen.add((items.collection.name, provider))
    told = {(c.name, place) for c in open_catalog().collections.values() for place in c.checked}
    assert {entry for entry in told if entry[1] != "files"} == seen
    assert {name for name, place in told if place == "files"} == {  # opened in tests/sources and tests/cube
        "cbers4-awfi-16d", "landsat-c2-l2", "modis-13q1-061", "sentinel-2-l1c", "sentinel-2-l2a",
    }  # fmt: skip
