"""Names in official CMKD checkpoints, and ours for the same parameters.

An official checkpoint and our networks hold the same tensors under different names. The tables
below are patterns from our names to the official ones; a whole state dict is renamed with
`official_to_ours`, which refuses anything that is missing or left over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

V = TypeVar('V')

# Kept by the official trainer inside its state dict; not part of the network.
IGNORED_OFFICIAL_KEYS = frozenset({'global_step'})

# Convolution and batch norm are 'conv' and 'bn' here, and mostly numbers in an nn.Sequential there.
_PAIR = r'(?P<part>conv|bn)\.'


def _numbered(conv: int, bn: int) -> dict[str, str]:
    return {'conv': str(conv), 'bn': str(bn)}


_FIRST = _numbered(0, 1)
_SCNET = 'domain_adaptation.layers.{block}'
_DDN = 'vfe.ffn.ddn.model'

# (pattern of our key's beginning, official beginning, names of conv and bn in it)
Rule = tuple[str, str, Mapping[str, str]]

BEV_RULES: tuple[Rule, ...] = (
    (
        r'bev_backbone\.ups\.(?P<block>\d+)\.' + _PAIR,
        'backbone_2d.deblocks.{block}.{part}.',
        _FIRST,
    ),
    (r'head\.cls\.', 'dense_head.conv_cls.', {}),
    (r'head\.box\.', 'dense_head.conv_box.', {}),
    (r'head\.direction\.', 'dense_head.conv_dir_cls.', {}),
    (r'head\.shared\.' + _PAIR, 'dense_head.shared_conv.{part}.', _FIRST),
    (
        r'head\.branches\.(?P<map>\w+)\.hidden\.' + _PAIR,
        'dense_head.heads_list.0.{map}.0.{part}.',
        _FIRST,
    ),
    (r'head\.branches\.(?P<map>\w+)\.out\.', 'dense_head.heads_list.0.{map}.1.', {}),
)

STUDENT_RULES: tuple[Rule, ...] = (
    (
        r'image_backbone\.(?P<block>layer\d\.\d+)\.downsample\.' + _PAIR,
        _DDN + '.backbone.{block}.downsample.{part}.',
        _FIRST,
    ),
    (r'image_backbone\.', _DDN + '.backbone.', {}),
    (
        r'depth_head\.aspp\.branches\.(?P<block>\d)\.' + _PAIR,
        _DDN + '.classifier.0.convs.{block}.{part}.',
        _FIRST,
    ),
    # The pooled branch begins with its pooling.
    (
        r'depth_head\.aspp\.pooled\.' + _PAIR,
        _DDN + '.classifier.0.convs.4.{part}.',
        _numbered(1, 2),
    ),
    (r'depth_head\.aspp\.project\.' + _PAIR, _DDN + '.classifier.0.project.{part}.', _FIRST),
    (r'depth_head\.refine\.' + _PAIR, _DDN + '.classifier.{part}.', _numbered(1, 2)),
    (r'depth_head\.classifier\.', _DDN + '.classifier.4.', {}),
    (r'reduce\.', 'vfe.ffn.channel_reduce.', {}),
    (r'collapse\.', 'map_to_bev_module.block.', {}),
    (
        r'adaptation\.(?P<block>\d+)\.plain_in\.' + _PAIR,
        _SCNET + '.{part}.',
        {'conv': 'conv1_a', 'bn': 'bn1_a'},
    ),
    (
        r'adaptation\.(?P<block>\d+)\.gated_in\.' + _PAIR,
        _SCNET + '.{part}.',
        {'conv': 'conv1_b', 'bn': 'bn1_b'},
    ),
    (r'adaptation\.(?P<block>\d+)\.plain_out\.' + _PAIR, _SCNET + '.k1.{part}.', _FIRST),
    (
        r'adaptation\.(?P<block>\d+)\.context\.' + _PAIR,
        _SCNET + '.scconv.k2.{part}.',
        _numbered(1, 2),
    ),
    (r'adaptation\.(?P<block>\d+)\.gated\.' + _PAIR, _SCNET + '.scconv.k3.{part}.', _FIRST),
    (r'adaptation\.(?P<block>\d+)\.gated_out\.' + _PAIR, _SCNET + '.scconv.k4.{part}.', _FIRST),
    (
        r'adaptation\.(?P<block>\d+)\.merge\.' + _PAIR,
        _SCNET + '.{part}.',
        {'conv': 'conv3', 'bn': 'bn3'},
    ),
    *BEV_RULES,
)

_BEV_BLOCK = re.compile(r'bev_backbone\.blocks\.(\d+)\.(\d+)\.(conv|bn)\.')


def official_key(our_key: str, rules: Iterable[Rule] = STUDENT_RULES) -> str:
    """The official name of one of our parameters or buffers.

    Args:
        our_key: a key of `Student.state_dict()` (or of a teacher's, with its rules).
        rules: rename patterns, tried in order.

    Raises:
        ValueError: no official network has such a parameter.
    """
    block = _BEV_BLOCK.match(our_key)
    if block:
        # Padding, then (convolution, batch norm, ReLU) for every layer, in one nn.Sequential.
        stage, layer, part = block.groups()
        position = 3 * int(layer) + (1 if part == 'conv' else 2)
        return f'backbone_2d.blocks.{stage}.{position}.{our_key[block.end() :]}'
    for pattern, template, names in rules:
        match = re.match(pattern, our_key)
        if match:
            fields = match.groupdict()
            if 'part' in fields:
                fields['part'] = names[fields['part']]
            return template.format(**fields) + our_key[match.end() :]
    raise ValueError(f"no official network has the parameter '{our_key}'")


def rename_table(our_keys: Iterable[str], rules: Iterable[Rule] = STUDENT_RULES) -> dict[str, str]:
    """Official key -> our key, for all of `our_keys`.

    Raises:
        ValueError: a key without an official name, or two with the same.
    """
    rules = tuple(rules)
    table: dict[str, str] = {}
    for ours in our_keys:
        official = official_key(ours, rules)
        if official in table:
            raise ValueError(f"'{ours}' and '{table[official]}' are both official '{official}'")
        table[official] = ours
    return table


def official_to_ours(
    official: Mapping[str, V], our_keys: Iterable[str], rules: Iterable[Rule] = STUDENT_RULES
) -> dict[str, V]:
    """Rename an official state dict, completely.

    Args:
        official: tensors (or anything else) by official key.
        our_keys: keys of the network to be filled.
        rules: rename patterns.

    Returns:
        The same values by our key, in the order of `our_keys`.

    Raises:
        ValueError: keys that are missing or that the network does not have; names the first few.
    """
    table = rename_table(our_keys, rules)
    missing = [key for key in table if key not in official]
    unknown = [key for key in official if key not in table and key not in IGNORED_OFFICIAL_KEYS]
    if missing or unknown:
        raise ValueError(
            f'{len(missing)} keys missing{_some(missing)}, {len(unknown)} unknown{_some(unknown)}'
        )
    return {ours: official[key] for key, ours in table.items()}


def _some(keys: list[str]) -> str:
    if not keys:
        return ''
    return f' ({", ".join(keys[:3])}{", ..." if len(keys) > 3 else ""})'
