"""Names of the teachers' parameters in official CMKD / OpenPCDet checkpoints, see `official`."""

from __future__ import annotations

from cmkd_ros.official import BEV_RULES, Rule
from cmkd_ros.training.teacher.spec import TeacherSpec

POINTPILLARS_RULES: tuple[Rule, ...] = (
    (r'pillars\.', 'vfe.pfn_layers.0.', {}),
    (r'convs\.(?P<layer>\d+)\.', 'map_to_bev_module.conv_layers.{layer}.', {}),
    *BEV_RULES,
)

_NUMBERED = {'conv': '0', 'bn': '1'}
_PART = r'(?P<part>conv|bn)\.'
_BLOCK = r'sparse\.stage(?P<stage>\d)\.(?P<block>\d)\.'
_OFFICIAL_BLOCK = 'backbone_3d.conv{stage}.{block}.{part}.'

# SECOND and CenterPoint.
SPARSE_RULES: tuple[Rule, ...] = (
    (r'sparse\.stem\.' + _PART, 'backbone_3d.conv_input.{part}.', _NUMBERED),
    (r'sparse\.squash\.' + _PART, 'backbone_3d.conv_out.{part}.', _NUMBERED),
    (_BLOCK + _PART, _OFFICIAL_BLOCK, _NUMBERED),
    (_BLOCK + r'first\.' + _PART, _OFFICIAL_BLOCK, {'conv': 'conv1', 'bn': 'bn1'}),
    (_BLOCK + r'second\.' + _PART, _OFFICIAL_BLOCK, {'conv': 'conv2', 'bn': 'bn2'}),
    *BEV_RULES,
)


def official_rules(spec: TeacherSpec) -> tuple[Rule, ...]:
    """The rename patterns of the teacher that a spec describes."""
    return POINTPILLARS_RULES if spec.encoder.kind == 'pillars' else SPARSE_RULES
