"""Evaluate a model on a bag through the node: `cmkd eval-bag` with launch's arguments."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.substitutions import ExecutableInPackage

ARGUMENTS = {
    'model': 'Model file (*.cmkd).',
    'bag': 'rosbag2 folder with images, camera_info and transforms.',
    'labels': 'Folder of KITTI label files, named as the frames of the bag.',
    'out': 'New folder for result files and the bag of detections; empty keeps neither.',
    'json': 'File to write every number to; empty for none.',
    'device': 'auto, cpu, cuda or cuda:N.',
}
REQUIRED = ('model', 'bag', 'labels')
DEFAULTS = {'device': 'auto'}


def command_line(given):
    """The arguments of `cmkd`: those that were given, by its own names."""
    options = [[f'--{name}', given[name]] for name in ARGUMENTS if given[name]]
    return ['eval-bag', *(word for option in options for word in option)]


def evaluation(context):
    """The command, which starts a node of its own and hands it one image after the other."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    # No launch_ros Node: that would hand the command --ros-args, which it does not know.
    cmkd = ExecutableInPackage(package='cmkd_ros', executable='cmkd')
    return [ExecuteProcess(cmd=[cmkd, *command_line(given)], output='screen', emulate_tty=True)]


def generate_launch_description():
    """Declare the arguments; model, bag and labels have no default and must be given."""
    arguments = [
        DeclareLaunchArgument(name, description=text)
        if name in REQUIRED
        else DeclareLaunchArgument(name, default_value=DEFAULTS.get(name, ''), description=text)
        for name, text in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=evaluation)])
