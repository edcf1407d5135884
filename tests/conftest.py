"""Fixtures for every test: where the real data lies, and a quiet, small Dask."""

import os
from pathlib import Path

import dask
import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data and references; skip, or fail where CI demands it, when it is absent."""
    path = Path(os.environ.get("CUBEKIT_SHARED", Path(__file__).parents[2] / "shared"))
    if not path.is_dir():
        message = f"real data not found at {path}; set CUBEKIT_SHARED"
        if os.environ.get("CUBEKIT_REQUIRE_SHARED") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return path.resolve()


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """Keep test workers from crowding each other on small machines."""
    dask.config.set(num_workers=2)
