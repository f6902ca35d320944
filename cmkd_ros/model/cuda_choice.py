"""Whether the CUDA form of a student runs here, decided once and told in one line.

It must compute on one frame what the plain modules compute, and find the boxes that plain
post-processing finds in its maps. Whatever goes wrong on the way, the plain modules run.
"""

from __future__ import annotations

import logging

import numpy as np
import torch

from cmkd_ros.geometry.fixed_nms import choose
from cmkd_ros.geometry.overlap import nms_bev
from cmkd_ros.model.cuda_conv import cuda_arithmetic
from cmkd_ros.model.cuda_form import CudaForm
from cmkd_ros.model.cuda_runner import CudaStudent
from cmkd_ros.model.precision import (
    BF16_LIMIT,
    FP32_LIMIT,
    Network,
    check_frame,
    check_precision,
    map_deviation,
)
from cmkd_ros.model.spec import PostSpec
from cmkd_ros.model.student import Student

LOG = logging.getLogger('cmkd.model')
LIMITS = {'fp32': FP32_LIMIT, 'bf16': BF16_LIMIT, 'fp16': BF16_LIMIT}  # of `map_deviation`
_CHECKED_BOXES = 200  # candidates that the suppression is compared on, at most


def for_cuda(student: Student, device: torch.device, precision: str) -> tuple[Network, str]:
    """The form of a student that a GPU runs fastest, and the precision it computes in.

    'auto' means bf16, or fp16 on GPUs that do not multiply bf16. A form whose maps deviate too much
    gives way to the one in fp32; one that cannot be made, to the plain modules.

    Args:
        student: with a head, in eval mode, on `device`.
        device: a GPU; on a CPU the form runs too, for tests.
        precision: one of PRECISIONS.

    Raises:
        ValueError: as `check_precision`.
    """
    check_precision(precision, device)
    chosen = _best_precision(device) if precision == 'auto' else precision
    for tried in dict.fromkeys((chosen, 'fp32')):
        try:
            runner = CudaStudent(CudaForm(student, tried))
            error = form_deviation(runner, student)
            fault = '' if error > LIMITS[tried] else post_fault(runner)
        # Whatever it is, there is another way: errors of libraries are of all kinds.
        except Exception as failure:  # noqa: BLE001
            text = str(failure).strip().splitlines() or ['']
            LOG.warning(
                'plain modules run in %s on %s, because the form for GPUs does not: %s: %s',
                chosen, device, type(failure).__name__, text[0],
            )  # fmt: skip
            return student, chosen
        if fault:
            LOG.warning('plain modules run in %s on %s, because %s', chosen, device, fault)
            return student, chosen
        if error <= LIMITS[tried]:
            runner.forget()  # the size of the test frame
            return runner, tried
        LOG.info(
            'precision %s on %s: not in %s, which changes a head map by %s on a test frame, more '
            'than %s', precision, device, tried, f'{error:.2%}', f'{LIMITS[tried]:.2%}',
        )  # fmt: skip
    LOG.warning('plain modules run in fp32 on %s', device)
    return student, 'fp32'


@torch.inference_mode()
def form_deviation(runner: CudaStudent, student: Student) -> float:
    """`map_deviation` of the form from the plain modules in fp32, on one frame of bytes."""
    image_HW3, cam_to_img_34, ref_to_cam_44 = frame = _frame_of_bytes()
    device = runner.form.device
    with cuda_arithmetic(), torch.autocast(device.type, enabled=False):
        image_3HW = torch.from_numpy(image_HW3).permute(2, 0, 1).float() / 255
        inputs = (image_3HW, cam_to_img_34, ref_to_cam_44)
        expected = student(*(tensor[None].to(device) for tensor in inputs))
    canvas, _ = runner.run(*frame, PostSpec(score_threshold=1.0))
    return map_deviation(canvas.head, expected.head)


@torch.inference_mode()
def post_fault(runner: CudaStudent) -> str:
    """What is wrong with the boxes that the form finds in its own maps; '' if nothing is."""
    frame, head = _frame_of_bytes(), runner.form.plain_head
    canvas, _ = runner.run(*frame, PostSpec(score_threshold=1.0))
    best = head.decode(canvas.head, 0, 0.0, _CHECKED_BOXES).scores_K
    steps = (best[1:] < best[:-1]).nonzero()[:, 0]
    if len(steps) == 0:
        return ''  # one score everywhere: nothing to compare
    post = PostSpec(score_threshold=float(best[steps[-1]]))
    canvas, table_W = runner.run(*frame, post)
    found = canvas.post.candidates(table_W)
    if found is None:
        return ''  # as many a hair below: plain post-processing takes over in that case
    candidates, passes_K, overlaps_KW = found
    passing = candidates.select(torch.from_numpy(passes_K))
    expected = head.decode(canvas.head, 0, post.score_threshold, post.nms_max_in)
    expected = expected.select(expected.boxes_K7.isfinite().all(dim=1))
    if len(passing) != len(expected):
        return f'it finds {len(passing)} candidates where there are {len(expected)}'
    if not torch.allclose(passing.scores_K, expected.scores_K.cpu(), rtol=1e-5):
        return 'its scores are not those of plain post-processing'
    kept = nms_bev(
        passing.boxes_K7, passing.scores_K, post.nms_iou, post.nms_max_in, post.nms_max_in
    )
    kept = passes_K.nonzero()[0][kept.numpy()]
    if choose(overlaps_KW, passes_K) != kept.tolist():
        return 'its suppression keeps other boxes than the plain one'
    return ''


def _frame_of_bytes() -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """`check_frame` as `CudaStudent.run` takes it."""
    image_13HW, cam_to_img_134, ref_to_cam_144 = check_frame()
    image_HW3 = (255 * image_13HW[0]).round().to(torch.uint8).permute(1, 2, 0).contiguous()
    return image_HW3.numpy(), cam_to_img_134[0], ref_to_cam_144[0]


def _best_precision(device: torch.device) -> str:
    if device.type == 'cuda':
        with torch.cuda.device(device):
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                return 'fp16'
    return 'bf16'
