"""The demo with the model in the box, end to end: rendering, bag, node, AP, pictures."""

import json

import pytest

from cmkd_ros.training.demo import run_demo


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    pytest.importorskip('rclpy', reason='needs ROS (./run setup)')
    from cmkd_ros.ros.eval_bag import evaluate_bag

    return run_demo(tmp_path_factory.mktemp('demo') / 'out', evaluate_bag=evaluate_bag, quick=True)


def test_every_frame_is_answered_and_shown(demo):
    report = json.loads((demo / 'ap.json').read_text())
    frames = (demo / 'frames.txt').read_text().split()
    boxes = json.loads((demo / 'detections.json').read_text())

    assert report['replay']['answered'] == len(frames) == 6
    assert sorted(boxes) == frames
    assert len(list((demo / 'pictures').glob('*_boxes.png'))) == len(frames)
    assert (demo / 'node' / 'detections' / 'metadata.yaml').is_file()


def test_near_cars_are_found(demo):
    """Strange streets, but a world that the model in the box knows."""
    near = json.loads((demo / 'ap.json').read_text())['matched_errors']['Car']['0-20']

    assert near['n'] >= 3
    assert near['depth_median_abs'] < 1.0


def test_folder_serves_one_plan(demo):
    with pytest.raises(FileExistsError, match='other options'):
        run_demo(demo, evaluate_bag=pytest.fail, quick=False)


def test_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')

    with pytest.raises(FileExistsError, match='holds no demo'):
        run_demo(tmp_path, evaluate_bag=pytest.fail)

    assert [path.name for path in tmp_path.iterdir()] == ['notes.txt']
