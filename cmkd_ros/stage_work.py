"""What the stages of a student have to do: operations, and numbers that come and go.

Letters: B batch, H W rows and columns of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cmkd_ros.model.deploy import fast_form
from cmkd_ros.model.student import Student

STAGES = {
    'image_backbone': 'image backbone', 'depth_head': 'depth head', 'reduce': 'channel reduction',
    'lift': 'lift', 'collapse': 'collapse', 'adaptation': 'adaptation',
    'bev_backbone': 'BEV backbone', 'head': 'head',
}  # fmt: skip


@dataclass(frozen=True)
class StageWork:
    """What one stage does for an image.

    Attributes:
        gflop, needed_gflop: 1e9 operations, a multiplication and an addition being two; without
            taps that see padding only.
        weights, maps: numbers that are read or written once: parameters; inputs and outputs.
    """

    gflop: float = 0.0
    needed_gflop: float = 0.0
    weights: int = 0
    maps: int = 0

    @property
    def numbers(self) -> int:
        """All that come or go."""
        return self.weights + self.maps

    def of_batch(self, images: int) -> StageWork:
        """Of so many images at once, which share the weights."""
        return StageWork(
            images * self.gflop, images * self.needed_gflop, self.weights, images * self.maps
        )


@torch.inference_mode()
def count_work(student: Student, inputs: tuple[torch.Tensor, ...]) -> dict[str, StageWork]:
    """The work of every stage by name, and of the 'whole'.

    Args:
        student: in eval mode, on the CPU.
        inputs: of one image, as of `Student.forward`.
    """
    # The counter knows public operators only.
    countable = fast_form(student, packed=False, row_products=True)
    counted, needed = _operations(student, inputs), _operations(countable, inputs)
    numbers = _numbers(student, inputs)
    return {
        name: StageWork(counted[name], needed[name], *numbers.get(name, (0, 0))) for name in counted
    }


@contextmanager
def stage_hooks(
    network: Student | None,
    before: Callable[[str, Any], None],
    after: Callable[[str, Any, Any, nn.Module], None],
) -> Iterator[None]:
    """Calls around every stage, if there are any: before(stage, inputs), and
    after(stage, inputs, output, module)."""
    handles = []
    for name, stage in STAGES.items():
        if network is None:
            break
        module = network.get_submodule(name)
        handles += [
            module.register_forward_pre_hook(lambda _, given, s=stage: before(s, given)),
            module.register_forward_hook(lambda m, given, out, s=stage: after(s, given, out, m)),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _operations(network: Student, inputs: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """1e9 operations of every stage, by counting."""
    with FlopCounterMode(display=False) as counter:
        network(*inputs)
    counts = counter.get_flop_counts()
    root = type(network).__name__
    found = {
        stage: sum(counts.get(f'{root}.{name}', {}).values()) / 1e9
        for name, stage in STAGES.items()
    }
    return found | {'whole': counter.get_total_flops() / 1e9}


def _numbers(network: Student, inputs: tuple[torch.Tensor, ...]) -> dict[str, tuple[int, int]]:
    """Parameters of every stage, and elements of its inputs and outputs."""
    found: dict[str, tuple[int, int]] = {}

    def count(stage: str, given: Any, output: Any, module: nn.Module) -> None:
        weights = sum(p.numel() for p in module.parameters())
        found[stage] = weights, sum(t.numel() for t in _tensors((given, output)))

    with stage_hooks(network, lambda *_: None, count):
        network(*inputs)
    return found


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, '__dict__'):
        yield from _tensors(list(vars(value).values()))
