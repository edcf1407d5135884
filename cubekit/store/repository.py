"""Cubes in Icechunk repositories: every write is one commit, with branches, tags and every earlier state."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import prod
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import xarray as xr
from xarray.coders import CFDatetimeCoder

from cubekit.errors import MissingDependencyError, OptionError, StoreError
from cubekit.progress import progress as bar
from cubekit.security import redact
from cubekit.store.execute import crew, run
from cubekit.store.layout import Layout
from cubekit.store.metadata import skeleton, user_attributes
from cubekit.store.objects import ROOT, Objects
from cubekit.store.plan import digest_of, plan_of
from cubekit.store.regions import all_regions, region_bytes, region_sides, task_of
from cubekit.store.trust import check_trusted
from cubekit.typing import StrPath

SCHEMES = ("icechunk://", "icechunk+s3://")
"""How addresses of repositories begin: a local folder, or a bucket."""

VERSIONS = ("1.", "2.")
"""Releases of Icechunk that were tried: 1.1 with zarr 3.1, 2.3 with zarr 3.4."""

_PLAN = "cubekit_plan"


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    id: str
    """Open it with this behind an ``@``."""

    time: datetime
    message: str


def is_repository(path: StrPath | object) -> bool:
    """Tell addresses of repositories from other paths.

    Parameters
    ----------
    path : path-like
        Such as ``"icechunk:///data/madrid@main"``.

    Returns
    -------
    bool
        Whether it begins like one.
    """
    return str(path).startswith(SCHEMES)


def history(path: StrPath, *, storage_options: Mapping[str, Any] | None = None) -> list[Commit]:
    """List the states of a repository, the latest first.

    Parameters
    ----------
    path : path-like
        ``icechunk:///folder`` or ``icechunk+s3://bucket/key``, with ``@branch``, ``@tag`` or ``@commit``
        behind it; default ``@main``.
    storage_options : mapping, optional
        As for `open_commit`.

    Returns
    -------
    list of Commit
        The last is the empty state that every repository begins with.

    Raises
    ------
    StoreError
        If there is no repository.
    """
    with _told(path):
        repository, version = _repository(path, storage_options, create=False)
        which = _version(repository, version)
        which.pop("as_of", None)
        found = repository.ancestry(**(which or {"branch": "main"}))
        return [Commit(one.id, one.written_at, one.message) for one in found]


def branch(path: StrPath, name: str, *, storage_options: Mapping[str, Any] | None = None) -> None:
    """Begin a branch at a state of a repository.

    Parameters
    ----------
    path : path-like
        Repository and state, such as ``"icechunk:///data/madrid@main"``.
    name : str
        Of the new branch; write to it with ``"icechunk:///data/madrid@name"``.
    storage_options : mapping, optional
        As for `open_commit`.

    Raises
    ------
    StoreError
        If there is no repository, or a branch of this name.
    """
    at = history(path, storage_options=storage_options)[0].id
    with _told(path):
        repository, _ = _repository(path, storage_options, create=False)
        repository.create_branch(name, at)


def open_commit(path: StrPath, *, storage_options: Mapping[str, Any] | None = None) -> xr.Dataset:
    """Open a state of a repository as a lazy cube of stored numbers; `cubekit.open` calls it.

    Parameters
    ----------
    path : path-like
        ``icechunk:///folder`` or ``icechunk+s3://bucket/key``. Behind an ``@`` stands a branch, tag,
        commit, or a date such as ``2026-11-20T10:00`` (UTC; the state of ``main`` then). Default: ``main``.
    storage_options : mapping, optional
        For buckets: ``region``, ``endpoint``, ``access_key_id``, ``secret_access_key``, ``allow_http``.
        Default: the environment.

    Returns
    -------
    xarray.Dataset
        As from `open_store`.

    Raises
    ------
    StoreError
        If there is no repository, no such state, or it is empty.
    SecurityError
        If it asks for a codec, type or size that is not accepted.
    """
    with _told(path):
        repository, version = _repository(path, storage_options, create=False)
        store = repository.readonly_session(**(_version(repository, version) or {"branch": "main"})).store
    check_trusted(Objects(store), str(path), every=True)
    with _told(path):
        cube: xr.Dataset = xr.open_zarr(
            store,
            chunks={},
            consolidated=False,
            mask_and_scale=False,
            decode_times=CFDatetimeCoder(time_unit="ns"),
            decode_timedelta=False,
            decode_coords="all",
        )
        for name, variable in cube.variables.items():
            if variable.ndim <= 1:
                values = variable.to_numpy()
                text = values.dtype.kind in "OT"
                cube[name] = (
                    variable.dims,
                    np.array(values.tolist(), dtype=str) if text else values,
                    variable.attrs,
                )
    cube.attrs = user_attributes(cube.attrs)
    return cube


def write_commit(
    cube: xr.Dataset,
    path: StrPath,
    layout: Layout,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: bool | None = None,
    source: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Write a cube as one commit; `cubekit.write` calls it.

    Readers see the state before until the commit is done, and can open it for ever. A killed write leaves
    nothing to be seen, and nothing to go on with. Blocks are computed by threads.

    Parameters
    ----------
    cube : xarray.Dataset
        As for `write`.
    path : path-like
        Repository, made where there is none, and behind an ``@`` the branch to write to (default ``main``).
    layout : Layout
        From `plan_layout`.
    overwrite : bool, optional
        Commit over another cube; the state before stays in the history.
    workers : int, optional
        Threads. Default: one for each core.
    progress : bool, optional
        Whether to draw a bar.
    source : str, optional
        As for `write`.
    storage_options : mapping, optional
        As for `open_commit`.

    Returns
    -------
    xarray.Dataset
        The committed state, opened.

    Raises
    ------
    StoreError
        If the branch holds another cube and ``overwrite`` is off, is no branch, or somebody else committed to
        it meanwhile.
    """
    documents = skeleton(cube, layout)
    plan = digest_of(plan_of(cube, layout, documents, source))
    with _told(path):
        repository, name = _repository(path, storage_options, create=True)
        name = name or "main"
        if name not in repository.list_branches():
            raise StoreError(
                f"{path}: there is no branch {name!r}. Begin it with cubekit.store.repository.branch."
            )
        commits = list(repository.ancestry(branch=name))
        done = commits[0].metadata.get(_PLAN) == plan
        if not done and len(commits) > 1 and not overwrite:
            raise StoreError(f"{path} holds another cube. overwrite=True commits the new one after it.")
    if done:
        return open_commit(path, storage_options=storage_options)
    with _told(path):
        session = repository.writable_session(name)
        objects = Objects(session.store)
        for key in list(objects.keys()):
            objects.delete(key)
        for key in sorted(documents, key=lambda key: (key != ROOT, not key.endswith(ROOT), key)):
            objects.write(key, documents[key])
    _fill(cube, layout, objects, workers=workers, progress=progress)
    with _told(path):
        session.commit(f"cubekit.write: {', '.join(a.name for a in layout.arrays)}", {_PLAN: plan})
    return open_commit(path, storage_options=storage_options)


def _fill(
    cube: xr.Dataset, layout: Layout, objects: Objects, *, workers: int | None, progress: bool | None
) -> None:
    """Compute and write all regions, on threads: a session belongs to one process."""
    sides = region_sides(cube, layout)
    regions = list(all_regions(layout, sides))
    chunked = (
        cube.chunk({d: s for d, s in sides.items() if d in cube.dims}) if not _lazy(cube, layout) else cube
    )
    lazy = {a.name: chunked.variables[a.name].chunk().data for a in layout.arrays}
    share = sum(prod(array.shape) * array.itemsize for array in layout.arrays) / 1e6 / len(regions)
    fitting = max(1, layout.memory // (3 * region_bytes(layout, sides)))
    with (
        bar("write", share * len(regions), unit="MB", enabled=progress) as advance,
        crew("threads", workers, fitting) as hands,
    ):
        for _ in run(regions, lambda region: task_of(objects, region, layout, lazy), hands):
            advance(share)


def _lazy(cube: xr.Dataset, layout: Layout) -> bool:
    """Tell whether all gridded variables are lazy."""
    return all(cube.variables[array.name].chunks for array in layout.arrays)


def _repository(path: StrPath, options: Mapping[str, Any] | None, *, create: bool) -> tuple[Any, str]:
    """Open a repository; return it and what stands behind the ``@``."""
    ice = _icechunk()
    address, _, version = str(path).partition("@")
    if address.startswith("icechunk://"):
        if options:
            raise OptionError(f"storage_options are for buckets; {address} is a local folder.")
        folder = Path(address.removeprefix("icechunk://")).expanduser().resolve()
        if not create and not folder.is_dir():
            raise StoreError(f"No repository at {folder}: there is nothing. Check the path.")
        storage = ice.local_filesystem_storage(str(folder))
    else:
        storage = _bucket(ice, address, dict(options or {}))
    opened = ice.Repository.open_or_create(storage) if create else ice.Repository.open(storage)
    return opened, version


def _bucket(ice: Any, address: str, options: dict[str, Any]) -> Any:
    """Describe a bucket to Icechunk."""
    parts = urlsplit(address.removeprefix("icechunk+"))
    if parts.query:
        raise StoreError(f"{redact(address)}: an address must not carry credentials. Give storage_options.")
    endpoint = options.pop("endpoint", None)
    try:
        return ice.s3_storage(
            bucket=parts.netloc,
            prefix=parts.path.strip("/"),
            endpoint_url=endpoint,
            force_path_style=endpoint is not None,
            from_env="access_key_id" not in options,
            **options,
        )
    except TypeError:
        raise OptionError(f"storage_options {sorted(options)} are not what Icechunk takes.") from None


def _version(repository: Any, version: str) -> dict[str, Any]:
    """Find out whether a state is named by branch, tag, date or commit."""
    if not version:
        return {}
    if version in repository.list_branches():
        return {"branch": version}
    if version in repository.list_tags():
        return {"tag": version}
    with suppress(ValueError):
        when = datetime.fromisoformat(version)
        return {"branch": "main", "as_of": when if when.tzinfo else when.replace(tzinfo=UTC)}
    return {"snapshot_id": version}


def _icechunk() -> Any:
    """Load Icechunk, if it is a release that was tried."""
    try:
        import icechunk
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "Icechunk repositories need icechunk: pip install 'cubekit[icechunk]'."
        ) from error
    if not icechunk.__version__.startswith(VERSIONS):
        raise StoreError(
            f"icechunk {icechunk.__version__} has not been tried with cubekit; install one that begins with "
            f"{' or '.join(VERSIONS)}"
        )
    return icechunk


@contextmanager
def _told(path: StrPath) -> Iterator[None]:
    """Turn errors of Icechunk into ours: one line, without secrets."""
    ice = _icechunk()
    try:
        yield
    except ice.ConflictError as error:
        raise StoreError(f"{path}: somebody else committed meanwhile. Write again.") from error
    except (ice.IcechunkError, ValueError) as error:
        text = redact(" ".join(str(error).split()))[:300]
        raise StoreError(f"{path}: {text}") from None
