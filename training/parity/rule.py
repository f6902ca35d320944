"""Weights that anyone can recreate from the names alone: the rule behind the golden values.

Source: cmkd-spec K1. Keys and shapes are those of the official checkpoints (docs/statedict).
"""

from __future__ import annotations

import csv
import math
import re
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch

from cmkd_ros.official import Rule, official_to_ours, rename_table

# Last convolution of a class's heat map: exactly one index after `hm.`.
_HEAT_BIAS = re.compile(r'dense_head\.(conv_cls|heads_list\.\d+\.hm\.\d+)\.bias')
_BOX_WEIGHT = re.compile(r'dense_head\.conv_box\.weight')
_CENTER_BOX_WEIGHT = re.compile(r'.*heads_list\.\d+\.(center|center_z|dim)\.1\.weight')


def read_table(path: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of an official model, by key, from a table of docs/statedict."""
    with path.open(newline='') as file:
        rows = list(csv.DictReader(file, delimiter='\t'))
    return {row['key']: _shape(row['shape']) for row in rows}


def make_checkpoint(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The tensors of the rule for a table of keys and shapes."""
    return {
        key: torch.from_numpy(_values(key, shape, f'{_stem(key)}.running_mean' in shapes))
        for key, shape in shapes.items()
    }


def fill_by_rule(network: torch.nn.Module, rules: Iterable[Rule]) -> None:
    """Give a network the weights of the rule, under its official names.

    Args:
        network: one of the official networks.
        rules: rename patterns of that network.
    """
    rules = tuple(rules)
    own = network.state_dict()
    table = rename_table(own, rules)
    checkpoint = make_checkpoint({key: tuple(own[ours].shape) for key, ours in table.items()})
    network.load_state_dict(official_to_ours(checkpoint, own, rules))


def _values(key: str, shape: tuple[int, ...], is_norm: bool) -> np.ndarray:
    name = key.rsplit('.', 1)[-1]
    if name in ('num_batches_tracked', 'global_step'):
        return np.zeros(shape, np.int64)
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    u = generator.random(math.prod(shape)).reshape(shape)
    return np.asarray(_scaled(key, name, u, shape, is_norm), np.float32)


def _scaled(
    key: str, name: str, u: np.ndarray, shape: tuple[int, ...], is_norm: bool
) -> np.ndarray:
    if name == 'running_mean' or (is_norm and name == 'bias'):
        return 0.1 * (2 * u - 1)
    if name == 'running_var':
        return 0.5 + u
    if is_norm:
        ends_residual = key.endswith('.bn3.weight') or (
            key.startswith('backbone_3d.') and key.endswith('.bn2.weight')
        )
        return 0.1 + 0.2 * u if ends_residual else 0.8 + 0.4 * u
    if name == 'bias':
        return 0.05 * (2 * u - 1) - (4.6 if _HEAT_BIAS.fullmatch(key) else 0.0)
    factor = 1.0
    if _BOX_WEIGHT.fullmatch(key) or _CENTER_BOX_WEIGHT.fullmatch(key):
        factor = 0.1
    elif key.startswith('backbone_3d.'):
        factor = 1.6
    elif key.startswith('map_to_bev_module.block.conv.'):
        factor = 8.0
    elif key.endswith('.ddn.model.classifier.4.weight'):
        factor = 0.2
    return factor * math.sqrt(6 / math.prod(shape[1:])) * (2 * u - 1)


def _stem(key: str) -> str:
    return key.rsplit('.', 1)[0]


def _shape(text: str) -> tuple[int, ...]:
    return () if text == 'scalar' else tuple(int(n) for n in text.split('x'))
