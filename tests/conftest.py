"""Fixtures for every test: where the real data lies, and a quiet, small Dask."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dask
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as jobs in the background start: Ctrl-C is tested too
    signal.signal(signal.SIGINT, signal.default_int_handler)

if TYPE_CHECKING:
    from cubekit.testing.archive import SampleArchive


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
    with contextlib.suppress(ImportError):  # several threads wait for each other on such small networks
        import torch

        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_level() -> Iterator[None]:
    """Undo what ``--quiet`` and ``--debug`` of commands run inside a test set for the whole process."""
    logger = logging.getLogger("cubekit")
    logger.setLevel(logging.NOTSET)  # fixtures of a module run commands too
    yield
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def sample_archive(tmp_path_factory: pytest.TempPathFactory) -> "SampleArchive":
    """Return a small sample archive: two overlapping scenes of 1.4 km, twelve dates."""
    from cubekit.testing.archive import write_sample_archive

    folder = tmp_path_factory.mktemp("sample") / "demo" / "archive"
    return write_sample_archive(folder, size=140, dates=12, progress=False)
