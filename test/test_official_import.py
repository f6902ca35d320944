"""Official students become bundles; whatever else a file holds is said in one sentence."""

import json

import pytest
import torch
from official_files import student_zeros, write_official

from cmkd_ros.checkpoint import load_bundle, parameter_count
from cmkd_ros.cli import main
from cmkd_ros.official import official_key
from cmkd_ros.official_file import read_official
from cmkd_ros.official_import import import_student

# cmkd-spec J
STUDENTS = [
    ('scd_r50', 1, 559, 40_538_425),
    ('pp_r50', 1, 559, 40_538_425),
    ('ctp_r50', 1, 559, 42_788_409),
    ('scd_r50', 2, 649, 45_004_673),
    ('pp_r50', 2, 649, 45_004_673),
    ('ctp_r50', 2, 653, 44_292_996),
]
BACKBONE = ('conv1.weight', 'layer4.0.conv1.weight', 'layer1.0.conv3.weight')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """Official files of all students by (config, stage)."""
    folder = tmp_path_factory.mktemp('official')
    return {
        (config, stage): write_official(
            folder / f'{config}_{stage}.pth', student_zeros(config, stage)
        )
        for config, stage, _, _ in STUDENTS
    }


def fails(capsys, *arguments) -> str:
    """The one sentence that a command ends with, on exit code 2."""
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ''
    assert len(captured.err.splitlines()) == 1
    return captured.err


@pytest.mark.parametrize(('config', 'stage', 'keys', 'parameters'), STUDENTS)
def test_every_student_of_either_stage_is_taken_whole(files, config, stage, keys, parameters):
    imported = import_student(read_official(files[config, stage]), config)
    bundle = imported.bundle

    assert len(bundle.tensors) == keys - 1
    assert parameter_count(bundle.tensors) == parameters
    assert imported.ignored == {'global_step': "the trainer's step counter"}
    assert (bundle.kind, bundle.with_head) == ('student', stage == 2)
    assert bundle.network_spec.name == config
    assert (bundle.train_fx_px, bundle.reference_height_m) == (721.5377, 1.73)
    source = bundle.provenance['official']
    assert source['file'] == f'{config}_{stage}.pth'
    assert (source['config'], source['epoch'], source['it']) == (config, 20, 18560)
    assert source['version'] == 'pcdet+0.5.2+7649474'
    assert source['left_out'] == dict(imported.ignored)
    assert ('cannot detect' in imported.summary()) is (stage == 1)


def test_values_arrive_under_our_names_as_float32(tmp_path):
    """By the command, from half precision, and out of the bundle again."""
    state = student_zeros('ctp_r50', 1)
    generator = torch.Generator().manual_seed(2)
    parts = ('domain_adaptation.', 'vfe.ffn.channel_reduce.')
    for key in [key for key in state if key.startswith(parts)]:
        if state[key].is_floating_point():
            state[key] = torch.randn(state[key].shape, generator=generator).half()
    path = write_official(tmp_path / 'half.pth', state)
    out = tmp_path / 'half.cmkd'

    assert main(['import-official', str(path), '--config', 'ctp_r50', '--out', str(out)]) == 0
    tensors = load_bundle(out).tensors
    ours = [key for key in tensors if key.startswith(('adaptation.', 'reduce.'))]
    assert len(ours) == sum(key.startswith(parts) for key in state)
    for key in ours:
        assert torch.equal(tensors[key], state[official_key(key)].to(tensors[key].dtype))
        assert tensors[key].dtype in (torch.float32, torch.int64)


@pytest.mark.parametrize(('config', 'stage', 'keys', 'parameters'), STUDENTS)
def test_info_recognises_an_official_file(files, capsys, config, stage, keys, parameters):
    assert main(['info', str(files[config, stage])]) == 0
    described = json.loads(capsys.readouterr().out)

    assert config in described['configs']
    assert (described['stage'], described['keys']) == (stage, keys)
    assert (described['parameters'], described['epoch']) == (parameters, 20)
    assert described['complete'] is True
    assert f'--config {described["configs"][0]}' in described['next']


def test_info_says_what_is_missing(tmp_path, capsys):
    state = student_zeros('scd_r50', 2)
    del state['dense_head.conv_box.bias']
    assert main(['info', str(write_official(tmp_path / 'gap.pth', state))]) == 0
    described = json.loads(capsys.readouterr().out)

    assert described['complete'] is False
    assert '1 missing: dense_head.conv_box.bias' in described['fault']


def test_a_file_of_another_student_names_the_config_that_fits(files, capsys, tmp_path):
    out = tmp_path / 'x.cmkd'
    text = fails(
        capsys, 'import-official', files['ctp_r50', 2], '--config', 'scd_r50', '--out', out
    )
    assert 'ctp_r50_2.pth: not the student scd_r50' in text
    assert 'use --config ctp_r50' in text
    text = fails(capsys, 'import-official', files['pp_r50', 1], '--config', 'ctp_r50', '--out', out)
    assert 'use --config scd_r50 or pp_r50' in text
    assert not out.exists()


@pytest.mark.parametrize('teacher', ['second', 'centerpoint', 'pointpillar'])
def test_a_student_given_as_teacher_is_refused(files, capsys, tmp_path, teacher):
    text = fails(
        capsys, 'import-official', files['scd_r50', 2], '--config', teacher, '--out',
        tmp_path / 'x.cmkd',
    )  # fmt: skip
    assert f'not the teacher {teacher}, it holds the camera student' in text
    assert f'the {teacher} teacher is a file of its own' in text


def test_a_bundle_of_stage_1_does_not_detect_but_says_why(files, capsys, tmp_path):
    """An official user's real mistake: stage 1 evaluated as if it were stage 2 (noise)."""
    out = tmp_path / 'stage1.cmkd'
    path = str(files['scd_r50', 1])
    assert main(['import-official', path, '--config', 'scd_r50', '--out', str(out)]) == 0
    assert 'of stage 1' in capsys.readouterr().out

    image, calib = tmp_path / 'image.png', tmp_path / 'calib.txt'
    write_picture(image, calib)
    text = fails(capsys, 'detect', '--model', out, '--image', image, '--calib', calib)
    assert 'stage-1 student (features only) cannot detect' in text


def test_an_official_file_given_as_model_names_the_command(files, capsys, tmp_path):
    image, calib = tmp_path / 'image.png', tmp_path / 'calib.txt'
    write_picture(image, calib)
    text = fails(
        capsys, 'detect', '--model', files['scd_r50', 2], '--image', image, '--calib', calib
    )
    assert 'cmkd import-official' in text


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'dense_head.conv_cls.weight': None}, '1 missing: dense_head.conv_cls.weight'),
        ({'dense_head.conv_iou.weight': (3, 512, 1, 1)}, '1 unexpected: dense_head.conv_iou'),
        (
            {'dense_head.conv_cls.weight': (30, 512, 1, 1)},
            r'1 of another shape: dense_head.conv_cls.weight expected \(18, 512, 1, 1\), '
            r'found \(30, 512, 1, 1\)',
        ),
    ],
)
def test_one_tensor_too_few_too_many_or_of_another_shape(tmp_path, change, message):
    state = student_zeros('scd_r50', 2)
    for key, shape in change.items():
        if shape is None:
            del state[key]
        else:
            state[key] = torch.zeros(()).expand(shape)
    file = read_official(write_official(tmp_path / 'other.pth', state))

    with pytest.raises(ValueError, match=f'other.pth: looks like scd_r50 but differs.*{message}'):
        import_student(file, 'scd_r50')


def test_a_torchvision_file_given_as_checkpoint_says_what_it_is_for(tmp_path, capsys):
    resnet = {key: torch.zeros(8, 8, 1, 1) for key in BACKBONE}
    deeplab = {f'backbone.{key}': value for key, value in resnet.items()}
    deeplab['classifier.0.project.0.weight'] = torch.zeros(8, 8, 1, 1)
    for name, state in (('resnet.pth', resnet), ('deeplab.pth', deeplab)):
        torch.save(state, tmp_path / name)
        text = fails(
            capsys, 'import-official', tmp_path / name, '--config', 'scd_r50', '--out',
            tmp_path / 'x.cmkd',
        )  # fmt: skip
        assert "torchvision's" in text
        assert 'init_image=FILE' in text
        assert main(['info', str(tmp_path / name)]) == 0
        assert 'torchvision' in json.loads(capsys.readouterr().out)['holds']


def test_a_network_of_somebody_else_is_refused(tmp_path, capsys):
    path = tmp_path / 'yolo.pth'
    torch.save({'stem.conv.weight': torch.zeros(3), 'stem.conv.bias': torch.zeros(3)}, path)
    text = fails(
        capsys, 'import-official', path, '--config', 'scd_r50', '--out', tmp_path / 'x.cmkd'
    )
    assert 'no network of official CMKD (it begins with stem.conv.weight' in text
    assert 'no network of official CMKD' in fails(capsys, 'info', path)


def write_picture(image, calib) -> None:
    """A grey picture and a plain calibration."""
    import cv2
    import numpy as np

    cv2.imwrite(str(image), np.full((96, 320, 3), 90, np.uint8))
    rows = {
        'P2': '700 0 160 0 0 700 48 0 0 0 1 0',
        'R0_rect': '1 0 0 0 1 0 0 0 1',
        'Tr_velo_to_cam': '0 -1 0 0 0 0 -1 0 1 0 0 0',
    }
    calib.write_text(''.join(f'{name}: {row}\n' for name, row in rows.items()))
