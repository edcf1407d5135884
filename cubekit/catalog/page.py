"""The tables of ``docs/catalog.md``, made from the catalog files: ``python -m cubekit.catalog.page``."""

from pathlib import Path
from typing import Final

from cubekit.catalog.files import open_catalog
from cubekit.catalog.records import Catalog, Collection

START: Final = "<!-- made by `python -m cubekit.catalog.page`: change the catalog files instead -->"
"""Line after which the page is made."""


def tables(catalog: Catalog) -> str:
    """Describe providers and collections as Markdown.

    Parameters
    ----------
    catalog : Catalog
        Usually the packaged one.

    Returns
    -------
    str
        Sections with tables: providers, collections by provider, bands and masks.
    """
    providers = list(catalog.providers.values())
    parts = ["## Providers", ""]
    parts += _table(
        ["name", "what", "API", "signer"],
        [[f"`{p.name}`", p.title, p.url, f"`{p.signer}`" if p.signer else ""] for p in providers],
    )
    parts += ["", "## Collections by provider", ""]
    parts += [
        "Cells hold the provider's own id. **Bold**: real items of that provider are opened in the tests.",
        "",
    ]
    rows = [
        [f"`{c.name}`", *(_id(c, p.collections.get(c.name), p.name) for p in providers), _others(c, catalog)]
        for c in catalog.collections.values()
    ]
    parts += _table(["collection", *(p.name for p in providers), "also checked on"], rows)
    parts += ["", "## Bands and masks", ""]
    parts += _table(
        ["collection", "title", "bands (common name)", "masks"],
        [[f"`{c.name}`", _title(c), _bands(c), _masks(c)] for c in catalog.collections.values()],
    )
    return "\n".join(parts) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell or " " for cell in line) + " |" for line in lines]


def _id(collection: Collection, id_: str | None, provider: str) -> str:
    if id_ is None:
        return ""
    return f"**{id_}**" if provider in collection.checked else id_


def _others(collection: Collection, catalog: Catalog) -> str:
    return ", ".join(name for name in collection.checked if name not in catalog.providers)


def _title(collection: Collection) -> str:
    return f"[{collection.title}]({collection.reference})" if collection.reference else collection.title


def _bands(collection: Collection) -> str:
    return ", ".join(
        f"{band.name} ({band.common_name})" if band.common_name not in {None, band.name} else band.name
        for band in collection.bands
    )


def _masks(collection: Collection) -> str:
    return ", ".join(f"`{name}`" for name in collection.quality.masks) if collection.quality else ""


def main(page: Path = Path("docs/catalog.md")) -> None:
    """Write the tables into the page.

    Parameters
    ----------
    page : pathlib.Path, optional
        File with the line `START`; what follows it is replaced.
    """
    text = page.read_text(encoding="utf-8").split(START)[0]
    page.write_text(f"{text}{START}\n\n{tables(open_catalog())}", encoding="utf-8")


if __name__ == "__main__":
    main()
