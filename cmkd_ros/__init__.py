"""3D object detection with one camera, distilled from a LiDAR teacher.

The names below are the public API; they are imported on first use, so that `import cmkd_ros` is
quick and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmkd_ros.checkpoint import load_bundle
    from cmkd_ros.detector import Detections, Detector
    from cmkd_ros.geometry import Boxes3D, CameraModel

__all__ = ['Boxes3D', 'CameraModel', 'Detections', 'Detector', 'load_bundle']
__version__ = '0.1.0'

_HOMES = {
    'Boxes3D': 'cmkd_ros.geometry',
    'CameraModel': 'cmkd_ros.geometry',
    'Detections': 'cmkd_ros.detector',
    'Detector': 'cmkd_ros.detector',
    'load_bundle': 'cmkd_ros.checkpoint',
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(_HOMES[name]), name)
