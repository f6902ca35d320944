"""The weights behind the golden values; the rule itself lives beside the parity command."""

from cmkd_ros.training.parity.rule import fill_by_rule, make_checkpoint, read_table

__all__ = ['fill_by_rule', 'make_checkpoint', 'read_table']
