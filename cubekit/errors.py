"""The error family: one base class, and children that also inherit the builtin a caller would expect.

Every message says what is wrong, where (item, band, chunk), what was found, what was expected and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CubekitError(Exception):
    """Base of every error that cubekit raises on purpose."""


class OptionError(CubekitError, ValueError):
    """An argument, option or file key has a value that is not accepted."""


class UnknownNameError(CubekitError, LookupError):
    """A collection, band, network, class or key is not known; carries a nearest-match hint."""


class MissingDependencyError(CubekitError, ImportError):
    """An optional part is used whose packages are not installed."""


class SecurityError(CubekitError, PermissionError):
    """Something read from data asked for more than data may: a host, path, driver or codec."""


class CatalogError(CubekitError, ValueError):
    """A catalog file does not follow the schema."""


class GridError(CubekitError, ValueError):
    """A target grid cannot be made, or is unreasonably large."""


class SearchError(CubekitError, OSError):
    """A STAC API did not answer, or answered with something that is not STAC."""


class EmptySearchError(CubekitError, LookupError):
    """A search matched no item; the message echoes the query."""


class ArchiveError(CubekitError, ValueError):
    """Files of an archive match no pattern, or carry no usable date."""


class SourceError(CubekitError, OSError):
    """A file could not be opened or read; names item, asset and the next step."""


class MetadataMismatchError(SourceError):
    """A file is not what its metadata says: type, CRS, size or nodata."""


class CubeError(CubekitError, ValueError):
    """A dataset does not keep the contract of a cube."""


class StoreError(CubekitError, OSError):
    """A store cannot be written, opened or trusted."""


class IncompleteStoreError(StoreError):
    """A store carries no completion mark: its writer has not finished."""


class LabelError(CubekitError, ValueError):
    """Labels are missing, outside the scene, or hold a single class."""


class SplitError(CubekitError, ValueError):
    """Samples cannot be split as asked."""


class TrainingError(CubekitError, RuntimeError):
    """Training cannot start, or has gone wrong."""


class BundleError(CubekitError, ValueError):
    """A saved model is damaged or incomplete, or a model cannot be saved."""


class ModelMismatchError(BundleError):
    """A cube does not fit a model; the message lists every difference."""


class PredictionError(CubekitError, RuntimeError):
    """A tile could not be predicted; names the tile."""


class ExportError(CubekitError, OSError):
    """A result could not be written in the asked form."""


class PipelineError(CubekitError, ValueError):
    """A pipeline file is wrong: unknown key, missing input, wrong type."""


def did_you_mean(name: object, options: Iterable[object]) -> str:
    """Say which option comes nearest, or list them all.

    Parameters
    ----------
    name : object
        What was asked for.
    options : iterable
        What would have been accepted.

    Returns
    -------
    str
        A sentence to end an error message with, such as ``"Did you mean 'red'?"``.
    """
    known = sorted({str(option) for option in options})
    near = get_close_matches(str(name).lower(), [option.lower() for option in known], n=1, cutoff=0.6)
    if near:
        return f"Did you mean {next(o for o in known if o.lower() == near[0])!r}?"
    shown = ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")  # noqa: PLR2004
    return f"Known are: {shown}." if known else "None are known."


def check_option(what: str, value: object, options: Iterable[object]) -> None:
    """Raise unless a value is one of the options.

    Parameters
    ----------
    what : str
        Name of the argument, for the message.
    value : object
        What was given.
    options : iterable
        Accepted values.

    Raises
    ------
    OptionError
        With the nearest option.
    """
    accepted = list(options)
    if value not in accepted:
        msg = f"{what}={value!r} is not accepted. {did_you_mean(value, accepted)}"
        raise OptionError(msg)


def check_kind(what: str, value: object, kind: type | tuple[type, ...], remedy: str) -> None:
    """Raise unless an argument is of the kind that is meant.

    Parameters
    ----------
    what : str
        Name of the argument, for the message.
    value : object
        What was given.
    kind : type or tuple of type
        What is accepted.
    remedy : str
        How to get one, such as ``"open it with cubekit.open_items"``.

    Raises
    ------
    OptionError
        With what was given, and the remedy.
    """
    if not isinstance(value, kind):
        kinds = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        shown = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
        raise OptionError(f"{what} is {shown}, expected {kinds}: {remedy}.")
