"""What a model finds through cameras of other focal lengths, with and without rescaling.

    python -m cmkd_ros.training.focal_study --model config/models/demo.cmkd --out STUDY

The same synthetic drives are seen by cameras of the same field of view and other resolutions: focal
length and picture grow by the same factor. Every camera's boxes are compared with one and the same
set of labels, those of the factor 1, so that all rows of the table count the same objects.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cmkd_ros.atomic_write import write_text_atomically
from cmkd_ros.checkpoint import Bundle, load_bundle
from cmkd_ros.detector import FX_TOLERANCE, Detector
from cmkd_ros.evaluation.kitti_ap import KittiReport
from cmkd_ros.evaluation.kitti_results import to_kitti_results
from cmkd_ros.evaluation.report import evaluate_folders
from cmkd_ros.geometry import CameraModel
from cmkd_ros.kitti_files import read_calibration, write_results
from cmkd_ros.progress import show_progress
from cmkd_ros.training.data.identity import identify_object_frames
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.png import read_png_rgb
from cmkd_ros.training.data.synthetic import generate_drive
from cmkd_ros.training.data.synthetic.settings import KITTI_HEIGHT_PX, KITTI_WIDTH_PX
from cmkd_ros.training.engine.leaks import check_leaks, lineage
from cmkd_ros.training.evaluate import find_frames

LOG = logging.getLogger('cmkd.focal_study')
FACTORS = (0.5, 0.75, 1.0, 1.5, 2.0)
FRAMES_PER_DRIVE = 5


def study_focal_lengths(
    model: Path,
    out: Path,
    frames: int = 100,
    seed: int = 3001,
    factors: Sequence[float] = FACTORS,
    precision: str = 'fp32',
) -> list[dict[str, Any]]:
    """AP of a model by focal length, each with and without rescaling to the trained one.

    Args:
        model: student bundle.
        out: folder for the drives and `focal_study.json`; frames that are there are kept.
        frames, seed: of the drives; must not be those that the model learned from.
        factors: focal lengths relative to KITTI's; 1 is always rendered, for the labels.
        precision: as `Detector`.

    Returns:
        One entry per factor and kind (one only where there is nothing to rescale): factor, fx_px,
        width, height, rescaled, n_gt; ap_strict and ap_loose (Car 3D R40, easy to hard) and
        ap_loose_near (moderate, nearer than 20 m).

    Raises:
        FileNotFoundError, FileExistsError, ValueError: as `load_bundle` and `generate_drive`.
    """
    bundle = load_bundle(model)
    drives = {1.0: _render(out, 1.0, frames, seed)}
    labelled = KittiFolder(drives[1.0])
    check_leaks(
        str(model),
        lineage(bundle),
        identify_object_frames(labelled, find_frames(drives[1.0], None)[1], with_drives=True),
        False,
        'take another --seed',
    )
    drives |= {factor: _render(out, factor, frames, seed) for factor in factors if factor != 1}
    rows = []
    for factor in factors:
        for rescaled in (True, False) if abs(factor - 1) > FX_TOLERANCE else (True,):
            LOG.info('focal length x%g, %s', factor, 'rescaled' if rescaled else 'as it is')
            results = out / f'results_{factor:g}_{"rescaled" if rescaled else "as_it_is"}'
            _detect(bundle, drives[factor], drives[1.0], results, rescaled, precision)
            report = evaluate_folders(drives[1.0] / 'label_2', results)
            rows.append(_row(factor, rescaled, drives[factor], report))
    write_text_atomically(out / 'focal_study.json', json.dumps(rows, indent=1) + '\n')
    return rows


def _render(out: Path, factor: float, frames: int, seed: int) -> Path:
    width, height = round(KITTI_WIDTH_PX * factor), round(KITTI_HEIGHT_PX * factor)
    with show_progress(f'focal length x{factor:g}', frames) as step:
        root = generate_drive(
            out / f'fx_{factor:g}',
            frames,
            seed,
            frames_per_drive=FRAMES_PER_DRIVE,
            width=width,
            height=height,
            progress=step,
        )
    return root / 'training'


def _detect(
    bundle: Bundle, drives: Path, reference: Path, results: Path, rescaled: bool, precision: str
) -> None:
    """Write what the detector finds through one camera as results of the reference camera."""
    detector = Detector.from_bundle(bundle, precision=precision)
    if not rescaled:
        detector.train_fx_px = 0.0
    results.mkdir(exist_ok=True)
    names = sorted(path.stem for path in (drives / 'image_2').glob('*.png'))
    with show_progress('detecting', len(names)) as step:
        for number, name in enumerate(names, start=1):
            camera, image_HW3, T_cam_ref = _frame(drives, name)
            found = detector(image_HW3, camera, T_cam_ref)
            labelled, _, T_labelled_ref = _frame(reference, name)
            lines = to_kitti_results(
                found.boxes, found.scores_N, found.class_names, labelled, T_labelled_ref
            )
            write_results(results / f'{name}.txt', lines)
            step(number, len(names))


def _frame(folder: Path, name: str) -> tuple[CameraModel, Any, Any]:
    image_HW3 = read_png_rgb(folder / 'image_2' / f'{name}.png')
    calibration = read_calibration(folder / 'calib' / f'{name}.txt')
    height, width = image_HW3.shape[:2]
    camera = CameraModel.from_projection(calibration.P2_34, width, height)
    return camera, image_HW3, calibration.T_cam_ref


def _row(factor: float, rescaled: bool, drives: Path, report: KittiReport) -> dict[str, Any]:
    found = report.to_json()
    camera, *_ = _frame(drives, sorted((drives / 'image_2').glob('*.png'))[0].stem)
    loose = found['ap']['loose']['Car']['3d']['R40']
    return {
        'factor': factor,
        'fx_px': round(float(camera.projection_px_34[0, 0]), 1),
        'width': camera.width,
        'height': camera.height,
        'rescaled': rescaled,
        'ap_strict': found['ap']['strict']['Car']['3d']['R40'],
        'ap_loose': loose,
        'ap_loose_near': found['ap_by_distance']['loose']['Car']['3d']['0-20']['R40'][1],
        'n_gt': found['n_gt']['Car'],
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [
        '| fx | picture | rescaled | 3D strict | 3D loose | loose, nearer than 20 m |',
        '| --- | --- | --- | --- | --- | --- |',
    ]
    for row in rows:
        lines.append(
            f'| x{row["factor"]:g} ({row["fx_px"]:g} px) | {row["width"]}x{row["height"]} '
            f'| {"yes" if row["rescaled"] else "no"} | {row["ap_strict"][1]:.1f} '
            f'| {row["ap_loose"][1]:.1f} | {row["ap_loose_near"]:.1f} |'
        )
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study that the arguments name, print its table, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog='python -m cmkd_ros.training.focal_study', description=__doc__.split('\n')[0]
    )
    parser.add_argument('--model', type=Path, required=True)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--frames', type=int, default=100)
    parser.add_argument('--seed', type=int, default=3001)
    parser.add_argument('--factors', type=float, nargs='+', default=list(FACTORS))
    parser.add_argument('--precision', default='fp32', choices=('fp32', 'bf16', 'auto'))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    try:
        rows = study_focal_lengths(**vars(options))
    except (ValueError, OSError) as error:
        sys.stderr.write(f'focal_study: {error}\n')
        return 2
    sys.stdout.write(_table(rows) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
