"""The parameters on a node: declared, validated whole, then applied by swapping one object."""

from __future__ import annotations

import array
from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from cmkd_ros.ros.parameters import (
    CLASS_THRESHOLDS,
    Declared,
    class_threshold,
    declared_parameters,
    parse_parameters,
)


class ParameterHandler:
    """Declares the parameters on a node and keeps `current`, the last valid set."""

    def __init__(self, node: Node, may_change_all: Callable[[], bool]) -> None:
        """Declare and read everything, with the overrides from command line and files.

        Args:
            node: the node.
            may_change_all: tells whether parameters that are not live may be changed now.

        Raises:
            ValueError: an override that does not validate.
            rclpy.exceptions.InvalidParameterTypeException, InvalidParameterValueException: an
                override of another type, or out of its range.
        """
        self._node = node
        self._may_change_all = may_change_all
        self._declared: dict[str, Declared] = {}
        self._values = {
            declared.name: self._declare(declared) for declared in declared_parameters()
        }
        self.current = parse_parameters(self._values)
        node.add_on_set_parameters_callback(self._validate)
        node.add_post_set_parameters_callback(self._apply)

    def declare_classes(self, class_names: Sequence[str]) -> None:
        """Add a score threshold for every class of a model, in place of those of the one before.

        Raises:
            ValueError: a threshold was given for a class that the model does not have.
            rclpy.exceptions.InvalidParameterTypeException, InvalidParameterValueException: an
                override of another type, or out of its range.
        """
        for name in [n for n in self._declared if n.startswith(f'{CLASS_THRESHOLDS}.')]:
            self._node.undeclare_parameter(name)
            del self._declared[name], self._values[name]
        wanted = {class_threshold(name).name for name in class_names}
        for name in overridden(self._node):
            if name.startswith(f'{CLASS_THRESHOLDS}.') and name not in wanted:
                raise ValueError(
                    f'parameter {name}: the model has no such class, only {", ".join(class_names)}'
                )
        for name in class_names:
            declared = class_threshold(name)
            self._values[declared.name] = self._declare(declared)
        self.current = parse_parameters(self._values)

    def _declare(self, declared: Declared) -> Any:
        self._declared[declared.name] = declared
        descriptor = declared.descriptor()
        return _plain(
            self._node.declare_parameter(declared.name, declared.default, descriptor).value
        )

    def _validate(self, changes: Sequence[Parameter]) -> SetParametersResult:
        ours = {p.name: _plain(p.value) for p in changes if p.name in self._declared}
        fixed = [name for name in ours if not self._declared[name].live]
        if fixed and not self._may_change_all():
            name = fixed[0]
            return SetParametersResult(
                successful=False,
                reason=f'parameter {name} = {ours[name]!r}: takes effect when the node is '
                f'configured, so deactivate and clean up first; it stays {self._values[name]!r}',
            )
        try:
            parse_parameters(self._values | ours)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=f'{error}; nothing was changed')
        return SetParametersResult(successful=True)

    def _apply(self, changes: Sequence[Parameter]) -> None:
        ours = {p.name: _plain(p.value) for p in changes if p.name in self._declared}
        if not ours:
            return
        self._values = self._values | ours
        self.current = parse_parameters(self._values)


def overridden(node: Node) -> tuple[str, ...]:
    """Names of all parameters that command line and parameter files give, declared or not."""
    # rclpy has no public way to them before they are declared.
    return tuple(getattr(node, '_parameter_overrides', ()))


def _plain(value: Any) -> Any:
    # rclpy hands arrays out as array.array.
    return tuple(value) if isinstance(value, array.array | list) else value
