"""Pictures of chosen frames of a demo, small enough for the documentation.

    python -m cmkd_ros.training.demo_pictures demo_output 000007 000010 --out docs/images

writes `demo_000007.jpg` and so on (labels and detections over the picture, and from above) and
prints a table of what was found in them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from cmkd_ros.atomic_write import write_bytes_atomically
from cmkd_ros.evaluation.kitti_frames import FrameScores, score_frames
from cmkd_ros.evaluation.kitti_split import CLASSES, KittiSplit
from cmkd_ros.evaluation.visualize import Image
from cmkd_ros.kitti_files import KittiObjects, read_frame_list, read_labels, read_results
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.pictures import draw_frame, drawn_objects

RANGE_M = (0.0, -20.0, 50.0, 20.0)  # of the view from above: where the boxes of a demo are
_HEIGHT_PX, _QUALITY = 300, 82


def draw_demo_frames(demo: Path, frames: Sequence[str], out: Path) -> list[str]:
    """Draw frames of a finished demo, one JPEG each.

    Detections are cut where the F1 of their class over the whole demo is best, as in the demo's
    own pictures. A frame's numbers are those of moderate labels, 3D, loose overlaps.

    Args:
        demo: folder of `cmkd demo` on its own synthetic drive.
        frames: ids.
        out: folder for `demo_ID.jpg`, made if need be.

    Returns:
        The lines of a Markdown table: frame, objects found, false ones, missed ones.

    Raises:
        FileNotFoundError: no finished demo there.
        ValueError: a frame that it does not have.
    """
    folder, every, labels, found = _read(demo)
    unknown = [frame for frame in frames if frame not in every]
    if unknown:
        raise ValueError(
            f'{demo / "frames.txt"}: expected the chosen frames in it, found no {unknown[0]} among '
            f'{every[0]} to {every[-1]}'
        )
    scores = score_frames(KittiSplit(labels, found))
    out.mkdir(parents=True, exist_ok=True)
    lines = ['| frame | found | false | missed |', '| --- | --- | --- | --- |']
    for frame in frames:
        index = every.index(frame)
        overlay, above = draw_frame(
            folder,
            frame,
            drawn_objects(labels[index], dict.fromkeys(CLASSES, -np.inf)),
            drawn_objects(found[index], scores.thresholds),
            RANGE_M,
        )
        _write_jpeg(out / f'demo_{frame}.jpg', np.hstack([_to_height(overlay), _to_height(above)]))
        lines.append(_line(frame, scores, index))
    return lines


def _read(demo: Path) -> tuple[KittiFolder, list[str], list[KittiObjects], list[KittiObjects]]:
    if not (demo / 'node' / 'results').is_dir() or not (demo / 'drive').is_dir():
        raise FileNotFoundError(
            f'{demo}: expected a finished `cmkd demo` on its own drive, found no node/results or '
            'no drive in it'
        )
    folder = KittiFolder(demo / 'drive' / 'training')
    every = list(read_frame_list(demo / 'frames.txt'))
    labels = [read_labels(folder.label(frame)) for frame in every]
    found = [read_results(demo / 'node' / 'results' / f'{frame}.txt') for frame in every]
    return folder, every, labels, found


def _to_height(picture: Image) -> Image:
    size = (round(picture.shape[1] * _HEIGHT_PX / picture.shape[0]), _HEIGHT_PX)
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def _write_jpeg(path: Path, picture: Image) -> None:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, content = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    write_bytes_atomically(path, content.tobytes())


def _line(frame: str, scores: FrameScores, index: int) -> str:
    counts = (scores.found_F[index], scores.false_F[index], scores.missed_F[index])
    return f'| {frame} | {" | ".join(str(int(count)) for count in counts)} |'


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the frames named on the command line; 2 on bad input, with one sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog='python -m cmkd_ros.training.demo_pictures', description=__doc__.partition('\n')[0]
    )
    parser.add_argument('demo', type=Path, help='folder of a finished `cmkd demo`')
    parser.add_argument('frames', nargs='+', help='ids of frames, such as 000007')
    parser.add_argument('--out', type=Path, required=True, help='folder for the pictures')
    options = parser.parse_args(arguments)
    try:
        lines = draw_demo_frames(options.demo, options.frames, options.out)
    except (ValueError, OSError) as error:
        sys.stderr.write(f'demo_pictures: {error}\n')
        return 2
    sys.stdout.write('\n'.join(lines) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
