"""Checkpoint files as the official code writes them, small where the values do not matter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student
from cmkd_ros.official import STUDENT_RULES, Rule, rename_table


def official_zeros(network: torch.nn.Module, rules: Iterable[Rule]) -> dict[str, torch.Tensor]:
    """The official state dict of a network (on any device), all zeros, which take no space."""
    own = network.state_dict()
    state = {
        official: torch.zeros((), dtype=own[ours].dtype).expand(own[ours].shape)
        for official, ours in rename_table(own, rules).items()
    }
    return {'global_step': torch.zeros(1, dtype=torch.int64), **state}


def student_zeros(config: str, stage: int) -> dict[str, torch.Tensor]:
    """The official state dict of a student, all zeros."""
    with torch.device('meta'):
        network = build_student(load_spec(config), with_head=stage == 2)
    return official_zeros(network, STUDENT_RULES)


def write_official(path: Path, state: Mapping[str, torch.Tensor], **changes: Any) -> Path:
    """Write a checkpoint of the official trainer."""
    checkpoint = {
        'epoch': 20,
        'it': 18560,
        'model_state': dict(state),
        'optimizer_state': {'state': {}, 'param_groups': [{'lr': 1e-7, 'betas': (0.95, 0.999)}]},
        'version': 'pcdet+0.5.2+7649474',
    }
    torch.save(checkpoint | changes, path)
    return path
