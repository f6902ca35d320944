"""Pasted objects stand on the road of the frame that receives them."""

from dataclasses import replace

import numpy as np
import pytest

from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.training.data.gt_database import GroundTruthDatabase, PasteObjects
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.road_plane import read_road_plane, stand_on_plane

HEADER = '# Plane\nWidth 4\nHeight 1\n'


@pytest.fixture
def frames(made_kitti):
    """Frames whose road lies 1.65 m below the camera and climbs by 2 cm a metre ahead."""
    (made_kitti.root / 'training/planes').mkdir()
    for frame in made_kitti.frames:
        path = made_kitti.root / f'training/planes/{frame}.txt'
        path.write_text(f'{HEADER}0 -1 -0.02 1.65\n')
    return KittiFrames(made_kitti.root, made_kitti.frames, ['Car', 'Cyclist'], with_plane=True)


def test_planes_point_up_with_length_1(tmp_path):
    path = tmp_path / 'plane.txt'
    for line in ('0.01 -0.998 -0.02 1.65', '-0.02 1.996 0.04 -3.3\n\n'):
        path.write_text(HEADER + line)
        plane_4 = read_road_plane(path)
        assert np.linalg.norm(plane_4[:3]) == pytest.approx(1)
        assert plane_4[1] < 0
        assert plane_4[3] == pytest.approx(1.65, rel=2e-3)


@pytest.mark.parametrize('line', ['', '1 2 3', '0 -1 0 nan', '0 -1 x 1', '1 0 0 1', '0 0 0 0'])
def test_what_is_no_road_is_named(tmp_path, line):
    path = tmp_path / 'plane.txt'
    path.write_text(HEADER + line)
    with pytest.raises(ValueError, match='plane.txt: expected'):
        read_road_plane(path)
    with pytest.raises(FileNotFoundError, match='none.txt'):
        read_road_plane(tmp_path / 'none.txt')


def test_bottoms_lie_on_the_plane(frames):
    sample = frames[0]
    random = np.random.default_rng(0)
    boxes_K7 = random.uniform((5, -9, -3, 3, 1, 1, -3), (60, 9, 3, 5, 2, 2, 3), (20, 7))
    boxes_K7 = boxes_K7.astype(np.float32)
    boxes_K7[:, 2] += stand_on_plane(boxes_K7, sample.road_plane_4, sample.ref_to_cam_44)
    bottoms_K3 = boxes_K7[:, :3] - boxes_K7[:, 5:6] / 2 * np.array([0, 0, 1])
    cam_K3 = bottoms_K3 @ sample.ref_to_cam_44[:3, :3].T + sample.ref_to_cam_44[:3, 3]
    distances_K = cam_K3 @ sample.road_plane_4[:3] + sample.road_plane_4[3]
    np.testing.assert_allclose(distances_K, 0, atol=1e-5)


def test_objects_are_pasted_on_the_road_with_their_points(frames):
    box = np.array([[20, 8, 3, 2, 1, 2, 0.5]], np.float32)  # flying at 3 m
    corners_84 = np.zeros((8, 4), np.float32)
    corners_84[:, :3] = Boxes3D(box * [1, 1, 1, 0.9, 0.9, 0.9, 1]).corners_N83()[0]
    database = GroundTruthDatabase(box, np.array([2]), np.array([8]), corners_84)
    sample = frames[0]
    pasted = PasteObjects(database, {2: 1})(sample, np.random.default_rng(0))
    # 19.73 m before the camera the road has climbed 0.39 m; the camera is 0.08 m below ref.
    ground = -0.08 - 1.65 + 0.02 * 19.73
    assert pasted.boxes_M7[-1, 2] == pytest.approx(ground + 1, abs=1e-4)
    np.testing.assert_array_equal(
        pasted.boxes_M7[-1, [0, 1, 3, 4, 5, 6]], box[0, [0, 1, 3, 4, 5, 6]]
    )
    lifted = pasted.points_N4[:8] - corners_84
    np.testing.assert_allclose(lifted[:, 2], ground + 1 - 3, atol=1e-4)
    assert not lifted[:, [0, 1, 3]].any()
    assert pasted.road_plane_4 is None
    assert database.boxes_K7[0, 2] == 3  # the database itself stays
    plain = PasteObjects(database, {2: 1})(
        replace(sample, road_plane_4=None), np.random.default_rng(0)
    )
    assert plain.boxes_M7[-1, 2] == 3


def test_missing_planes_are_found_at_opening(frames, made_kitti):
    (made_kitti.root / 'training/planes/000004.txt').unlink()
    with pytest.raises(FileNotFoundError, match='planes/000004.txt: no such file'):
        KittiFrames(made_kitti.root, made_kitti.frames, ['Car'], with_plane=True)
    assert KittiFrames(made_kitti.root, made_kitti.frames, ['Car'])[0].road_plane_4 is None
