"""Parameters: one truth, validated whole, applied at once."""

import pytest
import yaml

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.parameter import Parameter

from cmkd_ros.ros.parameter_docs import markdown_text, yaml_text
from cmkd_ros.ros.parameter_handler import ParameterHandler
from cmkd_ros.ros.parameters import declared_parameters, parse_parameters


@pytest.fixture
def make_node():
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(unconfigured=True, **overrides):
        node = rclpy.create_node(
            'parameters',
            context=context,
            parameter_overrides=[
                Parameter(name.replace('__', '.'), value=value) for name, value in overrides.items()
            ],
        )
        nodes.append(node)
        return node, ParameterHandler(node, may_change_all=lambda: unconfigured)

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def set_one(node, name, value):
    return node.set_parameters([Parameter(name, value=value)])[0]


def test_every_parameter_is_described_and_every_number_has_a_range():
    declared = list(declared_parameters())
    assert len(declared) > 15
    for parameter in declared:
        assert len(parameter.info.description) > 15, parameter.name
        if isinstance(parameter.default, float):
            low, high = parameter.limits
            assert low <= parameter.default <= high, parameter.name
            assert parameter.descriptor().floating_point_range[0].to_value == high


@pytest.mark.parametrize(
    ('file', 'text'), [('config/detect.yaml', yaml_text()), ('docs/parameters.md', markdown_text())]
)
def test_written_documents_are_up_to_date(project_root, file, text):
    assert (project_root / file).read_text() == text, 'run python -m cmkd_ros.ros.parameter_docs'


def test_the_parameter_file_holds_exactly_the_defaults(project_root):
    tree = yaml.safe_load((project_root / 'config/detect.yaml').read_text())
    flat = {}
    for name, value in tree['/**']['ros__parameters'].items():
        values = value if isinstance(value, dict) else {'': value}
        flat |= {f'{name}.{leaf}'.rstrip('.'): v for leaf, v in values.items()}
    assert flat == {d.name: d.default for d in declared_parameters()}
    assert parse_parameters(flat) == parse_parameters({})


def test_the_parsed_set_is_frozen():
    with pytest.raises(ValueError, match='frozen'):
        parse_parameters({}).post.score_threshold = 0.5


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('post.score_threshold', 1.5, 'less than or equal to 1'),
        ('post.nms_iou', float('nan'), 'finite'),
        ('pose.source', 'guess', "'auto', 'mount', 'transform' or 'tf'"),
        ('pose.transform', [0.0] * 7, 'quaternion'),
        ('pose.transform', [0.0, 1.0], 'Field required'),
        ('device', 'tpu', 'match pattern'),
        ('assume_encoding', 'jpeg', 'one of rgb8, bgr8'),
        ('max_age', 1.0, 'Extra inputs'),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(name, value, words):
    with pytest.raises(ValueError) as caught:
        parse_parameters({name: value})
    assert name in str(caught.value)
    assert words in str(caught.value)


def test_overrides_reach_the_parsed_set(make_node):
    _, handler = make_node(post__score_threshold=0.4, rectified=True, pose__camera_height=2.0)
    assert handler.current.post.score_threshold == 0.4
    assert handler.current.rectified == 'true'
    assert handler.current.pose.camera_height == 2.0


def test_an_integer_is_a_number(make_node):
    """A 1 in YAML or on the command line is an integer there, and means 1.0."""
    node, handler = make_node(post__score_threshold=1)
    assert handler.current.post.score_threshold == 1.0
    assert set_one(node, 'post.score_threshold', 0).successful
    assert not set_one(node, 'post.score_threshold', 2).successful
    assert handler.current.post.score_threshold == 0.0


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('post__score_threshold', 1.5, 'post.score_threshold'),
        (
            'post__score_threshold',
            '0.5',
            "post.score_threshold = '0.5': Input should be",
        ),
        ('pose__source', 'guess', "pose.source = 'guess'"),
    ],
)
def test_a_wrong_override_stops_the_node_by_name(make_node, name, value, words):
    with pytest.raises((ValueError, ParameterException), match=words):
        make_node(**{name: value})


def test_live_changes_apply_and_refused_ones_change_nothing(make_node):
    node, handler = make_node(unconfigured=False)
    assert set_one(node, 'post.score_threshold', 0.25).successful
    assert handler.current.post.score_threshold == 0.25
    before = handler.current
    for name, value, words in (
        ('post.score_threshold', 7.0, 'Max: 1.0, value: 7.0'),
        ('post.score_threshold', 'high', "= 'high': Input should be a valid number"),
        ('health.check_pictures', 1, '= 1: Input should be a valid boolean'),
        ('post.nms_iou', None, '= None: Input should be a valid number'),
        ('pose.transform', [0.0] * 7, 'quaternion (numbers 4 to 7) must not be zero; nothing was'),
        ('assume_encoding', 'jpeg', 'must be empty or one of'),
        ('device', 'cpu', 'takes effect when the node is configured, so deactivate and clean up'),
    ):
        result = set_one(node, name, value)
        assert not result.successful
        assert name in result.reason
        assert words in result.reason
    assert handler.current == before
    assert node.get_parameter('device').value == 'auto'


def test_an_unconfigured_node_takes_every_change(make_node):
    node, handler = make_node(unconfigured=True)
    assert set_one(node, 'device', 'cuda:1').successful
    assert set_one(node, 'model.path', '/a/b.cmkd').successful
    assert (handler.current.device, handler.current.model.path) == ('cuda:1', '/a/b.cmkd')


def test_an_atomic_change_is_taken_whole_or_not_at_all(make_node):
    node, handler = make_node()
    changes = [Parameter('post.nms_iou', value=0.3), Parameter('pose.transform', value=[0.0] * 7)]
    assert not node.set_parameters_atomically(changes).successful
    assert handler.current == parse_parameters({})


def test_foreign_parameters_are_none_of_our_business(make_node):
    node, handler = make_node()
    assert set_one(node, 'use_sim_time', True).successful
    assert handler.current == parse_parameters({})
