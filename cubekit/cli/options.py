"""Options that several commands share, and how their text is read."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cubekit.errors import (
    OptionError,
)


class How(StrEnum):
    """Ways to make one image of a period."""

    MEDIAN = "median"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    FIRST = "first"
    GEOMEDIAN = "geomedian"
    EARLIEST = "earliest"
    LATEST = "latest"
    LEAST_CLOUDY = "least_cloudy"
    MAX_INDEX = "max_index"
    MEDOID = "medoid"


class Fill(StrEnum):
    """Ways to fill gaps in time."""

    LINEAR = "linear"
    NEAREST = "nearest"
    WHITTAKER = "whittaker"
    HARMONIC = "harmonic"


class By(StrEnum):
    """What keeps training and test samples apart."""

    BLOCKS = "blocks"
    GROUPS = "groups"
    RANDOM = "random"


class Layout(StrEnum):
    """What a store is read for."""

    SERIES = "series"
    PATCHES = "patches"
    MAPS = "maps"


class OnChange(StrEnum):
    """What happens to dates that a store has from other scenes."""

    UPDATE = "update"
    REPLACE = "replace"
    KEEP = "keep"
    RAISE = "raise"


def numbers(text: str | None, count: int, what: str) -> tuple[float, ...] | None:
    """Parse ``1,2,3,4``."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.replace(" ", "").split(","))
    except ValueError as error:
        raise OptionError(f"{what} {text!r} should be {count} numbers with commas between.") from error
    if len(values) != count:
        raise OptionError(f"{what} {text!r} has {len(values)} numbers, expected {count}.")
    return values


def words(text: str | None) -> list[str] | None:
    """Parse ``red,nir``."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def settings_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Parse ``name=value`` pairs; values are YAML scalars, so numbers become numbers."""
    import yaml

    settings: dict[str, Any] = {}
    for pair in pairs:
        name, found, value = pair.partition("=")
        if not found:
            raise OptionError(f"--set {pair!r} should be name=value.")
        try:
            settings[name.strip()] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError as error:
            raise OptionError(f"--set {pair!r}: the value is not acceptable YAML; quote it.") from error
    return settings


BBoxOption = Annotated[
    str | None, typer.Option("--bbox", help="West,south,east,north in degrees.", metavar="W,S,E,N")
]


OutOption = Annotated[Path, typer.Option("--out", "-o", help="Where the result goes.")]


PluginOption = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="Module of yours that registers networks; found from the current folder."),
]


SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Value for a parameter of the file; may be given several times.", metavar="NAME=VALUE"
    ),
]


SourceArgument = Annotated[Path, typer.Argument(help="Items (JSON from *search*), or a folder of scenes.")]


PatternOption = Annotated[
    list[str] | None, typer.Option(help="For a folder: name pattern, as in 'S2_{date:%Y%m%d}_{band}.tif'.")
]


CollectionOption = Annotated[str | None, typer.Option(help="Collection whose bands and masks apply.")]


BandsOption = Annotated[
    str | None, typer.Option(help="Bands with commas between; default those of the collection.")
]


MaskOption = Annotated[str | None, typer.Option(help="Named mask, such as clouds or clouds+shadows.")]


CrsOption = Annotated[
    str | None, typer.Option(help="Target CRS, such as EPSG:32630; default that of the scenes.")
]


ResolutionOption = Annotated[float | None, typer.Option(help="Pixel size in units of the CRS.")]


EveryOption = Annotated[str | None, typer.Option(help="Composite period: 1MS, 16D, season, dekad, 16D/year.")]


HowOption = Annotated[How, typer.Option(help="How to make one image of a period.")]


IndexOption = Annotated[str, typer.Option(help="Spectral index of --how max_index.")]


AuditOption = Annotated[
    bool, typer.Option("--audit", help="Look at a few scenes: are the Sentinel-2 offsets as stated?")
]


FillOption = Annotated[Fill | None, typer.Option(help="Fill gaps in time.")]
