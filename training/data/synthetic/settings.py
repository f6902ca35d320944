"""What a synthetic data set is made from: everything that decides its bytes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields

import numpy as np

from cmkd_ros.geometry.frames import camera_mount_pose
from cmkd_ros.kitti_files import KittiCalibration

# Raised whenever the same settings give other files than before.
WORLD_VERSION = 2
KITTI_WIDTH_PX, KITTI_HEIGHT_PX = 1242, 375
KITTI_FOCAL_PX, KITTI_CX_PX, KITTI_CY_PX = 721.5377, 609.5593, 172.854
# Fourth column of KITTI's P2: the left colour camera stands 6 cm beside camera 0.
KITTI_P2_COLUMN = (44.85728, 0.2163791, 0.002745884)


@dataclass(frozen=True)
class Rig:
    """
    Sensors on the car; the defaults are KITTI's.

    Attributes:
        focal_px: focal length, None for KITTI's field of view at the given image width.
        camera_height_m: camera 0 above the ground.
        camera_forward_m: camera 0 before the LiDAR.
        camera_pitch_deg: positive looks down; every drive deviates a little.
        lidar_height_m: LiDAR, which is the reference frame, above the ground.
    """

    focal_px: float | None = None
    camera_height_m: float = 1.65
    camera_forward_m: float = 0.27
    camera_pitch_deg: float = 0.0
    lidar_height_m: float = 1.73


@dataclass(frozen=True)
class DriveSettings:
    """
    A data set of several drives.

    Attributes:
        frames: number of frames of all drives together.
        seed: the same seed gives the same files.
        width, height: image size in pixels.
        frames_per_drive: consecutive frames of a drive; the last drive may be shorter.
        rate_hz: frames per second.
        density: amount of traffic and parked cars, around 1.
        label_range_m: objects farther away become DontCare.
        rig: where the sensors sit.

    Raises:
        ValueError: on an impossible value.
    """

    frames: int
    seed: int
    width: int = KITTI_WIDTH_PX
    height: int = KITTI_HEIGHT_PX
    frames_per_drive: int = 20
    rate_hz: float = 10.0
    density: float = 1.0
    label_range_m: float = 65.0
    rig: Rig = field(default_factory=Rig)

    def __post_init__(self) -> None:
        rules = (
            ('frames', self.frames, 1, 1_000_000),
            ('seed', self.seed, 0, 2**63 - 1),
            ('width', self.width, 64, 8192),
            ('height', self.height, 32, 8192),
            ('frames_per_drive', self.frames_per_drive, 1, 100_000),
            ('rate_hz', self.rate_hz, 0.1, 1000.0),
            ('density', self.density, 0.0, 4.0),
            ('label_range_m', self.label_range_m, 1.0, 100.0),
            ('rig.focal_px', self.focal_px, 16.0, 1e5),
            ('rig.camera_height_m', self.rig.camera_height_m, 0.2, 5.0),
            ('rig.camera_forward_m', self.rig.camera_forward_m, -5.0, 5.0),
            ('rig.camera_pitch_deg', self.rig.camera_pitch_deg, -45.0, 45.0),
            ('rig.lidar_height_m', self.rig.lidar_height_m, 0.2, 5.0),
        )
        for name, value, low, high in rules:
            if not low <= value <= high:
                raise ValueError(f'{name}: expected {low:g} to {high:g}, found {value!r}')
        if not self._sees_the_road():
            raise ValueError(
                f'rig: expected a camera that sees the road up to {self.label_range_m:g} m ahead, '
                f'found one that sees nothing of it: focal_px {self.focal_px:g}, camera_height_m '
                f'{self.rig.camera_height_m:g}, camera_pitch_deg {self.rig.camera_pitch_deg:g} '
                f'at {self.width} x {self.height} pixels'
            )

    def _sees_the_road(self) -> bool:
        """Whether the picture shows any of the space that a car ahead may fill."""
        x, z = np.meshgrid(np.arange(1.0, self.label_range_m + 1.0), np.linspace(0.0, 1.5, 16))
        ones = np.ones(x.size)
        places = np.stack([x.ravel(), 0 * ones, z.ravel() - self.rig.lidar_height_m, ones])
        calibration = self.calibration(0)
        cam_3N = calibration.T_cam_ref[:3] @ places
        u, v, depth = calibration.P2_34 @ np.vstack([cam_3N, ones])
        ahead = depth > 0.1
        u, v = u[ahead] / depth[ahead], v[ahead] / depth[ahead]
        return bool(((u >= 0) & (u < self.width) & (v >= 0) & (v < self.height)).any())

    @property
    def focal_px(self) -> float:
        """Focal length in pixels."""
        if self.rig.focal_px is not None:
            return self.rig.focal_px
        return KITTI_FOCAL_PX * self.width / KITTI_WIDTH_PX

    @property
    def drive_s(self) -> float:
        """Duration of a drive in seconds."""
        return self.frames_per_drive / self.rate_hz

    @property
    def drives(self) -> int:
        """Number of drives."""
        return -(-self.frames // self.frames_per_drive)

    def drive_of(self, frame: int) -> tuple[int, int]:
        """Drive of a frame, and its index within the drive."""
        return divmod(frame, self.frames_per_drive)

    def split_of(self, drive: int) -> str:
        """'train' or 'val': every fourth drive is kept apart, or the last of two or three."""
        alone = 1 < self.drives < 4 and drive == self.drives - 1
        return 'val' if drive % 4 == 3 or alone else 'train'

    def generator(self, drive: int, purpose: str, frame: int = 0) -> np.random.Generator:
        """The random generator of a drive's 'world' or 'mounting', or a frame's 'sensors'."""
        number = ('world', 'mounting', 'sensors').index(purpose)
        sequence = np.random.SeedSequence(self.seed, spawn_key=(drive, number, frame))
        return np.random.Generator(np.random.PCG64(sequence))

    def calibration(self, drive: int) -> KittiCalibration:
        """Calibration of a drive: the rig with the small tilt of a real mounting."""
        # Pixel centres are integers, so a resized image's centre moves by half a pixel.
        cx = (KITTI_CX_PX + 0.5) * self.width / KITTI_WIDTH_PX - 0.5
        cy = (KITTI_CY_PX + 0.5) * self.height / KITTI_HEIGHT_PX - 0.5
        f, column = self.focal_px, np.array(KITTI_P2_COLUMN)
        column[:2] *= f / KITTI_FOCAL_PX
        P2 = np.array(
            [[f, 0.0, cx, column[0]], [0.0, f, cy, column[1]], [0.0, 0.0, 1.0, column[2]]]
        )
        tilt = self.generator(drive, 'mounting').normal(0.0, [0.004, 0.002])
        # Rounded like a printed calibration, so that it is the same on every machine.
        T_cam_ref = camera_mount_pose(
            self.rig.camera_height_m,
            pitch_rad=round(np.radians(self.rig.camera_pitch_deg) + tilt[0], 6),
            roll_rad=round(tilt[1], 6),
            forward_m=self.rig.camera_forward_m,
            reference_height_m=self.rig.lidar_height_m,
        )
        return KittiCalibration(P2, np.eye(3), np.round(T_cam_ref[:3], 9))

    def to_json(self) -> str:
        """Settings and version as text; equal texts mean equal files."""
        return json.dumps({'world_version': WORLD_VERSION, **asdict(self)}, indent=2) + '\n'

    def difference(self, text: str) -> str | None:
        """What another data set's text says differently, None when it is the same set."""
        if text == self.to_json():
            return None
        try:
            other = json.loads(text)
        except json.JSONDecodeError:
            return 'its settings are unreadable'
        mine = json.loads(self.to_json())
        for name in ['world_version', *(f.name for f in fields(self))]:
            if not isinstance(other, dict) or other.get(name) != mine[name]:
                found = other.get(name) if isinstance(other, dict) else other
                return f'it has {name} = {found!r}, asked for is {mine[name]!r}'
        return 'its settings have other fields'
