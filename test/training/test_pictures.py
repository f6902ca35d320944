"""Best, worst and random frames of an evaluation, drawn with labels and detections."""

import json

import cv2
import numpy as np
import pytest

from cmkd_ros.evaluation.kitti_frames import FrameScores
from cmkd_ros.evaluation.visualize import TRUTH_COLOUR
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.synthetic import generate_drive
from cmkd_ros.training.pictures import choose_frames, draw_evaluation

CAR = 'Car 0.00 0 -1.57 100.00 30.00 160.00 70.00 1.50 1.60 3.90 1.00 1.65'


def scores_of(found, false, missed):
    return FrameScores({}, *(np.array(row) for row in (found, false, missed)))


def test_no_frame_is_chosen_twice():
    scores = scores_of([3, 2, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 2, 0], [0, 1, 1, 1, 1, 1, 0])
    chosen = choose_frames(scores, 2)
    assert chosen['best'] == [0, 1]
    assert chosen['worst'] == [5, 4]
    assert len(chosen['random']) == 2
    assert set(chosen['random']) <= {2, 3, 6}
    assert chosen == choose_frames(scores, 2)
    # Few frames: the best and the worst share those that hold anything.
    few = choose_frames(scores, 10)
    assert (few['best'], few['worst'], few['random']) == ([0, 1, 2], [5, 4, 3], [6])
    assert choose_frames(scores_of([0], [0], [0]), 3) == {'best': [], 'worst': [], 'random': [0]}


@pytest.fixture(scope='module')
def evaluated(tmp_path_factory):
    """Four frames; the labels are the detections of all but one, whose cars are 30 m off."""
    root = tmp_path_factory.mktemp('drawn')
    drive = generate_drive(root / 'drive', 4, 5, width=320, height=96, frames_per_drive=2)
    folder, results = KittiFolder(drive / 'training'), root / 'results'
    results.mkdir()
    frames = [f'{n:06d}' for n in range(4)]
    for frame in frames:
        folder.label(frame).write_text(f'{CAR} 15.00 0.30\n')
        depth = '45.00' if frame == '000002' else '15.00'
        (results / f'{frame}.txt').write_text(f'{CAR} {depth} 0.30 0.8\n')
    return root, folder, results, frames


def test_pictures_show_what_their_names_say(evaluated):
    root, folder, results, frames = evaluated
    paths = draw_evaluation(root / 'pictures', folder, results, frames, count=1)
    document = json.loads((root / 'pictures/frames.json').read_text())
    by_kind = {row['picture'].split('_')[0]: row for row in document['frames']}
    assert set(by_kind) == {'best', 'worst', 'random'}
    assert by_kind['worst']['picture'] == 'worst_1_000002'
    assert by_kind['best']['found'] == 1
    assert (by_kind['worst']['found'], by_kind['worst']['missed']) == (0, 1)
    assert document['score_from'] == {'Car': 0.8, 'Pedestrian': None, 'Cyclist': None}
    assert len(paths) == 6
    for path in paths:
        picture = cv2.imread(str(path))[..., ::-1]
        if path.name.endswith('_boxes.png'):
            assert picture.shape == (96, 320, 3)
        elif 'worst' in path.name:  # labels and detections apart: both colours are there
            assert (picture == TRUTH_COLOUR).all(axis=2).any()
            assert (picture == (255, 140, 0)).all(axis=2).any()
    worst = cv2.imread(str(root / 'pictures/worst_1_000002_boxes.png'))[..., ::-1]
    plain = cv2.imread(str(folder.image('000002')))[..., ::-1]
    assert (worst != plain).any()


def test_a_folder_without_scans_is_drawn_too(evaluated, tmp_path):
    root, folder, results, frames = evaluated
    for name in ('image_2', 'calib', 'label_2'):
        (tmp_path / 'bare').mkdir(exist_ok=True)
        (tmp_path / 'bare' / name).symlink_to(folder.path / name)
    paths = draw_evaluation(
        tmp_path / 'out', KittiFolder(tmp_path / 'bare'), results, frames[:1], count=3
    )
    assert [path.name for path in paths] == ['best_1_000000_boxes.png', 'best_1_000000_bev.png']
