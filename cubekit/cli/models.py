"""Commands from a cube to a map: train, compare, predict, smooth, export."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import cubekit
from cubekit.cli.app import app
from cubekit.cli.options import (
    By,
    OutOption,
    PluginOption,
    SetOption,
    settings_of,
    words,
)
from cubekit.errors import (
    OptionError,
)


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
    from cubekit.batching.extract import extract
    from cubekit.pipeline.training import save_with_curves, tell_scores
    from cubekit.training.checks import check_fit_options, check_network
    from cubekit.training.folder import model_folder

    _import_plugins(plugin)
    opened = cubekit.open(cube)
    check_network(network)  # a slip of the pen costs seconds, not a training
    options = check_fit_options(
        settings_of(settings or []), taken=("epochs", "batch", "seed", "out", "split")
    )
    model_folder(out)
    table = cubekit.load_labels(labels, opened, column=column, inward=inward)
    samples = extract(opened, table)
    split = cubekit.plan_split(samples, by=by.value, buffer=buffer, seed=seed)
    fitting, valid, test = split.apply(samples)
    model = cubekit.fit(
        network, fitting, valid, epochs=epochs, batch=batch, seed=seed, out=out, split=split, **options
    )
    save_with_curves(model, out)
    print(tell_scores(model, fitting, test, seed=seed))
    print(f"saved to {out}")


@app.command()
def compare(  # noqa: PLR0913
    source: Annotated[
        str, typer.Argument(help="A store made by *build*, or a pipeline file that names networks.")
    ],
    networks: Annotated[
        list[str] | None, typer.Argument(help="For a store: names of networks, or folders of saved models.")
    ] = None,
    *,
    labels: Annotated[str | None, typer.Option(help="Polygons, points or a raster of codes.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Where the result goes.")] = None,
    settings: SetOption = None,
    demo: Annotated[
        bool, typer.Option("--demo", help="For a file: make its sample data, and compare on them.")
    ] = False,
    column: Annotated[str, typer.Option(help="Column that holds the class.")] = "class",
    inward: Annotated[float, typer.Option(help="Shrink polygons by so many metres.")] = 0.0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training samples.")] = 20,
    batch: Annotated[int, typer.Option(min=2, help="Samples per step of training.")] = 256,
    by: Annotated[By, typer.Option(help="What stays together in one part of the split.")] = By.BLOCKS,
    buffer: Annotated[float, typer.Option(help="Metres between training and other samples.")] = 0.0,
    seeds: Annotated[str, typer.Option(help="Seeds of the trainings; the first also of the split.")] = "0",
    plugin: PluginOption = None,
) -> None:
    """Train several networks on the same split and seeds; one table and one figure, baselines included.

    A pipeline file says the rest itself: its scenes, labels, split, and the networks under *compare*.
    """
    from cubekit.batching.extract import extract
    from cubekit.training.checks import check_network

    _import_plugins(plugin)
    if not networks:
        told = settings_of(settings or [])
        if demo:
            from cubekit.demo import compare_demo

            print(compare_demo(out or Path("demo"), source, settings=told).table())
        else:
            print(cubekit.compare_pipeline(source, out=out, settings=told).table())
        return
    if labels is None or out is None:
        raise OptionError("To compare networks on a store, give --labels and --out.")
    try:
        dice = [int(part) for part in words(seeds) or []]
    except ValueError as error:
        raise OptionError(f"--seeds {seeds!r} should be whole numbers with commas between.") from error
    opened = cubekit.open(source)
    contestants: list[Any] = []
    for name in networks:
        if (Path(name) / "model.json").is_file():
            contestants.append(cubekit.load_model(name))
        else:
            check_network(name)
            contestants.append(name)
    table = cubekit.load_labels(labels, opened, column=column, inward=inward)
    samples = extract(opened, table)
    split = cubekit.plan_split(samples, by=by.value, buffer=buffer, seed=dice[0])
    shared = {"epochs": epochs, "batch": batch}
    found = cubekit.compare(
        contestants, *split.apply(samples), seeds=dice, settings=shared, split=split, out=out
    )
    print(found.table())
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
    found = read_foreign(file, network, arguments=settings_of(settings or []))
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


@app.command("predict-table")
def predict_table(  # noqa: PLR0913
    model: Annotated[Path, typer.Argument(help="A saved model of pixel series.")],
    table: Annotated[Path, typer.Argument(help="Pixel-months from Earth Engine, CSV or Parquet.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV: lat, lon, predicted_class, probability.")],
    map_out: Annotated[
        Path | None,
        typer.Option("--map", help="COG (.tif) or picture (.png) as well, if the pixels lie on a grid."),
    ] = None,
    date: Annotated[str, typer.Option(help="Column of the date.")] = "image_date",
    scale: Annotated[float, typer.Option(help="Factor that makes reflectance 0-1 of the bands.")] = 1e-4,
    probabilities: Annotated[bool, typer.Option(help="A column for the probability of each class.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace what lies there.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Predict the class of every pixel of a table, and draw the map where the pixels lie on a grid."""
    from cubekit.prediction.places import map_of_places
    from cubekit.prediction.table import check_csv, without_shares, write_csv

    _import_plugins(plugin)
    loaded = cubekit.load_model(model)
    check_csv(out, overwrite=overwrite)
    frame = cubekit.predict_table(loaded, table, date=date, scale=scale, probabilities=True)
    drawn = None if map_out is None else map_of_places(frame, loaded.card.classes)
    write_csv(frame if probabilities else without_shares(frame), out)
    counts = frame["predicted_class"].value_counts(dropna=False)
    print("\n".join(f"{count:>9,}  {name}" for name, count in counts.items()))
    print(f"wrote {out}")
    if drawn is not None and map_out is not None:
        cubekit.export(drawn, map_out, overwrite=overwrite)
        print(f"wrote {map_out}")


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
