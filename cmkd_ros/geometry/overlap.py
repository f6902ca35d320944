"""Overlap of upright boxes seen from above and in space, and non-maximum suppression.

Plain torch on any device, exact to the rounding of the dtype, without gradients (overlaps are
targets and decisions here, never losses).

Letters: N, M boxes; K pairs of boxes; E the 4 edges of a rectangle;
7 = x, y, z (gravity centre), l, w, h, yaw; metres and radians, any frame with z up.
"""

import torch

# Pairs clipped at a time: temporaries that stay in a CPU's cache; few launches on other devices.
_PAIRS_PER_CHUNK_CPU = 1 << 15
_PAIRS_PER_CHUNK = 1 << 19
_DISTANCES_PER_CHUNK = 1 << 22
_NMS_BLOCK = 256


@torch.no_grad()
def rotated_intersection_bev(boxes_a_N7: torch.Tensor, boxes_b_M7: torch.Tensor) -> torch.Tensor:
    """Area shared by the footprints of every box of one set with every box of another.

    Args:
        boxes_a_N7: boxes, floating point.
        boxes_b_M7: boxes, same dtype and device.

    Returns:
        (N, M) square metres, same dtype; exactly 0 where footprints do not meet.

    Raises:
        ValueError: wrong shapes, or differing or integer dtypes.
    """
    _check(boxes_a_N7, boxes_b_M7)
    area_NM = boxes_a_N7.new_zeros(len(boxes_a_N7), len(boxes_b_M7))
    if area_NM.numel() == 0:
        return area_NM
    boxes_a_7N, boxes_b_7M = boxes_a_N7.T.contiguous(), boxes_b_M7.T.contiguous()
    radius_a_N, radius_b_M = _half_diagonal(boxes_a_N7), _half_diagonal(boxes_b_M7)
    rows = max(1, _DISTANCES_PER_CHUNK // len(boxes_b_M7))
    for start in range(0, len(boxes_a_N7), rows):
        stop = start + rows
        # Differences, not cdist: that one may go through a matrix product and lose digits.
        dx = boxes_a_7N[0, start:stop, None] - boxes_b_7M[0]
        dy = boxes_a_7N[1, start:stop, None] - boxes_b_7M[1]
        reach = radius_a_N[start:stop, None] + radius_b_M
        near = (dx.square_().add_(dy.square_()) < reach.square_()).nonzero()
        for pairs in near.split(_pairs_per_chunk(near.device)):
            a, b = pairs[:, 0] + start, pairs[:, 1]
            area_NM[a, b] = _intersection(boxes_a_7N[:, a], boxes_b_7M[:, b])
    return area_NM


@torch.no_grad()
def rotated_intersection_bev_paired(
    boxes_a_N7: torch.Tensor, boxes_b_N7: torch.Tensor
) -> torch.Tensor:
    """Area shared by the footprints of the boxes of two equally long sets, pair by pair.

    Args:
        boxes_a_N7: boxes, floating point.
        boxes_b_N7: their partners, same dtype and device.

    Returns:
        (N,) square metres, same dtype.

    Raises:
        ValueError: wrong shapes, unequal lengths, or differing or integer dtypes.
    """
    _check(boxes_a_N7, boxes_b_N7)
    if len(boxes_a_N7) != len(boxes_b_N7):
        raise ValueError(f'paired boxes: found {len(boxes_a_N7)} and {len(boxes_b_N7)} of them')
    boxes_a_7N, boxes_b_7N = boxes_a_N7.T.contiguous(), boxes_b_N7.T.contiguous()
    area_N = boxes_a_N7.new_empty(len(boxes_a_N7))
    step = _pairs_per_chunk(boxes_a_N7.device)
    for start in range(0, len(boxes_a_N7), step):
        chunk = slice(start, start + step)
        area_N[chunk] = _intersection(boxes_a_7N[:, chunk], boxes_b_7N[:, chunk])
    return area_N


@torch.no_grad()
def iou_bev(boxes_a_N7: torch.Tensor, boxes_b_M7: torch.Tensor) -> torch.Tensor:
    """Intersection over union of the footprints (kitti-eval 3.3), every box with every other.

    Args:
        boxes_a_N7: boxes, floating point.
        boxes_b_M7: boxes, same dtype and device.

    Returns:
        (N, M) in [0, 1], same dtype; 0 where both footprints are empty.

    Raises:
        ValueError: wrong shapes, or differing or integer dtypes.
    """
    area_NM = rotated_intersection_bev(boxes_a_N7, boxes_b_M7)
    return _over_union(area_NM, _footprint(boxes_a_N7)[:, None], _footprint(boxes_b_M7))


@torch.no_grad()
def iou_bev_paired(boxes_a_N7: torch.Tensor, boxes_b_N7: torch.Tensor) -> torch.Tensor:
    """Intersection over union of the footprints, pair by pair: (N,); else as `iou_bev`."""
    area_N = rotated_intersection_bev_paired(boxes_a_N7, boxes_b_N7)
    return _over_union(area_N, _footprint(boxes_a_N7), _footprint(boxes_b_N7))


@torch.no_grad()
def iou_3d(boxes_a_N7: torch.Tensor, boxes_b_M7: torch.Tensor) -> torch.Tensor:
    """Intersection over union of the volumes (kitti-eval 3.3), every box with every other.

    Args:
        boxes_a_N7: boxes, floating point.
        boxes_b_M7: boxes, same dtype and device.

    Returns:
        (N, M) in [0, 1], same dtype; 0 where both volumes are empty.

    Raises:
        ValueError: wrong shapes, or differing or integer dtypes.
    """
    volume_NM = rotated_intersection_bev(boxes_a_N7, boxes_b_M7)
    volume_NM *= _shared_height(boxes_a_N7[:, None], boxes_b_M7)
    return _over_union(volume_NM, _volume(boxes_a_N7)[:, None], _volume(boxes_b_M7))


@torch.no_grad()
def iou_3d_paired(boxes_a_N7: torch.Tensor, boxes_b_N7: torch.Tensor) -> torch.Tensor:
    """Intersection over union of the volumes, pair by pair: (N,); else as `iou_3d`."""
    volume_N = rotated_intersection_bev_paired(boxes_a_N7, boxes_b_N7)
    volume_N *= _shared_height(boxes_a_N7, boxes_b_N7)
    return _over_union(volume_N, _volume(boxes_a_N7), _volume(boxes_b_N7))


@torch.no_grad()
def iou_bev_nearest_axis_aligned(
    boxes_a_N7: torch.Tensor, boxes_b_M7: torch.Tensor
) -> torch.Tensor:
    """IoU of the footprints after turning each to the nearest multiple of 90 degrees.

    The matching overlap of anchors and labels (cmkd-spec F5).

    Args:
        boxes_a_N7: boxes, floating point.
        boxes_b_M7: boxes, same dtype and device.

    Returns:
        (N, M) in [0, 1], same dtype.

    Raises:
        ValueError: wrong shapes, or differing or integer dtypes.
    """
    _check(boxes_a_N7, boxes_b_M7)
    half_a_N2, half_b_M2 = _aligned_half_sizes(boxes_a_N7), _aligned_half_sizes(boxes_b_M7)
    area_NM = boxes_a_N7.new_ones(len(boxes_a_N7), len(boxes_b_M7))
    for axis in (0, 1):
        center_a_N1, half_a_N1 = boxes_a_N7[:, None, axis], half_a_N2[:, None, axis]
        center_b_M, half_b_M = boxes_b_M7[:, axis], half_b_M2[:, axis]
        high_NM = torch.minimum(center_a_N1 + half_a_N1, center_b_M + half_b_M)
        low_NM = torch.maximum(center_a_N1 - half_a_N1, center_b_M - half_b_M)
        area_NM *= (high_NM - low_NM).clamp_(min=0)
    return _over_union(area_NM, _footprint(boxes_a_N7)[:, None], _footprint(boxes_b_M7))


@torch.no_grad()
def nms_bev(
    boxes_N7: torch.Tensor,
    scores_N: torch.Tensor,
    iou_threshold: float,
    max_in: int,
    max_out: int,
) -> torch.Tensor:
    """Greedy non-maximum suppression of the footprints, exact (cmkd-spec E1).

    Boxes are visited by descending score, equal scores in the order given; a box is dropped when
    its rotated IoU with one kept before is greater than the threshold.

    Args:
        boxes_N7: boxes.
        scores_N: their scores.
        iou_threshold: overlap that is still allowed.
        max_in: only so many best scores are looked at.
        max_out: only so many are kept.

    Returns:
        (k,) int64, indices of the kept boxes, descending score, on the device of the boxes.

    Raises:
        ValueError: wrong shapes or a non-finite number.
    """
    if scores_N.shape != boxes_N7.shape[:1]:
        raise ValueError(
            f'nms: expected a score for each box, found shapes {tuple(boxes_N7.shape)} and '
            f'{tuple(scores_N.shape)}'
        )
    if not (boxes_N7.isfinite().all() and scores_N.isfinite().all()):
        raise ValueError('nms: expected finite boxes and scores, found NaN or Inf')
    order = scores_N.argsort(descending=True, stable=True)[:max_in]
    # float64, so that the same boxes are kept on every device.
    alive_N7 = boxes_N7[order].double()
    kept: list[torch.Tensor] = []
    n_kept = 0
    while len(order) and n_kept < max_out:
        head_N7, alive_N7 = alive_N7[:_NMS_BLOCK], alive_N7[_NMS_BLOCK:]
        chosen = _greedy(iou_bev(head_N7, head_N7) > iou_threshold)
        kept.append(order[:_NMS_BLOCK][chosen])
        n_kept += len(chosen)
        free = ~(iou_bev(head_N7[chosen], alive_N7) > iou_threshold).any(dim=0)
        order, alive_N7 = order[_NMS_BLOCK:][free], alive_N7[free]
    return torch.cat(kept)[:max_out] if kept else order


def _greedy(overlaps_NN: torch.Tensor) -> torch.Tensor:
    overlaps = overlaps_NN.cpu().numpy()
    dropped = overlaps[0] & False
    chosen = []
    for i, row in enumerate(overlaps):
        if not dropped[i]:
            chosen.append(i)
            dropped |= row
    return torch.tensor(chosen, dtype=torch.int64, device=overlaps_NN.device)


def _pairs_per_chunk(device: torch.device) -> int:
    return _PAIRS_PER_CHUNK_CPU if device.type == 'cpu' else _PAIRS_PER_CHUNK


def _intersection(boxes_a_7K: torch.Tensor, boxes_b_7K: torch.Tensor) -> torch.Tensor:
    """Shared footprint area of each pair, (K,).

    In the frame of b, whose footprint is then |x| <= X, |y| <= Y, the area of a inside b is the
    line integral of clamp(x) d clamp(y) along the border of a: clamping moves the curve onto b
    without ever crossing an inner point of b, so the winding number about each of these stays what
    a's border gives it, and outside b it is zero. No case distinction and no list of vertices,
    hence continuous: coinciding edges and corners lose nothing.
    """
    x_EK, y_EK = _corners_in_frame_of(boxes_a_7K, boxes_b_7K)
    half_x_K, half_y_K = boxes_b_7K[3] / 2, boxes_b_7K[4] / 2
    dx_EK, dy_EK = x_EK.roll(-1, dims=0).sub_(x_EK), y_EK.roll(-1, dims=0).sub_(y_EK)
    # The part of each edge with |y| <= Y: its ends as heights, then as x.
    begin_y_EK = y_EK.clamp(-half_y_K, half_y_K)
    end_y_EK = begin_y_EK.roll(-1, dims=0)
    divisor_EK = torch.where(dy_EK != 0, dy_EK, 1)
    begin_x_EK = (begin_y_EK - y_EK).div_(divisor_EK).clamp_(0, 1).mul_(dx_EK).add_(x_EK)
    end_x_EK = (end_y_EK - y_EK).div_(divisor_EK).clamp_(0, 1).mul_(dx_EK).add_(x_EK)
    terms_EK = _mean_of_clamped(begin_x_EK, end_x_EK, half_x_K).mul_(end_y_EK.sub_(begin_y_EK))
    area_K = terms_EK.sum(dim=0)
    # What rounding leaves of disjoint pairs (one unit at most) must not count as an overlap.
    noise_K = 4 * torch.finfo(area_K.dtype).eps * terms_EK.abs_().sum(dim=0)
    area_K = torch.where(area_K > noise_K, area_K, 0)
    # And a shared area never exceeds either footprint, so that no IoU exceeds 1.
    footprint_a_K, footprint_b_K = boxes_a_7K[3] * boxes_a_7K[4], boxes_b_7K[3] * boxes_b_7K[4]
    return area_K.minimum(footprint_a_K).minimum(footprint_b_K)


def _corners_in_frame_of(
    boxes_a_7K: torch.Tensor, boxes_b_7K: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Corners of a in the frame of b, counter-clockwise: x (E, K) and y (E, K)."""
    dx_K, dy_K = boxes_a_7K[0] - boxes_b_7K[0], boxes_a_7K[1] - boxes_b_7K[1]
    cos_b_K, sin_b_K = boxes_b_7K[6].cos(), boxes_b_7K[6].sin()
    center_x_K = cos_b_K * dx_K + sin_b_K * dy_K
    center_y_K = cos_b_K * dy_K - sin_b_K * dx_K
    yaw_K = boxes_a_7K[6] - boxes_b_7K[6]
    cos_K, sin_K = yaw_K.cos() / 2, yaw_K.sin() / 2
    ahead_x_K, ahead_y_K = cos_K * boxes_a_7K[3], sin_K * boxes_a_7K[3]
    left_x_K, left_y_K = -sin_K * boxes_a_7K[4], cos_K * boxes_a_7K[4]
    x_EK = torch.stack(
        [ahead_x_K + left_x_K, left_x_K - ahead_x_K, -ahead_x_K - left_x_K, ahead_x_K - left_x_K]
    )
    y_EK = torch.stack(
        [ahead_y_K + left_y_K, left_y_K - ahead_y_K, -ahead_y_K - left_y_K, ahead_y_K - left_y_K]
    )
    return x_EK.add_(center_x_K), y_EK.add_(center_y_K)


def _mean_of_clamped(x0: torch.Tensor, x1: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    """Mean of clamp(x, -limit, limit) for x running evenly from x0 to x1."""
    inner0, inner1 = x0.clamp(-limit, limit), x1.clamp(-limit, limit)
    length = x1 - x0
    length = torch.where(length != 0, length, 1)
    before = (inner0 - x0).div_(length).clamp_(0, 1)
    after = (x1 - inner1).div_(length).clamp_(0, 1)
    middle = (inner0 + inner1).div_(2)
    # Weights before, 1 - before - after, after: each in [0, 1], so rounding stays harmless.
    return middle + before.mul_(inner0 - middle) + after.mul_(inner1 - middle)


def _shared_height(boxes_a: torch.Tensor, boxes_b: torch.Tensor) -> torch.Tensor:
    height_a, height_b = boxes_a[..., 5], boxes_b[..., 5]
    # From the distance of the centres: tops and bottoms far from the origin would lose digits.
    reach = (height_a + height_b) / 2 - (boxes_a[..., 2] - boxes_b[..., 2]).abs()
    return reach.clamp_(min=0).minimum(height_a).minimum(height_b)


def _over_union(shared: torch.Tensor, size_a: torch.Tensor, size_b: torch.Tensor) -> torch.Tensor:
    union = size_a + size_b - shared
    return torch.where(shared > 0, shared / union, 0)


def _half_diagonal(boxes_N7: torch.Tensor) -> torch.Tensor:
    return torch.hypot(boxes_N7[:, 3], boxes_N7[:, 4]) / 2


def _footprint(boxes_N7: torch.Tensor) -> torch.Tensor:
    return boxes_N7[:, 3] * boxes_N7[:, 4]


def _volume(boxes_N7: torch.Tensor) -> torch.Tensor:
    return boxes_N7[:, 3] * boxes_N7[:, 4] * boxes_N7[:, 5]


def _aligned_half_sizes(boxes_N7: torch.Tensor) -> torch.Tensor:
    # Distance of the yaw to the nearest half turn: beyond 45 degrees length and width swap.
    off_axis = (boxes_N7[:, 6] - torch.round(boxes_N7[:, 6] / torch.pi) * torch.pi).abs()
    lengthwise = (off_axis < torch.pi / 4)[:, None]
    return torch.where(lengthwise, boxes_N7[:, 3:5], boxes_N7[:, [4, 3]]) / 2


def _check(boxes_a: torch.Tensor, boxes_b: torch.Tensor) -> None:
    for boxes in (boxes_a, boxes_b):
        if boxes.ndim != 2 or boxes.shape[1] != 7 or not boxes.is_floating_point():
            raise ValueError(
                f'boxes: expected (N, 7) floating point, found {tuple(boxes.shape)} {boxes.dtype}'
            )
    if boxes_a.dtype != boxes_b.dtype:
        raise ValueError(f'boxes: expected one dtype, found {boxes_a.dtype} and {boxes_b.dtype}')
