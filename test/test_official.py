"""Official names of the students' parameters, and back (tables: cmkd-spec J)."""

import pytest
import torch

from cmkd_ros.model.spec import load_spec
from cmkd_ros.model.student import build_student
from cmkd_ros.official import (
    IGNORED_OFFICIAL_KEYS,
    official_key,
    official_to_ours,
    rename_table,
)
from cmkd_ros.training.parity.rule import make_checkpoint, read_table

STUDENTS = [
    ('scd_r50', False, 'student-scd_pp-stage1.tsv', 559),
    ('scd_r50', True, 'student-scd_pp-stage2.tsv', 649),
    ('pp_r50', True, 'student-scd_pp-stage2.tsv', 649),
    ('ctp_r50', False, 'student-ctp-stage1.tsv', 559),
    ('ctp_r50', True, 'student-ctp-stage2.tsv', 653),
]


def our_shapes(name: str, with_head: bool) -> dict[str, tuple[int, ...]]:
    """Shapes of our state dict, without allocating it."""
    with torch.device('meta'):
        student = build_student(load_spec(name), with_head)
    return {key: tuple(value.shape) for key, value in student.state_dict().items()}


@pytest.mark.parametrize(('name', 'with_head', 'table', 'count'), STUDENTS)
def test_every_official_tensor_has_one_place_of_equal_shape(
    shared_dir, name, with_head, table, count
):
    official = read_table(shared_dir / 'docs/statedict' / table)
    ours = our_shapes(name, with_head)
    renamed = rename_table(ours)

    assert len(official) == count
    assert set(renamed) == set(official) - IGNORED_OFFICIAL_KEYS
    assert sorted(renamed.values()) == sorted(ours)
    assert {key: ours[renamed[key]] for key in renamed} == {key: official[key] for key in renamed}


def test_a_renamed_checkpoint_carries_the_official_values(shared_dir):
    """Stage 1 of the ctp student, loaded strictly; the values are those of the official names."""
    table = read_table(shared_dir / 'docs/statedict/student-ctp-stage1.tsv')
    wanted = ('vfe.ffn.channel_reduce.', 'domain_adaptation.layers.3.', 'global_step')
    checkpoint = make_checkpoint({k: v for k, v in table.items() if k.startswith(wanted)})
    ours = [k for k in our_shapes('ctp_r50', False) if k.startswith(('reduce.', 'adaptation.3.'))]
    renamed = official_to_ours(checkpoint, ours)

    assert list(renamed) == ours
    for key, tensor in renamed.items():
        assert torch.equal(tensor, checkpoint[official_key(key)])


def test_missing_and_unknown_keys_are_named():
    ours = ['reduce.conv.weight', 'head.cls.bias']
    official = {'vfe.ffn.channel_reduce.conv.weight': 1, 'dense_head.conv_kls.bias': 2}

    with pytest.raises(ValueError, match=r'1 keys missing \(dense_head.conv_cls.bias\), 1 unknown'):
        official_to_ours(official, ours)


def test_parameters_that_no_official_network_has_are_refused():
    """The small student's plain depth head, say."""
    with pytest.raises(ValueError, match=r"parameter 'depth_head.convs.0.conv.weight'"):
        official_key('depth_head.convs.0.conv.weight')
