"""The debug image: boxes drawn over the pixels the network saw, where a wrong calibration shows."""

from __future__ import annotations

import array

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from cmkd_ros.evaluation.visualize import draw_boxes
from cmkd_ros.geometry import undistort_with_camera
from cmkd_ros.ros.pipeline import SeenFrame, rectified_pose


def debug_image(header: Header, frame: SeenFrame) -> Image:
    """Draw a frame's boxes, names and scores; a raw image is shown rectified.

    Args:
        header: of the image.
        frame: what was seen.

    Returns:
        An rgb8 image.
    """
    image_HW3, camera = frame.image_HW3, frame.camera
    T_cam_ref = rectified_pose(camera, frame.pose.T_cam_ref)
    if not camera.is_rectified:
        image_HW3, camera = undistort_with_camera(image_HW3, camera)
    seen = frame.detections
    captions = [f'{n} {s:.2f}' for n, s in zip(seen.class_names, seen.scores_N, strict=True)]
    return rgb_image(header, draw_boxes(image_HW3, seen.boxes, camera, T_cam_ref, captions))


def rgb_image(header: Header, image_HW3: np.ndarray) -> Image:
    """Wrap (H, W, 3) uint8 RGB pixels as an rgb8 message; they are copied."""
    height, width = image_HW3.shape[:2]
    message = Image(header=header, height=height, width=width, encoding='rgb8', step=3 * width)
    # array.array is the one type that the setter takes over without looking at every byte.
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(image_HW3).data)
    message.data = data
    return message
