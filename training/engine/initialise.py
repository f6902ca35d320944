"""Starting weights: parts of one network copied into another, and a report of what was copied."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def copy_matching(
    network: torch.nn.Module,
    tensors: Mapping[str, torch.Tensor],
    prefixes: tuple[str, ...],
    source: str,
) -> str:
    """Copy every tensor under `prefixes` into `network`; all of them must be there and fit.

    Args:
        network: receives the weights.
        tensors: weights of another network with the same names under `prefixes`.
        prefixes: parts to copy, each ending in a dot.
        source: where `tensors` come from, for messages.

    Returns:
        One line that says how many tensors of which part came from where.

    Raises:
        ValueError: a tensor is missing or has another shape; names it.
    """
    own = network.state_dict()
    wanted = [key for key in own if key.startswith(prefixes)]
    for key in wanted:
        if key not in tensors:
            raise ValueError(f'{source}: cannot start from it, it has no {key}')
        if tensors[key].shape != own[key].shape:
            raise ValueError(
                f'{source}: cannot start from it, {key} is {tuple(tensors[key].shape)} there and '
                f'{tuple(own[key].shape)} here'
            )
    network.load_state_dict({key: tensors[key] for key in wanted}, strict=False)
    counts = {part: sum(key.startswith(part) for key in wanted) for part in prefixes}
    parts = ', '.join(f'{n} tensors of {part.rstrip(".")}' for part, n in counts.items() if n)
    return f'copied {parts} from {source}'
