"""The state of an unfinished training on disk, and how a run goes on from it exactly."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from cubekit.errors import TrainingError
from cubekit.tasks.task import Keep
from cubekit.training.session import StopAsked

CHECKPOINT = "last.ckpt"
"""State of an unfinished training, beside the model; read without running code, gone when training ends."""

PRETRAINING = ".pretraining"
"""Folder for the state of the first of two stages."""

Log = Literal["tensorboard", "wandb"]
Precision = Literal["32", "bf16", "16"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a training is run, apart from what it learns and how the weights are moved."""

    patience: int | None = None
    """Stop after this many epochs that are not better."""

    keep: Keep = "loss"
    """What tells which epoch is better on the validation samples."""

    precision: Precision = "32"
    """Of the arithmetic; weights stay float32."""

    devices: int = 1
    """How many devices share the batches."""

    out: Path | None = None
    """Folder for ``metrics.csv``, logs and the state to go on from."""

    log: Sequence[Log] = ()
    """Loggers beside the table."""

    progress: bool | None = None
    """Whether to draw a bar; None draws on a terminal and prints lines elsewhere."""

    checkpoint_minutes: float = 5.0
    """How often the state is saved within an epoch; 0 saves after every batch."""

    valid_every: int = 1
    """Epochs from one validation to the next."""

    identity: str = ""
    """Digest of samples, network and settings: a state of another training is not gone on from."""


class KeepState(Callback):
    """Save the whole state now and then, so that a killed training goes on as if nothing had happened.

    Weights, optimisers, schedules, scores and the place in the stream of samples are Lightning's to save; the
    state of torch's random numbers is added here, so that dropout goes on as well.

    Parameters
    ----------
    run : Run
        Where, how often, and for which training.
    stop : StopAsked
        Whether the user pressed Ctrl-C.
    """

    def __init__(self, run: Run, stop: StopAsked) -> None:
        self._run, self._stop = run, stop
        self._saved = monotonic()
        self._random: Mapping[str, Any] | None = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the random state and what the checkpoint belongs to.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
            Not used.
        pl_module : lightning.pytorch.LightningModule
            Not used.
        checkpoint : dict
            Is added to.
        """
        del trainer, pl_module
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        checkpoint["cubekit_random"] = {"cpu": torch.get_rng_state(), "cuda": cuda}
        checkpoint["cubekit_identity"] = self._run.identity

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember the random state until the first batch.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
            Not used.
        pl_module : lightning.pytorch.LightningModule
            Not used.
        checkpoint : dict
            What was saved.
        """
        del trainer, pl_module
        self._random = checkpoint["cubekit_random"]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Put the random state back before the first batch after a resume.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
            Not used.
        pl_module : lightning.pytorch.LightningModule
            Not used.
        batch : mapping
            Not used.
        batch_idx : int
            Not used.
        """
        del trainer, pl_module, batch, batch_idx
        if self._random is not None:
            torch.set_rng_state(self._random["cpu"].cpu())
            if self._random["cuda"] and torch.cuda.is_available():
                torch.cuda.set_rng_state_all([state.cpu() for state in self._random["cuda"]])
            self._random = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time to, or if the user wants to stop.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
            Saves.
        pl_module : lightning.pytorch.LightningModule
            Not used.
        outputs : mapping
            Not used.
        batch : mapping
            Not used.
        batch_idx : int
            Not used.
        """
        del pl_module, outputs, batch, batch_idx
        if trainer.is_last_batch:  # the epoch's end saves: validation and scores belong to it
            return
        due = monotonic() - self._saved >= 60 * self._run.checkpoint_minutes
        if due or self._stop.asked:
            self._save(trainer)

    def on_validation_batch_end(self, *arguments: Any) -> None:
        """Stop if the user wants to; the last state is good enough.

        Parameters
        ----------
        *arguments
            Not used.
        """
        del arguments
        self._stop.obey()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
            Saves.
        pl_module : lightning.pytorch.LightningModule
            Not used.
        """
        del pl_module
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        """Save beside the last state, then take its place: a kill leaves one of the two whole."""
        if self._run.out is not None:
            part = self._run.out / f".{CHECKPOINT}.part"
            trainer.save_checkpoint(part, weights_only=False)  # optimisers and loops too
            if trainer.is_global_zero:
                os.replace(part, self._run.out / CHECKPOINT)  # noqa: PTH105  (the atomic one)
            self._saved = monotonic()
        self._stop.obey()


def state_to_go_on_from(run: Run) -> Path | None:
    """Find the state of this very training, if it was interrupted.

    Parameters
    ----------
    run : Run
        Where to look, and for what.

    Returns
    -------
    pathlib.Path or None
        The checkpoint; None if there is none, or it belongs to another training.
    """
    if run.out is None or not (run.out / CHECKPOINT).is_file():
        return None
    path = run.out / CHECKPOINT
    try:
        found = torch.load(path, map_location="cpu", weights_only=True).get("cubekit_identity")
    except Exception as error:
        raise TrainingError(
            f"{path} cannot be read ({type(error).__name__}), so the training cannot go on from it. "
            "Delete it to start anew."
        ) from error
    return path if found == run.identity else None


def forget(folder: Path) -> None:
    """Remove the state of an unfinished training; its model and scores stay.

    Parameters
    ----------
    folder : pathlib.Path
        Of the training.
    """
    for name in (CHECKPOINT, f".{CHECKPOINT}.part"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / PRETRAINING, ignore_errors=True)
