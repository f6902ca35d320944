"""Dependencies point down only: ros -> detector -> model -> geometry; training beside them.

The rules are read off the imports of every source file, those inside functions too; what a plain
`import cmkd_ros` really loads is asked of a fresh interpreter.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINES_CEILING = 400
VAGUE_NAMES = {'utils', 'common', 'misc', 'helpers', 'helper', 'util'}
ROS_IMPORTS = {
    'rclpy', 'cv_bridge', 'tf2_ros', 'message_filters', 'launch', 'launch_ros',
    'ament_index_python', 'std_msgs', 'sensor_msgs', 'geometry_msgs', 'vision_msgs',
    'visualization_msgs', 'diagnostic_msgs', 'lifecycle_msgs', 'rcl_interfaces',
    'builtin_interfaces', 'std_srvs', 'tf2_msgs', 'rosidl_runtime_py',
}  # fmt: skip
# Wanted by tools only: a robot has none of them, so the runtime may name them inside functions.
TOOL_IMPORTS = {
    'lightning', 'pytorch_lightning', 'tensorboard', 'matplotlib', 'rosbags', 'trimesh', 'embreex',
    'spconv',
}  # fmt: skip
NEVER_IMPORTS = {'torchvision', 'timm', 'kornia', 'mmcv', 'numba'}


def module_of(path: Path) -> str:
    """The dotted name a source file is imported by: training/x.py is cmkd_ros.training.x."""
    parts = list(path.relative_to(ROOT).with_suffix('').parts)
    if parts[0] == 'training':
        parts.insert(0, 'cmkd_ros')
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


SOURCES = {
    module_of(path): path
    for folder in ('cmkd_ros', 'training')
    for path in sorted((ROOT / folder).rglob('*.py'))
}


def imported_names(module: str, tree: ast.AST) -> set[tuple[str, bool]]:
    """(absolute dotted name, is it at module level) of each import; `from a import b` gives a.b.

    A block under `if TYPE_CHECKING:` counts as module level: it still says who knows whom.
    """
    is_package = SOURCES[module].name == '__init__.py'
    inside_function = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    names = set()
    for node in ast.walk(tree):
        top = id(node) not in inside_function
        if isinstance(node, ast.Import):
            names |= {(alias.name, top) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                package = module.split('.')
                package = package[: len(package) - node.level + (1 if is_package else 0)]
                base = '.'.join([*package, *([base] if base else [])])
            names |= {(f'{base}.{alias.name}', top) for alias in node.names}
    return names


IMPORTS = {
    module: imported_names(module, ast.parse(path.read_text(), filename=str(path)))
    for module, path in SOURCES.items()
}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f'{package}.')


def offenders(modules, is_forbidden) -> list[str]:
    """Imports that break a rule: `is_forbidden(name, top)`, as 'module imports name' lines."""
    return [
        f'{module} imports {name}'
        for module in sorted(modules)
        for name, top in sorted(IMPORTS[module])
        if is_forbidden(name, top)
    ]


def modules_within(*packages: str) -> list[str]:
    return [module for module in SOURCES if any(within(module, p) for p in packages)]


def test_sources_are_found_and_imports_are_read():
    """Guards the tests below against passing on nothing."""
    assert {'cmkd_ros', 'cmkd_ros.training'} <= set(SOURCES)
    tree = ast.parse('import a.b\nfrom . import c\ndef f():\n    from .d import e\n')
    assert imported_names('cmkd_ros.training', tree) == {
        ('a.b', True),
        ('cmkd_ros.training.c', True),
        ('cmkd_ros.training.d.e', False),
    }


@pytest.mark.parametrize(
    ('layer', 'may_use'),
    [
        ('cmkd_ros.geometry', ['cmkd_ros.geometry']),
        ('cmkd_ros.model', ['cmkd_ros.geometry', 'cmkd_ros.model']),
    ],
)
def test_lower_layers_use_only_what_lies_below(layer, may_use):
    def forbidden(name, _top):
        return within(name, 'cmkd_ros') and not any(within(name, package) for package in may_use)

    assert offenders(modules_within(layer), forbidden) == []


def test_geometry_is_free_of_networks_and_files():
    def forbidden(name, _top):
        return within(name, 'torch.nn') or within(name, 'io') or within(name, 'pathlib')

    assert offenders(modules_within('cmkd_ros.geometry'), forbidden) == []


def test_only_ros_imports_ros():
    others = [module for module in SOURCES if not within(module, 'cmkd_ros.ros')]

    assert offenders(others, lambda name, _top: name.split('.')[0] in ROS_IMPORTS) == []


def test_nobody_imports_the_node_or_the_trainer():
    """Except the command line, inside functions, so that each command loads what it needs."""
    ros, training = 'cmkd_ros.ros', 'cmkd_ros.training'
    command_line = ('cmkd_ros.cli', 'cmkd_ros.cli_benchmark')
    below = [m for m in SOURCES if not any(within(m, p) for p in (ros, training, *command_line))]

    assert offenders(below, lambda name, _: within(name, ros) or within(name, training)) == []
    assert offenders(modules_within(ros), lambda name, _: within(name, training)) == []
    assert offenders(modules_within(training), lambda name, _: within(name, ros)) == []
    assert (
        offenders(
            [m for m in SOURCES if any(within(m, p) for p in command_line)],
            lambda name, top: top and (within(name, ros) or within(name, training)),
        )
        == []
    )


def test_runtime_loads_no_tools_at_import():
    runtime = [module for module in SOURCES if not within(module, 'cmkd_ros.training')]

    assert offenders(runtime, lambda name, top: top and name.split('.')[0] in TOOL_IMPORTS) == []
    assert offenders(SOURCES, lambda name, _top: name.split('.')[0] in NEVER_IMPORTS) == []


def test_one_file_imports_spconv():
    users = offenders(SOURCES, lambda name, _: within(name, 'spconv'))

    assert {line.split()[0] for line in users} <= {'cmkd_ros.training.teacher.sparse_backbone'}


def test_import_of_the_package_is_light():
    """Neither ROS nor any training tool is loaded: asked of an interpreter of its own."""
    program = 'import sys, cmkd_ros; print("\\n".join(sys.modules))'
    answer = subprocess.run(
        [sys.executable, '-c', program], env=dict(os.environ), capture_output=True, text=True
    )

    assert answer.returncode == 0, answer.stderr
    modules = answer.stdout.split()
    assert 'cmkd_ros' in modules
    loaded = {module.split('.')[0] for module in modules}
    assert loaded & (ROS_IMPORTS | TOOL_IMPORTS | NEVER_IMPORTS) == set()
    upper = ('cmkd_ros.ros', 'cmkd_ros.training')
    assert [m for m in modules if any(within(m, package) for package in upper)] == []


def test_synthetic_drives_are_made_without_torch():
    """Their workers start in a second instead of four."""
    program = 'import sys, cmkd_ros.training.data.synthetic; sys.exit("torch" in sys.modules)'

    assert subprocess.run([sys.executable, '-c', program], env=dict(os.environ)).returncode == 0


@pytest.mark.parametrize('module', sorted(SOURCES))
def test_a_file_holds_one_concept(module):
    path = SOURCES[module]

    assert path.stem not in VAGUE_NAMES
    assert len(path.read_text().splitlines()) <= LINES_CEILING
