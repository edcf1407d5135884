"""Short-lived tokens, kept until shortly before they end."""

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from time import monotonic
from typing import Final

EARLY: Final = 300.0
"""Seconds before its end at which a token is renewed, for a read may take that long."""

HELD_AT_LEAST: Final = 60.0
"""Seconds for which a new token is used though it seems to have ended: then this machine's clock is wrong."""


@dataclass(frozen=True, repr=False)
class Token:
    """A token and for how long it seems to be good."""

    value: str

    seconds: float
    """From now on, by the clock of this machine; may be negative where that is wrong."""

    def __repr__(self) -> str:
        return f"Token({self.seconds:.0f} s)"


class TokenCache:
    """Tokens by key, such as a storage container; safe to share among threads.

    Ages are counted with a clock that does not jump. A token of less than ten minutes is used for half its
    time. One that has ended on arrival shows that this machine's clock is ahead: it is used for a minute,
    instead of asking the service again for every file. A refusal (401, 403) is answered with
    ``fresh=True``.
    """

    def __init__(self) -> None:
        self._held: dict[Hashable, tuple[str, float]] = {}
        self._locks: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: Hashable, ask: Callable[[], Token], *, fresh: bool = False) -> str:
        """Return a token, asking for one where none is held or its end is near.

        Parameters
        ----------
        key : hashable
            What the token is for.
        ask : callable
            Gets a new token; called by one thread at a time for each key.
        fresh : bool, optional
            Whether to drop the one that is held, for use after a refusal.

        Returns
        -------
        str
            The token.
        """
        before = self._held.get(key)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            held = self._held.get(key)
            renewed = held is not None and held != before  # by another thread, while this one waited
            if held is not None and monotonic() < held[1] and (renewed or not fresh):
                return held[0]
            try:
                token = ask()
            except Exception:
                if held is not None and not fresh and monotonic() < held[1] + EARLY:
                    return held[0]  # the service is down, and the old one is good for some minutes more
                raise
            self._held[key] = (token.value, monotonic() + _good_for(token.seconds))
            return token.value

    def clear(self) -> None:
        """Forget every token."""
        self._held.clear()


def _good_for(seconds: float) -> float:
    if seconds <= 0:
        return HELD_AT_LEAST
    return seconds - EARLY if seconds > 2 * EARLY else seconds / 2
