"""Non-maximum suppression whose work has a fixed size, so that the host need not wait amid it.

`nms_bev` looks at results on the way: which boxes may meet, how many are left. A graph that a GPU
replays cannot. Here the device compares every box with every better one, and puts out one bit for
each pair: (K, K / 8) bytes, which travel to the host together with the boxes. What is left to do
there, box after box, takes some ten microseconds. (On the device it is a chain of steps too: by
iteration, the boxes of real frames needed 2 to more than 12 passes over all pairs.)

The overlaps are those of `overlap.py`, the same integral in half as many operations: here their
number is the time, since each is a kernel over few numbers.

Letters: K boxes, P = K * (K - 1) / 2 pairs of a better box a and a box b, E the 4 edges of a
rectangle, W bytes of a row.
"""

import numpy as np
import torch

# Added to divisors: no number but 0 changes, and 0 / 0 becomes 0.
_TINY = 1e-300


class PairwiseOverlaps:
    """Which of K boxes overlap too much; holds what pairs there are, on one device."""

    def __init__(self, size: int, device: torch.device | str = 'cpu') -> None:
        """Make the list of pairs.

        Args:
            size: K; time and memory grow with its square (131 thousand pairs for 512).
            device: of the boxes.
        """
        self.size = size
        self.row_bytes = (size + 7) // 8
        with torch.inference_mode(False):
            self._first_P, self._second_P = torch.triu_indices(size, size, 1, device=device)
            self._pair_P = self._first_P * size + self._second_P
            self._place_P = self._first_P * (8 * self.row_bytes) + self._second_P
            self._signs_E12 = torch.tensor(
                [[1, 1], [-1, 1], [-1, -1], [1, -1]], dtype=torch.float64, device=device
            )[:, None]
            self._bit_8 = torch.tensor([1 << i for i in range(8)], dtype=torch.uint8, device=device)

    @torch.no_grad()
    def __call__(self, boxes_K7: torch.Tensor, iou_threshold: torch.Tensor | float) -> torch.Tensor:
        """Compare every box with all before it.

        Args:
            boxes_K7: float64, so that the same boxes are kept on every device, by descending score.
                Numbers that are not finite are allowed in boxes that nobody asks for.
            iou_threshold: rotated IoU that is still allowed; as a tensor: () on the device.

        Returns:
            (K, W) uint8, for `choose`: bit j of row i, lowest first, is set if i comes before j
            and their overlap is greater.
        """
        iou_P = self._iou(boxes_K7)
        drops = torch.zeros(
            self.size * self.row_bytes * 8, dtype=torch.uint8, device=boxes_K7.device
        )
        drops.index_copy_(0, self._place_P, (iou_P > iou_threshold).to(torch.uint8))
        bits_KW8 = drops.view(self.size, self.row_bytes, 8).mul_(self._bit_8)
        return bits_KW8.sum(dim=2, dtype=torch.uint8)

    def _iou(self, boxes_K7: torch.Tensor) -> torch.Tensor:
        """Overlaps of all pairs (P,), NaN where both footprints are empty."""
        half_K2 = boxes_K7[:, 3:5] / 2
        x_EP, y_EP = self._corners_of_a_in_b(boxes_K7, half_K2)
        half_x_P, half_y_P = half_K2[self._second_P].unbind(dim=1)

        # `overlap._intersection`: integral of clamp(x) d clamp(y) along the border of a.
        dx_EP, dy_EP = x_EP.roll(-1, dims=0).sub_(x_EP), y_EP.roll(-1, dims=0).sub_(y_EP)
        dy_EP.add_(_TINY)
        begin_y_EP = y_EP.clamp(-half_y_P, half_y_P)
        end_y_EP = begin_y_EP.roll(-1, dims=0)
        begin_x_EP, end_x_EP = (
            torch.addcmul(x_EP, (height - y_EP).div_(dy_EP).clamp_(0, 1), dx_EP)
            for height in (begin_y_EP, end_y_EP)
        )
        # The mean of clamp(x) for x running evenly from begin to end.
        first_EP, last_EP = (x.clamp(-half_x_P, half_x_P) for x in (begin_x_EP, end_x_EP))
        length_EP = (end_x_EP - begin_x_EP).add_(_TINY)
        before_EP = (first_EP - begin_x_EP).div_(length_EP).clamp_(0, 1)
        after_EP = end_x_EP.sub_(last_EP).div_(length_EP).clamp_(0, 1)
        middle_EP = torch.lerp(first_EP, last_EP, 0.5)
        mean_EP = torch.addcmul(middle_EP, before_EP.sub_(after_EP), first_EP.sub_(middle_EP))
        terms_EP = mean_EP.mul_(end_y_EP.sub_(begin_y_EP))

        area_P = terms_EP.sum(dim=0)
        # What rounding leaves of disjoint pairs must not count as an overlap.
        noise_P = terms_EP.abs_().sum(dim=0).mul_(4 * torch.finfo(torch.float64).eps)
        area_P.mul_(area_P > noise_P)
        footprint_K = boxes_K7[:, 3] * boxes_K7[:, 4]
        footprint_a_P, footprint_b_P = footprint_K[self._first_P], footprint_K[self._second_P]
        area_P = area_P.minimum(footprint_a_P).minimum(footprint_b_P)
        return area_P / footprint_a_P.add_(footprint_b_P).sub_(area_P)

    def _corners_of_a_in_b(
        self, boxes_K7: torch.Tensor, half_K2: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Corners of box a in the frame of box b, counter-clockwise: x and y (E, P)."""
        cos_K, sin_K = boxes_K7[:, 6].cos(), boxes_K7[:, 6].sin()
        axes_K22 = torch.stack([cos_K, sin_K, -sin_K, cos_K], dim=1).view(-1, 2, 2)  # rows: x, y
        center_K2 = boxes_K7[:, :2]
        local_EK12 = (self._signs_E12 * half_K2)[:, :, None]
        corners_EK2 = (local_EK12 @ axes_K22)[:, :, 0] + center_K2
        own_center_K2 = (axes_K22 @ center_K2[:, :, None])[:, :, 0]  # of b, along its own axes
        pairs = []
        for axis in range(2):
            along_EKK = corners_EK2 @ axes_K22[:, axis].T - own_center_K2[:, axis]
            pairs.append(along_EKK.flatten(1).index_select(1, self._pair_P))
        return pairs[0], pairs[1]


def choose(overlaps_KW: np.ndarray, passes_K: np.ndarray) -> list[int]:
    """The boxes that `nms_bev` keeps, in order, from what `PairwiseOverlaps` found.

    Args:
        overlaps_KW: uint8, on the host.
        passes_K: bool; the others neither stay nor take anything away.
    """
    data, n_bytes = overlaps_KW.tobytes(), overlaps_KW.shape[1]
    kept, dropped = [], 0
    for i in passes_K.nonzero()[0].tolist():
        if not dropped >> i & 1:
            kept.append(i)
            dropped |= int.from_bytes(data[i * n_bytes : (i + 1) * n_bytes], 'little')
    return kept
