"""A synthetic data set on disk: layout, splits, determinism, resuming, refusals."""

import errno
import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cmkd_ros.kitti_files import read_calibration, read_frame_list, read_labels, write_labels
from cmkd_ros.training.data.drives import read_drives
from cmkd_ros.training.data.kitti_layout import KittiFolder, check_frames
from cmkd_ros.training.data.synthetic import (
    DriveSettings,
    Rig,
    drive,
    generate_drive,
    load_rig,
    render_frame,
)

FRAMES, SIZE = 7, {'width': 160, 'height': 48, 'frames_per_drive': 3}
# Pixels, points and label text of frame 4 of seed 7: equal on every machine and processor.
GOLDEN = {
    'image': 'b15f84ac5f28680a',
    'points': '59ac4bd6a9b3c140',
    'labels': '4847f0000cc5e4ba',
}


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate_drive(tmp_path_factory.mktemp('set') / 'drives', FRAMES, 7, **SIZE)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_frame_equals_the_golden_one_on_every_machine(tmp_path: Path) -> None:
    image, points, labels = render_frame(DriveSettings(FRAMES, 7, **SIZE), 4)
    write_labels(tmp_path / 'labels.txt', labels)
    found = {
        'image': hashlib.sha256(image.tobytes()).hexdigest()[:16],
        'points': hashlib.sha256(points.tobytes()).hexdigest()[:16],
        'labels': hashlib.sha256((tmp_path / 'labels.txt').read_bytes()).hexdigest()[:16],
    }
    assert found == GOLDEN


def test_folder_has_kittis_layout(folder: Path) -> None:
    frames = [f'{i:06d}' for i in range(FRAMES)]
    check_frames(KittiFolder(folder / 'training'), frames, scans=True, labels=True, depth=False)
    assert {path.name for path in folder.iterdir()} == {
        'training',
        'ImageSets',
        'MANIFEST.tsv',
        'synthetic.json',
    }
    assert sum(1 for path in folder.rglob('*') if path.is_file()) == 4 * FRAMES + 4


def test_no_drive_is_in_both_splits(folder: Path) -> None:
    drives = read_drives(folder)
    splits = {s: read_frame_list(folder / 'ImageSets' / f'{s}.txt') for s in ('train', 'val')}
    assert sorted(splits['train'] + splits['val']) == sorted(drives)
    assert len(drives) == FRAMES
    in_train, in_val = ({drives[frame] for frame in splits[s]} for s in ('train', 'val'))
    assert len(in_train) == 2 and len(in_val) == 1
    assert not in_train & in_val


def test_stamps_follow_the_rate_within_a_drive(folder: Path) -> None:
    lines = (folder / 'MANIFEST.tsv').read_text().splitlines()
    column = lines[0].split('\t').index('timestamp_ns')
    stamps = np.array([int(line.split('\t')[column]) for line in lines[1:]])
    steps = np.diff(stamps)
    assert (steps[[0, 1, 3, 4]] == 100_000_000).all()
    assert (steps[[2, 5]] > 10**12).all()


def test_calibration_is_the_rig(folder: Path) -> None:
    calibration = read_calibration(folder / 'training' / 'calib' / '000000.txt')
    T_ref_cam = np.linalg.inv(calibration.T_cam_ref)
    assert T_ref_cam[:3, 3] == pytest.approx([0.27, 0.0, 1.65 - 1.73], abs=1e-6)
    assert T_ref_cam[:3, 2] == pytest.approx([1.0, 0.0, 0.0], abs=0.03)
    assert calibration.P2_34[0, 0] == pytest.approx(721.5377 * 160 / 1242)
    other = read_calibration(folder / 'training' / 'calib' / '000003.txt')
    assert not np.array_equal(other.T_cam_ref, calibration.T_cam_ref), 'drives tilt differently'


def test_interrupted_set_resumes_to_the_same_files(folder: Path, tmp_path: Path) -> None:
    class Interruption(Exception):
        pass

    def stop(done: int, total: int) -> None:
        assert total == FRAMES
        if done == 2:
            raise Interruption

    out, counts = tmp_path / 'again', []
    with pytest.raises(Interruption):
        generate_drive(out, FRAMES, 7, **SIZE, progress=stop)
    assert not (out / 'MANIFEST.tsv').exists()
    # What a killed process leaves: a frame without its label, and a temporary file.
    shutil.copy(out / 'training/image_2/000000.png', out / 'training/image_2/000002.png')
    (out / 'training/image_2/.000003.png.abc').write_bytes(b'half')
    untouched = (out / 'training/image_2/000000.png').stat().st_mtime_ns
    generate_drive(
        out, FRAMES, 7, **SIZE, workers=2, progress=lambda done, total: counts.append(done)
    )
    assert counts == list(range(2, FRAMES + 1))
    assert (out / 'training/image_2/000000.png').stat().st_mtime_ns == untouched
    assert files_of(out) == files_of(folder)


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    program = (
        'from pathlib import Path; from cmkd_ros.training.data.synthetic import generate_drive\n'
        f'if __name__ == "__main__": generate_drive(Path("out"), 90, 7, workers=2, **{SIZE})'
    )
    (tmp_path / 'generate.py').write_text(program)
    parent = subprocess.Popen(
        [sys.executable, 'generate.py'], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob('out/training/label_2/*.txt')):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    # The workers hold the other end of the pipe: it closes when the last of them has ended.
    assert parent.communicate(timeout=60) == ('', None)


def test_more_frames_begin_with_the_same_frames(folder: Path) -> None:
    image, points, _ = render_frame(DriveSettings(100, 7, **SIZE), 1)
    scan = np.fromfile(folder / 'training/velodyne/000001.bin', np.float32).reshape(-1, 4)
    assert np.array_equal(points, scan)
    assert image.shape == (48, 160, 3) and image.dtype == np.uint8


def test_other_seeds_and_frames_differ() -> None:
    first = render_frame(DriveSettings(FRAMES, 7, **SIZE), 0)[0].astype(int)
    for seed, frame in ((8, 0), (7, 1), (7, 3)):
        other = render_frame(DriveSettings(FRAMES, seed, **SIZE), frame)[0].astype(int)
        assert np.abs(first - other).mean() > 3


def test_rig_moves_the_camera(tmp_path: Path) -> None:
    rig = Rig(focal_px=80.0, camera_height_m=1.2, camera_pitch_deg=5.0)
    settings = DriveSettings(1, 7, 128, 64, rig=rig)
    calibration = settings.calibration(0)
    T_ref_cam = np.linalg.inv(calibration.T_cam_ref)
    assert T_ref_cam[2, 3] == pytest.approx(1.2 - 1.73, abs=1e-6)
    assert T_ref_cam[2, 2] == pytest.approx(-np.sin(np.radians(5.0)), abs=0.02)
    image, points, labels = render_frame(settings, 0)
    assert image.shape == (64, 128, 3)
    assert len(points) > 10_000
    write_labels(tmp_path / 'x.txt', labels)
    assert len(read_labels(tmp_path / 'x.txt')) == len(labels)


def test_complete_set_is_not_made_again(folder: Path) -> None:
    before = files_of(folder)
    with pytest.raises(FileExistsError, match='already complete'):
        generate_drive(folder, FRAMES, 7, **SIZE)
    assert files_of(folder) == before


def test_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'precious.txt').write_text('x')
    with pytest.raises(FileExistsError, match='exists and holds no unfinished synthetic drive'):
        generate_drive(tmp_path, 1, 0, **SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ['precious.txt']


@pytest.mark.parametrize(
    ('change', 'message'),
    [({'seed': 8}, 'seed = 7, asked for is 8'), ({'width': 200}, 'width = 160, asked for is 200')],
)
def test_unfinished_set_of_other_settings_is_refused(
    tmp_path: Path, change: dict[str, int], message: str
) -> None:
    out = tmp_path / 'out'
    out.mkdir()
    settings = DriveSettings(FRAMES, 7, **SIZE)
    (out / 'synthetic.json').write_text(settings.to_json())
    wanted = {'frames': FRAMES, 'seed': 7, **SIZE, **change}
    with pytest.raises(FileExistsError, match=message):
        generate_drive(out, **wanted)


def test_settings_of_another_version_are_refused(tmp_path: Path) -> None:
    text = json.loads(DriveSettings(FRAMES, 7, **SIZE).to_json())
    (tmp_path / 'synthetic.json').write_text(json.dumps({**text, 'world_version': 0}))
    with pytest.raises(FileExistsError, match='world_version = 0'):
        generate_drive(tmp_path, FRAMES, 7, **SIZE)
    (tmp_path / 'synthetic.json').write_text('{')
    with pytest.raises(FileExistsError, match='unreadable'):
        generate_drive(tmp_path, FRAMES, 7, **SIZE)


@pytest.mark.parametrize(
    ('change', 'name'),
    [
        ({'frames': 0}, 'frames: expected 1 to'),
        ({'seed': -1}, 'seed: expected 0 to'),
        ({'width': 10}, 'width: expected 64 to'),
        ({'height': 0}, 'height: expected 32 to'),
        ({'frames_per_drive': 0}, 'frames_per_drive: expected 1 to'),
        ({'workers': 0}, 'workers: expected 1 or more'),
        ({'density': -1.0}, 'density: expected 0 to'),
        ({'rig': Rig(camera_height_m=-1.0)}, 'rig.camera_height_m: expected 0.2 to'),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, change: dict, name: str) -> None:
    out = tmp_path / 'out'
    with pytest.raises(ValueError, match=name):
        generate_drive(out, **{'frames': 1, 'seed': 0, **change})
    assert not out.exists()


def test_full_disk_is_told_before_rendering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        drive.shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(10**6, 10**6, 0)
    )
    with pytest.raises(OSError, match='no space left.*0 of 7 frames') as caught:
        generate_drive(tmp_path / 'out', FRAMES, 7, **SIZE)
    assert caught.value.errno == errno.ENOSPC


def test_disk_that_fills_up_leaves_whole_frames_and_resumes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, real, written = tmp_path / 'out', drive.write_bytes_atomically, []

    def full_after_five(path: Path, content: bytes) -> None:
        if len(written) == 5:
            raise OSError(errno.ENOSPC, 'No space left on device')
        written.append(path)
        real(path, content)

    monkeypatch.setattr(drive, 'write_bytes_atomically', full_after_five)
    with pytest.raises(OSError, match='2 of 7 frames are written') as caught:
        generate_drive(out, FRAMES, 7, **SIZE)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.undo()
    generate_drive(out, FRAMES, 7, **SIZE)
    assert files_of(out) == files_of(folder)


def test_disk_without_room_for_the_settings_is_told_and_resumed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    out = tmp_path / 'out'
    monkeypatch.setattr(drive, 'write_text_atomically', full)
    with pytest.raises(OSError, match='out: no space left: 0 of 7 frames are written'):
        generate_drive(out, FRAMES, 7, **SIZE)
    monkeypatch.undo()
    # What a process leaves that was killed while it wrote its settings.
    (out / '.synthetic.json.abc').write_bytes(b'half')
    generate_drive(out, FRAMES, 7, **SIZE)
    assert files_of(out) == files_of(folder)


def test_rig_that_sees_nothing_is_refused(tmp_path: Path) -> None:
    for rig in (Rig(camera_pitch_deg=-40.0), Rig(focal_px=50_000.0, camera_pitch_deg=-5.0)):
        with pytest.raises(ValueError, match='rig: expected a camera that sees the road'):
            generate_drive(tmp_path / 'out', 1, 0, rig=rig)
    assert not (tmp_path / 'out').exists()


def test_rig_file_changes_only_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / 'van.yaml'
    file.write_text('camera_height_m: 2\ncamera_pitch_deg: 4.5\n')
    assert load_rig(file) == Rig(camera_height_m=2.0, camera_pitch_deg=4.5)
    file.write_text('')
    assert load_rig(file) == Rig()
    with pytest.raises(FileNotFoundError, match='none.yaml: expected a rig file'):
        load_rig(tmp_path / 'none.yaml')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('camera_hight_m: 2', "expected one of focal_px, .* found 'camera_hight_m'"),
        ('focal_px: wide', "focal_px: expected a number, found 'wide'"),
        ('- 1', 'expected fields with numbers, found'),
        ('a: [', 'expected YAML, found'),
    ],
)
def test_bad_rig_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / 'rig.yaml'
    file.write_text(text)
    with pytest.raises(ValueError, match=f'rig.yaml: {message}'):
        load_rig(file)
