"""Which arithmetic a network runs in on this machine, decided once and told in one line.

bf16 halves the time where the CPU multiplies it (avx512_bf16, AMX, Arm's bf16); elsewhere it is
emulated and many times slower than fp32. And it must prove on one frame that it changes little.
"""

from __future__ import annotations

import logging
import math
import platform

import torch

from cmkd_ros.model.cpu_features import cpu_multiplies_bf16
from cmkd_ros.model.deploy import fast_form
from cmkd_ros.model.student import Student

LOG = logging.getLogger('cmkd.model')
PRECISIONS = ('auto', 'fp32', 'bf16', 'fp16')
BF16_LIMIT = 3e-2  # relative root mean square of each head map against fp32
_CHECK_HW = (192, 624)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse what no machine of this kind can do.

    Raises:
        ValueError: an unknown precision, or fp16 on a CPU.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    if precision == 'fp16' and device.type == 'cpu':
        raise ValueError('precision fp16 needs a CUDA device; on a CPU use auto, fp32 or bf16')


def for_inference(
    student: Student, device: torch.device, precision: str, bf16_cpu: bool | None = None
) -> tuple[Student, str]:
    """The form of a student that this machine runs fastest, and the precision it computes in.

    On a CPU 'bf16' and 'auto' mean bf16 if the CPU multiplies it and one frame stays within
    BF16_LIMIT of fp32, else fp32; one log line says why. On CUDA the plain modules run, under
    autocast ('auto': bf16).

    Args:
        student: with a head, in eval mode, on `device`.
        device: where it runs.
        precision: one of PRECISIONS.
        bf16_cpu: whether the CPU multiplies bf16; None looks.

    Raises:
        ValueError: as `check_precision`.
    """
    check_precision(precision, device)
    if device.type != 'cpu':
        return student, 'bf16' if precision == 'auto' else precision
    if precision == 'fp32':
        return fast_form(student), 'fp32'
    if not (cpu_multiplies_bf16() if bf16_cpu is None else bf16_cpu):
        reason = f'this CPU ({platform.machine()}) has no bf16 products'
    else:
        fast = fast_form(student, 'bf16')
        error = head_deviation(fast, student)
        if error <= BF16_LIMIT:
            return fast, 'bf16'
        reason = (
            f'bf16 changes a head map by {error:.1%} on a test frame, over {BF16_LIMIT:.0%} of it'
        )
    LOG.info('precision %s: computing in fp32, because %s', precision, reason)
    return fast_form(student), 'fp32'


@torch.inference_mode()
def head_deviation(found: Student, expected: Student) -> float:
    """Largest relative root mean square deviation of a head map on one frame, infinite for NaN.

    The frame is random but smooth, seen by a level camera of KITTI's field of view at half its
    resolution.
    """
    rows, columns = _CHECK_HW
    coarse = torch.rand(1, 3, rows // 12, columns // 12, generator=torch.Generator().manual_seed(0))
    image_13HW = torch.nn.functional.interpolate(coarse, (rows, columns), mode='bilinear')
    focal = 0.58 * columns
    cam_to_img_134 = torch.tensor(
        [[[focal, 0, columns / 2, 0], [0, focal, rows / 2, 0], [0, 0, 1, 0]]]
    )
    ref_to_cam_144 = torch.tensor(
        [[[0.0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27], [0, 0, 0, 1]]]
    )
    inputs = (image_13HW, cam_to_img_134, ref_to_cam_144)
    maps = [vars(network(*inputs).head) for network in (found, expected)]
    worst = 0.0
    for name, wanted in maps[1].items():
        error = (maps[0][name].float() - wanted).norm() / wanted.norm().clamp_min(1e-12)
        worst = max(worst, error.item() if math.isfinite(error.item()) else math.inf)
    return worst
