"""Frames are recognised in copies, told apart across data sets, and hashed for bundles."""

import json
import shutil

import pytest

from cmkd_ros.training.data.frames import ConcatFrames
from cmkd_ros.training.data.identity import (
    identify,
    identify_object_frames,
    identify_raw_entries,
)
from cmkd_ros.training.data.kitti import KittiFrames
from cmkd_ros.training.data.kitti_layout import KittiFolder
from cmkd_ros.training.data.kitti_prepare import prepare_kitti
from cmkd_ros.training.data.used_data import FrameIdentity, UsedData, hash_names

RAW = '2011_09_26/2011_09_26_drive_0001_sync'


def write_mapping(root, drives: list[int]) -> None:
    (root / 'mapping').mkdir()
    lines = [f'2011_09_26 2011_09_26_drive_{n:04d}_sync 0000000000' for n in drives]
    (root / 'mapping/train_mapping.txt').write_text('\n'.join(lines))
    numbers = ','.join(str(n) for n in range(1, len(drives) + 1))
    (root / 'mapping/train_rand.txt').write_text(numbers)


def of(root, frames, **options):
    return identify_object_frames(KittiFolder(root / 'training'), frames, **options)


def test_a_copy_is_the_same_set_whatever_its_line_ends(made_kitti, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(made_kitti.root / 'training', copy / 'training')
    calib = copy / 'training/calib/000001.txt'
    calib.write_bytes(calib.read_bytes().replace(b'\n', b'\r\n').replace(b'e+00', b'E0'))
    assert of(copy, made_kitti.frames) == of(made_kitti.root, made_kitti.frames)
    assert len({identity.frame for identity in of(copy, made_kitti.frames)}) == 6


def test_a_tree_of_links_has_its_own_names(made_kitti, tmp_path):
    tree = tmp_path / 'tree'
    tree.mkdir()
    (made_kitti.root / 'training').rename(tmp_path / 'object_train')
    (tree / 'training').symlink_to(tmp_path / 'object_train')
    write_mapping(tree, [1, 1, 2, 2, 3, 3])
    identity = of(tree / '..' / 'tree', ['000001'])[0]
    assert identity.name == 'training/000001'
    assert identity.drive == 'kitti/2011_09_26_drive_0001'


def test_another_rig_another_folder_or_name_is_another_set(made_kitti, tmp_path):
    first = of(made_kitti.root, ['000001'])[0].frame
    calib = made_kitti.root / 'training/calib/000001.txt'
    calib.write_text(calib.read_text().replace('P2: 8.0', 'P2: 8.1'))
    other_rig = of(made_kitti.root, ['000001'])[0].frame
    (made_kitti.root / 'DATASET').write_text('Tuesday\n')
    named = of(made_kitti.root, ['000001'])[0].frame
    (made_kitti.root / 'training').rename(made_kitti.root / 'testing')
    testing = identify_object_frames(KittiFolder(made_kitti.root / 'testing'), ['000001'])[0].frame
    assert len({first, other_rig, named, testing}) == 4
    (made_kitti.root / 'DATASET').write_text('a\nb\n')
    with pytest.raises(ValueError, match='DATASET: expected one line with a name'):
        identify_object_frames(KittiFolder(made_kitti.root / 'testing'), ['000001'])


def test_synthetic_sets_of_other_seeds_are_other_frames_and_drives(made_kitti):
    settings = {'world_version': 1, 'frames': 6, 'seed': 1}
    file = made_kitti.root / 'synthetic.json'
    manifest = 'file\tkitti_raw\ntraining/image_2/000000.png\t2020_09_13_drive_0000_sync/1\n'
    (made_kitti.root / 'MANIFEST.tsv').write_text(manifest)
    found = []
    for change in ({}, {'frames': 12, 'width': 640}, {'seed': 2}):
        file.write_text(json.dumps(settings | change))
        found.append(of(made_kitti.root, ['000000'])[0])
    assert found[0] == found[1]  # a longer set, seen by another camera: the same streets
    assert found[0].frame != found[2].frame
    assert found[0].drive != found[2].drive
    file.write_text('[1]')
    with pytest.raises(ValueError, match='synthetic.json: expected settings of a synth'):
        of(made_kitti.root, ['000000'])


def test_object_frames_share_their_drives_with_raw(made_kitti):
    write_mapping(made_kitti.root, [1, 1, 2, 2, 3, 3])
    used = UsedData.of(identify_raw_entries([f'{RAW}/image_02/data/0000000007']))
    overlap = used.overlap(of(made_kitti.root, ['000000', '000001', '000002']))
    assert overlap.frames == ('training/000000', 'training/000001')
    assert overlap.drives == ('kitti/2011_09_26_drive_0001',)
    assert overlap.shown() == '2 frames (drives kitti/2011_09_26_drive_0001)'
    assert not used.overlap(of(made_kitti.root, ['000004']))


def test_without_a_mapping_frames_are_the_unit(made_kitti):
    used = UsedData.of(of(made_kitti.root, ['000000', '000002']))
    overlap = used.overlap(of(made_kitti.root, ['000001', '000002']))
    assert overlap.frames == ('training/000002',)
    assert overlap.shown() == '1 frames (frames training/000002)'


def test_a_mapping_on_the_evaluating_side_is_enough(made_kitti):
    """Trained where no drive was known; the evaluated frame's neighbour was among the frames."""
    used = UsedData.of(of(made_kitti.root, ['000000']))
    write_mapping(made_kitti.root, [1, 1, 2, 2, 3, 3])
    assert not used.overlap(of(made_kitti.root, ['000001']))
    held_out = of(made_kitti.root, ['000001'], with_drives=True)
    assert [identity.witness for identity in held_out] == [False, True]
    assert used.overlap(held_out).frames == ('training/000001',)


def test_the_index_keeps_drives_whose_mapping_is_gone(made_kitti):
    write_mapping(made_kitti.root, [1, 1, 2, 2, 3, 3])
    drives = [identity.drive for identity in of(made_kitti.root, made_kitti.frames)]
    prepare_kitti(made_kitti.root)
    shutil.rmtree(made_kitti.root / 'mapping')
    assert [identity.drive for identity in of(made_kitti.root, made_kitti.frames)] == drives
    assert drives[5] == 'kitti/2011_09_26_drive_0003'


def test_joined_sources_keep_their_order(made_kitti):
    parts = [KittiFrames(made_kitti.root, [frame], ['Car']) for frame in ('000003', '000001')]
    names = [identity.name for identity in identify(ConcatFrames(parts))]
    assert names == ['training/000003', 'training/000001']
    with pytest.raises(TypeError, match='expected KITTI frames, found list'):
        identify([])


def test_hashes_survive_json_and_foreign_ones_are_refused():
    used = UsedData.of(
        [FrameIdentity(f'{n}', f'x/{n}', 'd' if n % 2 else None) for n in range(100)]
    )
    document = json.loads(json.dumps(used.to_json()))
    assert UsedData.from_json(document, 'a.cmkd') == used
    assert (len(used.frames), len(used.drives)) == (100, 1)
    for wrong in ({}, [], {'frames': 'AAA', 'drives': ''}, {'frames': 'AAAA', 'drives': ''}):
        with pytest.raises(ValueError, match='a.cmkd: provenance.data'):
            UsedData.from_json(wrong, 'a.cmkd')


def test_the_hash_of_names_depends_on_the_set_only():
    assert hash_names(['b', 'a']) == hash_names(['a', 'b']) != hash_names(['a'])
