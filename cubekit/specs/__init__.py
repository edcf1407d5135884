"""Finds the files that users edit: ``catalogs/``, ``models/``, ``pipelines/``.

In an installed wheel they lie inside this package; in a checkout they lie at the top of the repository.
"""

from pathlib import Path
from typing import Literal

from cubekit.errors import UnknownNameError, did_you_mean

Kind = Literal["catalogs", "models", "pipelines"]


def folder(kind: Kind) -> Path:
    """Return the folder that holds the specifications of one kind.

    Parameters
    ----------
    kind : {"catalogs", "models", "pipelines"}
        Which folder.

    Returns
    -------
    pathlib.Path
        The packaged folder where it exists, else the checkout's.
    """
    packaged = Path(__file__).parent / kind
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / kind


def find(kind: Kind, name: str) -> Path:
    """Return the path of one specification.

    Parameters
    ----------
    kind : {"catalogs", "models", "pipelines"}
        Which folder to look in.
    name : str
        Stem of a YAML file, or name of a folder.

    Returns
    -------
    pathlib.Path
        The file or folder.

    Raises
    ------
    UnknownNameError
        If there is none, with the nearest name.
    """
    root = folder(kind)
    for candidate in (root / f"{name}.yaml", root / name):
        if candidate.parent == root and candidate.exists():  # a name, no path that leads elsewhere
            return candidate
    known = [path.stem for path in sorted(root.iterdir()) if not path.name.startswith(".")]
    raise UnknownNameError(f"No {kind[:-1]} named {name!r}. {did_you_mean(name, known)}")
