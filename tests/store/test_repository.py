from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from cubekit.errors import OptionError, StoreError
from cubekit.store import repository
from cubekit.store.open import open_store
from cubekit.store.repository import branch, history
from cubekit.store.write import write

icechunk = pytest.importorskip("icechunk")

CubeMaker = Callable[..., xr.Dataset]
LAYOUT = {"y": (16, 64), "x": (16, 64)}


def test_commits_branches_and_time_travel(make_cube: CubeMaker, tmp_path: Path) -> None:
    path, first, second = f"icechunk://{tmp_path}/repo", make_cube(), make_cube(seed=1, times=5)
    opened = write(first, path, layout=LAYOUT)
    xr.testing.assert_identical(opened.compute(), first.compute())
    assert opened["data"].dtype == "uint16"
    before = history(path)[0]
    write(first, path, layout=LAYOUT)
    assert len(history(path)) == 2, "the same cube again is no new commit"
    with pytest.raises(StoreError, match="overwrite=True"):
        write(second, path, layout=LAYOUT)
    branch(path, "trial")
    write(second, f"{path}@trial", layout=LAYOUT, overwrite=True)
    xr.testing.assert_identical(open_store(path).compute(), first.compute())
    xr.testing.assert_identical(open_store(f"{path}@trial").compute(), second.compute())
    write(second, path, layout=LAYOUT, overwrite=True)
    xr.testing.assert_identical(open_store(path).compute(), second.compute())
    for version in (before.id, before.time.isoformat()):
        xr.testing.assert_identical(open_store(f"{path}@{version}").compute(), first.compute())
    assert history(path)[0].message.startswith("cubekit.write")


def test_a_failed_write_is_never_seen(make_cube: CubeMaker, tmp_path: Path) -> None:
    path, first = f"icechunk://{tmp_path}/repo", make_cube()
    write(first, path)

    def failing(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("no more")

    broken = first.assign(
        data=first["data"].copy(data=first["data"].data.map_blocks(failing, dtype="uint16"))
    )
    with pytest.raises(StoreError, match="no more"):
        write(broken, path, overwrite=True)
    assert len(history(path)) == 2
    xr.testing.assert_identical(open_store(path).compute(), first.compute())


def test_two_writers_conflict(make_cube: CubeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"icechunk://{tmp_path}/repo"
    write(make_cube(), path)
    fill = repository._fill  # noqa: SLF001

    def meanwhile(*arguments: object, **hands: object) -> None:
        monkeypatch.setattr(repository, "_fill", fill)
        write(make_cube(seed=2), path, overwrite=True)
        fill(*arguments, **hands)  # type: ignore[arg-type]

    monkeypatch.setattr(repository, "_fill", meanwhile)
    with pytest.raises(StoreError, match="committed meanwhile"):
        write(make_cube(seed=1), path, overwrite=True)
    xr.testing.assert_identical(open_store(path).compute(), make_cube(seed=2).compute())


def test_what_is_refused(make_cube: CubeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"icechunk://{tmp_path}/repo"
    with pytest.raises(StoreError, match="there is nothing"):
        open_store(path)
    write(make_cube(), path)
    with pytest.raises(StoreError, match="repo@nonsense"):
        open_store(f"{path}@nonsense")
    with pytest.raises(StoreError, match="no branch 'other'"):
        write(make_cube(), f"{path}@other")
    with pytest.raises(OptionError, match="by threads"):
        write(make_cube(), path, scheduler="processes")
    monkeypatch.setattr(icechunk, "__version__", "9.0.0")
    with pytest.raises(StoreError, match=r"icechunk 9\.0\.0 has not been tried"):
        open_store(path)
