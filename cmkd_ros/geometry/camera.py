"""The camera that made an image, and image operations that keep image and camera together.

Pixel centres have integer coordinates (OpenCV and ROS): a resize by s maps u to (u + 0.5) s - 0.5.
Letters: H, W image rows, columns; C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import ArrayLike

from cmkd_ros.geometry.pixel_maps import crop_map, resize_map, sensor_to_image_map

# Numbers of coefficients that OpenCV takes, by the names of sensor_msgs/distortion_models.
_COEFFICIENTS = {'plumb_bob': (4, 5), 'rational_polynomial': (8, 12, 14), 'equidistant': (4,)}
# Below these nothing moves by more than a thousandth of a pixel or so.
_SAME_PX = 1e-3
_SAME_ROTATION = 1e-6


@dataclass(frozen=True, eq=False)
class CameraModel:
    """Calibration of exactly the pixels of an image of width x height.

    Attributes:
        width, height: image size, pixels.
        K_px_33: intrinsics of the image as it is (raw, if it is distorted).
        P_px_34: projection from the rectified camera frame into the rectified image.
        R_33: rectification, from the raw to the rectified camera frame.
        D: distortion coefficients, empty for none.
        distortion_model: `plumb_bob`, `rational_polynomial`, `equidistant`; anything if D is 0.

    Raises:
        ValueError: a size, matrix or coefficient that no camera has.
    """

    width: int
    height: int
    K_px_33: np.ndarray
    P_px_34: np.ndarray
    R_33: np.ndarray = field(default_factory=lambda: np.eye(3))
    D: tuple[float, ...] = ()
    distortion_model: str = ''

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(
                f'camera: expected a positive image size, found {self.width} x {self.height}'
            )
        K_px_33 = _matrix(self.K_px_33, (3, 3), 'K')
        P_px_34 = _matrix(self.P_px_34, (3, 4), 'P')
        R_33 = _matrix(self.R_33, (3, 3), 'R')
        _check_intrinsics(K_px_33, 'K')
        _check_intrinsics(P_px_34[:, :3], 'P')
        if np.abs(R_33 @ R_33.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R_33) < 0:
            raise ValueError(f'camera: R is not a rotation: {R_33.tolist()}')
        D = tuple(float(d) for d in self.D)
        _check_distortion(D, self.distortion_model)
        for name, value in {'K_px_33': K_px_33, 'P_px_34': P_px_34, 'R_33': R_33, 'D': D}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def from_projection(cls, P_px_34: ArrayLike, width: int, height: int) -> 'CameraModel':
        """Camera of a rectified image.

        Args:
            P_px_34: projection from the camera frame to pixels (KITTI: P2).
            width: image width, pixels.
            height: image height, pixels.

        Returns:
            Pinhole camera without distortion, K = P[:, :3].

        Raises:
            ValueError: see the class.
        """
        P_px_34 = _matrix(P_px_34, (3, 4), 'P')
        return cls(width, height, P_px_34[:, :3], P_px_34)

    @classmethod
    def from_camera_info(
        cls,
        width: int,
        height: int,
        K9: ArrayLike,
        P12: ArrayLike,
        R9: ArrayLike,
        D: Sequence[float],
        distortion_model: str,
        roi: tuple[int, int, int, int, bool] = (0, 0, 0, 0, False),
        binning: tuple[int, int] = (0, 0),
        rectified: bool | None = None,
    ) -> 'CameraModel':
        """Camera of the pixels that are in the image, from the fields of sensor_msgs/CameraInfo.

        The message gives K and P for the full sensor; the image shows its region of interest (in
        full resolution pixels) binned. A binned pixel is the mean of its neighbourhood and so lies
        at its centre, as in `resize_with_camera`; image_geometry leaves out that half-pixel term
        (at most 0.5 px). `roi.do_rectify` does not move the pixels, as in image_proc.

        Args:
            width: full sensor width, pixels.
            height: full sensor height, pixels.
            K9: raw intrinsics, row major; all zero = not given.
            P12: projection of the rectified image, row major; all zero = not given, then [K | 0].
            R9: rectification, row major; all zero = not given, then I.
            D: distortion coefficients.
            distortion_model: name as in sensor_msgs/distortion_models.
            roi: x_offset, y_offset, width, height, do_rectify; all zero = the full image.
            binning: binning_x, binning_y; 0 means 1.
            rectified: True where the image is rectified already, so that P alone describes it;
                False where it is raw; None to take it as raw unless only P is given.

        Returns:
            The camera.

        Raises:
            ValueError: K and P both zero (not calibrated), K zero for a raw image, a region of
                interest beyond the sensor, or what the class refuses.
        """
        K_px_33 = _matrix(np.reshape(K9, -1), (9,), 'K').reshape(3, 3)
        P_px_34 = _matrix(np.reshape(P12, -1), (12,), 'P').reshape(3, 4)
        R_33 = _matrix(np.reshape(R9, -1), (9,), 'R').reshape(3, 3)
        if not K_px_33.any() and not P_px_34.any():
            raise ValueError('camera_info: K and P are both zero: the camera is not calibrated')
        if not K_px_33.any() and rectified is False:
            raise ValueError('camera_info: K is zero: a raw image needs K, only P is given')
        if not P_px_34.any():
            P_px_34 = np.column_stack([K_px_33, np.zeros(3)])
        if not R_33.any():
            R_33 = np.eye(3)
        pixels_33, size = sensor_to_image_map(width, height, roi, binning)
        P_px_34 = pixels_33 @ P_px_34
        if rectified or not K_px_33.any():
            return cls.from_projection(P_px_34, *size)
        return cls(*size, pixels_33 @ K_px_33, P_px_34, R_33, tuple(D), distortion_model)

    @property
    def is_rectified(self) -> bool:
        """Whether the image already is what P describes: nothing to undistort, turn or rescale."""
        return (
            not any(self.D)
            and bool(np.abs(self.R_33 - np.eye(3)).max() < _SAME_ROTATION)
            and bool(np.abs(self.K_px_33 - self.P_px_34[:, :3]).max() < _SAME_PX)
        )

    @property
    def fx_px(self) -> float:
        """Horizontal focal length of the rectified image, pixels."""
        return float(self.P_px_34[0, 0])

    @property
    def projection_px_34(self) -> np.ndarray:
        """Projection from the rectified camera frame into the rectified image, pixels."""
        return self.P_px_34

    def key(self) -> tuple:
        """Hashable identity, equal for equal cameras; for caches of what depends on the camera."""
        matrices = (self.K_px_33.tobytes(), self.P_px_34.tobytes(), self.R_33.tobytes())
        return (self.width, self.height, *matrices, self.D, self.distortion_model)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CameraModel) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())


class Rectifier:
    """Undistorts the images of one camera, optionally resizing them on the way.

    The maps are made once, here: keep the object while `camera` stays equal. Pixels that the camera
    did not see become black. Sampling is bilinear; shrinking by more than 2 samples each pixel
    several times and takes the mean, so that it does not alias.

    Args:
        camera: the camera of the images to come.
        out_size: (width, height) of the result, pixels; None keeps the camera's.

    Attributes:
        camera: the rectified camera of the results.

    Raises:
        ValueError: a size that is not positive.
    """

    def __init__(self, camera: CameraModel, out_size: tuple[int, int] | None = None) -> None:
        size = (camera.width, camera.height)
        self._source = camera
        self._out_size = size if out_size is None else (int(out_size[0]), int(out_size[1]))
        rectified = CameraModel.from_projection(camera.P_px_34, *size)
        self.camera = _resized(rectified, self._out_size)
        self._maps: tuple[np.ndarray, np.ndarray] | None = None
        if not camera.is_rectified:
            shrink = min(old / new for old, new in zip(size, self._out_size, strict=True))
            samples = max(1, int(shrink))
            fine_size = (self._out_size[0] * samples, self._out_size[1] * samples)
            self._maps = _rectify_maps(camera, _resized(rectified, fine_size))

    def __call__(self, image_HWC: np.ndarray) -> tuple[np.ndarray, CameraModel]:
        """Rectify one image.

        Args:
            image_HWC: (H, W) or (H, W, C), uint8, uint16 or float32, of the camera's size.

        Returns:
            The rectified image, same dtype (the input itself where there is nothing to do), and its
            camera.

        Raises:
            ValueError: the image's size is not the camera's.
        """
        _check_image(image_HWC, self._source)
        if self._maps is not None:
            image_HWC = cv2.remap(image_HWC, *self._maps, cv2.INTER_LINEAR)
        return _resize(image_HWC, self._out_size), self.camera


def undistort_with_camera(
    image_HWC: np.ndarray, camera: CameraModel
) -> tuple[np.ndarray, CameraModel]:
    """Rectify one image; for a stream of images keep a `Rectifier`, which makes its maps once.

    Args:
        image_HWC: (H, W) or (H, W, C), of the camera's size.
        camera: the image's camera.

    Returns:
        The rectified image and its camera.

    Raises:
        ValueError: the image's size is not the camera's.
    """
    return Rectifier(camera)(image_HWC)


def resize_with_camera(
    image_HWC: np.ndarray, camera: CameraModel, size: tuple[int, int]
) -> tuple[np.ndarray, CameraModel]:
    """Resize an image and its camera (mean of the area when shrinking, bilinear when enlarging).

    Args:
        image_HWC: (H, W) or (H, W, C), of the camera's size.
        camera: the image's camera.
        size: (width, height) wanted, pixels.

    Returns:
        The resized image, same dtype, and its camera.

    Raises:
        ValueError: the image's size is not the camera's, or a size that is not positive.
    """
    _check_image(image_HWC, camera)
    resized = _resized(camera, size)
    return _resize(image_HWC, size), resized


def crop_with_camera(
    image_HWC: np.ndarray, camera: CameraModel, window: tuple[int, int, int, int]
) -> tuple[np.ndarray, CameraModel]:
    """Cut a window out of an image and its camera.

    Args:
        image_HWC: (H, W) or (H, W, C), of the camera's size.
        camera: the image's camera.
        window: x, y of the left upper pixel, width, height, pixels.

    Returns:
        A view of the image and the camera of the view.

    Raises:
        ValueError: the image's size is not the camera's, or the window leaves the image.
    """
    _check_image(image_HWC, camera)
    x, y, width, height = window
    inside = 0 <= x < x + width <= camera.width and 0 <= y < y + height <= camera.height
    if not inside:
        raise ValueError(
            f'crop: window x, y, width, height = {tuple(window)} leaves the image of '
            f'{camera.width} x {camera.height}'
        )
    cropped = _with_pixels(camera, crop_map(x, y), (width, height))
    return image_HWC[y : y + height, x : x + width], cropped


def _resize(image_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = image_HWC.shape[:2]
    if tuple(size) == (width, height):
        return image_HWC
    shrinks = (width / size[0], height / size[1])
    if min(shrinks) < 1.0:
        return cv2.resize(image_HWC, size, interpolation=cv2.INTER_LINEAR)
    # The area mean by way of whole samples: within about a grey level of OpenCV's own for
    # fractional factors, which takes two to five times as long.
    fine_size = (size[0] * round(shrinks[0]), size[1] * round(shrinks[1]))
    if fine_size != (width, height):
        image_HWC = cv2.resize(image_HWC, fine_size, interpolation=cv2.INTER_LINEAR)
    if fine_size == tuple(size):
        return image_HWC
    return cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA)


def _resized(camera: CameraModel, size: tuple[int, int]) -> CameraModel:
    return _with_pixels(camera, resize_map((camera.width, camera.height), size), size)


def _with_pixels(camera: CameraModel, pixels_33: np.ndarray, size: tuple[int, int]) -> CameraModel:
    # Distortion acts on the normalised ray, before K, so D and R stay.
    K_px_33, P_px_34 = pixels_33 @ camera.K_px_33, pixels_33 @ camera.P_px_34
    return CameraModel(*size, K_px_33, P_px_34, camera.R_33, camera.D, camera.distortion_model)


def _rectify_maps(source: CameraModel, target: CameraModel) -> tuple[np.ndarray, np.ndarray]:
    K_px_33, new_K_px_33 = source.K_px_33, target.P_px_34[:, :3]
    size = (target.width, target.height)
    coefficients = np.array(source.D if any(source.D) else ())  # zeros may be of any number
    if source.distortion_model == 'equidistant' and coefficients.size:
        return cv2.fisheye.initUndistortRectifyMap(
            K_px_33, coefficients, source.R_33, new_K_px_33, size, cv2.CV_16SC2
        )
    return cv2.initUndistortRectifyMap(
        K_px_33, coefficients, source.R_33, new_K_px_33, size, cv2.CV_16SC2
    )


def _check_image(image_HWC: np.ndarray, camera: CameraModel) -> None:
    if image_HWC.ndim not in (2, 3) or image_HWC.shape[:2] != (camera.height, camera.width):
        raise ValueError(
            f'image: expected the {camera.width} x {camera.height} pixels of its camera, '
            f'found an array of shape {image_HWC.shape}'
        )


def _matrix(values: ArrayLike, shape: tuple[int, ...], name: str) -> np.ndarray:
    matrix = np.array(values, dtype=np.float64)
    if matrix.shape != shape:
        raise ValueError(f'camera: expected {name} of shape {shape}, found {matrix.shape}')
    if not np.isfinite(matrix).all():
        raise ValueError(f'camera: expected finite numbers in {name}, found {matrix.tolist()}')
    matrix.setflags(write=False)
    return matrix


def _check_intrinsics(K_px_33: np.ndarray, name: str) -> None:
    fx, fy = K_px_33[0, 0], K_px_33[1, 1]
    if fx <= 0 or fy <= 0:
        raise ValueError(f'camera: expected positive focal lengths in {name}, found {fx:g}, {fy:g}')
    if K_px_33[0, 1] or K_px_33[1, 0] or tuple(K_px_33[2]) != (0.0, 0.0, 1.0):
        raise ValueError(
            f'camera: expected {name} as fx 0 cx / 0 fy cy / 0 0 1, found {K_px_33.tolist()}'
        )


def _check_distortion(D: tuple[float, ...], model: str) -> None:
    if not np.isfinite(D).all():
        raise ValueError(f'camera: expected finite distortion coefficients, found {D}')
    if not any(D):
        return
    if model not in _COEFFICIENTS:
        raise ValueError(
            f'camera: distortion_model {model!r} is not known; known: {", ".join(_COEFFICIENTS)}'
        )
    if len(D) not in _COEFFICIENTS[model]:
        counts = ' or '.join(map(str, _COEFFICIENTS[model]))
        raise ValueError(f'camera: {model} takes {counts} coefficients, found {len(D)}')
