import subprocess
import sys

import pytest

import cubekit


def test_import_is_fast_and_loads_neither_torch_nor_distributed() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import cubekit; "
        "spent = time.perf_counter() - start; "
        "assert spent < 1, spent; "
        "heavy = {'torch', 'distributed', 'matplotlib'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_cube_half_works_without_torch() -> None:
    names = [
        "search",
        "open_archive",
        "open_cube",
        "composite",
        "grid",
        "write",
        "open",
        "load_labels",
        "export",
    ]
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['lightning'] = None; import cubekit; "
        f"[getattr(cubekit, name) for name in {names}]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.torch
def test_every_public_name_resolves_and_is_listed() -> None:
    assert set(dir(cubekit)) == set(cubekit.__all__)
    for name in cubekit.__all__:
        assert callable(getattr(cubekit, name)), name
