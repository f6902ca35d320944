"""Start the detector: `ros2 launch cmkd_ros detect.launch.py model:=student.cmkd`."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

# Argument of this launch file -> parameter of the node; empty leaves it to params_file.
PARAMETERS = {
    'model': 'model.path',
    'device': 'device',
    'precision': 'precision',
    'image_transport': 'image_transport',
    'qos': 'qos',
}
ARGUMENTS = {
    'model': 'Model file (*.cmkd).',
    'image': 'Topic of the camera image.',
    'camera_info': 'Topic of the calibration of these images.',
    'detections': 'Topic to publish vision_msgs/Detection3DArray on.',
    'device': 'auto, cpu, cuda or cuda:N.',
    'precision': 'auto, fp32, bf16 or fp16.',
    'image_transport': 'raw or compressed.',
    'qos': 'reliable or sensor_data: what is asked of the image publisher.',
    'params_file': 'Parameters of the node; the arguments here win over it.',
    'namespace': 'Namespace of the node and its relative topics.',
    'name': 'Name of the node.',
    'use_sim_time': 'true to take the time from /clock.',
    'log_level': 'debug, info, warn or error.',
}
DEFAULTS = {
    'image': 'image',
    'camera_info': 'camera_info',
    'detections': 'detections',
    'params_file': PathJoinSubstitution([FindPackageShare('cmkd_ros'), 'config', 'detect.yaml']),
    'name': 'detector',
    'use_sim_time': 'false',
    'log_level': 'info',
}


def detector(context):
    """The node, with the parameters that were given."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    parameters = {
        # Without a type, launch reads a string as YAML: a model called 1.cmkd is safe, `1` is not.
        parameter: ParameterValue(given[name], value_type=str)
        for name, parameter in PARAMETERS.items()
        if given[name]
    }
    parameters['use_sim_time'] = given['use_sim_time'].lower() == 'true'
    return [
        Node(
            package='cmkd_ros',
            executable='cmkd_detector',
            name=given['name'],
            namespace=given['namespace'],
            parameters=[given['params_file'], parameters],
            remappings=[(topic, given[topic]) for topic in ('image', 'camera_info', 'detections')],
            ros_arguments=['--log-level', given['log_level']],
            output='screen',
            emulate_tty=True,
        )
    ]


def generate_launch_description():
    """Declare the arguments; every one is described by `--show-args`."""
    arguments = [
        DeclareLaunchArgument(name, default_value=DEFAULTS.get(name, ''), description=text)
        for name, text in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=detector)])
