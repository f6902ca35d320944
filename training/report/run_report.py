"""The report of one training run of a student: RUN/report.html."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import yaml

from cmkd_ros.atomic_write import write_text_atomically
from cmkd_ros.checkpoint import Bundle, load_bundle
from cmkd_ros.evaluation.kitti_report import KittiReport
from cmkd_ros.evaluation.kitti_split import DIFFICULTIES
from cmkd_ros.evaluation.report import read_report
from cmkd_ros.evaluation.visualize import TRUTH_COLOUR, draw_boxes, plot_bev
from cmkd_ros.geometry import Boxes3D
from cmkd_ros.model.spec import NetworkSpec, parse_model
from cmkd_ros.training.data.sample import Sample
from cmkd_ros.training.engine.recipe import DataSpec, DistillRecipe, SourceSpec
from cmkd_ros.training.engine.sources import open_frames
from cmkd_ros.training.engine.train import build_teacher_of
from cmkd_ros.training.evaluate import camera_of, find_frames
from cmkd_ros.training.report.bev_maps import compare_maps, draw_maps
from cmkd_ros.training.report.depth_plots import (
    depth_errors,
    draw_depth,
    draw_depth_distribution,
)
from cmkd_ros.training.report.findings import find_faults
from cmkd_ros.training.report.loss_curves import draw_loss_curves, read_curves
from cmkd_ros.training.report.page import Page
from cmkd_ros.training.report.probe import Probe, probe_frames


def write_report(
    run: Path,
    evaluation: Path | None = None,
    data: Path | None = None,
    split: Path | None = None,
    count: int = 4,
) -> Path:
    """Write `run`/report.html: what the student of a run sees, beside its teacher and the labels.

    Args:
        run: folder of `cmkd distill`, finished.
        evaluation: folder of `cmkd evaluate --out` for the AP by distance; None leaves it out.
        data, split: KITTI folder and frame list to take frames from; None takes those that the
            recipe holds out, or else frames that the student learned from.
        count: frames to show; the numbers on maps and depth are over four times as many.

    Returns:
        The report.

    Raises:
        FileNotFoundError, ValueError: no finished run of a student there, its teacher is gone, or
            frames that are wrong.
    """
    bundle, recipe = _open_run(run)
    if count < 1:
        raise ValueError(f'frames: expected 1 or more, found {count}')
    spec = bundle.network_spec
    report = None if evaluation is None else read_report(evaluation / 'ap.json')
    teacher = None
    range_m = spec.grid.range_m
    if recipe.teacher is not None:
        teacher_spec, teacher = build_teacher_of(
            load_bundle(recipe.teacher), with_head=True, spec_name=recipe.teacher_spec
        )
        range_m = teacher_spec.grid.range_m
    source, origin = _source(recipe, data, split)
    frames = open_frames(DataSpec(sources=(source,)), spec.classes, range_m, with_depth=True)
    chosen = np.linspace(0, len(frames) - 1, min(4 * count, len(frames))).round().astype(int)
    probes = probe_frames(bundle.build(), teacher, spec, [frames[int(i)] for i in chosen])
    page = _page(recipe, bundle, probes, read_curves(run), report, origin)
    _add_frames(page, probes[:: max(1, len(probes) // count)][:count], spec)
    path = run / 'report.html'
    write_text_atomically(path, page.html())
    return path


def _open_run(run: Path) -> tuple[Bundle, DistillRecipe]:
    for name in ('recipe.yaml', 'student.cmkd'):
        if not (run / name).is_file():
            raise FileNotFoundError(
                f'{run / name}: expected the folder of a finished `cmkd distill`, found no {name}'
            )
    written = yaml.safe_load((run / 'recipe.yaml').read_text(encoding='utf-8'))
    recipe = parse_model(DistillRecipe, written, str(run / 'recipe.yaml'))
    return load_bundle(run / 'student.cmkd'), recipe


def _source(recipe: DistillRecipe, data: Path | None, split: Path | None) -> tuple[SourceSpec, str]:
    """Where the shown frames come from, and what they are to the student."""
    if data is not None:
        folder, _ = find_frames(data, split)
        labelled = (folder / 'label_2').is_dir()
        frames = None if split is None else Path(os.path.abspath(split))
        source = SourceSpec(
            root=folder.parent, folder=folder.name, frames=frames, labelled=labelled
        )
        return source, f'{data}'
    if recipe.data.held_out:
        return recipe.data.held_out[0], 'frames that were held out'
    root = recipe.data.sources[0].root
    if recipe.data.held_out is None and (root / 'ImageSets' / 'val.txt').is_file():
        labelled = (root / 'training' / 'label_2').is_dir()
        held_out = SourceSpec(root=root, frames=Path('ImageSets', 'val.txt'), labelled=labelled)
        return held_out, 'ImageSets/val.txt, which were held out'
    return recipe.data.sources[0], 'frames that the student learned from'


def _page(
    recipe: DistillRecipe,
    bundle: Bundle,
    probes: list[Probe],
    curves: dict[str, tuple[np.ndarray, np.ndarray]],
    report: KittiReport | None,
    origin: str,
) -> Page:
    spec = bundle.network_spec
    page = Page(f'{recipe.name}: student {spec.name}, stage {recipe.stage}')
    count = bundle.provenance.get('frames', {}).get('count')
    page.text(
        f'Taught by {recipe.teacher or "labels"} on {count} frames, seed {recipe.seed}. Shown and '
        f'measured below: {len(probes)} frames of {origin}.'
    )
    page.heading('What the numbers say')
    maps, depth = compare_maps(probes), depth_errors(probes, spec.depth)
    page.sentences(find_faults(maps, depth, curves, probes))
    if report is not None:
        page.heading('AP by distance')
        _add_distances(page, report)
    page.heading('Loss terms over the steps (weighted)')
    page.figure(draw_loss_curves(curves))
    distribution = draw_depth_distribution(probes, spec.depth)
    if distribution is not None:
        page.heading('Depth distribution against the LiDAR')
        page.figure(distribution, 'A bright diagonal is right; a vertical smear is a guess.')
    return page


def _add_distances(page: Page, report: KittiReport) -> None:
    moderate = DIFFICULTIES.index('moderate')
    rows = []
    for name, n_gt in report.n_gt_by_distance.items():
        for level, metrics in report.ap_by_distance.items():
            for metric, by_range in metrics[name].items():
                cells = [
                    f'{by_range[where]["R40"][moderate]:.1f} ({n_gt[where][moderate]})'
                    for where in by_range
                ]
                rows.append([name, f'{metric.upper()} {level}', *cells])
    ranges = list(next(iter(report.n_gt_by_distance.values()), {}))
    page.table(['class', 'AP R40 moderate (labels)', *(f'{where} m' for where in ranges)], rows)


def _add_frames(page: Page, probes: list[Probe], spec: NetworkSpec) -> None:
    for probe in probes:
        page.heading(f'Frame {probe.sample.frame_id}')
        truth = Boxes3D(probe.sample.boxes_M7.astype(np.float64))
        none = Boxes3D(np.zeros((0, 7)))
        for whose, boxes in (('student', probe.found or none), ('teacher', probe.taught)):
            if boxes is None:
                continue
            caption = f'labels green, {whose} orange'
            page.picture(_overlay(probe.sample, truth, boxes), caption)
            page.picture(_from_above(probe.sample, truth, boxes, spec), f'from above; {caption}')
        page.figure(draw_maps(probe, spec.grid.range_m), 'BEV maps: x up, y to the left, metres')
        page.figure(draw_depth(probe, spec.depth))


def _from_above(sample: Sample, truth: Boxes3D, found: Boxes3D, spec: NetworkSpec) -> np.ndarray:
    _, y_min, _, x_max, y_max, _ = spec.grid.range_m
    return plot_bev(None, found, truth, sample.points_N4, range_m=(0.0, y_min, x_max, y_max))


def _overlay(sample: Sample, truth: Boxes3D, found: Boxes3D) -> np.ndarray:
    camera, pose = camera_of(sample), sample.ref_to_cam_44.astype(np.float64)
    picture = draw_boxes(sample.image_HW3, truth, camera, pose, colours=[TRUTH_COLOUR] * len(truth))
    return draw_boxes(picture, found, camera, pose, labels=['Car'] * len(found))
