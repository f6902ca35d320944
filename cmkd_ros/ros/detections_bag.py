"""The node's answers as a rosbag2 of their own; play it beside the bag with the images."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cmkd_ros.ros.replay import ReplayedFrame

TOPIC = '/detections'
ARRAY = 'vision_msgs/msg/Detection3DArray'
# The interface of vision_msgs 4.1, which rosbags does not carry; readers find it in the bag.
_DEFINITIONS = {
    'vision_msgs/msg/BoundingBox3D': 'geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n',
    'vision_msgs/msg/ObjectHypothesis': 'string class_id\nfloat64 score\n',
    'vision_msgs/msg/ObjectHypothesisWithPose': (
        'vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n'
    ),
    'vision_msgs/msg/Detection3D': (
        'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
        'vision_msgs/BoundingBox3D bbox\nstring id\n'
    ),
    ARRAY: 'std_msgs/Header header\nvision_msgs/Detection3D[] detections\n',
}


def write_detections_bag(out: Path, frames: Sequence[ReplayedFrame]) -> Path:
    """Write one message a frame on `/detections`, at the image's stamp.

    Args:
        out: folder of the bag; must not exist, and is complete when it does.
        frames: answers of the node.

    Returns:
        `out`.

    Raises:
        FileExistsError: `out` exists.
    """
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    if out.exists():
        raise FileExistsError(f'{out}: exists already; choose another name for the bag')
    typestore = get_typestore(Stores.ROS2_JAZZY)
    for name, text in _DEFINITIONS.items():
        typestore.register(get_types_from_msg(text, name))
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f'.{out.name}.', dir=out.parent) as place:
        # Same last name, because the files inside the bag are called after its folder.
        unfinished = Path(place) / out.name
        writer = Writer(unfinished, version=9, storage_plugin=StoragePlugin.MCAP)
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        with writer:
            connection = writer.add_connection(TOPIC, ARRAY, typestore=typestore)
            for frame in frames:
                writer.write(connection, frame.stamp_ns, frame.message_cdr)
        os.replace(unfinished, out)
    return out
