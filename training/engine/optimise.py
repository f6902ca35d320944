"""AdamW and the one-cycle schedule exactly as the official training steps them."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from cmkd_ros.training.engine.recipe import OptimiserSpec


def make_optimiser(
    parameters: Iterable[torch.nn.Parameter], spec: OptimiserSpec, total_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    """Optimiser and schedule for a run of `total_steps` iterations.

    Step the schedule after every iteration but the first: the official loop calls
    `scheduler.step(i)` after iteration i = 0, 1, ..., so iterations 0 and 1 both run at the
    initial rate (cmkd-spec G5).
    """
    low, high = spec.momentum
    optimiser = torch.optim.AdamW(
        parameters,
        lr=spec.lr_max,
        betas=(high, spec.beta2),
        eps=1e-8,
        weight_decay=spec.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=spec.lr_max,
        total_steps=max(total_steps, 2),
        pct_start=spec.warm_up,
        anneal_strategy='cos',
        base_momentum=low,
        max_momentum=high,
        div_factor=spec.div_factor,
        final_div_factor=spec.final_div_factor,
    )
    return optimiser, schedule
