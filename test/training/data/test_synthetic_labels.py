"""Labels, picture and scan of a synthetic frame tell the same story."""

from dataclasses import replace

import numpy as np
import pytest

from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.geometry.frames import invert_se3, transform_points, wrap_angle
from cmkd_ros.kitti_files import KittiCalibration, KittiObjects
from cmkd_ros.training.data.synthetic import DriveSettings, render_frame
from cmkd_ros.training.data.synthetic.hills import Profile
from cmkd_ros.training.data.synthetic.labels import label_scene
from cmkd_ros.training.data.synthetic.picture import pinhole_rays, take_picture
from cmkd_ros.training.data.synthetic.scene import Geometry, Scene
from cmkd_ros.training.data.synthetic.shapes import box, quads
from cmkd_ros.training.data.synthetic.street import Street, Thing
from cmkd_ros.training.data.synthetic.surfaces import Material

WIDTH, HEIGHT = 414, 125
SETTINGS = DriveSettings(40, 5, WIDTH, HEIGHT, frames_per_drive=4)
Frame = tuple[np.ndarray, np.ndarray, KittiObjects, KittiCalibration]


@pytest.fixture(scope='module', params=[1, 6, 11])
def frame(request: pytest.FixtureRequest) -> Frame:
    number = request.param
    calibration = SETTINGS.calibration(SETTINGS.drive_of(number)[0])
    return (*render_frame(SETTINGS, number), calibration)


def known(labels: KittiObjects) -> KittiObjects:
    return labels.select(np.array([name != 'DontCare' for name in labels.names]))


def boxes_of(labels: KittiObjects, calibration: KittiCalibration) -> Boxes3D:
    return Boxes3D.from_kitti(
        labels.locations_N3, labels.dimensions_N3, labels.rotations_y_N, calibration.T_cam_ref
    )


def points_inside(points_N4: np.ndarray, box_7: np.ndarray, margin: float) -> np.ndarray:
    offset = points_N4[:, :3].astype(np.float64) - box_7[:3]
    cos, sin = np.cos(box_7[6]), np.sin(box_7[6])
    along, across = offset[:, :2] @ [cos, sin], offset[:, :2] @ [-sin, cos]
    local = np.abs(np.stack([along, across, offset[:, 2]], -1))
    return (local < box_7[3:6] / 2 + margin).all(axis=1)


def test_every_visible_near_object_has_lidar_points_inside(frame: Frame) -> None:
    _, points, labels, calibration = frame
    objects = known(labels)
    boxes = boxes_of(objects, calibration)
    chosen = np.flatnonzero(
        (objects.occluded_N == 0) & (objects.truncated_N < 0.3) & (objects.locations_N3[:, 2] < 35)
    )
    assert len(chosen)
    for i in chosen:
        size = objects.dimensions_N3[i, 0] * objects.dimensions_N3[i, 1]
        expected = max(1, int(0.05 * size * (200 / objects.locations_N3[i, 2]) ** 2 / 3))
        assert points_inside(points, boxes.array_N7[i], 0.1).sum() >= expected, objects.names[i]


def test_points_of_a_box_lie_on_its_surface_not_in_its_heart(frame: Frame) -> None:
    # Cars are hollow shells: nearly all returns are within half a metre of the box's faces.
    _, points, labels, calibration = frame
    objects = known(labels)
    cars = objects.select(np.array([name == 'Car' for name in objects.names]))
    within = heart = 0
    for row in boxes_of(cars, calibration).array_N7:
        within += int(points_inside(points, row, 0.05).sum())
        heart += int(points_inside(points, row, -0.6).sum())
    assert within > 100
    assert heart < 0.02 * within


def test_image_box_is_the_projection_of_the_3d_box(frame: Frame) -> None:
    _, _, labels, calibration = frame
    objects = known(labels)
    found, visible = boxes_of(objects, calibration).project(
        calibration.P2_34, calibration.T_cam_ref, WIDTH, HEIGHT
    )
    assert visible.all()
    assert found == pytest.approx(objects.boxes_px_N4, abs=0.02)


def test_alpha_is_the_heading_along_the_viewing_ray(frame: Frame) -> None:
    objects = known(frame[2])
    x, z = objects.locations_N3[:, 0], objects.locations_N3[:, 2]
    assert wrap_angle(objects.alphas_N + np.arctan2(x, z) - objects.rotations_y_N) == pytest.approx(
        0.0, abs=1e-9
    )


def test_objects_stand_on_the_ground(frame: Frame) -> None:
    _, points, labels, calibration = frame
    objects = known(labels)
    near = objects.select((objects.locations_N3[:, 2] < 25) & (objects.occluded_N == 0))
    bottoms = transform_points(invert_se3(calibration.T_cam_ref), near.locations_N3)
    compared = 0
    for bottom, (_, width, length) in zip(bottoms, near.dimensions_N3, strict=True):
        away = np.hypot(*(points[:, :2] - bottom[:2]).T)
        around = points[(away > length / 2) & (away < length / 2 + width), 2]
        # What lies about a box's height around it is ground: road, kerb or pavement.
        ground = around[np.abs(around - bottom[2]) < 0.5]
        if len(ground) > 30:
            compared += 1
            assert np.abs(np.percentile(ground, 10) - bottom[2]) < 0.25
    assert compared


def test_dont_care_holds_only_a_region(frame: Frame) -> None:
    labels = frame[2]
    ignored = labels.select(np.array([name == 'DontCare' for name in labels.names]))
    assert (ignored.occluded_N == -1).all() and (ignored.truncated_N == -1).all()
    assert (ignored.dimensions_N3 == -1).all() and (ignored.locations_N3 == -1000).all()
    assert (ignored.boxes_px_N4[:, 2:] >= ignored.boxes_px_N4[:, :2]).all()
    assert (known(labels).locations_N3[:, 2] < SETTINGS.label_range_m).all()


def plate(x: float, y: float, width: float, height: float, kind: str = 'Car') -> Thing:
    """A thin upright board across the street, as a labelled object."""
    shape = box((0, 0, height / 2), (0.02, width, height), (0.5, 0.1, 0.1), Material.CLOTH)
    return Thing(shape, x, y, 0.0, 0.0, kind, (0.02, width, height))


def labels_of(*things: Thing, label_range_m: float = 65.0) -> tuple[KittiObjects, np.ndarray]:
    """Labels of these things alone, before a car that stands at the origin of the world."""
    street = Street(SETTINGS.generator(0, 'world'), 0.1, 0.0)
    own = replace(street.route.own, s=0.0, d=0.0, speed=0.0)
    street.route = replace(street.route, own=own)
    street.road.profile = Profile.level()
    street.traffic.movers = []
    corners = [(-500, -500, -0.04), (500, -500, -0.04), (500, 500, -0.04), (-500, 500, -0.04)]
    plain = quads([corners], (0.065, 0.095, 0.028), Material.GRASS)
    street.fixed = [Thing(plain, 0.0, 0.0, 0.0, 0.0), *things]
    scene = Scene(street, Geometry(street.fixed), 0.0, 1.73)
    calibration = SETTINGS.calibration(0)
    rays = pinhole_rays(calibration, WIDTH, HEIGHT)
    _, pixels = take_picture(scene, rays, np.random.default_rng(0))
    return label_scene(scene, pixels, rays, calibration, label_range_m), pixels


@pytest.mark.parametrize(
    ('covered', 'level'), [(0.04, 0), (0.3, 1), (0.45, 1), (0.6, 2), (0.85, 2), (0.95, 3)]
)
def test_occlusion_level_follows_the_hidden_share(covered: float, level: int) -> None:
    # A board at 10 m before one at 20 m covers a known strip of it, from its left edge on.
    behind, strip = plate(20.27, 0.0, 4.0, 3.0), covered * 4.0 / 2
    x = 0.27 + 10.0
    before = plate(x, 1.0 - strip / 2, strip, 2.8, kind='')
    labels, _ = labels_of(behind, before)
    assert labels.names == ('Car',)
    assert labels.occluded_N.tolist() == [level]


def test_object_that_is_wholly_hidden_is_not_labelled() -> None:
    labels, _ = labels_of(plate(20.0, 0.0, 1.0, 1.0), plate(10.0, 0.0, 4.0, 3.0, kind=''))
    assert len(labels) == 0


def test_scene_without_objects_gives_an_empty_label() -> None:
    assert len(labels_of()[0]) == 0


def test_truncation_is_the_share_outside_of_the_picture() -> None:
    # The left image border at 10 m: a board of 2 m that begins there is cut in the middle.
    P = SETTINGS.calibration(0).P2_34
    border = P[0, 2] / P[0, 0] * 10.0
    labels, _ = labels_of(plate(10.27, border, 2.0, 1.5), plate(10.27, 0.0, 2.0, 1.5))
    assert labels.truncated_N == pytest.approx([0.5, 0.0], abs=0.04)
    assert labels.boxes_px_N4[0, 0] == 0.0


def test_far_objects_become_dont_care() -> None:
    near, far = plate(20.0, 3.0, 2.0, 1.5), plate(40.0, -3.0, 2.0, 1.5)
    labels, _ = labels_of(near, far, label_range_m=30.0)
    assert labels.names == ('Car', 'DontCare')
    alone, _ = labels_of(far)
    assert labels.boxes_px_N4[1] == pytest.approx(alone.boxes_px_N4[0])


def test_pixels_of_an_object_fill_its_image_box() -> None:
    labels, pixels = labels_of(plate(12.0, 1.0, 2.0, 1.5))
    v, u = np.nonzero(pixels == 1)
    box_px = labels.boxes_px_N4[0]
    assert [u.min(), v.min(), u.max(), v.max()] == pytest.approx(box_px, abs=1.01)
    share = len(u) / ((box_px[2] - box_px[0]) * (box_px[3] - box_px[1]))
    assert share == pytest.approx(1.0, abs=0.12)
