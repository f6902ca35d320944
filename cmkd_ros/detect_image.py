"""One picture in, boxes and pictures out: what `cmkd detect` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cmkd_ros.detector import Detector
from cmkd_ros.evaluation.visualize import draw_boxes, plot_bev, write_png
from cmkd_ros.kitti_files import read_calibration


def detect_image(
    model: Path,
    image: Path,
    calibration: Path,
    out: Path | None = None,
    device: str = 'auto',
    score_threshold: float | None = None,
    precision: str = 'fp32',
    backend: str = 'torch',
) -> list[dict[str, Any]]:
    """Detect objects in a picture with a KITTI calibration file.

    Args:
        model: student bundle.
        image: PNG or JPEG, rectified.
        calibration: KITTI calibration of that picture.
        out: folder for `<image>_boxes.png` and `<image>_bev.png`; None writes none.
        device, precision, backend: as `Detector`.
        score_threshold: replaces the bundle's.

    Returns:
        One mapping per box: class, score, box = [x, y, z, l, w, h, yaw] in the reference frame.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong with it.
    """
    image_HW3 = read_image(image)
    calib = read_calibration(calibration)
    detector = Detector.from_file(model, device, precision, backend)
    detector.set_thresholds(score_threshold=score_threshold)
    camera = calib.camera(image_HW3.shape[1], image_HW3.shape[0])
    found = detector(image_HW3, camera, calib.T_cam_ref)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        captions = [
            f'{name} {score:.2f}'
            for name, score in zip(found.class_names, found.scores_N, strict=True)
        ]
        overlay = draw_boxes(image_HW3, found.boxes, camera, calib.T_cam_ref, captions)
        write_png(out / f'{image.stem}_boxes.png', overlay)
        plot_bev(out / f'{image.stem}_bev.png', found.boxes)
    return [
        {'class': name, 'score': float(score), 'box': [float(v) for v in box]}
        for name, score, box in zip(
            found.class_names, found.scores_N, found.boxes.array_N7, strict=True
        )
    ]


def read_image(path: Path) -> np.ndarray:
    """Read a picture as uint8 RGB (H, W, 3).

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a picture, or cut short.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such image')
    image_HW3 = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image_HW3 is None:
        raise ValueError(f'{path}: not a readable image, or cut short')
    return np.ascontiguousarray(image_HW3[..., ::-1])
