"""The bundle: what is written is read back, and whatever is wrong with a file is told."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from cmkd_ros import Detector, load_bundle
from cmkd_ros.checkpoint import Bundle, save_bundle
from cmkd_ros.cli import main
from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student


@pytest.fixture(scope='module')
def bundle() -> Bundle:
    spec = load_spec('r18')
    torch.manual_seed(0)
    return Bundle(
        'student',
        spec.model_dump(mode='json'),
        build_student(spec).state_dict(),
        train_fx_px=721.5,
        provenance={'seed': 0},
    )


@pytest.fixture(scope='module')
def file(bundle, tmp_path_factory):
    return save_bundle(tmp_path_factory.mktemp('bundle') / 'student.cmkd', bundle)


def rewritten(file, out, change):
    """A copy of a bundle whose header document and tensors went through `change`."""
    with safe_open(str(file), 'pt') as source:
        document = json.loads(source.metadata()['cmkd'])
        tensors = {key: source.get_tensor(key) for key in source.keys()}  # noqa: SIM118
    change(document, tensors)
    save_file(tensors, str(out), {'cmkd': json.dumps(document)})
    return out


def test_everything_comes_back(bundle, file):
    read = load_bundle(file)
    assert read.spec == bundle.spec
    assert read.provenance == {'seed': 0}
    assert read.train_fx_px == 721.5
    for key, tensor in read.build().state_dict().items():
        torch.testing.assert_close(tensor, bundle.tensors[key], rtol=0, atol=0)


def test_half_precision_halves_the_file(bundle, file, tmp_path):
    small = save_bundle(tmp_path / 'small.cmkd', bundle, storage='fp16')
    assert small.stat().st_size < 0.52 * file.stat().st_size
    assert all(t.dtype != torch.float16 for t in load_bundle(small).tensors.values())


@pytest.mark.parametrize('place', [0.2, 0.5, 0.9])
def test_a_flipped_byte_is_noticed(file, tmp_path, place):
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 0x10
    damaged = tmp_path / 'damaged.cmkd'
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match='damaged.cmkd: damaged'):
        load_bundle(damaged)


def test_a_flipped_byte_in_the_header_is_noticed(file, tmp_path):
    content = bytearray(file.read_bytes())
    content[content.index(b'721.5')] ^= 0x01
    damaged = tmp_path / 'damaged.cmkd'
    damaged.write_bytes(content)
    with pytest.raises(ValueError, match=r'damaged\.cmkd'):
        load_bundle(damaged)


def test_other_versions_and_unknown_or_missing_keys_are_named(file, tmp_path):
    def newer(document, tensors):
        document['version'] = 2

    with pytest.raises(ValueError, match='version 2, this release reads 1'):
        load_bundle(rewritten(file, tmp_path / 'newer.cmkd', newer))

    def without_kind(document, tensors):
        del document['kind']

    with pytest.raises(ValueError, match='kind'):
        load_bundle(rewritten(file, tmp_path / 'kind.cmkd', without_kind))


def test_weights_that_do_not_fit_the_spec_are_named(bundle, tmp_path):
    tensors = dict(bundle.tensors)
    del tensors['head.cls.bias']
    tensors['odd'] = torch.zeros(1)
    path = save_bundle(tmp_path / 'odd.cmkd', Bundle('student', bundle.spec, tensors))
    with pytest.raises(ValueError, match=r'1 missing keys \(head.cls.bias\); 1 unexpected'):
        load_bundle(path).build()


def test_nan_weights_are_not_written(bundle, tmp_path):
    tensors = dict(bundle.tensors) | {'head.cls.bias': torch.full((18,), float('nan'))}
    with pytest.raises(ValueError, match=r'head.cls.bias holds NaN'):
        save_bundle(tmp_path / 'nan.cmkd', Bundle('student', bundle.spec, tensors))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('size', [0, 7, 100, 5000])
def test_a_file_cut_short_is_told(file, tmp_path, size):
    short = tmp_path / 'short.cmkd'
    short.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ValueError, match=r'short\.cmkd'):
        load_bundle(short)


def test_the_command_says_one_sentence_and_exits_with_2(tmp_path, capsys):
    assert main(['info', str(tmp_path / 'absent.cmkd')]) == 2
    assert capsys.readouterr().err.count('\n') == 1
    assert main(['detect', '--model', 'x', '--image', 'absent.png', '--calib', 'y']) == 2
    assert 'absent.png: no such image' in capsys.readouterr().err


def test_the_command_describes_a_bundle(file, capsys):
    assert main(['info', str(file)]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described['kind'] == 'student'
    assert described['spec']['name'] == 'r18'


def test_thresholds_outside_their_range_are_refused(bundle):
    detector = Detector.from_bundle(bundle)
    with pytest.raises(ValueError, match='score_threshold = 1.5'):
        detector.set_thresholds(score_threshold=1.5)
    with pytest.raises(ValueError, match='precision'):
        Detector.from_bundle(bundle, precision='fp8')
