"""Arrays out of pickles, read by a reader of our own: nothing that a pickle asks for is run or looked up.

:mod:`pickletools` tells the instructions of a pickle apart, which is all that is used of Python's pickles. A
reader that runs them, however few classes it allows, still makes room for memory that a few bytes ask for and
sets attributes of what it allows.
"""

import io
import pickletools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from cubekit.errors import SecurityError
from cubekit.typing import StrPath

MAX_BYTES: Final = 1 << 30
MAX_DEPTH: Final = 32
MAX_INSTRUCTIONS: Final = 1_000_000


def read_array_pickle(path: StrPath) -> Any:
    """Read a pickle that holds NumPy arrays of numbers in plain containers, and run nothing of it.

    The one place where a pickle of others is read, for the published zone masks. Of all that a pickle can
    say, only what arrays of numbers are made of is known here; everything else is refused.

    Parameters
    ----------
    path : path
        Local file.

    Returns
    -------
    object
        Dictionaries, lists, tuples, texts, numbers and arrays of booleans or numbers.

    Raises
    ------
    SecurityError
        If the file names anything else, is too large, or is damaged.
    """
    file = Path(path)
    try:
        return _unwrapped(_read(_bounded(file)))
    except SecurityError as error:
        raise SecurityError(f"{file}: {error}") from None
    except OSError as error:
        raise SecurityError(f"{file} cannot be read: {error.strerror or error}.") from error
    except Exception as error:
        raise SecurityError(f"{file} is no pickle of arrays ({type(error).__name__}: {error}).") from error


def _bounded(file: Path) -> bytes:
    """Return the bytes of a file, unless it is too large to be a mask."""
    if (size := file.stat().st_size) > MAX_BYTES:
        raise SecurityError(f"it has {size} bytes, expected at most {MAX_BYTES} in a mask.")
    return file.read_bytes()


def _read(content: bytes) -> Any:
    """Follow the instructions of a pickle as far as they are known."""
    stack = _Stack()
    told = pickletools.genops(io.BytesIO(content))  # ends with STOP, or raises
    for number, (instruction, value, _) in enumerate(told):
        name = instruction.name
        if number >= MAX_INSTRUCTIONS:
            raise SecurityError(f"it has more than {MAX_INSTRUCTIONS:,} instructions. Nothing was run.")
        if name in _VALUES:
            stack.items.append(value)
        elif name in _STEPS:
            _STEPS[name](stack, value)
        elif name not in _NOTHING:
            raise SecurityError(f"it says {name}, which arrays of numbers do not need. Nothing was run.")
    return stack.pop()


class _Stack:
    """What was read so far, and what the pickle wants to come back to."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self.kept: dict[int, Any] = {}

    def pop(self) -> Any:
        if not self.items or self.items[-1] is _MARK:
            raise SecurityError("it takes more than it gave.")
        return self.items.pop()

    def take(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def since_mark(self) -> list[Any]:
        taken: list[Any] = []
        while self.items:
            item = self.items.pop()
            if item is _MARK:
                return taken[::-1]
            taken.append(item)
        raise SecurityError("it ends what it did not begin.")

    def push(self, value: Any) -> None:
        self.items.append(value)

    def keep(self, index: int | None) -> None:
        value = self.pop()
        self.kept[len(self.kept) if index is None else index] = value
        self.push(value)

    def recall(self, index: int) -> None:
        value = self.kept[index]
        if isinstance(value, dict | list | tuple):  # containers in themselves, or doubled again and again
            raise SecurityError("it holds one container in several places. Nothing was run.")
        self.push(value)

    def extend(self, values: list[Any]) -> None:
        target = self.pop()
        if type(target) is not list:
            raise SecurityError("it appends to what is no list.")
        target.extend(values)
        self.push(target)

    def update(self, pairs: list[Any]) -> None:
        target, keys = self.pop(), pairs[::2]
        if type(target) is not dict or not all(isinstance(key, str | int | float | bytes) for key in keys):
            raise SecurityError("it fills what is no dictionary, or with keys that are no texts or numbers.")
        target.update(zip(keys, pairs[1::2], strict=True))
        self.push(target)

    def collect(self) -> None:
        pairs = self.since_mark()
        self.push({})
        self.update(pairs)

    def name(self, module: str, name: str) -> None:
        known = _BUILDERS.get((module.replace("numpy._core.", "numpy.core."), name))
        if known is None:
            raise SecurityError(
                f"it names {module}.{name}, which is not what arrays of numbers are made of. Nothing was run."
            )
        self.push(known)

    def call(self) -> None:
        builder, arguments = self.take(2)
        if builder not in _BUILDERS.values() or type(arguments) is not tuple:
            raise SecurityError("it calls what is no part of an array. Nothing was run.")
        self.push(builder(*arguments))

    def state(self) -> None:
        built, state = self.take(2)
        if not isinstance(built, _Number | _PickledArray) or type(state) is not tuple:
            raise SecurityError("it changes what is no array. Nothing was run.")
        built.complete(state)
        self.push(built)


class _Number:
    """What a pickle says of the type of an array; NumPy's own type never takes a state from outside."""

    def __init__(self, code: object, *_: object) -> None:
        self.code, self.order = str(code), "="

    def complete(self, state: tuple[Any, ...]) -> None:
        self.order = str(state[1])

    def resolve(self) -> Any:
        """Return the type, one of booleans or numbers."""
        import numpy as np

        if not re.fullmatch(r"[<>|=]?[biuf]\d{1,2}", self.code) or self.order not in {"<", ">", "|", "="}:
            raise SecurityError(f"it holds values of type {self.code!r}, expected booleans or numbers.")
        turned: Literal["<", ">", "="] = "<" if self.order == "<" else ">" if self.order == ">" else "="
        return np.dtype(self.code).newbyteorder(turned)


class _PickledArray:
    """What a pickle says of an array: type, shape and bytes."""

    def __init__(self, *_: object) -> None:
        self.values: Any = None

    def complete(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, by_column, raw = state
        self.fill(raw, kind, shape, order="F" if by_column else "C")

    def fill(self, raw: Any, kind: Any, shape: Any, *, order: Literal["C", "F"]) -> None:
        """Make the array; NumPy refuses bytes that do not fill the shape."""
        import numpy as np

        if not isinstance(kind, _Number) or not isinstance(raw, bytes | bytearray):
            raise SecurityError("it builds an array in a way that NumPy does not.")
        self.values = np.frombuffer(raw, kind.resolve()).reshape(shape, order=order)


def _from_buffer(raw: Any, kind: Any, shape: Any, order: str) -> _PickledArray:
    """Make an array as pickles of protocol 5 do."""
    made = _PickledArray()
    made.fill(raw, kind, shape, order="F" if order == "F" else "C")
    return made


def _encoded(text: str, code: str) -> bytes:
    """Give the bytes that old pickles hold as text."""
    if code != "latin1":
        raise SecurityError(f"it holds bytes as {code!r}, expected latin1.")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Give the bytes of an empty array, as old pickles ask for them; asked for more, refuse."""
    return b""


def _class_of_arrays(*_: object) -> None:
    """Stand for the class of arrays, which pickles name but do not call."""
    raise SecurityError("it builds an array in a way that NumPy does not.")


_MARK: Final = object()

_BUILDERS: Final[Mapping[tuple[str, str], Callable[..., Any]]] = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy", "ndarray"): _class_of_arrays,
    ("numpy", "dtype"): _Number,
    ("_codecs", "encode"): _encoded,
    ("builtins", "bytes"): _no_bytes,
    ("__builtin__", "bytes"): _no_bytes,
}
"""All that a pickle of arrays of numbers names, and what stands for it here."""

_VALUES: Final = frozenset(
    [
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "FLOAT", "BINFLOAT"),
        *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    ]
)
"""Instructions that carry a number, a text or bytes."""

_NOTHING: Final = frozenset({"PROTO", "FRAME", "STOP"})
"""Instructions that change nothing here."""

_STEPS: Final[Mapping[str, Callable[[_Stack, Any], None]]] = {
    "NONE": lambda stack, _: stack.push(None),
    "NEWTRUE": lambda stack, _: stack.push(True),
    "NEWFALSE": lambda stack, _: stack.push(False),
    "MARK": lambda stack, _: stack.push(_MARK),
    "EMPTY_LIST": lambda stack, _: stack.push([]),
    "EMPTY_DICT": lambda stack, _: stack.push({}),
    "EMPTY_TUPLE": lambda stack, _: stack.push(()),
    "TUPLE": lambda stack, _: stack.push(tuple(stack.since_mark())),
    "TUPLE1": lambda stack, _: stack.push(tuple(stack.take(1))),
    "TUPLE2": lambda stack, _: stack.push(tuple(stack.take(2))),
    "TUPLE3": lambda stack, _: stack.push(tuple(stack.take(3))),
    "LIST": lambda stack, _: stack.push(stack.since_mark()),
    "DICT": lambda stack, _: stack.collect(),
    "APPEND": lambda stack, _: stack.extend(stack.take(1)),
    "APPENDS": lambda stack, _: stack.extend(stack.since_mark()),
    "SETITEM": lambda stack, _: stack.update(stack.take(2)),
    "SETITEMS": lambda stack, _: stack.update(stack.since_mark()),
    "PUT": lambda stack, index: stack.keep(index),
    "BINPUT": lambda stack, index: stack.keep(index),
    "LONG_BINPUT": lambda stack, index: stack.keep(index),
    "MEMOIZE": lambda stack, _: stack.keep(None),
    "GET": lambda stack, index: stack.recall(index),
    "BINGET": lambda stack, index: stack.recall(index),
    "LONG_BINGET": lambda stack, index: stack.recall(index),
    "GLOBAL": lambda stack, names: stack.name(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda stack, _: stack.name(*map(str, stack.take(2))),
    "REDUCE": lambda stack, _: stack.call(),
    "BUILD": lambda stack, _: stack.state(),
}
"""Instructions that build containers and arrays; all others are refused."""


def _unwrapped(found: Any, depth: int = 0) -> Any:
    """Return plain containers with arrays in them; refuse everything else."""
    if depth > MAX_DEPTH:
        raise SecurityError(f"it is nested deeper than {MAX_DEPTH}.")
    if isinstance(found, _PickledArray) and found.values is not None:
        return found.values
    if type(found) is dict:
        return {key: _unwrapped(each, depth + 1) for key, each in found.items()}
    if type(found) in {list, tuple}:
        return type(found)(_unwrapped(each, depth + 1) for each in found)
    if found is None or type(found) in {bool, int, float, str, bytes}:
        return found
    raise SecurityError(f"it holds {type(found).__name__.strip('_')}, expected numbers, texts and arrays.")
