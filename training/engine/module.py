"""What the two kinds of training share in Lightning: optimiser, schedule stepping, logging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
import torch

from cmkd_ros.training.engine.activation_memory import recompute_activations
from cmkd_ros.training.engine.optimise import make_optimiser
from cmkd_ros.training.engine.recipe import OptimiserSpec


class TrainingModule(lightning.LightningModule):
    """A network that learns; subclasses compute the named loss terms of a batch."""

    def __init__(self, network: torch.nn.Module, optimiser: OptimiserSpec) -> None:
        super().__init__()
        if optimiser.checkpoint_activations:
            recompute_activations(network)
        self.network = network
        self.optimiser_spec = optimiser

    def configure_optimizers(self) -> Any:
        optimiser, schedule = make_optimiser(
            self.network.parameters(),
            self.optimiser_spec,
            int(self.trainer.estimated_stepping_batches),
        )
        return [optimiser], [{'scheduler': schedule, 'interval': 'step'}]

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        # The first call is skipped: see make_optimiser.
        if self.trainer.global_step > 1:
            scheduler.step()

    def log_terms(self, terms: Mapping[str, torch.Tensor], batch_size: int) -> torch.Tensor:
        """Log weighted loss terms and return their sum.

        Raises:
            ValueError: a term is NaN or infinite; names it, before it reaches the weights.
        """
        total = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(total):
            bad = [name for name, value in terms.items() if not torch.isfinite(value)]
            raise ValueError(
                f'loss {", ".join(bad)} is not finite at step {self.trainer.global_step}; '
                'lower optimiser.lr_max, or look for broken frames with `cmkd prepare-kitti`'
            )
        logged = {f'loss/{name}': value.detach() for name, value in terms.items()}
        self.log_dict(logged, batch_size=batch_size)
        self.log('loss', total.detach(), prog_bar=True, batch_size=batch_size)
        return total
