"""The ResNet-50 student against values recorded from the official code (cmkd-spec K3).

Weights come from a rule, the image from KITTI; every map that was recorded is compared.
"""

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from golden_values import sampled

from cmkd_ros.geometry.boxes import Boxes3D
from cmkd_ros.model.lift_indices import OUTSIDE, voxel_frustum_coordinates
from cmkd_ros.model.post import find_boxes
from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student
from cmkd_ros.official import official_to_ours
from cmkd_ros.training.parity.rule import make_checkpoint, read_table

TOLERANCE = 5e-6  # relative rms; the official code repeats itself to 1e-6
LAYERS = {
    'bb.conv1': 'image_backbone.conv1',
    'bb.layer1': 'image_backbone.layer1',
    'bb.layer2': 'image_backbone.layer2',
    'bb.layer3': 'image_backbone.layer3',
    'bb.layer4': 'image_backbone.layer4',
    'ddn.aspp': 'depth_head.aspp',
    'ddn.logits': 'depth_head',
    'feat.reduced': 'reduce',
    'bev.collapse': 'collapse',
    'bev.da': 'adaptation',
    'bev.backbone': 'bev_backbone',
}


@pytest.fixture(scope='module')
def run(shared_dir):
    """The student's maps on the recorded frame, and the record."""
    golden = np.load(shared_dir / 'goldens/student_scd_R50_V2_000002.npz')
    spec = load_spec('scd_r50')
    student = build_student(spec).eval()
    table = read_table(shared_dir / 'docs/statedict/student-scd_pp-stage2.tsv')
    weights = official_to_ours(make_checkpoint(table), student.state_dict())
    student.load_state_dict(weights)

    bgr = cv2.imread(str(shared_dir / 'goldens/frames/image_2/000002.png'))
    image = torch.from_numpy(bgr[:, :, ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    cam_to_img = torch.from_numpy(golden['trans_cam_to_img'])
    ref_to_cam = torch.from_numpy(golden['trans_lidar_to_cam'])

    maps = {}
    for name, path in LAYERS.items():
        student.get_submodule(path).register_forward_hook(
            # Copied: the next layer may work in place.
            lambda _module, _input, output, name=name: maps.update({name: output.clone()})
        )
    student.lift.register_forward_hook(lambda _m, _i, output: maps.update(columns=output[0]))
    with torch.inference_mode():
        maps['input.normalized'] = student.image_backbone.normalise(image)
        output = student(image, cam_to_img, ref_to_cam)
    maps['head.cls'] = output.head.cls_logits
    maps['head.box'] = output.head.box_deltas
    maps['head.dir'] = output.head.dir_logits
    return SimpleNamespace(
        golden=golden,
        spec=spec,
        student=student,
        output=output,
        maps=maps,
        cam_to_img=cam_to_img,
        ref_to_cam=ref_to_cam,
        canvas_hw=tuple(image.shape[2:]),
    )


def relative_rms(found, expected) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.sqrt(np.mean((found - expected) ** 2) / np.mean(expected**2)))


def record_error(golden, name, tensor) -> float:
    """Largest relative error of a tensor's recorded samples and sums."""
    flat = np.asarray(tensor).reshape(-1)
    assert tuple(tensor.shape) == tuple(golden[f'{name}.shape'])
    samples = relative_rms(sampled(flat), golden[f'{name}.samp'])
    wide = flat.astype(np.float64)
    magnitudes = [np.abs(wide).sum(), np.square(wide).sum()]
    sums = np.abs(magnitudes / golden[f'{name}.stats'][1:3] - 1).max()
    return max(samples, float(sums))


@pytest.mark.parametrize('name', [*LAYERS, 'input.normalized', 'head.cls', 'head.box', 'head.dir'])
def test_maps_are_the_official_ones(run, name):
    error = record_error(run.golden, name, run.maps[name])

    print(f'{name}: {error:.1e}')
    assert error < TOLERANCE


def test_strided_maps_are_the_official_ones(run):
    logits = run.output.depth_logits_BDHW
    assert relative_rms(logits[:, :, ::4, ::6], run.golden['ddn.logits.strided_4_6']) < TOLERANCE
    bev = run.output.bev_BCYX
    assert relative_rms(bev[:, ::8, ::8, ::8], run.golden['bev.da.strided_8_8_8']) < TOLERANCE
    for name in ('cls', 'box', 'dir'):
        found = run.maps[f'head.{name}'][:, ::8, ::8]
        assert relative_rms(found, run.golden[f'head.{name}.strided_8_8']) < TOLERANCE


def test_most_likely_depth_bins_are_the_official_ones(run):
    assert np.array_equal(run.output.depth_logits_BDHW.argmax(1), run.golden['ddn.argmax'])


def test_frustum_coordinates_are_the_official_grid(run):
    """The official grid holds the same positions, normalised to [-1, 1]."""
    feature_hw = tuple(run.output.depth_logits_BDHW.shape[2:])
    lift = run.student.lift
    coordinates_YXZ3 = voxel_frustum_coordinates(
        run.cam_to_img[0],
        run.ref_to_cam[0],
        lift.range_m,
        lift.cells_xyz,
        run.canvas_hw,
        feature_hw,
        lift.depth_bins,
    ).numpy()
    sizes = np.array([feature_hw[1], feature_hw[0], lift.depth_bins[1]])
    grid = np.where(coordinates_YXZ3 == OUTSIDE, -2.0, (2 * coordinates_YXZ3 + 1) / sizes - 1)
    grid_1XYZ3 = grid.transpose(1, 0, 2, 3)[None]

    assert record_error(run.golden, 'grid', grid_1XYZ3) < TOLERANCE
    strided = run.golden['grid.strided_10_10_3']
    assert np.abs(grid_1XYZ3[:, ::10, ::10, ::3] - strided).max() < 2e-5


def test_features_and_depth_make_the_official_frustum(run):
    """Recorded elements of the volume, which this network never builds."""
    shape = tuple(run.golden['frustum.shape'])
    positions = sampled(np.arange(math.prod(shape)))
    _, channel, depth, row, column = np.unravel_index(positions, shape)
    features = run.maps['feat.reduced'][0]
    probability = run.output.depth_logits_BDHW[0].softmax(0)
    found = features[channel, row, column] * probability[depth, row, column]

    assert relative_rms(found, run.golden['frustum.samp']) < TOLERANCE


def test_voxels_are_the_official_ones(run):
    n_x, n_y, n_z = run.spec.grid.cells_xyz
    columns = run.maps['columns']
    voxels = torch.zeros(n_y * n_x, n_z, columns.values_MZC.shape[2])
    voxels[columns.cells_M] = columns.values_MZC
    voxels_1CZYX = voxels.view(n_y, n_x, n_z, -1).permute(3, 2, 0, 1)[None].contiguous()

    assert record_error(run.golden, 'voxel', voxels_1CZYX) < TOLERANCE
    for axis, others in {
        'channel': (2, 3, 4),
        'z': (1, 3, 4),
        'y': (1, 2, 4),
        'x': (1, 2, 3),
    }.items():
        found = voxels_1CZYX.double().sum(others)
        assert relative_rms(found, run.golden[f'voxel.sum_per_{axis}']) < TOLERANCE


def nearest_box_error(found_K7, expected_N7) -> tuple[np.ndarray, np.ndarray]:
    """For each expected box the nearest found one: its index, and the largest difference."""
    difference = found_K7[None].astype(np.float64) - expected_N7[:, None]
    difference[..., 6] = (difference[..., 6] + np.pi) % (2 * np.pi) - np.pi
    errors = np.abs(difference).max(axis=-1)
    return errors.argmin(axis=1), errors.min(axis=1)


def test_best_boxes_before_suppression_are_the_official_ones(run):
    found = run.student.head.decode(run.output.head, 0, 0.1, 50)
    nearest, errors = nearest_box_error(found.boxes_K7.numpy(), run.golden['top50.box'][0])

    assert errors.max() < 1e-3
    assert sorted(nearest) == list(range(50))
    assert np.array_equal(found.labels_K[nearest] + 1, run.golden['top50.label'][0])
    assert np.abs(found.scores_K[nearest].numpy() - run.golden['top50.score'][0]).max() < 1e-4


def test_as_many_anchors_pass_the_threshold(run):
    found = run.student.head.decode(run.output.head, 0, 0.1, 200_000)

    assert len(found) == run.golden['n_score_ge_0.1'][0]


def test_boxes_after_suppression_are_the_official_ones(run):
    (found,) = find_boxes(run.student.head, run.output.head, run.spec.post)
    boxes, scores = run.golden['final.0.boxes'], run.golden['final.0.scores']
    assert len(found) == len(boxes)
    nearest, errors = nearest_box_error(found.boxes_K7.numpy(), boxes)

    print(f'{len(found)} boxes, largest difference {errors.max():.1e}')
    assert sorted(nearest) == list(range(len(boxes)))
    assert errors.max() < 1e-3
    assert np.abs(found.scores_K[nearest].numpy() - scores).max() < 1e-4
    assert np.array_equal(found.labels_K[nearest] + 1, run.golden['final.0.labels'])
    assert (found.scores_K.diff() <= 0).all()


def test_boxes_in_the_camera_frame_are_the_official_ones(run):
    boxes = Boxes3D(run.golden['final.0.boxes'][:50].astype(np.float64))
    locations, dimensions_hwl, rotations_y, alphas = boxes.to_kitti(run.ref_to_cam[0].numpy())

    golden = {name: run.golden[f'kitti.0.{name}'] for name in ('location', 'rotation_y', 'alpha')}
    assert np.abs(locations - golden['location']).max() < 1e-4
    assert np.abs(dimensions_hwl[:, [2, 0, 1]] - run.golden['kitti.0.dimensions']).max() < 1e-5
    for found, expected in ((rotations_y, golden['rotation_y']), (alphas, golden['alpha'])):
        assert np.abs(np.sin((found - expected) / 2)).max() < 1e-5
