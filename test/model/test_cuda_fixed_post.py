"""Post-processing in a fixed size against `find_boxes`, which defines the boxes."""

import numpy as np
import pytest
import torch
from exported_students import tiny_student

from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.detect_image import read_image
from cmkd_ros.detector import Detector
from cmkd_ros.geometry.overlap import nms_bev
from cmkd_ros.kitti_files import read_calibration
from cmkd_ros.model.anchor_head import AnchorHead
from cmkd_ros.model.fixed_post import CANDIDATES, FixedPost, limits_of
from cmkd_ros.model.outputs import AnchorHeadOutput, CenterHeadOutput
from cmkd_ros.model.post import find_boxes
from cmkd_ros.model.spec import PostSpec

SIZE_YX = (24, 32)
SIZE = 160  # of the table: pairs take their time on a CPU


def random_maps(head, seed, spread=1.0):
    """Raw maps, a few dozen scores of which lie above 0.1."""
    mean = -5.0 if isinstance(head, AnchorHead) else -4.0
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    if isinstance(head, AnchorHead):
        n_anchors = head.anchors_per_cell
        return AnchorHeadOutput(
            normal(1, *SIZE_YX, n_anchors * head.n_classes) * spread + mean,
            0.3 * normal(1, *SIZE_YX, n_anchors * 7),
            normal(1, *SIZE_YX, n_anchors * 2),
        )
    sizes = {'center': 2, 'center_z': 1, 'dim': 3, 'rot': 2}
    maps = {name: normal(1, n, *SIZE_YX) for name, n in sizes.items()}
    maps['dim'] *= 0.3
    return CenterHeadOutput(hm=normal(1, head.n_classes, *SIZE_YX) * spread + mean, **maps)


def assert_same(head, maps, post, class_thresholds=None, size=SIZE):
    """The fixed form gives these boxes in this order; returns how many."""
    expected = find_boxes(head, maps, post, class_thresholds)[0]
    fixed = FixedPost(head, post.nms_max_in, size)
    table = fixed(maps, limits_of(post, class_thresholds, head.n_classes))
    found = fixed.boxes(table, post.nms_max_out)
    assert found is not None
    assert torch.equal(found.labels_K, expected.labels_K)
    # A processor may take exp of the last few numbers of a row another way than of the others.
    torch.testing.assert_close(found.scores_K, expected.scores_K, rtol=1e-6, atol=0)
    torch.testing.assert_close(found.boxes_K7, expected.boxes_K7, rtol=1e-6, atol=1e-6)
    return len(expected)


@pytest.fixture(scope='module', params=['anchor', 'center'])
def head(request):
    found = tiny_student(request.param).head
    if request.param == 'center':
        found.max_objects = SIZE
    return found


@pytest.fixture(scope='module')
def anchor_head():
    return tiny_student('anchor').head


@pytest.mark.parametrize('spread', [0.9, 1.2])
def test_boxes_and_their_order_are_those_of_find_boxes(head, spread):
    for seed in range(4):
        maps = random_maps(head, seed, spread)
        assert assert_same(head, maps, PostSpec(score_threshold=0.1)) > 1
        assert_same(head, maps, PostSpec(score_threshold=0.1, nms_iou=0.3))
        assert_same(head, maps, PostSpec(score_threshold=0.1, nms_iou=0.0, nms_max_out=3))
        assert_same(head, maps, PostSpec(score_threshold=0.1), [0.1, 0.3, 0.2])


def assert_left_to_find_boxes(head, maps, post):
    fixed = FixedPost(head, post.nms_max_in, SIZE)
    assert fixed.boxes(fixed(maps, limits_of(post, None, 3)), 500) is None


def test_nothing_above_the_threshold(head):
    assert assert_same(head, random_maps(head, 0), PostSpec(score_threshold=1.0)) == 0


def test_a_threshold_of_zero_is_left_to_find_boxes_where_all_anchors_pass(head):
    maps = random_maps(head, 1)
    post = PostSpec(score_threshold=0.0)
    if isinstance(head, AnchorHead):
        assert_left_to_find_boxes(head, maps, post)
    else:  # takes the best 500 anyway
        assert assert_same(head, maps, post) > 20


def test_few_places_are_exact_or_refused(head):
    """`nms_max_in` of the spec may be smaller than the table."""
    maps = random_maps(head, 2)
    post = PostSpec(nms_max_in=5)
    if isinstance(head, AnchorHead):
        assert_left_to_find_boxes(head, maps, post)
    else:
        assert 0 < assert_same(head, maps, post) <= 5


def test_numbers_that_are_not_finite_never_come_out(head):
    maps = random_maps(head, 3)
    if isinstance(head, AnchorHead):
        maps.cls_logits[0, :10] = torch.nan
        maps.box_deltas[0, 10:14, :, 3] = 1000.0
    else:
        maps.dim[0, 0, :10] = 1000.0
        maps.center_z[0, 0, 10:12] = torch.nan
    assert assert_same(head, maps, PostSpec()) > 0


def test_equal_scores_come_in_the_order_of_the_anchors(anchor_head):
    """`find_boxes` leaves it open; bf16 maps have many of them."""
    head, maps = anchor_head, random_maps(anchor_head, 4)
    maps.cls_logits.copy_((4 * maps.cls_logits).round() / 4)
    post = PostSpec()
    fixed = FixedPost(head, post.nms_max_in, SIZE)
    table = fixed(maps, limits_of(post, None, 3))
    found, passes, _ = fixed.candidates(table)
    scores, boxes = found.scores_K[passes], found.boxes_K7[passes]
    assert len(scores.unique()) < len(scores) / 4

    best_N = maps.cls_logits.view(-1, 3).amax(dim=1).sigmoid()
    order = best_N.argsort(descending=True, stable=True)[: len(scores)]
    assert torch.equal(scores, best_N[order])
    torch.testing.assert_close(boxes, head._boxes_at(maps, 0, order), rtol=1e-6, atol=1e-6)
    kept = nms_bev(boxes, scores, post.nms_iou, post.nms_max_in, post.nms_max_out)
    assert torch.equal(fixed.boxes(table, post.nms_max_out).boxes_K7, boxes[kept])


def test_thresholds_may_change_from_call_to_call(anchor_head):
    """They are numbers of a tensor, not of the code: what a graph that was captured needs."""
    head, maps = anchor_head, random_maps(anchor_head, 5)
    fixed = FixedPost(head, 4096, SIZE)
    counts = []
    for post in (PostSpec(score_threshold=0.3), PostSpec(nms_iou=0.5), PostSpec()):
        found = fixed.boxes(fixed(maps, limits_of(post, None, 3)), 500)
        assert torch.equal(found.scores_K, find_boxes(head, maps, post)[0].scores_K)
        counts.append(len(found))
    assert len(set(counts)) == 3


def test_boxes_of_real_frames(project_root, shared_dir):
    kitti_mini = shared_dir / 'kitti_mini'
    path = project_root / 'config' / 'models' / 'demo.cmkd'
    detector = Detector.from_file(path)
    head = load_bundle(path).build().head
    counts = []
    for frame in sorted((kitti_mini / 'training' / 'image_2').iterdir())[7:10]:
        image = read_image(frame)
        calib = read_calibration(kitti_mini / 'training' / 'calib' / f'{frame.stem}.txt')
        camera = calib.camera(image.shape[1], image.shape[0])
        with torch.inference_mode():
            output = detector.network(*detector.tensors(image, camera, calib.T_cam_ref))
        counts.append(assert_same(head, output.head, detector.post, size=CANDIDATES))
    assert np.sum(counts) > 20
