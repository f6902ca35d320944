"""Start the detector: `ros2 launch cmkd_ros detect.launch.py model:=student.cmkd`.

For several cameras `cameras:=[front,rear]` starts one node each, in a namespace of that name; in
`image` and `camera_info` the word {camera} stands for it.
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# Argument of this launch file -> parameter of the node; empty leaves it to params_file.
PARAMETERS = {
    'model': 'model.path',
    'device': 'device',
    'precision': 'precision',
    'backend': 'backend',
    'image_transport': 'image_transport',
    'qos': 'qos',
    'target_frame': 'target_frame',
}
ARGUMENTS = {
    'model': 'Model file (*.cmkd).',
    'image': 'Topic of the camera image; with cameras, {camera} stands for the name of each.',
    'camera_info': 'Topic of the calibration of these images; {camera} as in image.',
    'detections': 'Topic to publish vision_msgs/Detection3DArray on.',
    'cameras': 'Names of several cameras, [front,rear]: a node each in the namespace of its name.',
    'device': 'auto, cpu, cuda or cuda:N.',
    'precision': 'auto, fp32, bf16, fp16, or int8 with backend openvino.',
    'backend': 'What runs the network: auto, torch, openvino or onnxruntime.',
    'image_transport': 'raw or compressed.',
    'qos': 'reliable or sensor_data: what is asked of the image publisher.',
    'target_frame': 'TF frame to publish boxes in; empty for the frame of the image.',
    'params_file': 'Parameters of the node; the arguments here win over it.',
    'namespace': 'Namespace of the node and its relative topics.',
    'name': 'Name of the node.',
    'rviz': 'true to open RViz with the boxes and the debug image.',
    'bag': 'rosbag2 folder to play beside the node, with its clock; empty for none.',
    'use_sim_time': 'true to take the time from /clock; auto: true when a bag is played.',
    'log_level': 'debug, info, warn or error.',
}
DEFAULTS = {
    'image': 'image',
    'camera_info': 'camera_info',
    'detections': 'detections',
    'params_file': PathJoinSubstitution([FindPackageShare('cmkd_ros'), 'config', 'detect.yaml']),
    'name': 'detector',
    'rviz': 'false',
    'use_sim_time': 'auto',
    'log_level': 'info',
}


def camera_names(text):
    """Names in `[front,rear]` or `front,rear`; none in an empty text."""
    return [name for name in text.strip('[] ').replace(' ', '').split(',') if name]


def camera_namespace(namespace, camera):
    """Namespace of the node of one of several cameras."""
    return f'{namespace.rstrip("/")}/{camera}' if camera else namespace


def node_parameters(given):
    """The parameters that the arguments give, by the node's names."""
    parameters = {
        # Without a type, launch reads a string as YAML: a model called 1.cmkd is safe, `1` is not.
        parameter: ParameterValue(given[name], value_type=str)
        for name, parameter in PARAMETERS.items()
        if given[name]
    }
    by_clock = given['use_sim_time'].lower()
    parameters['use_sim_time'] = bool(given['bag']) if by_clock == 'auto' else by_clock == 'true'
    return parameters


def detector(given, camera=''):
    """The node of one camera."""
    topics = ('image', 'camera_info', 'detections')
    return Node(
        package='cmkd_ros',
        executable='cmkd_detector',
        name=given['name'],
        namespace=camera_namespace(given['namespace'], camera),
        parameters=[given['params_file'], node_parameters(given)],
        remappings=[(topic, given[topic].replace('{camera}', camera)) for topic in topics],
        ros_arguments=['--log-level', given['log_level']],
        output='screen',
        emulate_tty=True,
    )


def nodes(context):
    """One detector, or one for every camera, and what plays beside them."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    actions = [detector(given, camera) for camera in camera_names(given['cameras']) or ['']]
    if given['bag']:
        play = ['ros2', 'bag', 'play', given['bag'], '--clock', '50']
        actions.append(ExecuteProcess(cmd=play, output='screen'))
    return actions


def generate_launch_description():
    """Declare the arguments; every one is described by `--show-args`."""
    arguments = [
        DeclareLaunchArgument(name, default_value=DEFAULTS.get(name, ''), description=text)
        for name, text in ARGUMENTS.items()
    ]
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        namespace=LaunchConfiguration('namespace'),
        arguments=[
            '-d',
            PathJoinSubstitution([FindPackageShare('cmkd_ros'), 'config', 'detections.rviz']),
        ],
        condition=IfCondition(LaunchConfiguration('rviz')),
    )
    return LaunchDescription([*arguments, OpaqueFunction(function=nodes), rviz])
