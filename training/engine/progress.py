"""A progress line for logs: where no terminal draws a bar, say every so often how far it is."""

from __future__ import annotations

import logging
import time
from typing import Any

import lightning

LOG = logging.getLogger('cmkd.train')


class ProgressLines(lightning.Callback):
    """Logs step, loss and remaining time at most once in `seconds`."""

    def __init__(self, seconds: float = 20.0) -> None:
        self.seconds = seconds
        self._begun = (0.0, 0)  # time and step at the start of this process's part of the run
        self._last = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._begun = (time.monotonic(), trainer.global_step)
        self._last = time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        now, step = time.monotonic(), trainer.global_step
        total = int(trainer.estimated_stepping_batches)
        if now - self._last < self.seconds and step < total:
            return
        self._last = now
        per_step = (now - self._begun[0]) / max(1, step - self._begun[1])
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith('loss')}
        terms = ' '.join(f'{k.removeprefix("loss/")} {v:.4g}' for k, v in sorted(metrics.items()))
        LOG.info(
            'epoch %d step %d/%d, %.2f s a step, %s left: %s',
            trainer.current_epoch + 1,
            step,
            total,
            per_step,
            _minutes((total - step) * per_step),
            terms,
        )


def _minutes(seconds: float) -> str:
    return f'{int(seconds) // 60}:{int(seconds) % 60:02d} min'
