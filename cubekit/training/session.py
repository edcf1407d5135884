"""What surrounds a training run: its seed, Lightning's chatter, and Ctrl-C."""

import logging
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer


@contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """Seed torch for the block, and give the caller's random state back after it.

    Parameters
    ----------
    seed : int
        Seed.

    Yields
    ------
    None
        Nothing.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if torch.cuda.is_available():  # on the CPU all that is used here repeats by itself
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what Lightning says about choices that are ours.

    Yields
    ------
    None
        Nothing.
    """
    loggers = [
        logging.getLogger(f"lightning.{name}")
        for name in ("pytorch.utilities.rank_zero", "fabric.utilities.seed", "fabric.utilities.distributed")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in (
            ".*does not have many workers.*",  # batches come from memory
            ".*Previous log files in this directory.*",  # a run may be repeated into its folder
            ".*deterministic.*",  # asked for with warn_only
            ".*no `val_dataloader`.*",  # validation is optional
            ".*in eval mode at the start of training.*",  # a frozen autoencoder
            ".*sync_dist=True.*",  # the training loss of the first process is told
            ".*LeafSpec.*",  # between Lightning and torch
        ):
            warnings.filterwarnings("ignore", message=message)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on so many CPU threads for the block.

    Batches of series are too small to share: two threads spend their time waiting for each other, and on a
    machine with other work ten times as long as one thread alone.

    Parameters
    ----------
    count : int
        Threads.

    Yields
    ------
    None
        Nothing.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class StopAsked:
    """Whether the user pressed Ctrl-C: training stops after the batch at hand, when its state is whole.

    A second Ctrl-C stops at once.
    """

    def __init__(self) -> None:
        self.asked = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take Ctrl-C for the block; where signals cannot be had (other threads) it does nothing.

        Yields
        ------
        None
            Nothing.
        """
        before = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(before):
            yield
            return

        def note(number: int, frame: Any) -> None:
            if self.asked:
                before(number, frame)
            self.asked = True

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def obey(self) -> None:
        """Stop if that was asked for.

        Raises
        ------
        KeyboardInterrupt
            If the user pressed Ctrl-C.
        """
        if self.asked:
            raise KeyboardInterrupt


def run_trainer(trainer: Trainer, *arguments: Any, **options: Any) -> None:
    """Run a trainer; an interrupt stays one.

    Lightning ends the process on Ctrl-C, with exit code 1 and the signal switched off for good; here the
    caller gets a ``KeyboardInterrupt`` and its signal handler back.

    Parameters
    ----------
    trainer : lightning.pytorch.Trainer
        Ready to fit.
    *arguments
        Passed to ``trainer.fit``.
    **options
        Passed to ``trainer.fit``.

    Raises
    ------
    KeyboardInterrupt
        If the user stopped it.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(*arguments, **options)
    except SystemExit as stop:
        if main:
            signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from stop
