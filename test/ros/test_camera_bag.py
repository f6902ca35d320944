"""What a replay reads of a recording beside its images."""

import logging

import numpy as np
import pytest

pytest.importorskip('rosbags', reason='needs rosbags')

from recordings import CALIBRATION, MESSAGES, BagWriter, picture

from cmkd_ros.ros.camera_bag import open_camera_bag

STAMP_NS = 1_700_000_000_000_000_000


def test_a_broken_transform_is_ignored_as_the_node_does(tmp_path, caplog):
    broken = MESSAGES.transform(CALIBRATION, STAMP_NS)
    broken.transforms[0].transform.rotation.w = np.nan
    with BagWriter(tmp_path / 'bag') as bag:
        bag.write('/tf_static', broken, STAMP_NS)
        bag.write('/tf_static', MESSAGES.transform(CALIBRATION, STAMP_NS), STAMP_NS)
        bag.info(STAMP_NS)
        bag.image(picture(0), STAMP_NS)
    with caplog.at_level(logging.WARNING), open_camera_bag(tmp_path / 'bag') as bag:
        assert len(list(bag)) == 1
        T_camera_lidar = bag.transforms.lookup('camera', 'velodyne', STAMP_NS)
    np.testing.assert_allclose(T_camera_lidar, CALIBRATION.T_cam_ref, atol=1e-6)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "/tf_static: ignored: transform from 'velodyne' to 'camera'" in line
