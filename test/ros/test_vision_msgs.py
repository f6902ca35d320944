"""Detection3DArray is the official interface: its type hash on the wire is pinned."""

import pytest

rclpy = pytest.importorskip('rclpy', reason='needs ROS (./run setup)')
from rclpy.context import Context  # noqa: E402
from rclpy.node import Node  # noqa: E402
from vision_msgs.msg import Detection3DArray  # noqa: E402

# What vision_msgs 4.1 of Jazzy announces. A node with another hash is not heard by the robot.
OFFICIAL_HASH = 'RIHS01_793f5eab9595ac1c0da07873cc859db42eae51f0ee76056db8562515d830e018'


@pytest.fixture
def node():
    context = Context()
    rclpy.init(context=context)
    node = Node('hash_probe', context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_type_hash_of_detections_is_the_official_one(node):
    node.create_publisher(Detection3DArray, 'detections', 1)

    endpoints = node.get_publishers_info_by_topic('/detections')

    assert [endpoint.topic_type for endpoint in endpoints] == ['vision_msgs/msg/Detection3DArray']
    assert str(endpoints[0].topic_type_hash) == OFFICIAL_HASH


def test_fields_of_a_detection_keep_their_order():
    from vision_msgs.msg import BoundingBox3D, Detection3D, ObjectHypothesis

    assert Detection3D.get_fields_and_field_types() == {
        'header': 'std_msgs/Header',
        'results': 'sequence<vision_msgs/ObjectHypothesisWithPose>',
        'bbox': 'vision_msgs/BoundingBox3D',
        'id': 'string',
    }
    assert list(BoundingBox3D.get_fields_and_field_types()) == ['center', 'size']
    assert ObjectHypothesis.get_fields_and_field_types() == {
        'class_id': 'string',
        'score': 'double',
    }
