"""One training run: recipe -> data, modules, Lightning trainer -> a bundle in the output folder.

The folder holds recipe.yaml, checkpoints/last.ckpt, logs/ (TensorBoard and CSV) and at the end the
bundle. A run that was cut off goes on from its last checkpoint with `resume`, in the middle of an
epoch with the frames that this epoch has not had yet.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from cmkd_ros.model.spec import parse_model
from cmkd_ros.training.data.loader import ResumableLoader
from cmkd_ros.training.engine.arithmetic import training_precision
from cmkd_ros.training.engine.keep_last import KeepLast
from cmkd_ros.training.engine.module import TrainingModule
from cmkd_ros.training.engine.progress import ProgressLines
from cmkd_ros.training.engine.recipe import RunRecipe

LAST_CHECKPOINT = Path('checkpoints', 'last.ckpt')
LOG = logging.getLogger('cmkd.train')


def open_run_folder(out: Path, recipe: RunRecipe, resume: bool) -> Path | None:
    """Prepare the output folder and find the checkpoint to go on from.

    Args:
        out: folder of the run.
        recipe: resolved recipe, written to out/recipe.yaml.
        resume: go on with an earlier run of the same recipe in `out`.

    Returns:
        The checkpoint to resume from, None to start afresh.

    Raises:
        FileExistsError: the folder has content and `resume` is off.
        ValueError: the folder holds a run of another recipe.
    """
    document = recipe.model_dump(mode='json')
    written = out / 'recipe.yaml'
    if out.exists() and any(out.iterdir()):
        if not resume:
            raise FileExistsError(
                f'{out}: the folder exists and is not empty; choose another --out, '
                'or go on with the run in it with --resume'
            )
        if written.is_file() and not _says(written, recipe):
            raise ValueError(
                f'{written}: the run there has another recipe; resume it with the same recipe and '
                'overrides, or choose another --out'
            )
    out.mkdir(parents=True, exist_ok=True)
    written.write_text(yaml.safe_dump(document, sort_keys=False))
    last = out / LAST_CHECKPOINT
    return last if last.is_file() else None


def _says(path: Path, recipe: RunRecipe) -> bool:
    """Whether a written recipe is this one; keys that are newer than it have their defaults."""
    return parse_model(type(recipe), yaml.safe_load(path.read_text()), str(path)) == recipe


def _limit_kernel_cache() -> None:
    """Keep oneDNN from compiling and keeping kernels for every number of voxels that it sees.

    Its default of 1024 kernels held about 9 GB after 800 steps of a small teacher, whose scans
    never have the same size twice. It reads the variable when the first kernel is made.
    """
    os.environ.setdefault('ONEDNN_PRIMITIVE_CACHE_CAPACITY', '64')


def fit(
    module: TrainingModule,
    loader: ResumableLoader,
    recipe: RunRecipe,
    out: Path,
    checkpoint: Path | None,
) -> dict[str, float]:
    """Train `module` to the end of its schedule.

    Args:
        module: the network and its losses.
        loader: training batches.
        recipe: epochs, precision, device, seed.
        out: the run's folder.
        checkpoint: resume from here; None starts afresh.

    Returns:
        The last logged metrics by name.
    """
    _limit_kernel_cache()
    for noisy in ('lightning.pytorch', 'lightning.fabric'):
        logging.getLogger(noisy).setLevel(logging.WARNING)  # after its import, which sets INFO
    warnings.filterwarnings('ignore', module='lightning.*')
    interactive = sys.stderr.isatty()
    _set_curves_aside(out / 'logs' / 'csv' / 'metrics.csv')
    on_gpu = recipe.device != 'cpu' and torch.cuda.is_available()
    precision = training_precision(recipe.optimiser.precision, on_gpu)
    keep = KeepLast(out / LAST_CHECKPOINT, loader, recipe.checkpoint_minutes)
    trainer = lightning.Trainer(
        accelerator={'auto': 'auto', 'cpu': 'cpu', 'cuda': 'gpu'}[recipe.device],
        devices='auto' if recipe.device != 'cpu' else 1,
        max_epochs=recipe.optimiser.epochs or -1,
        max_steps=recipe.optimiser.steps or -1,
        precision='bf16-mixed' if precision == 'bf16' else '32-true',
        gradient_clip_val=recipe.optimiser.clip_norm,
        logger=[
            TensorBoardLogger(out, name='logs', version='tensorboard'),
            CSVLogger(out, name='logs', version='csv'),
        ],
        callbacks=[keep, TQDMProgressBar() if interactive else ProgressLines()],
        enable_checkpointing=False,  # Lightning's own; ours also writes within an epoch
        enable_progress_bar=interactive,
        enable_model_summary=False,
        log_every_n_steps=1 if len(loader) < 50 else 10,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # ours already gives every process its share
    )
    trainer.fit(module, train_dataloaders=loader, ckpt_path=checkpoint, weights_only=False)
    if trainer.interrupted:
        raise KeyboardInterrupt
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _set_curves_aside(path: Path) -> None:
    """Rename the curves of an earlier part of the run, which the logger would delete."""
    if path.is_file():
        number = 1 + len(list(path.parent.glob(f'{path.stem}_*{path.suffix}')))
        path.rename(path.with_stem(f'{path.stem}_{number}'))


def write_metrics(out: Path, metrics: dict[str, Any]) -> None:
    """Write the run's last metrics to out/metrics.json."""
    (out / 'metrics.json').write_text(json.dumps(metrics, indent=1, sort_keys=True) + '\n')
