"""From head maps to boxes, whole."""

import pytest
import torch

from cmkd_ros.model.outputs import CenterHeadOutput
from cmkd_ros.model.post import find_boxes, score_to_logit
from cmkd_ros.model.spec import PostSpec


def test_a_logit_threshold_never_hides_a_score_that_passes():
    for score in (0.0, 1e-6, 0.1, 0.5, 0.9999, 1.0):
        logits = torch.linspace(-20, 20, 100_001)
        passing = logits[logits.sigmoid() >= score]
        assert (passing >= score_to_logit(score)).all()


class TestFindBoxes:
    """On maps of the centre head, whose boxes are easy to place."""

    @pytest.fixture
    def head(self):
        from cmkd_ros.model.center_head import CenterHead

        return CenterHead(8, 2, 4, (0, 0, -3, 20, 10, 1), (0, 0, -3, 20, 10, 1), 500)

    @pytest.fixture
    def maps(self):
        def of(channels, value=0.0):
            return torch.full((2, channels, 10, 20), value)

        maps = CenterHeadOutput(of(2, -9.0), of(2), of(1), of(3), of(2))
        maps.rot[:, 0] = 1.0
        maps.hm[0, 0, 5, 5] = 2.0
        maps.hm[0, 1, 5, 5] = 1.0  # the same box again, as the other class
        maps.hm[0, 1, 5, 9] = 1.5
        maps.hm[1, 0, 2, 3] = 0.5
        return maps

    def test_overlapping_boxes_of_any_class_leave_the_best(self, head, maps):
        first, second = find_boxes(head, maps, PostSpec())

        assert first.labels_K.tolist() == [0, 1]
        assert first.boxes_K7[:, 0].tolist() == [5.0, 9.0]
        assert second.boxes_K7[:, :2].tolist() == [[3.0, 2.0]]

    def test_limits_hold(self, head, maps):
        assert [len(f) for f in find_boxes(head, maps, PostSpec(nms_max_out=1))] == [1, 1]
        assert [len(f) for f in find_boxes(head, maps, PostSpec(score_threshold=0.8))] == [2, 0]
        assert [len(f) for f in find_boxes(head, maps, PostSpec(nms_iou=1.0))] == [3, 1]

    def test_a_box_below_its_class_threshold_takes_no_other_one_away(self, head, maps):
        first, _ = find_boxes(head, maps, PostSpec(), class_thresholds=[0.99, 0.1])
        assert 0 not in first.labels_K.tolist()
        assert len(first) == 2  # the one at x = 5 that was suppressed, and the one at 9
        first, _ = find_boxes(head, maps, PostSpec(), class_thresholds=[0.1, 0.99])
        assert first.labels_K.tolist() == [0]

    def test_numbers_that_are_not_finite_never_come_out(self, head, maps):
        maps.dim[0, 0, 5, 5] = 1000.0
        maps.center_z[1, 0, 2, 3] = torch.nan
        first, second = find_boxes(head, maps, PostSpec())

        assert first.boxes_K7[:, 0].tolist() == [9.0]
        assert len(second) == 0
        assert second.boxes_K7.shape == (0, 7)
