"""Reading foreign checkpoint files: what is read, and what each other kind of file is told."""

import os

import numpy as np
import pytest
import torch
from official_files import write_official
from safetensors.torch import save_file

from cmkd_ros.official_file import is_pytorch_file, read_official

STATE = {'reduce.weight': torch.arange(6.0).view(2, 3), 'reduce.steps': torch.tensor(4)}


class RunsACommand:
    """Unpickled without care, it runs a command."""

    def __reduce__(self):
        return os.system, ('echo hacked',)


@pytest.fixture
def file(tmp_path):
    return write_official(tmp_path / 'epoch_20.pth', STATE)


def test_weights_and_what_the_trainer_noted_are_read(file):
    found = read_official(file)

    assert found.path == file
    assert list(found.tensors) == list(STATE)
    assert all(torch.equal(found.tensors[key], STATE[key]) for key in STATE)
    assert found.shapes == {'reduce.weight': (2, 3), 'reduce.steps': ()}
    assert found.trainer == {'epoch': 20, 'it': 18560, 'version': 'pcdet+0.5.2+7649474'}
    assert len(found.sha256) == 64


def test_a_bare_state_dict_and_the_old_format_are_read(tmp_path):
    bare, old = tmp_path / 'bare.pth', tmp_path / 'old.pth'
    torch.save(STATE, bare)
    torch.save({'model_state': STATE, 'epoch': 3}, old, _use_new_zipfile_serialization=False)

    assert torch.equal(read_official(bare).tensors['reduce.weight'], STATE['reduce.weight'])
    assert read_official(bare).trainer == {}
    assert torch.equal(read_official(old).tensors['reduce.weight'], STATE['reduce.weight'])
    assert read_official(old).trainer == {'epoch': 3}
    assert is_pytorch_file(bare)
    assert is_pytorch_file(old)


def test_numpy_numbers_of_the_official_optimiser_are_no_code(tmp_path):
    """The teachers' trainer computes rates with NumPy and leaves them in the file."""
    group = {'lr': np.float64(3e-8), 'betas': (np.float64(0.95), 0.99), 'step': np.int64(7)}
    path = write_official(
        tmp_path / 'teacher.pth', STATE, optimizer_state={'param_groups': [group]}
    )

    assert list(read_official(path).tensors) == list(STATE)


def test_pickled_code_is_refused_and_not_run(tmp_path, capfd):
    path = write_official(tmp_path / 'evil.pth', STATE, optimizer_state=RunsACommand())

    with pytest.raises(ValueError, match=r'evil.pth: refused.*code.*system\).*a source you trust'):
        read_official(path)
    assert 'hacked' not in capfd.readouterr().out


@pytest.mark.parametrize('old_format', [False, True])
def test_a_file_cut_short_anywhere_says_so(tmp_path, old_format):
    path = tmp_path / 'whole.pth'
    state = {f'layer{n}.weight': torch.full((40, 40), float(n)) for n in range(5)}
    torch.save(state, path, _use_new_zipfile_serialization=not old_format)
    content = path.read_bytes()
    cut = tmp_path / 'cut.pth'
    for length in (40, 500, len(content) // 2, len(content) - 200, len(content) - 1):
        cut.write_bytes(content[:length])
        with pytest.raises(ValueError, match='cut.pth: (damaged or cut short; download it again|'
                                             'refused)'):  # fmt: skip
            read_official(cut)


def test_a_damaged_file_is_an_error_of_one_kind(tmp_path):
    """Any overwritten byte: read, or a ValueError; nothing else escapes."""
    path = tmp_path / 'whole.pth'
    torch.save(STATE, path)
    content = path.read_bytes()
    damaged = tmp_path / 'damaged.pth'
    generator = np.random.default_rng(5)
    refused = 0
    for position in generator.integers(4, len(content), 150):
        damaged.write_bytes(content[:position] + b'\xa7' + content[position + 1 :])
        try:
            read_official(damaged)
        except ValueError as error:
            assert str(damaged) in str(error)
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'an empty file; download it again'),
        (b'<!DOCTYPE html><html>Quota exceeded', 'a web page, not a checkpoint'),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:1', 'a Git LFS pointer'),
        (b'model: CMKD\n', 'not a file written by torch.save'),
    ],
)
def test_other_files_are_told_apart(tmp_path, content, message):
    path = tmp_path / 'model.pth'
    path.write_bytes(content)

    assert not is_pytorch_file(path)
    with pytest.raises(ValueError, match=f'model.pth: {message}'):
        read_official(path)


def test_a_safetensors_file_needs_no_import(tmp_path):
    save_file(STATE, tmp_path / 'model.cmkd')

    with pytest.raises(ValueError, match='a safetensors file; a bundle .* needs no import'):
        read_official(tmp_path / 'model.cmkd')


@pytest.mark.parametrize(
    ('content', 'found'),
    [
        ({'epoch': 3, 'optimizer_state': {}}, 'one of epoch, optimizer_state'),
        ({}, 'nothing'),
        ([torch.zeros(2)], 'list'),
        ({'model_state': {'a': 1.0}}, 'one of model_state'),
        (torch.zeros(3), 'Tensor'),
    ],
)
def test_a_file_without_weights_says_what_it_has(tmp_path, content, found):
    path = tmp_path / 'other.pth'
    torch.save(content, path)

    with pytest.raises(ValueError, match=f"expected a dictionary with 'model_state'.*{found}"):
        read_official(path)


def test_a_missing_file_is_named(tmp_path):
    assert not is_pytorch_file(tmp_path / 'none.pth')
    with pytest.raises(FileNotFoundError, match='none.pth: no such file'):
        read_official(tmp_path / 'none.pth')
