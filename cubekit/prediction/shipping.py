"""How a model reaches the tasks that use it: by digest, loaded once per process, never sent per task."""

import atexit
import hashlib
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from dask.base import tokenize

from cubekit.typing import FloatArray


class SeriesModel(Protocol):
    """What prediction asks of a model of pixel series; :class:`cubekit.training.bundle.Model` is one."""

    def probabilities(self, x: FloatArray, /) -> FloatArray:
        """Return class probabilities.

        Parameters
        ----------
        x : numpy.ndarray
            Physical series ``(n, t, c)``, NaN where there is no data.

        Returns
        -------
        numpy.ndarray
            ``(n, classes)``.
        """


class ShippedModel:
    """A model that a Dask graph may hold: its token is the model's digest, its pickle the bundle's path.

    Threads share the model itself. A process that receives a task loads the bundle once and keeps it. A model
    that cannot be saved travels by value.

    Parameters
    ----------
    model : SeriesModel
        Trained model. ``save(folder)`` is used where it has one.
    """

    def __init__(self, model: SeriesModel) -> None:
        self._model: SeriesModel | None = model
        self.token = model_digest(model)
        self._folder: str | None = None

    def get(self) -> SeriesModel:
        """Return the model, loading its bundle on first use in this process."""
        if self._model is None:
            self._model = _load(self.token, str(self._folder))
        return self._model

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
    model : SeriesModel
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


@lru_cache(maxsize=2)
def _load(token: str, folder: str) -> SeriesModel:
    """Load a bundle once per process; the token keeps bundles at one path apart."""
    del token
    from cubekit.training.bundle import load_model

    model: SeriesModel = load_model(folder)
    return model


class _TorchThreads:
    """Holds torch at one thread while any task of this process predicts, then gives the others back.

    ``torch.set_num_threads`` is partly per thread (OpenMP) and partly per process (MKL), so each task sets
    its own thread, and only the last one to leave restores what the first found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 1

    @contextmanager
    def single(self) -> Iterator[None]:
        torch: Any = sys.modules.get("torch")  # a model without torch must not load it
        if torch is None:
            yield
            return
        with self._lock:
            if self._inside == 0:
                self._before = _threads_of_process(torch)
            torch.set_num_threads(1)
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


one_torch_thread = _TorchThreads().single
"""Context in which torch computes with one thread: Dask's workers are the parallelism."""
