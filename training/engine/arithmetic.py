"""Which arithmetic a training computes in on this machine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import torch

from cmkd_ros.model.cpu_features import CPUINFO, cpu_multiplies_bf16

LOG = logging.getLogger('cmkd.train')


def training_precision(
    wanted: Literal['auto', 'fp32', 'bf16'], on_gpu: bool, cpuinfo: Path = CPUINFO
) -> Literal['fp32', 'bf16']:
    """What `optimiser.precision` means here, told in the log where it is not plain.

    bf16 on a CPU without instructions for it is computed piece by piece: a convolution and its
    gradients took ten times as long as in fp32 on an AVX2 machine, and learn nothing more.

    Args:
        wanted: 'auto' takes bf16 where the device multiplies it.
        on_gpu: whether the run computes on a GPU.
        cpuinfo: where Linux lists what the CPU can.
    """
    fast = torch.cuda.is_bf16_supported() if on_gpu else cpu_multiplies_bf16(cpuinfo)
    if wanted == 'auto':
        chosen: Literal['fp32', 'bf16'] = 'bf16' if fast else 'fp32'
        LOG.info('precision auto: %s', chosen)
        return chosen
    if wanted == 'bf16' and not fast:
        LOG.warning(
            'this %s has no instructions for bf16 and may need ten times as long for it as for '
            'fp32; optimiser.precision=auto would take fp32',
            'GPU' if on_gpu else 'CPU',
        )
    return wanted
