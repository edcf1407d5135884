"""A cluster of hosts that share a network and a folder, made with network namespaces, run as a user would."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.testing as npt
import pandas as pd
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

torch: Any = pytest.importorskip("torch")

from cubekit.batching.normalise import Normalisation  # noqa: E402
from cubekit.cube.contract import Encoding  # noqa: E402
from cubekit.labels import ClassTable  # noqa: E402
from cubekit.nn.registry import create  # noqa: E402
from cubekit.prediction.predict import predict  # noqa: E402
from cubekit.store.open import open_store  # noqa: E402
from cubekit.store.write import write  # noqa: E402
from cubekit.training.bundle import Model  # noqa: E402
from cubekit.training.card import DataRecord, ModelCard  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.services, pytest.mark.timeout(300)]

CODING = Encoding(dtype="uint16", nodata=0, scale=1e-4, offset=-0.1)
TIMES = pd.date_range("2023-01-01", periods=3, freq="MS")
BANDS = ("blue", "red")
TAG = f"ck{os.getpid() % 100000}"
NETWORK = "10.213.77"
SCHEDULER = f"tcp://{NETWORK}.11:8786"
DASK = [sys.executable, "-m", "dask"]


def sh(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=20)


@contextmanager
def hosts(count: int) -> Iterator[list[str]]:
    """Make hosts that reach each other over a bridge, each with its own network stack."""
    with ExitStack() as undo:
        bridge = f"{TAG}br"
        sh("ip", "link", "add", bridge, "type", "bridge")
        undo.callback(sh, "ip", "link", "del", bridge)
        sh("ip", "link", "set", bridge, "up")
        names = []
        for number in range(1, count + 1):
            name, inside, outside = f"{TAG}h{number}", f"{TAG}i{number}", f"{TAG}o{number}"
            sh("ip", "netns", "add", name)
            undo.callback(sh, "ip", "netns", "del", name)
            sh("ip", "link", "add", inside, "type", "veth", "peer", "name", outside)
            sh("ip", "link", "set", outside, "master", bridge, "up")
            sh("ip", "link", "set", inside, "netns", name)
            inner = ("ip", "netns", "exec", name, "ip")
            sh(*inner, "addr", "add", f"{NETWORK}.{10 + number}/24", "dev", inside)
            sh(*inner, "link", "set", inside, "up")
            sh(*inner, "link", "set", "lo", "up")
            names.append(name)
        yield names


@contextmanager
def running(host: str, *words: str, log: Path, hidden: tuple[Path, ...] = ()) -> Iterator[Any]:
    """Run a command on a host that does not see some folders."""
    hide = " && ".join(["true", *(f"mount -t tmpfs none '{folder}'" for folder in hidden)])
    command = ["ip", "netns", "exec", host, "unshare", "-m", "sh", "-c", f'{hide} && exec "$@"', "sh", *words]
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment())
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def environment(**more: str) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return os.environ | {"PYTHONPATH": root, "OMP_NUM_THREADS": "1"} | more


@pytest.fixture(autouse=True)
def _possible() -> None:
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for tool in ("ip", "unshare", "mount"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    probe = subprocess.run(["ip", "netns", "add", f"{TAG}probe"], check=False, capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"network namespaces cannot be made: {probe.stderr.strip()}")
    sh("ip", "netns", "del", f"{TAG}probe")


def make_model(network: str, arguments: dict[str, Any]) -> Model:
    torch.manual_seed(0)
    names = ["water", "forest", "crop"]
    card = ModelCard(
        network=network,
        arguments=arguments,
        task="classify",
        bands=BANDS,
        times=tuple(str(time.date()) for time in TIMES),
        encoding=CODING,
        normalisation=Normalisation(method="percentile", bands=BANDS, low=(0.0,) * 2, high=(0.4,) * 2),
        classes=ClassTable.of(names),
        crs="EPSG:32630",
        resolution=10.0,
        parameters=1,
        data=DataRecord(digest="0", train=1, valid=1, dropped=0, train_counts=(1, 1, 1), extent=None),
        settings={},
        metrics={},
        history=(),
        versions={},
        created="2023-01-01T00:00:00Z",
    )
    return Model(create(network, **arguments), card)


def make_cube(folder: Path) -> xr.Dataset:
    rng = np.random.default_rng(0)
    stored = rng.integers(1001, 6000, size=(3, 2, 700, 1100)).astype("uint16")
    stored[:, :, :90, :200] = 0
    box = GeoBox((700, 1100), Affine(10, 0, 4e5, 0, -10, 4.5e6), "EPSG:32630")
    data = xr.DataArray(stored, dims=("time", "band", "y", "x"), attrs=CODING.attrs())
    coords = xr_coords(box) | {"time": TIMES, "band": list(BANDS)}
    return write(
        xr.Dataset({"data": data}).assign_coords(coords),
        folder / "cube.zarr",
        layout={"y": 128, "x": 128},
        progress=False,
    )


def test_a_map_made_by_four_hosts_is_the_one_made_by_one(tmp_path: Path) -> None:
    model = make_model("unet", {"bands": 2, "steps": 3, "classes": 3, "width": 4, "depth": 2})
    private, shared = tmp_path / "private", tmp_path / "shared"
    for folder in (private, shared):
        folder.mkdir()
    model.save(private / "model")
    cube = make_cube(shared)
    expected = predict(model, cube, tile=256).compute()
    with ExitStack() as stack:
        one, two, three, client = stack.enter_context(hosts(4))
        logs = [tmp_path / f"{name}.log" for name in ("scheduler", "worker2", "worker3", "client")]
        address = ["--host", f"{NETWORK}.11", "--port", "8786", "--no-dashboard"]
        stack.enter_context(running(one, *DASK, "scheduler", *address, log=logs[0], hidden=(private,)))
        workers = [
            stack.enter_context(
                running(
                    host,
                    *(*DASK, "worker", SCHEDULER, "--nthreads", "1", "--no-dashboard"),
                    *("--death-timeout", "60", "--local-directory", str(tmp_path / host)),
                    log=log,
                    hidden=(private,),
                )
            )
            for host, log in ((two, logs[1]), (three, logs[2]))
        ]
        arguments = ["predict", private / "model", shared / "cube.zarr", "--out", shared / "map.zarr"]
        code = "from cubekit.cli import run_process; run_process()"
        words = [sys.executable, "-c", code, *map(str, arguments), "--tile", "256", "--scheduler", SCHEDULER]
        with running(client, *words, log=logs[3]) as job:
            deadline = time.monotonic() + 150
            while job.poll() is None and time.monotonic() < deadline:
                time.sleep(0.5)
        said = "\n".join(log.read_text() for log in logs)
        assert job.returncode == 0, said
        assert all(worker.poll() is None for worker in workers), said
    found = open_store(shared / "map.zarr")
    for name in ("class", "probability"):
        npt.assert_array_equal(found[name].to_numpy(), expected[name].to_numpy())
    assert all("Registered to" in log.read_text() for log in logs[1:3])
