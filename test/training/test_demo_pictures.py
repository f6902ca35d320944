"""Pictures of chosen frames of a demo, and the page that shows them."""

import re
from pathlib import Path

import cv2
import pytest

from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.synthetic import generate_drive
from cmkd_ros.training.demo_pictures import draw_demo_frames, main

DOCS = Path(__file__).resolve().parents[2] / 'docs'
CAR = 'Car 0.00 0 -1.57 100.00 30.00 160.00 70.00 1.50 1.60 3.90 1.00 1.65'


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    """The folder of a demo of two frames: a car that is found, and one that is put 30 m off."""
    root = tmp_path_factory.mktemp('demo')
    drive = generate_drive(root / 'drive', 2, 5, width=320, height=96, frames_per_drive=2)
    (root / 'node' / 'results').mkdir(parents=True)
    (root / 'frames.txt').write_text('000000\n000001\n')
    for frame, depth in (('000000', '15.00'), ('000001', '45.00')):
        KittiFolder(drive / 'training').label(frame).write_text(f'{CAR} 15.00 0.30\n')
        found = root / 'node' / 'results' / f'{frame}.txt'
        found.write_text(f'{CAR} {depth} 0.30 0.8\n')
    return root


def test_chosen_frames_are_drawn_and_counted(demo, tmp_path, capsys):
    assert main([str(demo), '000001', '000000', '--out', str(tmp_path / 'pictures')]) == 0
    rows = capsys.readouterr().out.splitlines()[2:]
    assert rows == ['| 000001 | 0 | 1 | 1 |', '| 000000 | 1 | 0 | 0 |']
    picture = cv2.imread(str(tmp_path / 'pictures/demo_000001.jpg'))
    assert picture.shape == (300, 1000 + 240, 3)  # 320 x 96 and 40 m x 50 m, at one height
    assert len(list((tmp_path / 'pictures').iterdir())) == 2


def test_what_is_no_demo_and_no_frame_of_it_is_refused(demo, tmp_path, capsys):
    with pytest.raises(ValueError, match='found no 000007 among 000000 to 000001'):
        draw_demo_frames(demo, ['000007'], tmp_path / 'pictures')
    assert main([str(tmp_path), '000000', '--out', str(tmp_path / 'pictures')]) == 2
    assert 'expected a finished `cmkd demo`' in capsys.readouterr().err
    assert not (tmp_path / 'pictures').exists()


def test_the_page_shows_what_its_command_draws():
    text = (DOCS / 'demo.md').read_text()
    command = re.search(r'demo_pictures demo_output((?: \d{6})+)', text)
    frames = command.group(1).split()
    assert len(frames) == 8
    assert re.findall(r'images/demo_(\d{6})\.jpg', text) == frames
    assert re.findall(r'^\| (\d{6}) \|', text, re.MULTILINE) == frames
    for frame in frames:
        assert (DOCS / 'images' / f'demo_{frame}.jpg').stat().st_size <= 150_000
