"""Ten ways to damage each kind of file of a KITTI frame: all named, nothing else blamed."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from cmkd_ros.training.data.kitti_prepare import prepare_kitti


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b'')


def halve(path: Path) -> None:
    content = path.read_bytes()
    # One byte less than half: never a whole number of points or lines.
    path.write_bytes(content[: len(content) // 2 - 1])


def noise(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(np.random.Generator(np.random.PCG64(3)).bytes(size))


def flip_bits(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def folder_in_its_place(path: Path) -> None:
    path.unlink()
    path.mkdir()


def picture(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        cv2.imwrite(str(path), change(cv2.imread(str(path))))

    return damage


def jpeg(path: Path) -> None:
    path.write_bytes(cv2.imencode('.jpg', cv2.imread(str(path)))[1].tobytes())


def points(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        points_N4 = np.fromfile(path, dtype=np.float32).reshape(-1, 4)
        path.write_bytes(change(points_N4).astype(np.float32).tobytes())

    return damage


def set_points(rows: slice, columns: slice, value: float) -> Callable[[Path], None]:
    def change(points_N4: np.ndarray) -> np.ndarray:
        points_N4[rows, columns] = value
        return points_N4

    return points(change)


def text(old: str, new: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = path.read_text()
        if old not in content:
            raise ValueError(f'{path}: expected {old!r} in it')
        path.write_text(content.replace(old, new, 1))

    return damage


def line(start: str, new: str) -> Callable[[Path], None]:
    """Replace the line that begins with `start`."""

    def damage(path: Path) -> None:
        lines = path.read_text().splitlines()
        (number,) = [i for i, entry in enumerate(lines) if entry.startswith(start)]
        path.write_text('\n'.join([*lines[:number], *new.splitlines(), *lines[number + 1 :], '']))

    return damage


def bytes_before(content: bytes) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.write_bytes(content + path.read_bytes())

    return damage


CAR = 'Car 0.00 0 -1.57 50.00 20.00 70.00 40.00 1.50 1.60 3.90 1.00 1.65 20.00 -1.57'

DAMAGES: dict[tuple[str, str], Callable[[Path], None]] = {
    ('image_2', 'removed'): remove,
    ('image_2', 'empty'): empty,
    ('image_2', 'halved'): halve,
    ('image_2', 'noise'): noise,
    ('image_2', 'flipped bits'): flip_bits,
    ('image_2', 'folder'): folder_in_its_place,
    ('image_2', 'jpeg'): jpeg,
    ('image_2', 'bytes before'): bytes_before(b'\n'),
    ('image_2', 'no end'): lambda path: path.write_bytes(path.read_bytes()[:-12]),
    ('image_2', 'header only'): lambda path: path.write_bytes(path.read_bytes()[:33]),
    ('velodyne', 'removed'): remove,
    ('velodyne', 'empty'): empty,
    ('velodyne', 'halved'): halve,
    ('velodyne', 'noise'): noise,
    ('velodyne', 'folder'): folder_in_its_place,
    ('velodyne', 'shifted'): bytes_before(b'\0' * 4),
    ('velodyne', 'not a number'): set_points(slice(70, 71), slice(1, 2), np.nan),
    ('velodyne', 'far away'): set_points(slice(70, 71), slice(0, 1), 1e6),
    ('velodyne', 'zeros'): set_points(slice(None), slice(0, 3), 0.0),
    ('velodyne', 'behind'): points(lambda points_N4: points_N4[points_N4[:, 0] < -1]),
    ('calib', 'removed'): remove,
    ('calib', 'empty'): empty,
    ('calib', 'halved'): halve,
    ('calib', 'noise'): noise,
    ('calib', 'folder'): folder_in_its_place,
    ('calib', 'no P2'): text('P2:', 'P9:'),
    ('calib', 'short line'): line('R0_rect:', 'R0_rect: 1 0 0 0 1 0 0 0'),
    ('calib', 'no rotation'): line('R0_rect:', 'R0_rect: 1 0 0 0 2 0 0 0 1'),
    ('calib', 'millimetres'): line('Tr_velo', 'Tr_velo_to_cam: 0 -1 0 0 0 0 -1 -80 1 0 0 -270'),
    ('calib', 'no focal length'): line('P2:', 'P2: 0 0 60 4 0 0 20 0 0 0 1 0'),
    ('label_2', 'removed'): remove,
    ('label_2', 'noise'): noise,
    ('label_2', 'halved'): halve,
    ('label_2', 'folder'): folder_in_its_place,
    ('label_2', '14 columns'): line('Car', CAR.rsplit(' ', 1)[0]),
    ('label_2', 'not a number'): line('Car', CAR.replace('20.00 -1.57', 'nan -1.57')),
    ('label_2', 'occluded 0.00'): line('Car', CAR.replace(' 0 ', ' 0.00 ', 1)),
    ('label_2', 'lower case'): line('Car', CAR.replace('Car', 'car')),
    ('label_2', 'negative size'): line('Car', CAR.replace('1.50', '-1.50')),
    ('label_2', 'box outside'): line('Car', CAR.replace('70.00 40.00', '700.00 40.00')),
}
ENDINGS = {'image_2': 'png', 'velodyne': 'bin', 'calib': 'txt', 'label_2': 'txt'}


@pytest.mark.parametrize(
    ('folder', 'name'), list(DAMAGES), ids=[f'{folder}-{name}' for folder, name in DAMAGES]
)
def test_a_damage_is_named_and_nothing_else(made_kitti, folder, name):
    path = made_kitti.root / 'training' / folder / f'000003.{ENDINGS[folder]}'
    DAMAGES[folder, name](path)
    prepared = prepare_kitti(made_kitti.root, workers=1)
    assert [fault.path for fault in prepared.faults] == [path]
    assert str(path) in prepared.faults[0].reason
    assert '\n' not in prepared.faults[0].reason
    whole = [record.frame for record in prepared.index.records]
    assert whole == [frame for frame in made_kitti.frames if frame != '000003']


def test_ten_damages_of_each_kind():
    counts = {folder: sum(kind == folder for kind, _ in DAMAGES) for folder in ENDINGS}
    assert set(counts.values()) == {10}


def test_real_frames_with_one_damage_of_each_kind(shared_dir, tmp_path):
    names = ('000002', '000007', '000076', '000310', '000685')
    for folder, ending in ENDINGS.items():
        (tmp_path / 'training' / folder).mkdir(parents=True)
        for name in names:
            source = shared_dir / 'kitti_mini/training' / folder / f'{name}.{ending}'
            path = tmp_path / 'training' / folder / source.name
            path.write_bytes(source.read_bytes())
    damaged = {
        'calib/000002.txt': DAMAGES['calib', 'halved'],
        'image_2/000007.png': DAMAGES['image_2', 'flipped bits'],
        'label_2/000076.txt': text('Cyclist 0.00 0', 'Cyclist 0.00 0.00'),
        'velodyne/000310.bin': DAMAGES['velodyne', 'not a number'],
    }
    for file, damage in damaged.items():
        damage(tmp_path / 'training' / file)
    prepared = prepare_kitti(tmp_path, workers=2)
    assert [fault.path for fault in prepared.faults] == [tmp_path / 'training' / f for f in damaged]
    assert [record.frame for record in prepared.index.records] == ['000685']
