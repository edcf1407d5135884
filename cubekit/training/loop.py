"""One training run on Lightning's loop, with the best epoch's weights kept in memory."""

import csv
import io
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, RichProgressBar
from torch import Tensor, nn

from cubekit.batching.torch.shared import SharedStream
from cubekit.errors import MissingDependencyError, TrainingError, check_option
from cubekit.progress import shown_as
from cubekit.tasks.task import Keep, Task
from cubekit.training.devices import RankShare
from cubekit.training.resume import KeepState, Run, state_to_go_on_from
from cubekit.training.session import StopAsked, run_trainer

METRICS = "metrics.csv"

PRECISIONS: Mapping[str, Any] = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


class KeepBest(Callback):
    """Remember the weights of the best epoch on the validation samples; one row of scores an epoch.

    Parameters
    ----------
    task : Task
        Whose ``kept`` weights count.
    out : path, optional
        Folder for ``metrics.csv``.
    keep : {"loss", "accuracy", "macro_f1", "weighted_f1"}, optional
        The score that the task watches, lowest; or another, highest.
    valid_every : int, optional
        Epochs from one validation to the next; the others cannot be the best, and have no scores of it.
    """

    def __init__(
        self, task: Task, out: Path | None = None, *, keep: Keep = "loss", valid_every: int = 1
    ) -> None:
        self._task = task
        self._out = out
        self._keep = keep
        self._every = valid_every
        self._best = math.inf
        self._state: Mapping[str, Tensor] | None = None
        self._start = monotonic()
        self._sum, self._count = 0.0, 0
        self.epoch = 0
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the batch to the training loss; Lightning's own mean forgets what was before a resume.

        Parameters
        ----------
        trainer : lightning.pytorch.Trainer
            Not used.
        pl_module : lightning.pytorch.LightningModule
            Not used.
        outputs : mapping
            Holds the loss.
        batch : mapping
            Tells how much its loss counts.
        batch_idx : int
            Not used.
        """
        del trainer, pl_module, batch_idx
        size = self._task.weight(batch)
        self._sum += float(outputs["loss"]) * size
        self._count += size

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
        scores["train_loss"] = self._sum / max(self._count, 1)
        self._sum, self._count = 0.0, 0
        validated = epoch % self._every == 0
        if not validated:  # Lightning still shows those of the last validation
            scores = {name: value for name, value in scores.items() if not name.startswith("valid_")}
        self.rows.append({"epoch": epoch, **scores, "seconds": round(monotonic() - self._start, 3)})
        loss = scores.get(self._task.monitor, -float(epoch))  # without validation the last epoch is kept
        if not math.isfinite(loss):
            watched = self._task.monitor.replace("valid_", "validation ")
            raise TrainingError(
                f"The {watched} became {loss} in epoch {epoch}: lower learning_rate=, or look for "
                "infinite values in the validation samples."
            )
        cost = loss if self._keep == "loss" or not validated else -scores[f"valid_{self._keep}"]
        if validated and cost < self._best:
            self._best, self.epoch = cost, epoch
            self._state = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        if self._out is not None and trainer.is_global_zero:
            write_rows(self.rows, self._out / METRICS)

    @property
    def network(self) -> nn.Module:
        """The network whose weights count."""
        return self._task.kept

    @property
    def best(self) -> dict[str, float]:
        """Scores of the epoch whose weights were kept."""
        return {name: value for name, value in self.rows[self.epoch - 1].items() if name != "seconds"}

    def restore(self) -> None:
        """Put the kept weights back into the network."""
        if self._state is not None:
            self.network.load_state_dict(self._state)

    def state_dict(self) -> dict[str, Any]:
        """Return everything noted so far, for a checkpoint.

        Returns
        -------
        dict
            Numbers and tensors.
        """
        return {
            "best": self._best,
            "epoch": self.epoch,
            "rows": self.rows,
            "sum": self._sum,
            "count": self._count,
            "seconds": monotonic() - self._start,
            "weights": None if self._state is None else dict(self._state),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint.

        Parameters
        ----------
        state_dict : dict
            From :meth:`state_dict`.
        """
        self._best, self.epoch = state_dict["best"], state_dict["epoch"]
        self.rows, self._state = list(state_dict["rows"]), state_dict["weights"]
        self._sum, self._count = state_dict["sum"], state_dict["count"]
        self._start = monotonic() - state_dict["seconds"]


class NewOrder(Callback):
    """Give each epoch its own order: Lightning stops at the last batch, so the stream never sees its end.

    Parameters
    ----------
    stream : object
        Training batches; told the epoch if it has ``set_epoch``.
    """

    def __init__(self, stream: Any) -> None:
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
        if hasattr(self._stream, "set_epoch"):
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
        if not trainer.is_global_zero or epoch * 10 // total == (epoch - 1) * 10 // total:
            return
        scores = ", ".join(
            f"{name.replace('_', ' ')} {value:.4g}"
            for name, value in row.items()
            if name not in {"epoch", "seconds"}
        )
        print(f"train: epoch {epoch}/{total}, {scores}, {row['seconds']:.0f} s", file=sys.stderr, flush=True)  # noqa: T201


def write_rows(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write one line an epoch; the file is whole at any time.

    Parameters
    ----------
    rows : sequence of mapping
        Scores by name.
    path : pathlib.Path
        CSV file; replaced.
    """
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text.getvalue(), encoding="utf-8")
    part.replace(path)


def run_epochs(task: Task, run: Run, *, train: Any, valid: Any | None) -> KeepBest:
    """Train, and put the weights of the best epoch into the network.

    Parameters
    ----------
    task : Task
        Logs ``valid_loss`` if there are validation samples; its recipe says how long.
    run : Run
        Where to, on what.
    train : iterable
        Training batches; with ``state_dict`` and ``load_state_dict`` an interrupted epoch goes on where it
        stopped.
    valid : iterable or None
        Validation batches.

    Returns
    -------
    KeepBest
        Scores of every epoch, and which was the best.

    Raises
    ------
    TrainingError
        If a loss is not finite, or a saved state cannot be read.
    KeyboardInterrupt
        If the user stopped it; with a folder, the same call goes on.
    """
    if run.devices > 1 and not isinstance(train, SharedStream):  # our own streams know their rank
        train = RankShare(train, run.devices)
    if isinstance(valid, SharedStream):
        valid.everywhere = True  # so that all processes agree when to stop
    every = 1 if valid is None else min(run.valid_every, task.recipe.epochs)
    keeper, stop = KeepBest(task, run.out, keep=run.keep, valid_every=every), StopAsked()
    shown = shown_as(run.progress)
    callbacks: list[Callback] = [NewOrder(train), keeper]
    if shown == "bar":
        callbacks.append(RichProgressBar(leave=True))
    elif shown == "lines":
        callbacks.append(EpochLines(keeper))
    if run.patience is not None:
        watched, mode = (task.monitor, "min") if run.keep == "loss" else (f"valid_{run.keep}", "max")
        callbacks.append(EarlyStopping(watched, patience=run.patience, mode=mode))
    callbacks.append(KeepState(run, stop))
    trainer = Trainer(
        accelerator="auto",
        devices=run.devices,
        precision=PRECISIONS[run.precision],
        max_epochs=task.recipe.epochs,
        gradient_clip_val=task.recipe.clip if task.automatic_optimization else None,
        callbacks=callbacks,
        logger=[*_loggers(run)] or False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=every,
        enable_checkpointing=False,  # KeepState saves; bundles are never pickled
        enable_model_summary=False,
        enable_progress_bar=shown == "bar",
    )
    with stop.listening():
        run_trainer(trainer, task, train, valid, ckpt_path=state_to_go_on_from(run), weights_only=True)
    keeper.restore()
    return keeper


def _loggers(run: Run) -> list[Any]:
    """Build the loggers that were asked for."""
    from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

    made: list[Any] = []
    for name in run.log:
        check_option("log", name, ("tensorboard", "wandb"))
        if run.out is None:
            raise TrainingError(f"log={name!r} needs a folder: pass out= as well.")
        try:
            made.append(
                TensorBoardLogger(run.out, name="tensorboard", version="")
                if name == "tensorboard"
                else WandbLogger(save_dir=run.out, project="cubekit")
            )
        except ModuleNotFoundError as error:
            raise MissingDependencyError(f"log={name!r} needs it installed: pip install {name}.") from error
    return made
