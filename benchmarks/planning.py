"""Many scenes become a lazy cube; nothing is computed, no file is opened."""

import copy
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.inputs import BANDS, FINE, Inputs
from benchmarks.measure import Bar, Case, Clock, Facts, Row

ITEMS, MORE = 500, 5000
SIDE, CHUNK = 10980, 2048


def records(inputs: Inputs, count: int) -> list[dict[str, Any]]:
    """Return items of whole Sentinel-2 tiles, copied from one of the archive; their files do not exist."""
    template = inputs.records(1)[0]
    template["assets"] = {band: template["assets"][band] for band in BANDS}
    for band, asset in template["assets"].items():
        asset["proj:shape"] = [SIDE if band in FINE else SIDE // 2] * 2
    found = []
    for number in range(count):
        item = copy.deepcopy(template)
        item["id"] = f"{item['id']}-{number}"
        moment = datetime(2016, 1, 1, 10, 10, tzinfo=UTC) + timedelta(hours=12 * number)
        item["properties"]["datetime"] = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
        found.append(item)
    return found


def _facts(lazy: Any) -> Facts:
    import cloudpickle  # type: ignore[import-untyped]

    graph = lazy.__dask_graph__()
    try:
        size = len(pickle.dumps(graph))
    except (pickle.PicklingError, AttributeError, TypeError):
        size = len(cloudpickle.dumps(graph))
    return {"tasks": len(graph), "pickled_mb": size / 1e6}


def with_cubekit(count: int) -> Case:
    """Parse the items and open the cube."""

    def case(inputs: Inputs, clock: Clock) -> Facts:
        import cubekit as ck

        chunks = {"time": 1, "y": CHUNK, "x": CHUNK}
        ck.open_cube(ck.open_items(records(inputs, 1), root=inputs.folder), bands=BANDS)
        found = records(inputs, count)
        with clock:
            items = ck.open_items(found, root=inputs.folder)
            cube = ck.open_cube(items, bands=BANDS, resampling="bilinear", chunks=chunks)
        return _facts(cube)

    return case


def with_odc(inputs: Inputs, clock: Clock) -> Facts:
    """Parse the items and load them lazily."""
    import odc.stac
    import pystac

    options: dict[str, Any] = {"bands": BANDS, "chunks": {"y": CHUNK, "x": CHUNK}, "resampling": "bilinear"}
    odc.stac.load([pystac.Item.from_dict(record) for record in records(inputs, 1)], **options)
    found = records(inputs, ITEMS)
    with clock:
        items = [pystac.Item.from_dict(record) for record in found]
        cube = odc.stac.load(items, **options)
    return {"tasks": len(cube.__dask_graph__())}


def with_stackstac(inputs: Inputs, clock: Clock) -> Facts:
    """Stack lazily; items stay dictionaries."""
    import importlib

    stackstac = importlib.import_module("stackstac")
    west, north = (records(inputs, 1)[0]["assets"]["B02"]["proj:transform"][axis] for axis in (2, 5))
    options = {
        "assets": list(BANDS),
        "epsg": 32633,
        "resolution": 10,
        "bounds": (west, north - 10 * SIDE, west + 10 * SIDE, north),
        "chunksize": CHUNK,
    }
    stackstac.stack(records(inputs, 1), **options)
    found = records(inputs, ITEMS)
    with clock:
        cube = stackstac.stack(found, **options)
    return {"tasks": len(cube.__dask_graph__())}


ROWS = {
    "planning": Row(
        title=f"Planning: {ITEMS} items x {len(BANDS)} bands of {SIDE} px, blocks of {CHUNK}",
        cases={
            "cubekit": with_cubekit(ITEMS),
            f"cubekit, {MORE:,} items": with_cubekit(MORE),
            "odc-stac dask": with_odc,
            "stackstac": with_stackstac,
        },
        bars=(
            Bar(text="seconds (issue 12)", at_most=1),
            Bar(
                text=f"time of {ITEMS} items over that of {MORE:,}: 0.1 is linear (issue 12)",
                case=f"cubekit, {MORE:,} items",
                against=("cubekit",),
                at_least=0.085,
            ),
        ),
        shown=("tasks", "pickled_mb"),
    )
}
