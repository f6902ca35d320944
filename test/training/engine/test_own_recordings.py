"""From bags without a label to a student that detects, as docs/own_data.md tells it."""

import json

import pytest

pytest.importorskip('rosbags', reason='needs rosbags')

from cmkd_ros.checkpoint import load_bundle
from cmkd_ros.cli import main
from cmkd_ros.kitti_files import read_calibration, read_frame_list
from cmkd_ros.training.data.bag import make_bag
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.engine.leaks import lineage


@pytest.fixture(scope='module')
def recordings(drive, tmp_path_factory):
    """The two drives as bags of different minutes, extracted into one folder by command."""
    folder = tmp_path_factory.mktemp('recordings')
    bags = []
    for minute, frames in (('30', range(3)), ('41', range(3, 6))):
        kitti = folder / f'kitti{minute}'
        kitti.mkdir()
        for name in ('image_2', 'velodyne', 'calib'):
            (kitti / name).symlink_to(drive / 'training' / name)
        times = [f'2026-07-13 09:{minute}:{second:02d}.5\n' for second in range(6)]
        (kitti / 'timestamps.txt').write_text(''.join(times))
        names = [f'{frame:06d}' for frame in frames]
        bags.append(make_bag(kitti, folder / f'bag{minute}', frames=names))
    out = folder / 'own'
    command = ['extract-bag', *map(str, bags), '--out', str(out), '--name', 'van']
    assert main(command) == 0
    return out


@pytest.fixture()
def run(recordings, trained, specs, tmp_path):
    """Distil from a list of the folder's frames; returns the folder and the exit code."""

    def distil(stage: int, *more: str, frames: str = 'train'):
        source = f'root: "{recordings}", frames: ImageSets/{frames}.txt, labelled: false'
        out = tmp_path / f'stage{stage}'
        code = main([
            'distill', f'student_r18_stage{stage}', f'data.sources=[{{{source}}}]',
            f'student={specs["student"]}', f'teacher={trained["teacher"]}', 'data.workers=0',
            'optimiser.epochs=1', 'optimiser.batch_size=2', 'optimiser.precision=fp32',
            'device=cpu', *more, '--out', str(out),
        ])  # fmt: skip
        return out, code

    return distil


def test_bags_become_a_student_that_detects(recordings, run, tmp_path, capsys):
    stage_1, code = run(1)
    assert code == 0
    page = (stage_1 / 'report.html').read_text()
    assert 'The teacher finds' in page and 'from above; labels green, teacher orange' in page
    stage_2, code = run(2, f'init={stage_1 / "student.cmkd"}', '--no-report')
    assert code == 0
    model = stage_2 / 'student.cmkd'
    bundle = load_bundle(model)
    folder = KittiFolder(recordings / 'training')
    frames = read_frame_list(recordings / 'ImageSets' / 'train.txt')
    calibration = read_calibration(folder.calib(frames[0]))
    assert bundle.train_fx_px == pytest.approx(calibration.P2_34[0, 0])
    assert bundle.reference_height_m == 1.73
    used = lineage(bundle)['student']
    assert (len(used.frames), len(used.drives)) == (6, 2)
    capsys.readouterr()
    command = [
        'detect', '--model', str(model), '--image', str(folder.image(frames[0])),
        '--calib', str(folder.calib(frames[0])), '--json', str(tmp_path / 'boxes.json'),
        '--score', '0', '--device', 'cpu',
    ]  # fmt: skip
    assert main(command) == 0
    boxes = json.loads((tmp_path / 'boxes.json').read_text())
    assert boxes


def test_a_drive_that_is_kept_for_evaluation_is_not_learned_from(recordings, run, capsys):
    lists = recordings / 'ImageSets'
    frames = read_frame_list(lists / 'train.txt')
    (lists / 'val.txt').write_text(f'{frames[0]}\n')
    (lists / 'same_drive.txt').write_text(f'{frames[1]}\n')
    (lists / 'other_drive.txt').write_text(''.join(f'{frame}\n' for frame in frames[3:]))
    try:
        assert run(1, frames='same_drive')[1] == 2
        assert 'drives named van/2026_07_13_drive_0930' in capsys.readouterr().err
        assert run(1, '--no-report', frames='other_drive')[1] == 0
    finally:
        (lists / 'val.txt').unlink()
