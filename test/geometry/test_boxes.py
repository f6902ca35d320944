"""Boxes: container, corners, projection, KITTI labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.geometry import Boxes3D, camera_mount_pose, make_se3, transform_points
from cmkd_ros.kitti_files import read_calibration, read_labels

# A KITTI-like calibration: slight tilt, and a projection with all its translations.
P_PX_34 = np.array([[721.5, 0, 609.6, 44.9], [0, 721.5, 172.9, 0.22], [0, 0, 1, 0.0027]])
T_CAM_REF = make_se3(
    camera_mount_pose(1.73, pitch_rad=0.01, roll_rad=-0.01)[:3, :3], [-0.003, -0.075, -0.272]
)


def boxes_strategy(x_min: float, x_max: float):
    row = st.tuples(
        st.floats(x_min, x_max),
        st.floats(-20, 20),
        st.floats(-3, 3),
        *[st.floats(0.1, 8)] * 3,
        st.floats(-3.14, 3.14),
    )
    return st.lists(row, min_size=1, max_size=6).map(lambda rows: Boxes3D(np.array(rows)))


def test_container():
    array_N7 = np.arange(21.0).reshape(3, 7)
    boxes = Boxes3D(array_N7)
    array_N7[:] = -1
    assert boxes.array_N7[2, 6] == 20
    assert not boxes.array_N7.flags.writeable
    assert len(boxes) == 3
    assert boxes.centers_N3[1].tolist() == [7, 8, 9]
    assert boxes.sizes_N3[1].tolist() == [10, 11, 12]
    assert boxes.yaws_N.tolist() == [6, 13, 20]
    assert boxes[np.array([True, False, True])].yaws_N.tolist() == [6, 20]
    assert boxes[[False, False, True]].yaws_N.tolist() == [20]
    assert boxes[[2, 0]].yaws_N.tolist() == [20, 6]
    assert boxes[1:].yaws_N.tolist() == [13, 20]
    assert boxes[-1].yaws_N.tolist() == [20]
    assert len(boxes[[]]) == 0
    assert [len(box) for box in boxes] == [1, 1, 1]


def test_empty_goes_everywhere():
    boxes = Boxes3D.empty()
    assert len(boxes) == 0
    assert boxes.corners_N83().shape == (0, 8, 3)
    boxes_px_N4, visible_N = boxes.project(P_PX_34, T_CAM_REF, 1242, 375)
    assert boxes_px_N4.shape == (0, 4)
    assert visible_N.shape == (0,)
    assert visible_N.dtype == bool
    assert boxes.project_as_kitti(P_PX_34, T_CAM_REF, 1242, 375).shape == (0, 4)
    assert [a.shape for a in boxes.to_kitti(T_CAM_REF)] == [(0, 3), (0, 3), (0,), (0,)]
    assert len(Boxes3D.from_kitti([], [], [], T_CAM_REF)) == 0


def test_corner_order():
    corners_83 = Boxes3D([[10, 0, 1, 4, 2, 1, 0]]).corners_N83()[0]
    bottom = [[12, 1, 0.5], [8, 1, 0.5], [8, -1, 0.5], [12, -1, 0.5]]
    np.testing.assert_allclose(corners_83[:4], bottom)
    np.testing.assert_allclose(corners_83[4:], np.add(bottom, [0, 0, 1]))
    turned_83 = Boxes3D([[10, 0, 1, 4, 2, 1, np.pi / 2]]).corners_N83()[0]
    np.testing.assert_allclose(turned_83[0], [9, 2, 0.5])


def test_projection_by_hand():
    P_px_34 = np.array([[100.0, 0, 50, 0], [0, 100, 40, 0], [0, 0, 1, 0]])
    T_cam_ref = camera_mount_pose(1.73, forward_m=0.0)
    # Front face at 8 m: half width 1 m left, 2 m right, 0.5 m up and down.
    boxes = Boxes3D([[10, -0.5, 0, 4, 3, 1, 0], [10, 50, 0, 4, 3, 1, 0], [-10, 0, 0, 4, 3, 1, 0]])
    boxes_px_N4, visible_N = boxes.project(P_px_34, T_cam_ref, 101, 81)
    np.testing.assert_allclose(boxes_px_N4[0], [37.5, 33.75, 75, 46.25])
    assert visible_N.tolist() == [True, False, False]
    assert not boxes_px_N4[1:].any()
    clipped_14, _ = boxes[0].project(P_px_34, T_cam_ref, 61, 41)
    np.testing.assert_allclose(clipped_14, [[37.5, 33.75, 60, 40]])


@given(boxes_strategy(15, 60))
@settings(deadline=None, max_examples=50)
def test_projection_of_boxes_in_front_is_that_of_their_corners(boxes):
    corners_N83 = transform_points(T_CAM_REF, boxes.corners_N83())
    pixels_N83 = corners_N83 @ P_PX_34[:, :3].T + P_PX_34[:, 3]
    uv_N82 = pixels_N83[..., :2] / pixels_N83[..., 2:]
    expected_N4 = np.hstack([uv_N82.min(axis=1), uv_N82.max(axis=1)])
    expected_N4 = expected_N4.clip(0, [1241, 374, 1241, 374])
    boxes_px_N4, visible_N = boxes.project(P_PX_34, T_CAM_REF, 1242, 375)
    np.testing.assert_allclose(boxes_px_N4[visible_N], expected_N4[visible_N], atol=1e-9)
    sides_N2 = expected_N4[:, 2:] - expected_N4[:, :2]
    assert np.array_equal(visible_N, (sides_N2 > 0).all(axis=1))


@given(boxes_strategy(-6, 8))
@settings(deadline=None, max_examples=50)
def test_projection_of_boxes_around_the_camera_encloses_what_is_seen(boxes):
    """The rectangle must be that of finely sampled edges, of which the part behind is left out."""
    edges = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4)]
    edges += [(0, 4), (1, 5), (2, 6), (3, 7)]
    starts, ends = (boxes.corners_N83()[:, [edge[i] for edge in edges], None] for i in (0, 1))
    steps = np.linspace(0, 1, 2001)[:, None]
    points = transform_points(
        T_CAM_REF, (starts + steps * (ends - starts)).reshape(len(boxes), -1, 3)
    )
    pixels = points @ P_PX_34[:, :3].T + P_PX_34[:, 3]
    boxes_px_N4, visible_N = boxes.project(P_PX_34, T_CAM_REF, 1242, 375)
    for pixels_K3, box_px, visible in zip(pixels, boxes_px_N4, visible_N, strict=True):
        seen_K3 = pixels_K3[pixels_K3[:, 2] > 0.05]
        if not len(seen_K3):
            continue
        uv = seen_K3[:, :2] / seen_K3[:, 2:]
        low, high = uv.min(axis=0), uv.max(axis=0)
        if (high > 1e-6).all() and (low < [1241 - 1e-6, 374 - 1e-6]).all():
            assert visible
            inside = np.hstack([low, high]).clip(0, [1241, 374, 1241, 374])
            assert (box_px[:2] <= inside[:2] + 1e-6).all()
            assert (box_px[2:] >= inside[2:] - 1e-6).all()


def test_box_beside_the_camera_does_not_explode():
    # A wall on the left from 5 m behind to 15 m ahead: it ends before the image centre.
    boxes = Boxes3D([[5, 3, 0, 20, 0.2, 2, 0]])
    ((x1, y1, x2, y2),), visible_N = boxes.project(P_PX_34, T_CAM_REF, 1242, 375)
    assert visible_N[0]
    assert (x1, y1, y2) == (0, 0, 374)
    assert 400 < x2 < 500


@given(boxes_strategy(-40, 60))
@settings(deadline=None, max_examples=100)
def test_kitti_round_trip(boxes):
    locations_N3, dimensions_N3, rotations_N, _ = boxes.to_kitti(T_CAM_REF)
    back = Boxes3D.from_kitti(locations_N3, dimensions_N3, rotations_N, T_CAM_REF)
    np.testing.assert_allclose(back.array_N7, boxes.array_N7, atol=1e-9)


def test_kitti_form_by_hand():
    T_cam_ref = camera_mount_pose(1.73, forward_m=0.0)
    # Driving away, to the left: KITTI's rotation is -90 degrees, the location is on the ground.
    locations_N3, dimensions_N3, rotations_N, alphas_N = Boxes3D(
        [[10, 10, -0.98, 3.9, 1.6, 1.5, 0]]
    ).to_kitti(T_cam_ref)
    np.testing.assert_allclose(locations_N3, [[-10, 1.73, 10]], atol=1e-12)
    np.testing.assert_allclose(dimensions_N3, [[1.5, 1.6, 3.9]])
    np.testing.assert_allclose(rotations_N, [-np.pi / 2])
    # rotation - atan2(x, z) of the camera.
    np.testing.assert_allclose(alphas_N, [-np.pi / 2 + np.pi / 4])


def test_kitti_projection_equals_ours_without_the_quirks():
    P_px_34 = np.array([[700.0, 0, 600, 40], [0, 700, 180, 0.2], [0, 0, 1, 0]])
    T_cam_ref = camera_mount_pose(1.6)
    boxes = Boxes3D([[20, -3, 0, 4, 2, 1.5, 0.3], [9, 2, -1, 1, 1, 1.8, -2.5]])
    ours_N4, visible_N = boxes.project(P_px_34, T_cam_ref, 1242, 375)
    assert visible_N.all()
    kitti_N4 = boxes.project_as_kitti(P_px_34, T_cam_ref, 1242, 375)
    np.testing.assert_allclose(kitti_N4, ours_N4, atol=1e-9)


def test_real_labels(shared_dir):
    """Labels survive the round trip, and their boxes project onto the rectangles people drew."""
    folder = shared_dir / 'kitti_mini' / 'training'
    ious: list[float] = []
    for path in sorted((folder / 'label_2').glob('*.txt')):
        calibration = read_calibration(folder / 'calib' / path.name)
        labels = read_labels(path)
        labels = labels.select(np.array([name != 'DontCare' for name in labels.names], dtype=bool))
        label = (labels.locations_N3, labels.dimensions_N3, labels.rotations_y_N)
        boxes = Boxes3D.from_kitti(*label, calibration.T_cam_ref)
        *back, alphas_N = boxes.to_kitti(calibration.T_cam_ref)
        np.testing.assert_allclose(back[0], label[0], atol=1e-9)
        np.testing.assert_allclose(back[1], label[1], atol=1e-12)
        np.testing.assert_allclose(np.cos(back[2] - label[2]), 1, atol=1e-12)
        boxes_px_N4, _ = boxes.project(calibration.P2_34, calibration.T_cam_ref, 1242, 375)
        # Whole cars only: of hidden and cut ones people drew the part they saw.
        whole_N = (labels.occluded_N == 0) & (labels.truncated_N == 0)
        low = np.maximum(boxes_px_N4[:, :2], labels.boxes_px_N4[:, :2])
        high = np.minimum(boxes_px_N4[:, 2:], labels.boxes_px_N4[:, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        sizes = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes_px_N4, labels.boxes_px_N4)]
        ious.extend((shared / (sizes[0] + sizes[1] - shared))[whole_N])
        assert np.median(np.cos(alphas_N - labels.alphas_N)) > 0.99
    assert len(ious) > 20
    assert np.median(ious) > 0.85


@pytest.fixture(scope='module')
def golden(shared_dir):
    return dict(np.load(shared_dir / 'goldens' / 'student_scd_R50_V2_000002.npz'))


def test_official_kitti_form(golden):
    n = len(golden['kitti.0.bbox'])
    boxes = Boxes3D(golden['final.0.boxes'][:n])
    T_cam_ref = golden['trans_lidar_to_cam'][0]
    locations_N3, dimensions_N3, rotations_N, alphas_N = boxes.to_kitti(T_cam_ref)
    np.testing.assert_allclose(locations_N3, golden['kitti.0.location'], atol=1e-5)
    # The golden holds them as l, h, w.
    np.testing.assert_allclose(dimensions_N3[:, [2, 0, 1]], golden['kitti.0.dimensions'], rtol=1e-6)
    for ours, theirs in ((rotations_N, 'rotation_y'), (alphas_N, 'alpha')):
        turns = (ours - golden[f'kitti.0.{theirs}']) / (2 * np.pi)
        np.testing.assert_allclose(turns, np.round(turns), atol=1e-6)


def test_official_image_boxes(golden):
    n = len(golden['kitti.0.bbox'])
    boxes = Boxes3D(golden['final.0.boxes'][:n])
    height, width = golden['image_shape'][0]
    P_px_34, T_cam_ref = golden['trans_cam_to_img'][0], golden['trans_lidar_to_cam'][0]
    official_N4 = boxes.project_as_kitti(P_px_34, T_cam_ref, width, height)
    np.testing.assert_allclose(official_N4, golden['kitti.0.bbox'], atol=1e-3)
    # Their quirks move these boxes by little; ours see the box as it stands in the world.
    ours_N4, visible_N = boxes.project(P_px_34, T_cam_ref, width, height)
    assert visible_N.all()
    np.testing.assert_allclose(ours_N4, official_N4, atol=2)


@pytest.mark.parametrize(
    ('call', 'message'),
    [
        (lambda: Boxes3D(np.zeros((2, 8))), r'expected shape \(N, 7\), found \(2, 8\)'),
        (lambda: Boxes3D(np.zeros(7)), r'found \(7,\)'),
        (lambda: Boxes3D([[0] * 7, [0, 0, np.nan, 1, 1, 1, 0]]), 'finite numbers.*row 1'),
        (lambda: Boxes3D([[0, 0, 0, 1, -1, 1, 0]]), r'sizes l, w, h >= 0.*row 0'),
        (
            lambda: Boxes3D.from_kitti(np.zeros((2, 3)), np.zeros((2, 3)), [0.0], np.eye(4)),
            r'as many locations as dimensions and rotations, found \(2, 2, 1\)',
        ),
        (
            lambda: Boxes3D.empty().project(np.eye(3), np.eye(4), 10, 10),
            r'P_px_34: expected shape \(3, 4\), found \(3, 3\)',
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
