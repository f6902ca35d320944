"""Which arithmetic a network runs in on this machine, decided once and told in one line.

bf16 halves the time where the CPU multiplies it (avx512_bf16, AMX, Arm's bf16); elsewhere it is
emulated and many times slower than fp32. And it must prove on one frame that it changes little.
"""

from __future__ import annotations

import logging
import math
import platform
from typing import Protocol

import torch

from cmkd_ros.model.cpu_features import cpu_multiplies_bf16
from cmkd_ros.model.deploy import fast_form
from cmkd_ros.model.outputs import CenterHeadOutput, HeadOutput
from cmkd_ros.model.student import Student

LOG = logging.getLogger('cmkd.model')
PRECISIONS = ('auto', 'fp32', 'bf16', 'fp16', 'int8')
# `head_deviation` from the plain modules in fp32 that another form or engine may have.
FP32_LIMIT, BF16_LIMIT = 1e-4, 3e-2
_CHECK_HW = (192, 624)
_SCORE_MAPS = ('cls_logits', 'hm')
_LIKELY_SHARE = 0.03  # of the cells: where boxes come from


class Network(Protocol):
    """What a detector calls: a student, a form of it, or an engine that runs its graph."""

    def __call__(
        self,
        image_B3HW: torch.Tensor,
        cam_to_img_B34: torch.Tensor,
        ref_to_cam_B44: torch.Tensor,
        /,
    ) -> HasHead:
        """As `Student.forward`."""
        ...


class HasHead(Protocol):
    """What every network puts out: at least the raw head maps."""

    @property
    def head(self) -> HeadOutput | None:
        """Raw maps, None without a head."""
        ...


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse what no machine of this kind can do.

    Raises:
        ValueError: an unknown precision, fp16 on a CPU, or int8, which torch does not have.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    if precision == 'int8':
        raise ValueError('precision int8 needs backend openvino')
    if precision == 'fp16' and device.type == 'cpu':
        raise ValueError('precision fp16 needs a CUDA device; on a CPU use auto, fp32 or bf16')


def for_inference(
    student: Student, device: torch.device, precision: str, bf16_cpu: bool | None = None
) -> tuple[Student, str]:
    """The form of a student that this machine runs fastest, and the precision it computes in.

    On a CPU 'bf16' and 'auto' mean bf16 if the CPU multiplies it and one frame stays within
    BF16_LIMIT of fp32, else fp32; one log line says why. On CUDA it is the plain modules, for
    autocast ('auto': bf16); a detector has `for_cuda` instead.

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
            f'bf16 changes a head map by {error:.1%} on a test frame, more than {BF16_LIMIT:.0%}'
        )
    LOG.info('precision %s: computing in fp32, because %s', precision, reason)
    return fast_form(student), 'fp32'


@torch.inference_mode()
def head_deviation(found: Network, expected: Network) -> float:
    """Largest relative root mean square deviation of a head map on one frame, infinite for NaN.

    The frame is `check_frame`. Scores count everywhere. Boxes and directions count in the cells
    with the highest scores only: nobody decodes them elsewhere, and training leaves them arbitrary
    there.
    """
    inputs = check_frame()
    return map_deviation(found(*inputs).head, expected(*inputs).head)


def map_deviation(found: HeadOutput | None, expected: HeadOutput | None) -> float:
    """`head_deviation` of head maps at hand."""
    maps = [_cells_last(head) for head in (found, expected)]
    score = next(maps[1][name] for name in _SCORE_MAPS if name in maps[1]).amax(dim=1)
    likely = score.topk(max(1, round(_LIKELY_SHARE * len(score)))).indices
    worst = 0.0
    for name, wanted in maps[1].items():
        got = maps[0][name]
        if not got.isfinite().all():
            return math.inf
        if name not in _SCORE_MAPS:
            got, wanted = got[likely], wanted[likely]
        worst = max(worst, ((got - wanted).norm() / wanted.norm().clamp_min(1e-12)).item())
    return worst


def check_frame() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What networks are compared on, as of `Student.forward`, on the CPU: random but smooth, seen
    by a level camera of KITTI's field of view at half its resolution."""
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
    return image_13HW, cam_to_img_134, ref_to_cam_144


def _cells_last(head: HeadOutput | None) -> dict[str, torch.Tensor]:
    """Every map as float32 (cells, channels)."""
    if head is None:
        raise ValueError('a stage-1 student has no head maps to compare')
    maps = {name: value.float() for name, value in vars(head).items()}
    if isinstance(head, CenterHeadOutput):
        maps = {name: value.permute(0, 2, 3, 1) for name, value in maps.items()}
    return {name: value.flatten(0, 2) for name, value in maps.items()}
