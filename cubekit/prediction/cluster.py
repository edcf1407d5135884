"""What the workers of a Dask cluster are handed before they predict."""

from collections.abc import Mapping
from typing import Any

from distributed import WorkerPlugin

from cubekit.prediction.shipping import receive


class Bundles(WorkerPlugin):
    """Bundles for every worker, one that joins later included: each gets the bytes once, by the scheduler.

    Parameters
    ----------
    files : mapping
        Digest of a model to the files of its bundle.
    """

    idempotent = True

    def __init__(self, files: Mapping[str, Mapping[str, bytes]]) -> None:
        self.files = dict(files)
        self.name = "cubekit-models-" + "-".join(token[:12] for token in sorted(files))

    def setup(self, worker: Any) -> None:
        """Keep the bundles in the process of the worker; they are loaded when a task asks.

        Parameters
        ----------
        worker : distributed.Worker
            Which has just begun.
        """
        del worker
        for token, content in self.files.items():
            receive(token, content)
