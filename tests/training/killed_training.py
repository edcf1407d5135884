"""Trainings that kill themselves, and one that runs on two processes when this file is run as a script."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cubekit.labels import ClassTable
from cubekit.tasks.examples import Examples
from cubekit.training.bundle import Model
from cubekit.training.fit import fit


class Noisy(nn.Module):
    """Depends on the random numbers of dropout and counts its training batches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.body = nn.Sequential(
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1))  # type: ignore[no-any-return]


def data(n: int, seed: int) -> Examples:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    x = y[:, None, None] * 0.3 + rng.normal(0, 0.5, (n, 4, 2))
    times = np.arange("2022-01", "2022-05", dtype="datetime64[M]").astype("datetime64[ns]")
    return Examples(
        arrays={"x": x.astype("float32"), "y": y},
        bands=("a", "b"),
        times=times,
        classes=ClassTable.of(["no", "yes"]),
    )


def train(out: Path, die_after: int | None = None, how: int = signal.SIGKILL) -> int:
    """Return how many batches were trained on."""
    batches = 0

    def count(module: nn.Module, *_: object) -> None:
        nonlocal batches
        batches += module.training
        if batches == die_after:
            os.kill(os.getpid(), how)

    network = Noisy()
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, *_: count(module) if isinstance(module, Noisy) else None
    )
    try:
        fit(
            network,
            data(80, 0),
            data(40, 1),
            epochs=3,
            batch=16,
            learning_rate=0.01,
            schedule="cosine",
            checkpoint_minutes=0,
            out=out,
            progress=False,
        )
    finally:
        hook.remove()
    return batches


class Plain(nn.Module):
    """Without random numbers, and without statistics of batches."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(8, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))  # type: ignore[no-any-return]


def train_plain(out: Path, *, devices: int, batch: int) -> Model:
    return fit(
        Plain(),
        data(96, 0),
        data(40, 1),
        epochs=2,
        batch=batch,
        learning_rate=0.01,
        devices=devices,
        out=out,
        progress=False,
    )


if __name__ == "__main__":
    train_plain(Path(sys.argv[1]), devices=2, batch=16)
