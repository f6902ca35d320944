"""KITTI's text files: exact round trips, documented tolerance, and errors that name the place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmkd_ros.kitti_files import (
    KittiCalibration,
    KittiObjects,
    read_calibration,
    read_frame_list,
    read_labels,
    read_results,
    write_calibration,
    write_labels,
    write_results,
)

LABEL = 'Car 0.25 1 -1.57 100.00 150.50 200.00 250.00 1.50 1.60 3.90 0.10 1.65 20.00 -1.58'
DONTCARE = 'DontCare -1 -1 -10 1.00 2.00 3.00 4.00 -1 -1 -1 -1000 -1000 -1000 -10'
R0 = '0.9999239 0.00983776 -0.007445048 -0.00986980 0.9999421 -0.004278459 0.007402527 0.004351614 0.9999631'  # noqa: E501
CALIBRATION = f"""\
P0: 7e+02 0 600 0 0 7e+02 170 0 0 0 1 0
P2: 7.215377e+02 0 6.095593e+02 4.485728e+01 0 7.215377e+02 1.72854e+02 0.2163791 0 0 1 2.745884e-03
R0_rect: {R0}
Tr_velo_to_cam: 0 -1 0 -0.004 0 0 -1 -0.076 1 0 0 -0.27

"""


@pytest.fixture
def file(tmp_path):
    return tmp_path / '000001.txt'


def test_labels_keep_every_field(file):
    file.write_text(f'{LABEL}\n{DONTCARE}\n')
    objects = read_labels(file)
    assert objects.names == ('Car', 'DontCare') and len(objects) == 2
    assert objects.truncated_N.tolist() == [0.25, -1.0]
    assert objects.occluded_N.tolist() == [1, -1] and objects.occluded_N.dtype == np.int64
    assert objects.alphas_N.tolist() == [-1.57, -10.0]
    assert objects.boxes_px_N4.tolist() == [[100, 150.5, 200, 250], [1, 2, 3, 4]]
    assert objects.dimensions_N3[0].tolist() == [1.5, 1.6, 3.9]
    assert objects.locations_N3[0].tolist() == [0.1, 1.65, 20.0]
    assert objects.rotations_y_N.tolist() == [-1.58, -10.0]
    assert objects.scores_N is None


def test_results_have_scores_of_any_size(file):
    file.write_text(f'{LABEL} -2.5\n{LABEL} 7.25e0\n')
    assert read_results(file).scores_N.tolist() == [-2.5, 7.25]


@pytest.mark.parametrize(
    'content',
    [
        f'{LABEL}\r\n{LABEL}\r\n',
        f'{LABEL}\n{LABEL}',
        f'\n{LABEL}\n\n{LABEL}  \n \n',
        f'{LABEL}\n{LABEL}\n'.replace(' ', '\t  '),
        f'\ufeff{LABEL}\n{LABEL}\n',
    ],
    ids=['CRLF', 'no newline at the end', 'blank lines', 'tabs', 'byte order mark'],
)
def test_tolerated_forms_read_alike(file, content):
    file.write_bytes(content.encode('utf-8'))
    objects = read_labels(file)
    assert objects.names == ('Car', 'Car')
    assert objects.rotations_y_N.tolist() == [-1.58, -1.58]


def test_class_names_stay_as_written(file):
    file.write_text(LABEL.replace('Car', 'car'))
    assert read_labels(file).names == ('car',)


@pytest.mark.parametrize('content', ['', '\n', '\r\n'])
def test_an_empty_file_holds_no_objects(file, content):
    file.write_text(content)
    assert len(read_labels(file)) == 0
    results = read_results(file)
    assert results.scores_N.shape == (0,) and results.boxes_px_N4.shape == (0, 4)


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        (
            LABEL.rsplit(' ', 1)[0],
            r'a label line has 15 fields \(type \.\.\. rotation_y\), found 14',
        ),
        (f'{LABEL} 0.9', 'found 16'),
        (LABEL.replace(' 1 ', ' 1.00 ', 1), "occluded must be written as an integer, found '1.00'"),
        (LABEL.replace('3.90', 'nan'), "l must be a finite number, found 'nan'"),
        (LABEL.replace('20.00', 'inf'), "z must be a finite number, found 'inf'"),
        (LABEL.replace('250.00', '250,00'), "y2 must be a finite number, found '250,00'"),
        (LABEL.replace('250.00', '2_5'), "y2 must be a finite number, found '2_5'"),
        (LABEL.replace(' ', ','), 'found 1'),
    ],
)
def test_wrong_lines_are_named(file, line, message):
    file.write_text(f'{LABEL}\n\n{line}\n')
    with pytest.raises(ValueError, match=f'000001.txt:3: .*{message}'):
        read_labels(file)


def test_results_without_or_with_wrong_score_are_named(file):
    file.write_text(LABEL)
    with pytest.raises(ValueError, match=r'000001.txt:1: a result line has 16 fields .* found 15'):
        read_results(file)
    file.write_text(f'{LABEL} NaN')
    with pytest.raises(ValueError, match="000001.txt:1: score must be a finite .* 'NaN'"):
        read_results(file)


@pytest.mark.parametrize('read', [read_labels, read_results, read_calibration, read_frame_list])
def test_missing_and_binary_files_are_named(tmp_path, read):
    with pytest.raises(FileNotFoundError, match='none.txt: no such file'):
        read(tmp_path / 'none.txt')
    (tmp_path / 'image.txt').write_bytes(b'\x89PNG\r\n\x1a\n\xff\xfe\x00')
    with pytest.raises(ValueError, match='image.txt: expected a text file'):
        read(tmp_path / 'image.txt')


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_written_files_read_back(tmp_path_factory, seed, n):
    random = np.random.default_rng(seed)
    objects = KittiObjects(
        tuple(random.choice(['Car', 'cyclist', 'DontCare'], n).tolist()),
        random.uniform(0, 1, n),
        random.integers(-1, 4, n),
        random.uniform(-3, 3, n),
        random.uniform(0, 1242, (n, 4)),
        random.uniform(0.1, 9, (n, 3)),
        random.uniform(-50, 90, (n, 3)),
        random.uniform(-4, 4, n),
        random.normal(0, 5, n).astype(np.float32),
    )
    folder = tmp_path_factory.mktemp('round')
    write_results(folder / 'result.txt', objects)
    results = read_results(folder / 'result.txt')
    np.testing.assert_array_equal(results.scores_N.astype(np.float32), objects.scores_N)
    np.testing.assert_allclose(results.locations_N3, objects.locations_N3, atol=5.1e-5)
    np.testing.assert_allclose(results.rotations_y_N, objects.rotations_y_N, atol=5.1e-5)
    write_labels(folder / 'label.txt', objects)
    labels = read_labels(folder / 'label.txt')
    assert labels.names == objects.names and labels.scores_N is None
    np.testing.assert_array_equal(labels.occluded_N, objects.occluded_N)
    np.testing.assert_allclose(labels.boxes_px_N4, objects.boxes_px_N4, atol=5.1e-3)
    # What was read is written to the same bytes.
    for write, path, read_back in (
        (write_results, 'result.txt', results),
        (write_labels, 'label.txt', labels),
    ):
        write(folder / f'again_{path}', read_back)
        assert (folder / f'again_{path}').read_bytes() == (folder / path).read_bytes()


def test_labels_cannot_be_written_as_results(file):
    with pytest.raises(ValueError, match='000001.txt: results need scores'):
        write_results(file, KittiObjects.empty())
    assert not file.exists()


def test_select_and_concatenate(file):
    file.write_text(f'{LABEL} 1\n{DONTCARE} 2\n{LABEL} 3\n')
    objects = read_results(file)
    assert objects.select(objects.dimensions_N3[:, 0] > 0).scores_N.tolist() == [1, 3]
    assert objects.select([2, 1]).names == ('Car', 'DontCare')
    assert len(objects.select([])) == len(objects.select(np.zeros(3, bool))) == 0
    joined = KittiObjects.concatenate([objects, objects.select([1])], scored=True)
    assert joined.scores_N.tolist() == [1, 2, 3, 2] and joined.names[3] == 'DontCare'
    assert KittiObjects.concatenate([objects], scored=False).scores_N is None
    with pytest.raises(ValueError, match='carry scores'):
        KittiObjects.concatenate([KittiObjects.empty()], scored=True)


def test_objects_are_checked_and_frozen():
    file_fields = KittiObjects.empty().__dict__
    with pytest.raises(ValueError, match=r'truncated_N: expected shape \(1,\), found \(0,\)'):
        KittiObjects(**{**file_fields, 'names': ('Car',)})
    with pytest.raises(ValueError, match='names: expected words'):
        KittiObjects(**{**file_fields, 'names': ('Big Car',)})
    one = [*(np.zeros(1) for _ in range(3)), np.zeros((1, 4)), np.zeros((1, 3)), np.zeros((1, 3))]
    with pytest.raises(ValueError, match='rotations_y_N: expected finite'):
        KittiObjects(('Car',), *one, np.array([np.nan]))
    with pytest.raises(ValueError, match='read-only'):
        KittiObjects(('Car',), *one, np.zeros(1)).locations_N3[0] = 1


def test_calibration_reads_and_composes(file):
    file.write_text(CALIBRATION)
    calibration = read_calibration(file)
    assert calibration.P2_34[0, 3] == 44.85728 and calibration.P2_34[2, 3] == 0.002745884
    expected = calibration.R0_33 @ [-0.004 - 2.0, -0.076 - 1.0, 10 - 0.27]
    np.testing.assert_allclose((calibration.T_cam_ref @ [10, 2, 1, 1])[:3], expected, atol=1e-12)
    assert calibration.T_cam_ref[3].tolist() == [0, 0, 0, 1]
    camera = calibration.camera(1242, 375)
    assert (camera.width, camera.height) == (1242, 375) and camera.is_rectified
    np.testing.assert_array_equal(camera.projection_px_34, calibration.P2_34)


def test_calibration_reads_back_to_the_same_bits(file):
    file.write_text(CALIBRATION)
    calibration = read_calibration(file)
    write_calibration(file, calibration)
    again = read_calibration(file)
    for name in ('P2_34', 'R0_33', 'Tr_velo_to_cam_34'):
        np.testing.assert_array_equal(getattr(again, name), getattr(calibration, name))
    # Readers of this format count lines.
    keys = [line.partition(':')[0] for line in file.read_text().splitlines()]
    assert keys == ['P0', 'P1', 'P2', 'P3', 'R0_rect', 'Tr_velo_to_cam', 'Tr_imu_to_velo']


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ('P2:', 'P5:', '000001.txt: expected the lines P2, R0_rect, Tr_velo_to_cam, missing P2'),
        ('P0:', 'P2:', '000001.txt:2: P2 stands in the file twice'),
        (' 0.2163791', '', '000001.txt:2: P2 needs 12 numbers, found 11'),
        ('-0.27', 'nan', "000001.txt:4: Tr_velo_to_cam must be a finite number, found 'nan'"),
        ('R0_rect:', 'R0_rect', '000001.txt:3: expected "NAME: numbers"'),
        ('0.9999239', '-0.9999239', '000001.txt: R0_33: expected a rotation matrix'),
        ('0 -1 0 -0.004', '0 -2 0 -0.004', '000001.txt: Tr_velo_to_cam_34: expected a rotation'),
        ('7.215377e+02', '0', '000001.txt: P2_34: expected positive focal lengths'),
    ],
)
def test_wrong_calibrations_are_named(file, old, new, message):
    assert old in CALIBRATION
    file.write_text(CALIBRATION.replace(old, new))
    with pytest.raises(ValueError, match=message.replace('.', r'\.')):
        read_calibration(file)


def test_calibration_shapes_are_checked():
    with pytest.raises(ValueError, match=r'R0_33: expected finite \(3, 3\)'):
        KittiCalibration(np.eye(4)[:3], np.eye(4), np.eye(4)[:3])


def test_frame_lists(file):
    file.write_bytes(b'000007\r\n\r\n000003')
    assert read_frame_list(file) == ['000007', '000003']
    for content, message in (
        ('000007\n000003\n000007\n', ':3: frame 000007 was listed before in line 1'),
        ('000007 1\n', ":1: expected one frame id, found '000007 1'"),
        ('\n', ': expected frame ids, found an empty file'),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=f'000001.txt{message}'):
            read_frame_list(file)


def test_real_frames(shared_dir):
    """Every KITTI frame reads, and its labels are written as they were found."""
    folder = shared_dir / 'kitti_mini' / 'training'
    frames = read_frame_list(next((shared_dir / 'kitti_mini' / 'ImageSets').glob('*.txt')))
    assert frames
    for path in sorted((folder / 'label_2').iterdir()):
        assert len(read_labels(path)) == len(path.read_text().splitlines())
        calibration = read_calibration(folder / 'calib' / path.name)
        # The LiDAR of the KITTI car stands 0.27 m behind and 0.08 m above the camera.
        np.testing.assert_allclose(calibration.T_cam_ref[:3, 3], [0, -0.08, -0.27], atol=0.03)
