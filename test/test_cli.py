"""What `cmkd` says where a package is missing or broken, or a result cannot be written."""

import sys

import pytest

from cmkd_ros.cli import main


@pytest.fixture
def read_bag(tmp_path, monkeypatch, capsys):
    """Function from the source of a package rosbags, None for none, to what extract-bag says."""

    def read(source):
        for name in [name for name in sys.modules if name.partition('.')[0] == 'rosbags']:
            monkeypatch.delitem(sys.modules, name)
        if source is None:
            monkeypatch.setitem(sys.modules, 'rosbags', None)
        else:
            (tmp_path / 'rosbags.py').write_text(source)
            monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / 'drive.bag').touch()
        code = main(['extract-bag', str(tmp_path / 'drive.bag'), '--out', str(tmp_path / 'out')])
        return code, capsys.readouterr().err.splitlines()[-1]

    return read


def test_a_package_that_is_missing_is_named(read_bag):
    code, line = read_bag(None)
    assert code == 2
    assert line.startswith("cmkd: extract-bag needs 'rosbags")
    assert line.endswith("', which is not installed here; see the README (Install)")


def test_a_package_that_cannot_be_loaded_says_why(read_bag):
    assert read_bag("raise ImportError('libodd.so: no such file')\n") == (
        2,
        'cmkd: extract-bag cannot load what it needs: libodd.so: no such file',
    )


@pytest.mark.parametrize('place', ['', 'nowhere/cost.json'])
def test_a_result_that_cannot_be_written_is_told_before_the_work(tmp_path, place, capsys):
    assert main(['benchmark', '--student', 'r18', '--json', str(tmp_path / place)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f'cmkd: --json {tmp_path / place}: expected a file in a folder that exists'
