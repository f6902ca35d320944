"""Trading time for memory: blocks whose inner activations are computed again in the backward pass.

A network keeps only the inputs of its blocks; what lies inside a block is recomputed when its
gradient is due (Chen et al., arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from cmkd_ros.model.bev import BevBackbone, SelfCalibratedBlock
from cmkd_ros.model.image_backbone import BasicBlock, Bottleneck

# What holds the most activations per operation. The depth head is left out: a quarter of the
# operations of the big student for a thirtieth of its memory.
_BLOCKS = (BasicBlock, Bottleneck, SelfCalibratedBlock)


def recompute_activations(network: nn.Module) -> int:
    """Make every block of a network forget its inner activations; parameter names stay.

    Outputs and gradients are those of the plain network, dropout and batch statistics included:
    running statistics are updated by the first pass only. Without gradients, or in eval mode under
    `no_grad`, nothing changes.

    Args:
        network: a student or teacher; changed in place.

    Returns:
        The number of blocks found.
    """
    blocks: list[nn.Module] = [m for m in network.modules() if isinstance(m, _BLOCKS)]
    for module in network.modules():
        if isinstance(module, BevBackbone):
            blocks += list(module.blocks)
    for block in blocks:
        block.forward = partial(_forgetful, block.forward, block)  # type: ignore[method-assign]
    return len(blocks)


def _forgetful(
    forward: Callable[..., torch.Tensor], block: nn.Module, *inputs: torch.Tensor
) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    output: torch.Tensor = checkpoint(
        forward, *inputs, use_reentrant=False, context_fn=partial(_contexts, block)
    )
    return output


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms count into copies of their running statistics, so that a batch counts once."""
    norms = [module for module in block.modules() if isinstance(module, _BatchNorm)]
    counted = [(norm, name, value) for norm in norms for name, value in norm.named_buffers()]
    for norm, name, value in counted:
        setattr(norm, name, value.clone())
    try:
        yield
    finally:
        for norm, name, value in counted:
            setattr(norm, name, value)
