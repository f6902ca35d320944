"""Package cmkd_ros: the runtime in cmkd_ros/, the trainer in training/ as cmkd_ros.training."""

from pathlib import Path

from setuptools import find_packages, setup

NAME = 'cmkd_ros'
ROOT = Path(__file__).resolve().parent

RUNTIME = [
    'torch>=2.6',
    'numpy>=1.26',
    'opencv-python-headless>=4.8',
    'safetensors>=0.4',
    'pydantic>=2.5',
    'pyyaml>=6',
    'rich>=13',
]
BAGS = ['rosbags>=0.11,<0.12']
TRAINING = [
    'lightning>=2.4',
    'tensorboard>=2.15',
    'matplotlib>=3.8',
    'embreex>=2.17.7',
]
EXPORT = ['onnx>=1.16', 'onnxscript>=0.5', 'onnxruntime>=1.20', 'openvino>=2025.0']
# ROS packages (rclpy, vision_msgs, ...) are deliberately absent: package.xml names them, and a
# machine without ROS gets them from env/.


def share_files() -> list[tuple[str, list[str]]]:
    """(directory under the prefix, files) of everything ROS tools look up in share/."""
    share = Path('share') / NAME
    targets = {
        Path('share/ament_index/resource_index/packages'): [f'resource/{NAME}'],
        share: ['package.xml'],
    }
    for folder in ('launch', 'config'):
        for file in sorted((ROOT / folder).rglob('*')):
            if file.is_file() and file.suffix in {'.py', '.yaml', '.xml', '.rviz', '.cmkd'}:
                relative = file.relative_to(ROOT)
                targets.setdefault(share / relative.parent, []).append(str(relative))
    return [(str(target), files) for target, files in targets.items()]


setup(
    name=NAME,
    version='0.1.0',
    description='3D object detection with one camera, distilled from a LiDAR teacher (CMKD)',
    author='cmkd_ros maintainers',
    maintainer='cmkd_ros maintainers',
    maintainer_email='maintainers@cmkd-ros.invalid',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=[
        *find_packages(include=[NAME, f'{NAME}.*']),
        f'{NAME}.training',
        *(f'{NAME}.training.{package}' for package in find_packages('training')),
    ],
    package_dir={f'{NAME}.training': 'training'},
    package_data={f'{NAME}.training': ['recipes/*.yaml']},
    data_files=share_files(),
    zip_safe=False,
    install_requires=RUNTIME,
    extras_require={
        # colcon test reads this
        'test': ['pytest', 'hypothesis', 'trimesh>=4.4', 'ruff', 'mypy', 'types-PyYAML'],
        'bags': BAGS,
        'export': EXPORT,
        'int8': EXPORT + ['nncf>=3.0'],  # with 'training', whose evaluation tells what int8 costs
        'training': TRAINING + BAGS + ['spconv>=2.3.8'],
        # Sparse teachers on an NVIDIA GPU; env/README.md names the CUDA build of torch beside it.
        'cuda': TRAINING + BAGS + ['spconv-cu126>=2.3.8'],
    },
    entry_points={
        'console_scripts': [
            'cmkd_detector = cmkd_ros.ros.node:main',
            'cmkd = cmkd_ros.cli:main',
        ],
    },
)
