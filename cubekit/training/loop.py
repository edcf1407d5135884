"""One training run on Lightning's loop, with the best epoch's weights kept in memory."""

import math
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from cubekit.batching.torch import SampleStream
from cubekit.errors import TrainingError
from cubekit.progress import shown_as
from cubekit.training.session import run_trainer
from cubekit.typing import StrPath

GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm, so that one odd batch cannot throw the weights away."""


class KeepBest(Callback):
    """Remember the weights of the epoch with the lowest validation loss, and one row of scores an epoch.

    Parameters
    ----------
    network : torch.nn.Module
        Whose weights to keep.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._best = math.inf
        self._state: Mapping[str, Tensor] | None = None
        self._start = monotonic()
        self.epoch = 0
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the epoch's scores; keep the weights if they are the best so far.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
            Holds the scores.
        pl_module : lightning.pytorch.LightningModule
            Not used.

        Raises
        ------
        TrainingError
            If the validation loss is not finite.
        """
        del pl_module
        epoch = trainer.current_epoch + 1
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": epoch, **scores, "seconds": round(monotonic() - self._start, 3)})
        loss = scores.get("valid_loss", -float(epoch))  # without validation the last epoch is kept
        if not math.isfinite(loss):
            raise TrainingError(
                f"The validation loss became {loss} in epoch {epoch}: lower learning_rate=, or look for "
                "infinite values in the validation samples."
            )
        if loss < self._best:
            self._best, self.epoch = loss, epoch
            self._state = {name: value.detach().clone() for name, value in self._network.state_dict().items()}

    @property
    def best(self) -> dict[str, float]:
        """Scores of the epoch whose weights were kept."""
        return {name: value for name, value in self.rows[self.epoch - 1].items() if name != "seconds"}

    def restore(self) -> None:
        """Put the kept weights back into the network."""
        if self._state is not None:
            self._network.load_state_dict(self._state)


class NewOrder(Callback):
    """Give each epoch its own order: Lightning stops at the last batch, so the stream never sees its end.

    Parameters
    ----------
    stream : SampleStream
        Training samples.
    """

    def __init__(self, stream: SampleStream) -> None:
        self._stream = stream

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the stream which epoch starts.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
            Knows the epoch.
        pl_module : lightning.pytorch.LightningModule
            Not used.
        """
        del pl_module
        self._stream.set_epoch(trainer.current_epoch)


class EpochLines(Callback):
    """Print one line for each tenth of the epochs to standard error, where no bar can be drawn.

    Parameters
    ----------
    keeper : KeepBest
        Holds the scores; must come before this callback.
    """

    def __init__(self, keeper: KeepBest) -> None:
        self._keeper = keeper

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores of this epoch if a tenth of the work got done.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
            Knows the number of epochs.
        pl_module : lightning.pytorch.LightningModule
            Not used.
        """
        del pl_module
        row, total = self._keeper.rows[-1], trainer.max_epochs or 1
        epoch = int(row["epoch"])
        if epoch * 10 // total == (epoch - 1) * 10 // total:
            return
        scores = ", ".join(
            f"{name.replace('_', ' ')} {value:.4g}"
            for name, value in row.items()
            if name not in {"epoch", "seconds"}
        )
        print(f"train: epoch {epoch}/{total}, {scores}, {row['seconds']:.0f} s", file=sys.stderr, flush=True)  # noqa: T201


def run_epochs(
    module: LightningModule,
    network: nn.Module,
    *,
    train: SampleStream,
    valid: SampleStream | None,
    epochs: int,
    patience: int | None = None,
    out: "StrPath | None" = None,
    progress: bool | None = None,
) -> KeepBest:
    """Train, and put the weights of the best epoch into the network.

    Parameters
    ----------
    module : lightning.pytorch.LightningModule
        The task; logs ``valid_loss`` if there are validation samples.
    network : torch.nn.Module
        The part of it whose weights count.
    train : SampleStream
        Training batches.
    valid : SampleStream or None
        Validation batches.
    epochs : int
        Most passes over the training samples.
    patience : int, optional
        Stop after this many epochs without a lower validation loss.
    out : path, optional
        Folder for ``metrics.csv``.
    progress : bool, optional
        Whether to draw a bar; None draws on a terminal and prints lines elsewhere.

    Returns
    -------
    KeepBest
        Scores of every epoch, and which was the best.

    Raises
    ------
    TrainingError
        If a loss is not finite.
    KeyboardInterrupt
        If the user stopped it.
    """
    keeper = KeepBest(network)
    shown = shown_as(progress)
    callbacks: list[Callback] = [NewOrder(train), keeper]
    if shown == "bar":
        callbacks.append(RichProgressBar(leave=True))
    elif shown == "lines":
        callbacks.append(EpochLines(keeper))
    if patience is not None:
        callbacks.append(EarlyStopping("valid_loss", patience=patience))
    trainer = Trainer(
        accelerator="auto",
        devices=1,
        max_epochs=epochs,
        gradient_clip_val=GRADIENT_NORM,
        callbacks=callbacks,
        logger=False if out is None else CSVLogger(Path(out), name="", version=""),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,  # the best weights stay in memory; bundles are never pickled
        enable_model_summary=False,
        enable_progress_bar=shown == "bar",
    )
    run_trainer(trainer, module, train, valid)
    keeper.restore()
    return keeper
