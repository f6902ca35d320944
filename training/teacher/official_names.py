"""Names of the teachers' parameters in official CMKD / OpenPCDet checkpoints, see `official`."""

from __future__ import annotations

from cmkd_ros.official import BEV_RULES, Rule

POINTPILLARS_RULES: tuple[Rule, ...] = (
    (r'pillars\.', 'vfe.pfn_layers.0.', {}),
    (r'convs\.(?P<layer>\d+)\.', 'map_to_bev_module.conv_layers.{layer}.', {}),
    *BEV_RULES,
)
