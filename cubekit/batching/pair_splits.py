"""Pairs of dates parted into training, validation and test: held-out dates, or as published."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from cubekit.batching.pairs import Pairs
from cubekit.errors import OptionError, SplitError, check_option
from cubekit.typing import Array

Protocol = Literal["scene", "survey"]
"""Which dates train and how scores are taken."""

PROTOCOLS = ("scene", "survey")

SURVEY_PATCH = 512
"""Rows and columns of a patch in the published comparison; remainders are lost there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairSplit:
    """Pairs for training, for choosing a state of the network, and for its scores."""

    train: Pairs
    """Both dates are training dates."""

    valid: Pairs
    """The wanted date is a validation date; in the protocol "survey" the same as `test`."""

    test: Pairs
    """The wanted date is a test date; its known date may be the last training date ("scene")."""

    protocol: Protocol
    """"scene" or "survey"."""

    def __repr__(self) -> str:
        return (
            f"PairSplit ({self.protocol}): {len(self.train)} pairs to train, {len(self.valid)} to validate, "
            f"{len(self.test)} to test"
        )


def split_pairs(
    pairs: Pairs,
    protocol: Protocol = "scene",
    *,
    train: int | None = None,
    valid: float = 0.15,
    test: float = 0.2,
) -> PairSplit:
    """Part pairs by date.

    Parameters
    ----------
    pairs : Pairs
        All pairs, scaled already (``pairs.normalised``).
    protocol : {"scene", "survey"}, optional
        "scene": the last dates test, the dates before them validate, the others train; nobody learns from a
        test date. "survey": the first `train` dates train, the rest is validation and test at once, no pair
        crosses the border; as in the published comparison, to stand beside its tables.
    train : int, optional
        Number of training dates, for "survey" (each data set has a published one).
    valid, test : int or float, optional
        For "scene": number of dates, or share of all (at least one); ``valid=0`` for none.

    Returns
    -------
    PairSplit
        Lazy.

    Raises
    ------
    SplitError
        If a part would have no pair.
    OptionError
        If an option does not fit the protocol.
    """
    check_option("protocol", protocol, PROTOCOLS)
    dates = pairs.dates
    if protocol == "survey":
        if train is None or not 1 < train < len(dates) - 1:
            raise OptionError(
                f"train={train!r}: the protocol 'survey' needs a number of training dates, from 2 to "
                f"{len(dates) - 2} of these {len(dates)}."
            )
        rest = pairs.take(dates[train:])
        return _checked(PairSplit(train=pairs.take(dates[:train]), valid=rest, test=rest, protocol="survey"))
    if train is not None:
        raise OptionError("train= belongs to protocol='survey'; give valid= and test= for 'scene'.")
    testing, validating = (
        _count(name, value, len(dates)) for name, value in (("test", test), ("valid", valid))
    )
    learning = len(dates) - testing - validating
    known = dates[: learning + validating]
    split = PairSplit(
        train=pairs.take(dates[:learning]),
        valid=_known(pairs.take(dates[learning : learning + validating], at="t2"), known),
        test=pairs.take(dates[learning + validating :], at="t2"),
        protocol="scene",
    )
    return _checked(split, valid=validating > 0)


def _known(pairs: Pairs, dates: Array) -> Pairs:
    """Keep pairs whose known date is before the test dates."""
    return pairs.take(dates, at="t1")


def _count(name: str, value: float, dates: int) -> int:
    """Return a number of dates from a number or a share."""
    if isinstance(value, int | np.integer):
        count = int(value)
    elif 0 < value < 1:
        count = max(1, round(value * dates))
    else:
        count = -1 if value else 0
    if not (0 if name == "valid" else 1) <= count < dates:
        raise OptionError(f"{name}={value!r}: expected a number of dates below {dates}, or a share below 1.")
    return count


def _checked(split: PairSplit, *, valid: bool = True) -> PairSplit:
    parts = {"train": split.train, "test": split.test} | ({"valid": split.valid} if valid else {})
    if empty := [name for name, part in parts.items() if not part]:
        count = len(split.train.dates)
        raise SplitError(
            f"No pair is left for {' and '.join(empty)} of {count} dates. Hold out fewer dates, or give more."
        )
    return split
