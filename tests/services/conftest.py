"""Servers that ``make test-services`` installs, one of each for a whole session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.services.servers import Azurite, PgStac, run_azurite, run_pgstac


@pytest.fixture(scope="session")
def tools() -> Path:
    """Return the environment that ``make test-services`` installs the servers into; skip without it."""
    path = Path(os.environ.get("CUBEKIT_SERVICES", Path(__file__).parents[2] / ".venv-services"))
    if not (path / "bin/uvicorn").exists():
        message = f"no servers at {path}: run make test-services, or set CUBEKIT_SERVICES"
        if os.environ.get("CUBEKIT_SERVICES"):
            pytest.fail(message)  # it was promised
        pytest.skip(message)
    return path.resolve()


@pytest.fixture(scope="session")
def pgstac(tools: Path) -> Iterator[PgStac]:
    """Run a STAC API on PostgreSQL."""
    with run_pgstac(tools) as service:
        yield service


@pytest.fixture(scope="session")
def azurite(tools: Path) -> Iterator[Azurite]:
    """Run Azure's blob service."""
    with run_azurite(tools) as service:
        yield service
