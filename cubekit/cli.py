"""The command line: each command is a few lines over the public functions.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

import logging
import sys
import textwrap
import traceback
import warnings
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import cubekit
from cubekit.errors import (
    CubekitError,
    GridError,
    IncompleteStoreError,
    OptionError,
    PipelineError,
    SourceError,
    UnknownNameError,
)
from cubekit.progress import silence

if TYPE_CHECKING:
    import xarray as xr

    from cubekit.sources.items import Items

app = typer.Typer(
    name="cubekit",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="From satellite archives to maps: cubes, training, prediction, exports.\n\n"
    "Start with **cubekit demo**; then look at the pipeline file it ran.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

USAGE_ERRORS = (GridError, OptionError, PipelineError, UnknownNameError)
"""What the user typed was wrong: exit code 2."""

INTERRUPTED = 130


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


class _ToStandardError(logging.StreamHandler[Any]):
    """Writes to what standard error is now, not to what it was when the handler was made."""

    @property
    def stream(self) -> Any:
        """Return standard error."""
        return sys.stderr

    @stream.setter
    def stream(self, value: object) -> None:
        """Leave things as they are; the base class sets what it was given."""


def _version(wanted: bool) -> None:  # noqa: FBT001
    """Print the version and stop."""
    if wanted:
        print(f"cubekit {cubekit.__version__}")
        raise typer.Exit


@app.callback()
def common(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress; only results, and what went wrong.")
    ] = False,
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Set up messages before any command runs."""
    logger = logging.getLogger("cubekit")
    handler = _ToStandardError()
    handler.setFormatter(logging.Formatter("==> %(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.DEBUG if debug else logging.INFO)
    silence(quiet)


def _numbers(text: str | None, count: int, what: str) -> tuple[float, ...] | None:
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


def _words(text: str | None) -> list[str] | None:
    """Parse ``red,nir``."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _settings(pairs: Sequence[str]) -> dict[str, Any]:
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


@app.command()
def search(
    collection: Annotated[str, typer.Argument(help="Collection, such as sentinel-2-l2a.")],
    *,
    bbox: BBoxOption = None,
    datetime: Annotated[str | None, typer.Option(help="Day, month, year or range: 2023-05/2023-09.")] = None,
    provider: Annotated[str, typer.Option(help="Provider of the catalog.")] = "earth-search",
    url: Annotated[str | None, typer.Option(help="Address of another STAC API.")] = None,
    max_items: Annotated[int | None, typer.Option(help="Stop after so many items.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Save the items here (JSON).")] = None,
) -> None:
    """Find scenes in a STAC API and list them, or save them for *build*."""
    area: Any = _numbers(bbox, 4, "--bbox")
    items = cubekit.search(
        collection, bbox=area, datetime=datetime, provider=provider, url=url, max_items=max_items
    )
    print(items)
    if out is not None:
        items.save(out)
        print(f"saved to {out}")


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


@app.command()
def plan(  # noqa: PLR0913
    source: SourceArgument,
    *,
    pattern: PatternOption = None,
    collection: CollectionOption = None,
    bands: BandsOption = None,
    mask: MaskOption = None,
    crs: CrsOption = None,
    resolution: ResolutionOption = None,
    bbox: BBoxOption = None,
    every: EveryOption = None,
    how: HowOption = How.MEDIAN,
    index: IndexOption = "NDVI",
    fill: FillOption = None,
    memory: Annotated[str | None, typer.Option(help="Budget, such as 8GB; suggests block sizes.")] = None,
    workers: Annotated[int | None, typer.Option(help="How many blocks at a time.")] = None,
    audit: AuditOption = False,
) -> None:
    """Say what *build* with the same options will take, before a pixel is read."""
    items = _open_scenes(source, pattern, collection)
    cube = _open_cube(items, crs=crs, resolution=resolution, bbox=bbox, bands=bands, mask=mask)
    print(cubekit.plan(_reduce(cube, every, how, index, fill), memory=memory, workers=workers))
    if audit:
        print(cubekit.audit_offsets(items))


@app.command()
def build(  # noqa: PLR0913
    source: SourceArgument,
    *,
    out: OutOption,
    pattern: PatternOption = None,
    collection: CollectionOption = None,
    bands: BandsOption = None,
    mask: MaskOption = None,
    crs: CrsOption = None,
    resolution: ResolutionOption = None,
    bbox: BBoxOption = None,
    every: EveryOption = None,
    how: HowOption = How.MEDIAN,
    index: IndexOption = "NDVI",
    fill: FillOption = None,
    layout: Annotated[Layout, typer.Option(help="What the store will be read for.")] = Layout.SERIES,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a finished store once the new one is whole.")
    ] = False,
    audit: AuditOption = False,
    append: Annotated[
        bool, typer.Option("--append", help="Put the dates into the store at --out, if it is finished.")
    ] = False,
) -> None:
    """Build a cube and write it to Zarr; running it again finishes an interrupted one."""
    items = _open_scenes(source, pattern, collection)
    cube = _open_cube(items, crs=crs, resolution=resolution, bbox=bbox, bands=bands, mask=mask)
    if audit:
        from cubekit.cube.audit import record_offsets

        cube = record_offsets(cube, cubekit.audit_offsets(items))
    cube = _reduce(cube, every, how, index, fill)
    if append and _is_finished(out):
        print(cubekit.append(cube, out))
    else:
        print(cubekit.write(cube, out, layout=layout.value, overwrite=overwrite))


@app.command(name="append")
def append_dates(
    source: SourceArgument,
    store: Annotated[Path, typer.Argument(help="A finished store.")],
    *,
    pattern: PatternOption = None,
    collection: CollectionOption = None,
    on_change: Annotated[
        OnChange, typer.Option(help="What to do with dates that the store has from other scenes.")
    ] = OnChange.UPDATE,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
) -> None:
    """Put new and reprocessed dates into a store, opened with the options of the store."""
    from cubekit.store.append import plan_append

    items = _open_scenes(source, pattern, collection)
    if dry_run:
        print(plan_append(items, store, on_change=on_change.value))
    else:
        print(cubekit.append(items, store, on_change=on_change.value))


def _is_finished(path: Path) -> bool:
    """Tell whether a finished store lies at a path."""
    from cubekit.store.place import look, place_of

    return look(place_of(path)).state == "complete"


def _open_cube(
    items: "Items",
    *,
    crs: str | None,
    resolution: float | None,
    bbox: str | None,
    bands: str | None,
    mask: str | None,
) -> "xr.Dataset":
    """Open items on the grid that the options describe."""
    area: Any = _numbers(bbox, 4, "--bbox")
    target = None
    if crs is not None or resolution is not None or area is not None:
        target = cubekit.grid(crs=crs, resolution=resolution, bbox=area or items.bbox)
    return cubekit.open_cube(items, target, bands=_words(bands), mask=mask)


def _reduce(cube: "xr.Dataset", every: str | None, how: How, index: str, fill: Fill | None) -> "xr.Dataset":
    """Make composites and fill gaps where that is asked for."""
    if every is not None:
        cube = cubekit.composite(cube, every=every, how=how.value, index=index)
    return cube if fill is None else cubekit.fill_gaps(cube, how=fill.value)


def _import_plugins(names: list[str] | None) -> None:
    """Import the user's own modules, which register networks."""
    from importlib import import_module

    for name in names or []:
        sys.path.insert(0, str(Path.cwd()))
        try:
            import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name.partition(".")[0]:
                raise
            raise OptionError(f"--plugin {name!r}: there is no such module in {Path.cwd()}.") from error
        finally:
            sys.path.pop(0)


def _open_scenes(source: Path, pattern: list[str] | None, collection: str | None) -> "Items":
    """Open saved items, or index a folder."""
    if not source.is_dir():
        if pattern:
            raise OptionError(f"--pattern is for a folder of scenes, and {source} is none.")
        return cubekit.open_items(source, collection=collection)
    if not pattern:
        raise OptionError(f"{source} is a folder: say how its files are named with --pattern.")
    return cubekit.open_archive(source, pattern, collection=collection)


@app.command()
def info(path: Annotated[Path, typer.Argument(help="A store, a saved model, or saved items.")]) -> None:
    """Say what a store, model or item file holds."""
    if (path / "model.json").is_file():
        from cubekit.training.card import describe_card

        print(describe_card(cubekit.load_model(path).card))
    elif path.is_dir():
        try:
            print(cubekit.open(path))
        except IncompleteStoreError as error:
            print(cubekit.open(path, allow_incomplete=True))
            print(f"\nNot a finished store of cubekit: {error}")
    elif not path.exists():
        raise SourceError(f"There is nothing at {path}.")
    else:
        print(cubekit.open_items(path))


@app.command()
def look(
    store: Annotated[Path, typer.Argument(help="A store made by *build*.")],
    *,
    out: OutOption,
    point: Annotated[
        str | None, typer.Option(help="Pixel whose series is drawn; default the middle.", metavar="LON,LAT")
    ] = None,
) -> None:
    """Draw a cube: one date, many dates, what was observed when, and the series of one pixel."""
    from cubekit.look.folder import look as draw

    place: Any = _numbers(point, 2, "--point")
    for path in draw(cubekit.open(store), out, point=place, crs="EPSG:4326"):
        print(f"wrote {path}")


@app.command()
def rechunk(
    source: Annotated[str, typer.Argument(help="A Zarr store, its address, or a NetCDF file.")],
    *,
    out: Annotated[str, typer.Option(help="Folder or address of the new store.")],
    layout: Annotated[Layout, typer.Option(help="What the new store will be read for.")] = Layout.SERIES,
    memory: Annotated[str, typer.Option(help="What all workers together may hold.")] = "2GB",
    overwrite: Annotated[
        bool, typer.Option(help="Replace a finished store once the new one is whole.")
    ] = False,
) -> None:
    """Copy a store into another layout in bounded memory; running it again finishes an interrupted one."""
    print(cubekit.plan_rechunk(source, layout.value, memory=memory))
    print(cubekit.rechunk(source, out, layout=layout.value, memory=memory, overwrite=overwrite))


@app.command()
def verify(store: Annotated[Path, typer.Argument(help="A Zarr store.")]) -> None:
    """Read every chunk of a store and name the missing and damaged ones."""
    report = cubekit.verify(store)
    print(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def repair(
    store: Annotated[Path, typer.Argument(help="A Zarr store.")],
    *,
    accept_changed: Annotated[
        bool, typer.Option(help="Where scenes give other pixels than before, take those.")
    ] = False,
) -> None:
    """Read again, from its scenes, what is missing or damaged in a store; the rest is left alone."""
    report = cubekit.repair(store, accept_changed=accept_changed)
    print(report)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def why(
    store: Annotated[Path, typer.Argument(help="A Zarr store.")],
    *,
    x: Annotated[float, typer.Option(help="Place, in the CRS of the store.")],
    y: Annotated[float, typer.Option(help="Place, in the CRS of the store.")],
    time: Annotated[str | None, typer.Option(help="Date, such as 2023-07-14 or 2023-07.")] = None,
    crs: Annotated[str | None, typer.Option(help="CRS of --x and --y, such as EPSG:4326.")] = None,
) -> None:
    """Say where a pixel is from: which scene, which mask, which offset."""
    print(cubekit.why(store, x=x, y=y, time=time, crs=crs))


@app.command()
def diff(
    a: Annotated[Path, typer.Argument(help="A Zarr store.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
) -> None:
    """Compare two stores: grid, bands, dates, options, pixels; exit code 1 where they differ."""
    report = cubekit.diff(a, b)
    print(report)
    if not report.equal:
        raise typer.Exit(1)


@app.command()
def train(  # noqa: PLR0913
    cube: Annotated[Path, typer.Argument(help="A store made by *build*.")],
    *,
    labels: Annotated[str, typer.Option(help="Polygons, points or a raster of codes.")],
    out: OutOption,
    column: Annotated[str, typer.Option(help="Column that holds the class.")] = "class",
    inward: Annotated[float, typer.Option(help="Shrink polygons by so many metres.")] = 0.0,
    network: Annotated[str, typer.Option(help="Name of the network.")] = "tempcnn",
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training samples.")] = 20,
    batch: Annotated[int, typer.Option(min=2, help="Samples per step of training.")] = 256,
    by: Annotated[
        By, typer.Option(help="What stays together in one part: blocks of land, groups (polygons), nothing.")
    ] = By.BLOCKS,
    buffer: Annotated[float, typer.Option(help="Metres between training and other samples.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of split, weights and order.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any other argument of cubekit.fit, such as schedule=cosine.", metavar="NAME=VALUE"
        ),
    ] = None,
    plugin: PluginOption = None,
) -> None:
    """Train a network on labelled pixels of a cube; after Ctrl-C or a crash the same command goes on.

    Prints the scores on the test samples beside those of the baselines, and how honest the probabilities are.
    """
    from cubekit.pipeline.training import save_with_curves, tell_scores
    from cubekit.training.bundle import model_folder
    from cubekit.training.checks import check_fit_options, check_network

    _import_plugins(plugin)
    opened = cubekit.open(cube)
    check_network(network)  # a slip of the pen costs seconds, not a training
    options = check_fit_options(_settings(settings or []), taken=("epochs", "batch", "seed", "out"))
    model_folder(out)
    table = cubekit.load_labels(labels, opened, column=column, inward=inward)
    fitting, valid, test = cubekit.split(opened, table, by=by.value, buffer=buffer, seed=seed)
    model = cubekit.fit(network, fitting, valid, epochs=epochs, batch=batch, seed=seed, out=out, **options)
    save_with_curves(model, out)
    print(tell_scores(model, fitting, test, seed=seed))
    print(f"saved to {out}")


@app.command()
def compare(  # noqa: PLR0913
    cube: Annotated[Path, typer.Argument(help="A store made by *build*.")],
    networks: Annotated[list[str], typer.Argument(help="Names of networks, or folders of saved models.")],
    *,
    labels: Annotated[str, typer.Option(help="Polygons, points or a raster of codes.")],
    out: OutOption,
    column: Annotated[str, typer.Option(help="Column that holds the class.")] = "class",
    inward: Annotated[float, typer.Option(help="Shrink polygons by so many metres.")] = 0.0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training samples.")] = 20,
    batch: Annotated[int, typer.Option(min=2, help="Samples per step of training.")] = 256,
    by: Annotated[By, typer.Option(help="What stays together in one part of the split.")] = By.BLOCKS,
    buffer: Annotated[float, typer.Option(help="Metres between training and other samples.")] = 0.0,
    seeds: Annotated[str, typer.Option(help="Seeds of the trainings; the first also of the split.")] = "0",
    plugin: PluginOption = None,
) -> None:
    """Train several networks on the same split and seeds; one table and one figure, baselines included."""
    from cubekit.training.checks import check_network

    _import_plugins(plugin)
    try:
        dice = [int(part) for part in _words(seeds) or []]
    except ValueError as error:
        raise OptionError(f"--seeds {seeds!r} should be whole numbers with commas between.") from error
    opened = cubekit.open(cube)
    contestants: list[Any] = []
    for name in networks:
        if (Path(name) / "model.json").is_file():
            contestants.append(cubekit.load_model(name))
        else:
            check_network(name)
            contestants.append(name)
    table = cubekit.load_labels(labels, opened, column=column, inward=inward)
    parts = cubekit.split(opened, table, by=by.value, buffer=buffer, seed=dice[0])
    shared = {"epochs": epochs, "batch": batch}
    print(cubekit.compare(contestants, *parts, seeds=dice, settings=shared, out=out).table())
    print(f"saved to {out}")


@app.command("import-weights")
def import_weights(
    file: Annotated[Path, typer.Argument(help="A .pt or .pth file of another program.")],
    *,
    network: Annotated[str, typer.Option(help="Name of the network that the weights are of.")],
    out: OutOption,
    settings: SetOption = None,
    plugin: PluginOption = None,
) -> None:
    """Read foreign weights without running code, show which tensor goes where, and save them as safetensors.

    Give the network's arguments with --set, as in --set bands=6. Start a training from the result with
    weights= of cubekit.fit, or --set weights=FILE of *train*.
    """
    from safetensors.torch import save_file

    from cubekit.training.exchange import import_weights as read_foreign

    _import_plugins(plugin)
    if out.suffix != ".safetensors":
        raise OptionError(f"--out {str(out)!r} should end in .safetensors.")
    found = read_foreign(file, network, arguments=_settings(settings or []))
    state = {name: value.contiguous() for name, value in found.network.state_dict().items()}
    width = max(map(len, found.names))
    for name, own in found.names.items():
        print(f"{name:<{width}}  ->  {own}  {tuple(state[own].shape)}")
    save_file(state, out)
    print(f"saved {len(found.names)} tensors to {out}")


@app.command()
def predict(  # noqa: PLR0913
    model: Annotated[Path, typer.Argument(help="A saved model.")],
    cube: Annotated[Path, typer.Argument(help="A store with the bands and dates the model was trained on.")],
    *,
    out: OutOption,
    member: Annotated[
        list[Path] | None, typer.Option(help="Another saved model, several times: their average is taken.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="threads, processes, or the address of a Dask scheduler.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="How many blocks at a time.")] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(
            "--output", help="Layer, several times: class, probability, entropy, margin, fractions, value."
        ),
    ] = None,
    tile: Annotated[int | None, typer.Option(min=1, help="Pixels a side of one task's block.")] = None,
    passes: Annotated[int, typer.Option(min=0, help="Networks to draw for Monte-Carlo dropout.")] = 0,
    turning: Annotated[
        str, typer.Option(help="Average over mirror images: none, flips, rotations.")
    ] = "none",
    preview: Annotated[
        Path | None, typer.Option(help="Picture (.png), refreshed while the map is made.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace another prediction once the new one is whole.")
    ] = False,
    plugin: PluginOption = None,
) -> None:
    """Predict a whole cube with Dask; running it again finishes an interrupted run."""
    _import_plugins(plugin)
    loaded = [cubekit.load_model(folder) for folder in (model, *(member or []))]
    opened = cubekit.open(cube)
    options: dict[str, Any] = {"outputs": outputs, "tile": tile, "passes": passes, "turning": turning}
    cost = cubekit.plan_prediction(loaded, opened, workers=workers, **options)
    print(cost, file=sys.stderr)
    made = cubekit.predict(
        loaded,
        opened,
        out=out,
        **options,
        scheduler=scheduler,
        workers=workers,
        overwrite=overwrite,
        preview=preview,
    )
    print(made)


@app.command()
def smooth(
    store: Annotated[Path, typer.Argument(help="A prediction with class and probability.")],
    *,
    out: OutOption,
    method: Annotated[str, typer.Option(help="bayes, majority, or none.")] = "bayes",
    size: Annotated[int, typer.Option(min=3, help="Pixels a side of the neighbourhood; odd.")] = 7,
    smoothness: Annotated[float, typer.Option(help="Prior variance of logits: larger is smoother.")] = 20.0,
    share: Annotated[float, typer.Option(help="Share of the neighbours that is heard.")] = 0.5,
    sieve: Annotated[int, typer.Option(min=0, help="Merge patches of fewer pixels.")] = 0,
    overwrite: Annotated[
        bool, typer.Option(help="Replace what lies there once the new map is whole.")
    ] = False,
) -> None:
    """Take specks out of a class map."""
    wanted: Any = None if method == "none" else method
    made = cubekit.smooth(
        cubekit.open(store), method=wanted, size=size, smoothness=smoothness, share=share, sieve=sieve
    )
    print(cubekit.write(made, out, layout="maps", overwrite=overwrite))


@app.command()
def export(
    store: Annotated[Path, typer.Argument(help="A cube or a prediction.")],
    out: Annotated[Path, typer.Argument(help="Target; the ending says the form: .tif .png .zarr .json.")],
    *,
    variable: Annotated[str | None, typer.Option(help="Which variable; default the main one.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace what lies there.")] = False,
) -> None:
    """Write a cube or prediction as COG, picture, Zarr or STAC item."""
    cubekit.export(cubekit.open(store), out, variable=variable, overwrite=overwrite)
    print(f"wrote {out}")


@app.command()
def run(
    pipeline: Annotated[str, typer.Argument(help="A pipeline file, or the name of one that ships.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder; default runs/NAME.")] = None,
    settings: SetOption = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a cube made from other scenes or settings.")
    ] = False,
) -> None:
    """Run a whole job from scenes to a map and its report; run it again to finish an interrupted one."""
    result = cubekit.run(pipeline, out=out, settings=_settings(settings or []), overwrite=overwrite)
    print(result.summary())


@app.command()
def demo(
    *,
    out: OutOption = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the sample landscape.")] = 0,
) -> None:
    """Make a sample archive, serve it as a STAC API, and turn it into a land-cover map."""
    from cubekit.demo import run_demo

    run_demo(out, seed=seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after ``cubekit``; default those of the process.

    Returns
    -------
    int
        0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    if debug:  # accepted anywhere, though it belongs to the program
        words = ["--debug", *(word for word in words if word != "--debug")]
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        try:
            code = app(args=words, standalone_mode=False, prog_name="cubekit")
        except (typer.Abort, KeyboardInterrupt):
            code = INTERRUPTED
        except Exception as error:  # noqa: BLE001  (the last stop before the user)
            return _failed(error, debug=debug)
        finally:
            silence(False)  # whoever calls main() from Python hears progress again
    if code == INTERRUPTED:  # typer turns Ctrl-C into a return value
        return _say("Interrupted. The same command again goes on with an unfinished store or training.", 130)
    return code if isinstance(code, int) else 0


def _failed(error: Exception, *, debug: bool) -> int:
    """Tell an error, with its traceback where asked for, and return the exit code."""
    if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's, of which typer may carry a copy
        error.show()
        return int(error.exit_code)
    if debug:
        traceback.print_exception(error)
    if not isinstance(error, CubekitError):
        return _say(f"Unexpected {type(error).__name__}: {error}. Add --debug to see where.", 1)
    message = str(error).replace("overwrite=True", "--overwrite")
    return _say(f"{type(error).__name__}: {message}", 2 if isinstance(error, USAGE_ERRORS) else 1)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning as a paragraph, without the line of code that it comes from."""
    _say(f"Warning: {message}", 0)


def _say(message: str, code: int) -> int:
    """Print a paragraph to standard error, lists line by line, and return an exit code."""
    lines = [
        textwrap.fill(line, width=100, break_long_words=False, break_on_hyphens=False)
        for line in message.splitlines()
    ]
    print("\n".join(lines), file=sys.stderr)
    return code


def run_process() -> None:
    """Entry point of the ``cubekit`` program."""
    raise SystemExit(main())
