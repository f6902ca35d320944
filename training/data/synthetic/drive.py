"""
Synthetic drives on disk in KITTI's layout, written by several processes, resumable.

    OUT/training/{image_2/*.png, velodyne/*.bin, calib/*.txt, label_2/*.txt}
    OUT/ImageSets/{train,val}.txt    drive-disjoint
    OUT/synthetic.json               the settings; written first
    OUT/MANIFEST.tsv                 file, drive, time, split, pose; written last: then OUT is done
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from cmkd_ros.atomic_write import write_bytes_atomically, write_text_atomically
from cmkd_ros.kitti_files import KittiObjects, write_calibration, write_labels
from cmkd_ros.training.data.synthetic.labels import label_scene
from cmkd_ros.training.data.synthetic.lidar import scan
from cmkd_ros.training.data.synthetic.picture import pinhole_rays, take_picture
from cmkd_ros.training.data.synthetic.scene import Geometry, Scene
from cmkd_ros.training.data.synthetic.settings import DriveSettings, Rig
from cmkd_ros.training.data.synthetic.street import Street
from cmkd_ros.training.data.synthetic.traffic import Route

SETTINGS_FILE, MANIFEST_FILE = 'synthetic.json', 'MANIFEST.tsv'
FOLDERS = ('image_2', 'velodyne', 'calib', 'label_2')
# The label is written last: a frame that has one is complete.
SUFFIXES = {'image_2': '.png', 'velodyne': '.bin', 'calib': '.txt', 'label_2': '.txt'}
FIRST_DAY, FIRST_STAMP_NS = date(2020, 9, 13), 1_600_000_000_000_000_000
_BYTES_PER_PIXEL, _BYTES_PER_SCAN = 2.2, 600_000

Progress = Callable[[int, int], None]


def generate_drive(
    out: Path,
    frames: int,
    seed: int,
    *,
    width: int = 1242,
    height: int = 375,
    frames_per_drive: int = 20,
    workers: int = 1,
    progress: Progress | None = None,
    rig: Rig | None = None,
    density: float = 1.0,
) -> Path:
    """
    Write a data set of synthetic drives, or finish one that was interrupted.

    The files depend on the settings only, not on `workers` nor on interruptions.

    Args:
        out: folder to be made; may exist only when it is empty or holds a part of the same set.
        frames: number of frames of all drives together.
        frames_per_drive: consecutive frames of a drive; the last drive may be shorter.
        workers: number of processes.
        progress: called with (frames done, frames) at the start and after every frame.

    Returns:
        `out`.

    Raises:
        FileExistsError: when `out` is something else or already complete.
        ValueError: on an impossible setting.
        OSError: when the disk is full; free space and call again to go on.
    """
    settings = DriveSettings(
        frames, seed, width, height, frames_per_drive, density=density, rig=rig or Rig()
    )
    if workers < 1:
        raise ValueError(f'workers: expected 1 or more, found {workers}')
    out = Path(out)
    try:
        _claim(out, settings)
        missing = [f for f in range(frames) if not _is_complete(out, f)]
        done = frames - len(missing)
        _require_space(out, settings, len(missing))
        for finished in _render(out, settings, missing, workers):
            if progress is not None:
                progress(done + finished, frames)
        _write_lists(out, settings)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        rest = sum(not _is_complete(out, f) for f in range(frames))
        full = OSError(
            f'{out}: no space left: {frames - rest} of {frames} frames are written, the rest needs '
            f'about {_bytes_needed(settings, rest) / 1e6:.0f} MB; free space and run the same '
            'command again to go on'
        )
        full.errno = errno.ENOSPC
        raise full from error
    return out


def render_frame(
    settings: DriveSettings, frame: int
) -> tuple[np.ndarray, np.ndarray, KittiObjects]:
    """
    One frame: image_HW3 uint8 RGB, points_N4 float32 in the reference frame, and its labels.

    Same settings and frame give the same arrays in any order and process.
    """
    drive, index = settings.drive_of(frame)
    street, fixed = _street(settings, drive)
    scene = Scene(street, fixed, index / settings.rate_hz, settings.rig.lidar_height_m)
    calibration = settings.calibration(drive)
    rays = pinhole_rays(calibration, settings.width, settings.height)
    rng = settings.generator(drive, 'sensors', index)
    image, things = take_picture(scene, rays, rng)
    half_view = np.degrees(np.arctan(0.5 * settings.width / settings.focal_px))
    points = scan(scene, float(min(round(half_view + 6), 85)), rng)
    labels = label_scene(scene, things, rays, calibration, settings.label_range_m)
    return image, points, labels


@lru_cache(maxsize=1)
def _street(settings: DriveSettings, drive: int) -> tuple[Street, Geometry]:
    street = Street(settings.generator(drive, 'world'), settings.drive_s, settings.density)
    return street, Geometry(street.fixed)


def _claim(out: Path, settings: DriveSettings) -> None:
    """Make the folder, or take up the unfinished one."""
    file = out / SETTINGS_FILE
    if file.is_file():
        difference = settings.difference(file.read_text(encoding='utf-8'))
        if difference is not None:
            raise FileExistsError(f'{out}: holds another synthetic drive: {difference}')
        if (out / MANIFEST_FILE).exists():
            raise FileExistsError(f'{out}: this synthetic drive is already complete')
    elif out.exists() and not _is_bare(out):
        raise FileExistsError(
            f'{out}: exists and holds no unfinished synthetic drive; choose another folder'
        )
    for folder in (out / 'ImageSets', *(out / 'training' / name for name in FOLDERS)):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob('.*'):
            leftover.unlink()
    for name in (SETTINGS_FILE, MANIFEST_FILE):
        for leftover in out.glob(f'.{name}.*'):
            leftover.unlink()
    if not file.is_file():
        write_text_atomically(file, settings.to_json())


def _is_bare(out: Path) -> bool:
    """Whether a folder holds no more than what an end before the settings were written leaves."""
    own = f'.{SETTINGS_FILE}.'
    return out.is_dir() and all(p.is_dir() or p.name.startswith(own) for p in out.rglob('*'))


def _path(out: Path, folder: str, frame: int) -> Path:
    return out / 'training' / folder / f'{frame:06d}{SUFFIXES[folder]}'


def _is_complete(out: Path, frame: int) -> bool:
    return all(_path(out, folder, frame).is_file() for folder in FOLDERS)


def _bytes_needed(settings: DriveSettings, frames: int) -> float:
    return frames * (_BYTES_PER_PIXEL * settings.width * settings.height + _BYTES_PER_SCAN)


def _require_space(out: Path, settings: DriveSettings, frames: int) -> None:
    if shutil.disk_usage(out).free < _bytes_needed(settings, frames):
        raise OSError(errno.ENOSPC, 'not enough space', str(out))


def _render(out: Path, settings: DriveSettings, frames: list[int], workers: int) -> Iterator[int]:
    """Write these frames; yields how many are done, 0 first."""
    yield 0
    if workers == 1 or len(frames) < 2:
        for count, frame in enumerate(frames, 1):
            _write_frame(out, settings, frame)
            yield count
        return
    # A fresh interpreter per worker: forking a process that runs threads may hang.
    context = multiprocessing.get_context('spawn')
    # Each worker has its own run of frames: a street is built once, not by every worker.
    runs = np.array_split(np.array(frames), min(workers, len(frames)))
    pools = [ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) for _ in runs]
    try:
        tasks = [
            pool.submit(_write_frame, out, settings, int(frame))
            for pool, run in zip(pools, runs, strict=True)
            for frame in run
        ]
        for count, task in enumerate(as_completed(tasks), 1):
            task.result()
            yield count
    finally:
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in pools:
            pool.shutdown()


def _end_with_parent() -> None:
    """Let this worker end when the process that started it is killed; it would wait for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_frame(out: Path, settings: DriveSettings, frame: int) -> None:
    image, points, labels = render_frame(settings, frame)
    # Of zlib's strategies the smallest and fastest for pictures with sensor noise.
    options = [
        cv2.IMWRITE_PNG_COMPRESSION,
        1,
        cv2.IMWRITE_PNG_STRATEGY,
        cv2.IMWRITE_PNG_STRATEGY_RLE,
    ]
    ok, png = cv2.imencode('.png', image[..., ::-1], options)
    if not ok:
        raise RuntimeError(f'frame {frame}: the picture could not be encoded')
    write_bytes_atomically(_path(out, 'image_2', frame), png.tobytes())
    write_bytes_atomically(_path(out, 'velodyne', frame), points.tobytes())
    calibration = settings.calibration(settings.drive_of(frame)[0])
    write_calibration(_path(out, 'calib', frame), calibration)
    write_labels(_path(out, 'label_2', frame), labels)


def _write_lists(out: Path, settings: DriveSettings) -> None:
    """Write the splits and, as the last file, the manifest (columns as `read_drives` wants)."""
    splits: dict[str, list[str]] = {'train': [], 'val': []}
    rows = ['file\tkitti_raw\ttimestamp_ns\tsplit\tx_m\ty_m\theading_rad']
    for frame in range(settings.frames):
        drive, index = settings.drive_of(frame)
        split = settings.split_of(drive)
        splits[split].append(f'{frame:06d}\n')
        time = index / settings.rate_hz
        # An hour between drives: no reader can take two for one.
        stamp = FIRST_STAMP_NS + drive * 3_600_000_000_000 + round(time * 1e9)
        if index == 0:
            route = Route.random(settings.generator(drive, 'world'), settings.drive_s)
        x, y, heading = route.own_pose(time)
        row = [f'training/image_2/{frame:06d}.png', f'{_drive_name(drive)}/{index:010d}']
        row += [str(stamp), split, f'{x:.3f}', f'{y:.3f}', f'{heading:.5f}']
        rows.append('\t'.join(row))
    for split, names in splits.items():
        if names:
            write_text_atomically(out / 'ImageSets' / f'{split}.txt', ''.join(names))
    write_text_atomically(out / MANIFEST_FILE, '\n'.join(rows) + '\n')


def _drive_name(drive: int) -> str:
    """A name as KITTI's raw drives have; its four digits begin anew after ten thousand."""
    day = FIRST_DAY + timedelta(days=drive // 10_000)
    return f'{day:%Y_%m_%d}_drive_{drive % 10_000:04d}_sync'
