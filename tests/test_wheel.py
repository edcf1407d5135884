"""The wheel holds the package and nothing else, and works far from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.environ.get("CUBEKIT_TEST_WHEEL") != "1", reason="builds and installs: make wheel runs it"
    ),
]
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


def test_top_level_names_are_the_package_and_its_record(wheel: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert names == {"cubekit", f"cubekit-{wheel.name.split('-')[1]}.dist-info"}


def test_specifications_travel_as_data_and_tests_do_not(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for kind in ("catalogs", "models", "pipelines"):
        shipped = {path.name for path in (ROOT / kind).glob("*.yaml")}
        packed = {Path(name).name for name in names if name.startswith(f"cubekit/specs/{kind}/")}
        assert shipped <= packed
    assert "cubekit/py.typed" in names
    assert "cubekit/exports/report.html.jinja" in names
    assert not [name for name in names if "test_" in name or name.endswith((".safetensors", ".tif"))]


def test_it_installs_and_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "env"
    empty = tmp_path / "empty"
    empty.mkdir()
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    smoke = (
        "import sys, numpy as np, xarray as xr, cubekit as ck;"
        "from odc.geo.xr import xr_coords;"
        "grid = ck.grid(crs='EPSG:32633', resolution=10, bounds=(0, 0, 640, 640));"
        "coords = xr_coords(grid) | {'band': ['red'], 'time': np.array(['2023-01-01'], 'M8[ns]')};"
        "data = np.arange(64 * 64, dtype='uint16').reshape(1, 1, 64, 64);"
        "cube = xr.Dataset({'data': (('time', 'band', 'y', 'x'), data)}, coords=coords);"
        "ck.write(cube, 'cube.zarr');"
        "assert (ck.open('cube.zarr')['data'].values == data).all();"
        "assert ck.open_catalog().collection('sentinel-2-l2a').band('red').name;"
        "assert 'torch' not in sys.modules;"
        "assert 'site-packages' in ck.__file__"
    )
    strict = ["-W", "error", "-W", "ignore:Use `@` matmul:PendingDeprecationWarning"]  # as in pyproject.toml
    subprocess.run([str(python), *strict, "-c", smoke], check=True, cwd=empty)
    listing = subprocess.run(
        [str(environment / "bin" / "cubekit"), "--help"],
        check=True,
        cwd=empty,
        capture_output=True,
        text=True,
    )
    assert "predict" in listing.stdout
