"""One ground plane seen by many cameras: the network must be told the truth about every pixel.

Each camera's picture holds, in metres, the place of the ground that a pixel really sees, found by
ray casting through the raw lens. What the node prepares for the network is then judged in the
world: the place in a pixel against the place where calibration and pose say that the pixel looks.
"""

import functools
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from sensor_msgs.msg import CameraInfo, RegionOfInterest

from cmkd_ros import Detector
from cmkd_ros.camera_info import camera_from_info
from cmkd_ros.geometry import camera_mount_pose, invert_se3
from cmkd_ros.ros.pipeline import rectified_pose

FX, WIDTH, HEIGHT = 190.0, 320, 96  # of the model's training camera and its image
GROUND_Z, NEAR_M, FAR_M = -1.73, 4.0, 25.0
TOLERANCE_M = 0.15
TURN_33 = cv2.Rodrigues(np.array([0.012, -0.02, 0.015]))[0]
PLUMB_BOB = (-0.22, 0.06, 0.001, -0.0015, -0.01)


@dataclass(frozen=True, eq=False)
class Camera:
    """A raw camera, what it publishes, and where it is mounted."""

    size: tuple[int, int] = (WIDTH, HEIGHT)
    fx: float = FX  # of the rectified image
    model: str = 'plumb_bob'
    D: tuple[float, ...] = ()
    R_33: np.ndarray = field(default_factory=lambda: np.eye(3))
    baseline_m: float = 0.0  # right camera of a stereo pair in the left one's frame
    roi: tuple[int, int, int, int] = (0, 0, 0, 0)
    binning: int = 0
    T_cam_ref: np.ndarray = field(default_factory=lambda: camera_mount_pose(1.65))

    def K_px_33(self) -> np.ndarray:
        """Raw intrinsics: a little longer than the rectified ones once the lens distorts."""
        stretch = 1.08 if self.D else 1.0
        width, height = self.size
        cx, cy = 0.5 * width - 2.5, 0.45 * height
        return np.array([[stretch * self.fx, 0, cx], [0, stretch * self.fx, cy], [0, 0, 1]])

    def P_px_34(self) -> np.ndarray:
        width, height = self.size
        K = np.array([[self.fx, 0, 0.5 * width - 2.5], [0, self.fx, 0.45 * height], [0, 0, 1]])
        return np.column_stack([K, [-self.fx * self.baseline_m, 0.0, 0.0]])

    def info(self) -> CameraInfo:
        message = CameraInfo(distortion_model=self.model)
        message.header.frame_id = 'camera'
        message.width, message.height = self.size
        message.k = self.K_px_33().reshape(-1).tolist()
        message.p = self.P_px_34().reshape(-1).tolist()
        message.r = self.R_33.reshape(-1).tolist()
        message.d = list(self.D)
        message.binning_x = message.binning_y = self.binning
        x, y, width, height = self.roi
        message.roi = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
        return message

    @functools.cache  # noqa: B019  a dozen small pictures
    def picture(self) -> np.ndarray:
        """(H, W, 3) float32: x, y of the ground and 1 where a pixel sees it nearby, else 0."""
        x0, y0, width, height = self.roi if any(self.roi) else (0, 0, *self.size)
        step = max(self.binning, 1)
        v, u = np.mgrid[: height // step, : width // step].astype(np.float64)
        # The centre of a binned pixel, in pixels of the sensor.
        sensor_K2 = np.stack([(u + 0.5) * step - 0.5 + x0, (v + 0.5) * step - 0.5 + y0], axis=-1)
        rays_K2 = self._undistorted(sensor_K2.reshape(-1, 2))
        rays_K3 = np.column_stack([rays_K2, np.ones(len(rays_K2))])
        centre_3 = self.R_33.T @ [self.baseline_m, 0.0, 0.0]
        ground_K3 = meet_ground(centre_3, rays_K3, invert_se3(self.T_cam_ref))
        return ground_K3.astype(np.float32).reshape(*u.shape, 3)

    def _undistorted(self, pixels_K2: np.ndarray) -> np.ndarray:
        if not self.D:
            return (pixels_K2 - self.K_px_33()[:2, 2]) / np.diag(self.K_px_33())[:2]
        # OpenCV only has the way from rays to pixels in every version: iterate on that.
        fisheye = self.model == 'equidistant'
        project = cv2.fisheye.projectPoints if fisheye else cv2.projectPoints
        K, zero = self.K_px_33(), np.zeros(3)
        rays_K2 = (pixels_K2 - K[:2, 2]) / np.diag(K)[:2]
        for _ in range(40):
            points_K13 = np.column_stack([rays_K2, np.ones(len(rays_K2))])[:, None]
            found, _ = project(points_K13, zero, zero, K, np.array(self.D))
            wrong_K2 = pixels_K2 - found.reshape(-1, 2)
            if np.abs(wrong_K2).max() < 1e-3:
                return rays_K2
            rays_K2 += wrong_K2 / np.diag(K)[:2]
        raise ValueError(f'no rays found for the pixels of {self}')


def meet_ground(centre_3: np.ndarray, rays_K3: np.ndarray, T_ref_cam: np.ndarray) -> np.ndarray:
    """(K, 3): x, y where rays of the camera frame meet the ground, and 1; 0 far off or above."""
    origin_3 = T_ref_cam[:3, :3] @ centre_3 + T_ref_cam[:3, 3]
    directions_K3 = rays_K3 @ T_ref_cam[:3, :3].T
    with np.errstate(divide='ignore'):
        reach_K = (GROUND_Z - origin_3[2]) / directions_K3[:, 2]
    reach_K = np.where((directions_K3[:, 2] < 0) & (reach_K < 1000.0), reach_K, 0.0)
    ground_K3 = origin_3 + reach_K[:, None] * directions_K3
    distance_K = np.linalg.norm(ground_K3[:, :2], axis=1)
    seen_K = (reach_K > 0) & (distance_K > NEAR_M) & (distance_K < FAR_M)
    return np.column_stack([ground_K3[:, :2], np.ones(len(rays_K3))]) * seen_K[:, None]


CAMERAS = {
    'as in training': Camera(),
    'plumb_bob': Camera(D=PLUMB_BOB),
    'rational_polynomial': Camera(
        model='rational_polynomial', D=(0.3, 0.05, 0.001, -0.0005, 0.01, 0.6, 0.1, 0.02)
    ),
    'equidistant': Camera(model='equidistant', D=(-0.02, 0.01, -0.004, 0.001)),
    'rectification': Camera(D=PLUMB_BOB, R_33=TURN_33),
    'right of a stereo pair': Camera(D=PLUMB_BOB, R_33=TURN_33, baseline_m=0.54),
    'region of interest': Camera(size=(400, 160), roi=(37, 30, 300, 111)),
    'distorted region': Camera(size=(400, 160), roi=(37, 30, 300, 111), D=PLUMB_BOB),
    'binned': Camera(size=(640, 192), fx=2 * FX, binning=2),
    'binned region, distorted': Camera(
        size=(800, 320), fx=2 * FX, binning=2, roi=(74, 60, 601, 223), D=PLUMB_BOB
    ),
    'other size': Camera(size=(512, 160)),
    'half focal length': Camera(fx=0.5 * FX),
    'double focal length': Camera(size=(640, 192), fx=2 * FX),
    'long focal length, distorted': Camera(size=(560, 168), fx=1.6 * FX, D=PLUMB_BOB),
    'high and tilted': Camera(T_cam_ref=camera_mount_pose(2.4, 0.15, -0.05, 0.9)),
    'low, rolled, distorted': Camera(D=PLUMB_BOB, T_cam_ref=camera_mount_pose(0.8, -0.02, 0.08)),
}


@pytest.fixture(scope='module')
def detector(small_model):
    return Detector.from_file(small_model, precision='auto')


def error_m(detector, camera: Camera, info: CameraInfo | None = None) -> np.ndarray:
    """Distances between the true and the believed place, over what the network sees of it."""
    model = camera_from_info(camera.info() if info is None else info)
    seen_HW3, rectified = detector.prepare(camera.picture(), model)
    assert seen_HW3.shape[:2] == (rectified.height, rectified.width)
    v, u = np.mgrid[: rectified.height, : rectified.width].reshape(2, -1).astype(np.float64)
    K, offset_3 = rectified.P_px_34[:, :3], rectified.P_px_34[:, 3]
    rays_K3 = np.column_stack([u, v, np.ones_like(u)]) @ np.linalg.inv(K).T
    T_network_ref = rectified_pose(model, camera.T_cam_ref)
    believed_K3 = meet_ground(-np.linalg.solve(K, offset_3), rays_K3, invert_se3(T_network_ref))
    true_K3 = seen_HW3.reshape(-1, 3)
    # At the edge of what is seen, interpolation mixes in pixels that see nothing.
    whole_K = (true_K3[:, 2] > 1 - 1e-5) & (believed_K3[:, 2] > 0)
    assert whole_K.mean() > 0.05
    return np.linalg.norm(true_K3[whole_K, :2] - believed_K3[whole_K, :2], axis=1)


@pytest.mark.parametrize('name', CAMERAS)
def test_every_pixel_is_believed_to_look_where_it_does(name, detector):
    errors_K = error_m(detector, CAMERAS[name])
    assert np.median(errors_K) < 0.02
    assert np.percentile(errors_K, 95) < TOLERANCE_M


@pytest.mark.parametrize('name', CAMERAS)
def test_the_network_sees_the_focal_length_it_was_trained_on(name, detector):
    camera = camera_from_info(CAMERAS[name].info())
    image_HW3 = np.zeros((camera.height, camera.width, 3), np.uint8)
    _, prepared = detector.prepare(image_HW3, camera)
    assert prepared.fx_px == pytest.approx(FX, rel=0.01)


@pytest.mark.parametrize(
    ('name', 'fault'),
    [
        ('plumb_bob', {'d': [0.0] * 5, 'k': Camera().P_px_34()[:, :3].reshape(-1).tolist()}),
        ('binned', {'binning_x': 1, 'width': WIDTH}),
        ('region of interest', {'roi': RegionOfInterest(width=300, height=111)}),
        ('right of a stereo pair', {'p': Camera().P_px_34().reshape(-1).tolist()}),
        ('half focal length', {'k': Camera().K_px_33().reshape(-1).tolist()}),
    ],
)
def test_the_measure_tells_a_wrong_calibration(name, fault, detector):
    """The test above would see each of these: otherwise its agreement says nothing."""
    info = CAMERAS[name].info()
    for field_name, value in fault.items():
        setattr(info, field_name, value)
    assert np.percentile(error_m(detector, CAMERAS[name], info), 95) > 2 * TOLERANCE_M
