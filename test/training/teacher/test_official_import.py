"""Official teachers become bundles, with sparse kernels of any version of spconv."""

import json

import pytest
import torch
from official_files import official_zeros, student_zeros, write_official

from cmkd_ros.checkpoint import load_bundle, parameter_count
from cmkd_ros.cli import main
from cmkd_ros.official_file import read_official
from cmkd_ros.training.engine.train import build_teacher_of
from cmkd_ros.training.teacher.build import build_teacher
from cmkd_ros.training.teacher.kernel_layout import FIRST_KERNEL, LAYOUTS, kernel_layout
from cmkd_ros.training.teacher.official_import import TEACHER_SPECS, import_teacher
from cmkd_ros.training.teacher.official_names import official_rules
from cmkd_ros.training.teacher.spec import load_teacher_spec

# cmkd-spec J
COUNTS = {
    'second': (233, 5_685_544),
    'centerpoint': (237, 4_199_467),
    'pointpillar': (139, 5_354_824),
}
# What spconv 1 and early spconv 2 make of (out, z, y, x, in), as official files have it.
STORED = {
    'OZYXI (spconv 2)': (0, 1, 2, 3, 4),
    'ZYXIO (spconv 1)': (1, 2, 3, 4, 0),
    'ZYXOI (early spconv 2)': (1, 2, 3, 0, 4),
}


def teacher_zeros(config) -> dict[str, torch.Tensor]:
    if config != 'pointpillar':
        pytest.importorskip('spconv', reason='needs spconv')
    spec = load_teacher_spec(TEACHER_SPECS[config])
    with torch.device('meta'):
        network = build_teacher(spec)
    return official_zeros(network, official_rules(spec))


def in_layout(state, layout):
    """The state dict with its sparse kernels as another version of spconv stores them."""
    return {
        key: tensor.permute(STORED[layout]) if tensor.ndim == 5 else tensor
        for key, tensor in state.items()
    }


@pytest.mark.parametrize('config', COUNTS)
def test_every_teacher_is_taken_whole(tmp_path, config, capsys):
    path = write_official(tmp_path / f'{config}.pth', teacher_zeros(config), epoch=80)
    out = tmp_path / f'{config}.cmkd'
    assert main(['import-official', str(path), '--config', config, '--out', str(out)]) == 0
    bundle = load_bundle(out)
    keys, parameters = COUNTS[config]

    assert bundle.kind == 'teacher'
    assert len(bundle.tensors) == keys - 1
    assert parameter_count(bundle.tensors) == parameters
    source = bundle.provenance['official']
    assert (source['config'], source['epoch']) == (config, 80)
    assert source['left_out'] == {'global_step': "the trainer's step counter"}

    capsys.readouterr()
    assert main(['info', str(path)]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described['configs'] == [config]
    assert (described['keys'], described['parameters']) == (keys, parameters)
    assert described['complete'] is True


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('config', ['second', 'centerpoint'])
def test_kernels_of_every_layout_end_as_the_same_weights(tmp_path, config, layout):
    """Also those with as many input as output channels, whose shape does not tell."""
    state = teacher_zeros(config)
    generator = torch.Generator().manual_seed(3)
    for key in [key for key, tensor in state.items() if tensor.ndim == 5]:
        state[key] = torch.randn(state[key].shape, generator=generator)
    path = write_official(tmp_path / 'teacher.pth', in_layout(state, layout))
    imported = import_teacher(read_official(path), config)

    assert imported.bundle.provenance['official']['kernel_layout'] == layout
    kernels = {key: t for key, t in imported.bundle.tensors.items() if t.ndim == 5}
    originals = [tensor for tensor in state.values() if tensor.ndim == 5]
    assert len(kernels) == len(originals) == 21
    square = [t for t in originals if t.shape[0] == t.shape[-1]]
    assert len(square) > 15
    for found in kernels.values():
        assert sum(torch.equal(found, t) for t in originals if t.shape == found.shape) == 1
    _, teacher = build_teacher_of(imported.bundle, with_head=True)
    assert torch.equal(teacher.sparse.stem.conv.weight, state[FIRST_KERNEL])


def test_the_layout_is_told_by_the_first_kernel_alone():
    assert kernel_layout({'vfe.pfn_layers.0.linear.weight': (128, 10)}) is None
    assert kernel_layout({FIRST_KERNEL: (3, 3, 3, 16, 4)}) == 'ZYXOI (early spconv 2)'
    with pytest.raises(ValueError, match=r'expected \(16, 3, 3, 3, 4\) .* found \(4, 3, 3, 3, 16'):
        kernel_layout({FIRST_KERNEL: (4, 3, 3, 3, 16)})
    with pytest.raises(ValueError, match='found no such tensor'):
        kernel_layout({'backbone_3d.conv1.0.conv1.weight': (16, 3, 3, 3, 16)})


def test_kernels_of_mixed_layouts_are_refused(tmp_path):
    """The first kernel decides for all; one in another layout must not slip through."""
    state = teacher_zeros('second')
    key = 'backbone_3d.conv2.0.0.weight'
    state[key] = state[key].permute(STORED['ZYXIO (spconv 1)'])
    file = read_official(write_official(tmp_path / 'mixed.pth', state))
    with pytest.raises(ValueError, match=f'1 of another shape: {key} expected'):
        import_teacher(file, 'second')


@pytest.mark.parametrize(
    ('config', 'given'), [('second', 'centerpoint'), ('centerpoint', 'pointpillar')]
)
def test_a_teacher_of_another_kind_names_the_config_that_fits(tmp_path, config, given):
    file = read_official(write_official(tmp_path / 'teacher.pth', teacher_zeros(given)))
    with pytest.raises(ValueError, match=f'not the teacher {config}.*use --config {given}'):
        import_teacher(file, config)


def test_a_teacher_given_as_student_is_refused(tmp_path, capsys):
    path = write_official(tmp_path / 'teacher.pth', teacher_zeros('pointpillar'))
    out = tmp_path / 'x.cmkd'
    assert main(['import-official', str(path), '--config', 'pp_r50', '--out', str(out)]) == 2
    error = capsys.readouterr().err
    assert 'not the student pp_r50, it holds the LiDAR teacher pointpillar' in error


def test_a_teacher_without_its_head_says_what_is_missing(tmp_path):
    state = teacher_zeros('pointpillar')
    short = {key: t for key, t in state.items() if not key.startswith(('backbone_2d', 'dense'))}
    file = read_official(write_official(tmp_path / 'short.pth', short))
    with pytest.raises(ValueError, match='90 missing: backbone_2d'):
        import_teacher(file, 'pointpillar')


def test_the_weights_run_in_the_range_of_a_student(tmp_path):
    """One bundle serves evaluation in its own range and distillation in the student's."""
    file = read_official(write_official(tmp_path / 'p.pth', teacher_zeros('pointpillar')))
    bundle = import_teacher(file, 'pointpillar').bundle

    own, _ = build_teacher_of(bundle, with_head=True)
    assert own.name == 'pointpillars'
    spec, teacher = build_teacher_of(bundle, with_head=False, spec_name='pointpillars_scd')
    assert teacher.voxelizer.range_m == (2.0, -30.08, -3.0, 46.8, 30.08, 1.0)
    assert spec.bev_shape == (128, 188, 140)
    assert teacher.head is None
    with pytest.raises(ValueError, match='weights do not fit the network spec'):
        build_teacher_of(bundle, with_head=True, spec_name='pointpillars_r18')


def test_a_student_bundle_is_no_teacher(tmp_path):
    path = write_official(tmp_path / 's.pth', student_zeros('pp_r50', 2))
    out = tmp_path / 's.cmkd'
    assert main(['import-official', str(path), '--config', 'pp_r50', '--out', str(out)]) == 0
    with pytest.raises(ValueError, match='s.cmkd: a camera student was given'):
        build_teacher_of(load_bundle(out), with_head=True)
