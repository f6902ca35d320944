"""Training and evaluation where memory is short, really: one sentence, and not a traceback."""

from dataclasses import replace

import yaml
from scarce_memory import at_most_more, said

from cmkd_ros.checkpoint import load_bundle, save_bundle
from cmkd_ros.cli import main

LESS = 'less is needed with a smaller optimiser.batch_size, or optimiser.checkpoint_activations'


def changed(spec, section, values, folder):
    """The spec with other values in a section."""
    data = yaml.safe_load(spec.read_text())
    data[section] |= values
    file = folder / spec.name
    file.write_text(yaml.safe_dump(data))
    return file


def test_a_teacher_too_large_is_told_in_one_sentence(specs, recipe_overrides, tmp_path, capsys):
    # A map of its smallest pillars takes gigabytes.
    spec = changed(specs['teacher'], 'grid', {'voxel_m': [0.01, 0.01, 4.0]}, tmp_path)
    overrides = recipe_overrides(f'teacher={spec}')
    command = ['train-teacher', 'teacher_pointpillars_r18', *overrides]
    with at_most_more(600):
        assert main([*command, '--out', str(tmp_path / 'run')]) == 1
    line = said(capsys)
    assert line.startswith('cmkd: train-teacher ran out of memory on this machine, which had no ')
    assert LESS in line


def test_a_student_too_large_is_told_in_one_sentence(
    specs, trained, recipe_overrides, tmp_path, capsys
):
    spec = changed(specs['student'], 'depth', {'bins': 300_000}, tmp_path)
    overrides = recipe_overrides(f'student={spec}', f'teacher={trained["teacher"]}')
    command = ['distill', 'student_r18_stage1', *overrides, '--no-report']
    with at_most_more(600):
        assert main([*command, '--out', str(tmp_path / 'run')]) == 1
    line = said(capsys)
    assert line.startswith('cmkd: distill ran out of memory on this machine')
    assert LESS in line


def test_an_evaluation_too_large_is_told_in_one_sentence(drive, trained, tmp_path, capsys):
    bundle = load_bundle(trained['stage2'])
    file = save_bundle(tmp_path / 'long.cmkd', replace(bundle, train_fx_px=38 * bundle.train_fx_px))
    command = ['evaluate', '--model', str(file), '--data', str(drive), '--allow-leak']
    with at_most_more(400):
        assert main([*command, '--device', 'cpu']) == 1
    assert said(capsys).startswith('cmkd: evaluate ran out of memory on this machine, which had no')
