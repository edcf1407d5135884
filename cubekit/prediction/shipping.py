"""How a model reaches the tasks that use it: by digest, loaded once per process, never sent per task."""

import atexit
import hashlib
import json
import platform
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import current_process
from pathlib import Path
from typing import Any

from dask.base import tokenize

from cubekit.errors import BundleError, StoreError


class ShippedModel:
    """A model that a Dask graph may hold: its token is the model's digest, its pickle the bundle's path.

    Threads share the model itself. A process that receives a task loads the bundle once and keeps it: from
    what was handed to it (`receive`), or from the path. A model that cannot be saved travels by value.

    Parameters
    ----------
    model : SeriesModel or PatchModel
        Trained model. ``save(folder)`` is used where it has one.
    """

    def __init__(self, model: Any) -> None:
        self._model: Any = model
        self.token = model_digest(model)
        self._folder: str | None = None

    def get(self) -> Any:
        """Return the model, loading its bundle on first use in this process."""
        if self._model is None:
            self._model = _load(self.token, str(self._folder))
        return self._model

    def files(self) -> dict[str, bytes] | None:
        """Return the files of the bundle; None for a model that cannot be saved."""
        if not hasattr(self._model, "save"):
            return None
        folder = Path(_saved(self.token, self._model))
        return {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }

    def __dask_tokenize__(self) -> tuple[str, str]:
        return type(self).__name__, self.token

    def __getstate__(self) -> dict[str, Any]:
        if self._folder is None and hasattr(self._model, "save"):
            self._folder = _saved(self.token, self._model)
        kept = self._model if self._folder is None else None
        return {"token": self.token, "_folder": self._folder, "_model": kept}


def model_digest(model: Any) -> str:
    """Return what tells a model from every other: the same for the same weights and contract, anywhere.

    Parameters
    ----------
    model : SeriesModel or PatchModel
        ``digest()`` where it has one; else its card's contract and its network's weights; else Dask's token.

    Returns
    -------
    str
        Hexadecimal.
    """
    if hasattr(model, "digest"):
        return str(model.digest())
    if not (hasattr(model, "network") and hasattr(model, "card")):
        return str(tokenize(model))
    state = hashlib.sha256(json.dumps(model.card.contract(), sort_keys=True).encode())
    for holder in (model, model.card):  # calibration changes what is predicted, not what was trained
        if temperature := getattr(holder, "temperature", None):
            state.update(f"temperature {float(temperature)!r}".encode())
    for name, values in sorted(model.network.state_dict().items()):
        state.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        state.update(values.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()


_SAVED: dict[str, str] = {}
"""Folders of the bundles that this process has saved for others, by digest."""


def _saved(token: str, model: Any) -> str:
    """Save a bundle where other processes of this machine find it, once, until this process ends.

    Not only while the graph lives: a cluster may ask for it after the caller has dropped the collection.
    """
    if token not in _SAVED:
        root = Path(tempfile.mkdtemp(prefix="cubekit-model-"))
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        model.save(root / "model")
        _SAVED[token] = str(root / "model")
    return _SAVED[token]


_RECEIVED: dict[str, Mapping[str, bytes]] = {}
"""Files of the bundles that this process was handed, by digest."""


def receive(token: str, files: Mapping[str, bytes]) -> None:
    """Keep the files of a bundle for the tasks of this process that will ask for it.

    Parameters
    ----------
    token : str
        Digest of the model.
    files : mapping
        Name in the bundle's folder to content.
    """
    _RECEIVED[token] = dict(files)


@lru_cache(maxsize=4)
def _load(token: str, folder: str) -> Any:
    """Load a bundle once per process, onto its GPU where it has one."""
    from cubekit.training.bundle import load_model

    if token in _RECEIVED:
        with tempfile.TemporaryDirectory(prefix="cubekit-model-") as scratch:
            for name, content in _RECEIVED[token].items():
                path = Path(scratch, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            model = load_model(scratch)
    elif Path(folder).is_dir():
        model = load_model(folder)
    else:
        raise BundleError(
            f"The model is not on host {platform.node()}: {folder} is no folder there. Give the cluster to "
            "predict as scheduler=, or make its client the active one first; then the model is handed out."
        )
    torch: Any = sys.modules["torch"]
    return model.to("cuda") if torch.cuda.is_available() else model


@contextmanager
def shared_with(scheduler: Any, models: Sequence[ShippedModel]) -> Iterator[Any]:
    """Hand models to the workers of a cluster, those that join later included, while the block runs.

    Parameters
    ----------
    scheduler : None, "threads", "processes", address or distributed.Client
        Who computes; None takes the active client, if there is one.
    models : sequence of ShippedModel
        What they need.

    Yields
    ------
    None, str or distributed.Client
        Who computes: an address has become a client.

    Raises
    ------
    StoreError
        If no scheduler answers at an address.
    """
    if (isinstance(scheduler, str) and "://" not in scheduler) or (
        scheduler is None and "distributed" not in sys.modules
    ):
        yield scheduler
        return
    from distributed import Client, default_client

    from cubekit.prediction.cluster import Bundles

    own = isinstance(scheduler, str)
    try:
        client = Client(scheduler, set_as_default=False) if own else scheduler or default_client()  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        if scheduler is None:  # no client is active
            yield None
            return
        raise StoreError(f"No Dask scheduler answers at {scheduler}: {error}. Is it running?") from error
    files = {model.token: content for model in models if (content := model.files()) is not None}
    plugin = Bundles(files)
    client.register_plugin(plugin)
    try:
        yield client
    finally:
        if own:
            client.close()


class _TorchThreads:
    """Holds torch at few threads while any task of this process predicts, then gives the others back.

    ``torch.set_num_threads`` is partly per thread (OpenMP) and partly per process (MKL), so each task sets
    its own thread, and only the last one to leave restores what the first found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 1

    @contextmanager
    def limited(self, count: int = 1) -> Iterator[None]:
        """Let torch compute with so many threads; with one in a process of Dask, of which there are several.

        Parameters
        ----------
        count : int, optional
            Threads. Default: one, as Dask's workers are the parallelism.

        Yields
        ------
        None
            While the limit holds.
        """
        torch: Any = sys.modules.get("torch")  # a model without torch must not load it
        if torch is None:
            yield
            return
        with self._lock:
            if self._inside == 0:
                self._before = _threads_of_process(torch)
            torch.set_num_threads(count if current_process().name == "MainProcess" else 1)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    torch.set_num_threads(self._before)


def _threads_of_process(torch: Any) -> int:
    """Return the number of threads that new threads compute with.

    A pool's thread keeps a number of its own from its last task, so one is asked that has none yet.
    """
    found: list[int] = []
    asked = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    asked.start()
    asked.join()
    return found[0]


torch_threads = _TorchThreads().limited
"""Context in which torch computes with one thread, or with as many as workers would stand idle."""
