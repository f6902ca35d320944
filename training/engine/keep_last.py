"""The checkpoint that a run goes on from: written at the end of every epoch, and now and then."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import lightning

from cmkd_ros.training.data.loader import ResumableLoader


class KeepLast(lightning.Callback):
    """Keeps one file, always a whole one, from which a run that was cut off goes on.

    Args:
        path: the file; its folder is made.
        loader: the training batches; how far they are is part of the file.
        minutes: how old it may be within an epoch; 0 writes it at every step.
    """

    def __init__(self, path: Path, loader: ResumableLoader, minutes: float) -> None:
        self.path = path
        self.loader = loader
        self.seconds = 60.0 * minutes
        self._written = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {'loader': self.loader.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Lightning asks loaders only when it sets up their data, and `estimated_stepping_batches`
        # makes it do so before it reads the checkpoint.
        self.loader.load_state_dict(state_dict['loader'])

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._written = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx + 1 >= trainer.num_training_batches:
            return  # the epoch's end writes
        due = time.monotonic() - self._written >= self.seconds
        # All processes take part in writing: the first one's clock decides.
        if trainer.strategy.broadcast(due):
            self._write(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._write(trainer)

    def _write(self, trainer: lightning.Trainer) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix('.partial')
        trainer.save_checkpoint(partial)
        if trainer.is_global_zero:
            os.replace(partial, self.path)
        self._written = time.monotonic()
