# SPDX-License-Identifier: Apache-2.0
"""Parameter trees on a running node: declared, checked when they are set, and read back typed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rcl_interfaces.msg import Parameter as ParameterMessage
from rclpy import exceptions
from rclpy.node import Node
from rclpy.parameter import Parameter

from labeldistill_core.errors import ConfigError
from labeldistill_core.names import plain_text
from labeldistill_ros.parameters import (
    CameraParameters,
    ClassParameters,
    Parameters,
    Spec,
    VehicleParameters,
    flatten,
    why_unknown,
    with_values,
)

P = TypeVar("P")

_OVERRIDES = "qos_overrides."
_OTHERS = (_OVERRIDES, "use_sim_time", "start_type_description_service")
"""Parameters that rclpy declares by itself."""
_KINDS = {
    ParameterType.PARAMETER_NOT_SET: "nothing",
    ParameterType.PARAMETER_BOOL: "a bool, true or false",
    ParameterType.PARAMETER_INTEGER: "an integer, such as 1",
    ParameterType.PARAMETER_DOUBLE: "a float, such as 0.5 or 1.0",
    ParameterType.PARAMETER_STRING: "a string",
    ParameterType.PARAMETER_BYTE_ARRAY: "an array",
    ParameterType.PARAMETER_BOOL_ARRAY: "an array",
    ParameterType.PARAMETER_INTEGER_ARRAY: "an array",
    ParameterType.PARAMETER_DOUBLE_ARRAY: "an array",
    ParameterType.PARAMETER_STRING_ARRAY: "an array",
}


def descriptor(value: object, spec: Spec) -> ParameterDescriptor:
    """What `ros2 param describe` shows of a parameter."""
    constraints = [f"one of {', '.join(spec.choices)}"] if spec.choices else []
    constraints.append(
        "live: holds from the next image on" if spec.live else "read when the node is configured"
    )
    descriptor = ParameterDescriptor(
        description=spec.text, additional_constraints="; ".join(constraints)
    )
    if spec.bounds and isinstance(value, int):
        descriptor.integer_range = [
            IntegerRange(from_value=int(spec.bounds[0]), to_value=int(spec.bounds[1]))
        ]
    elif spec.bounds:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(spec.bounds[0]), to_value=float(spec.bounds[1]))
        ]
    return descriptor


class ParameterStore:
    """Declares parameter trees on a node, checks what is set and gives out typed trees."""

    def __init__(self, node: Node) -> None:
        """Start checking; nothing is declared yet."""
        self._node = node
        self._specs: dict[str, Spec] = {}
        self._cameras: tuple[str, ...] = ()
        self.locked = False
        """Whether only live parameters can change."""
        self.revision = 0
        """Counts changes; they are in force once the callback that brought them has ended."""
        node.add_on_set_parameters_callback(self._check)

    def declare(self, defaults: P, prefix: str = "") -> P:
        """The tree with what the user set; parameters that are declared already are only read.

        Raises:
            ConfigError: a value is of the wrong type or out of range.
        """
        values: dict[str, Any] = {}
        for name, default, spec in flatten(defaults, prefix):
            self._specs[name] = spec
            # ROS declares a parameter once for a node's life; a node that is configured again reads
            # it.
            if not self._node.has_parameter(name):
                self._declare(name, default, spec)
            try:
                values[name] = self._node.get_parameter(name).value
            except exceptions.ParameterUninitializedException as error:
                raise ConfigError(
                    f"parameter {name} has no value: give one, or none at all"
                ) from error
        return with_values(defaults, prefix, values)

    def vehicle(self, cameras: Sequence[str], classes: Sequence[str]) -> VehicleParameters:
        """The trees of all parameters for a model of these cameras and classes; see `declare`.

        Raises:
            ConfigError: a value is of the wrong type or out of range, or no camera is enabled.
        """
        self._cameras = tuple(cameras)
        own = {name: self.declare(CameraParameters(), f"cameras.{name}.") for name in cameras}
        enabled = {name: parameters for name, parameters in own.items() if parameters.enabled}
        if not enabled:
            raise ConfigError(f"none of {', '.join(cameras)} is enabled: cameras.<name>.enabled")
        return VehicleParameters(
            self.declare(Parameters()),
            enabled,
            {name: self.declare(ClassParameters(), f"classes.{name}.") for name in classes},
        )

    def _declare(self, name: str, default: Any, spec: Spec) -> None:
        try:
            self._node.declare_parameter(name, default, descriptor(default, spec))
        except exceptions.InvalidParameterTypeException as error:
            raise ConfigError(
                f"parameter {name} must be of type {type(default).__name__}, for example "
                f"{default!r} ({error}). {spec.text}"
            ) from error
        except exceptions.InvalidParameterValueException as error:
            low, high = spec.bounds or (None, None)
            hint = f"use a value from {low:g} to {high:g} ({error})" if spec.bounds else error
            raise ConfigError(f"parameter {name}: {hint}. {spec.text}") from error

    def unknown(self) -> list[str]:
        """One sentence for each parameter that was given and that nobody declared."""
        # rclpy drops overrides that nobody declares without a word, so a misspelled one would go
        # unseen.
        given: Sequence[str] = list(getattr(self._node, "_parameter_overrides", ()))
        sentences = []
        for name in given:
            if name in self._specs or name.startswith(_OTHERS) or self._node.has_parameter(name):
                continue
            sentences.append(why_unknown(name, self._specs, self._cameras))
        return sentences

    def unknown_overrides(self) -> list[str]:
        """One sentence for each QoS override that holds for nothing.

        Only once publishers and subscriptions are there: creating one declares its overrides.
        """
        given: Sequence[str] = list(getattr(self._node, "_parameter_overrides", ()))
        known = [n for n in getattr(self._node, "_parameters", ()) if n.startswith(_OVERRIDES)]
        sentences = []
        for name in given:
            if not name.startswith(_OVERRIDES) or self._node.has_parameter(name):
                continue
            near = difflib.get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            sentences.append(f"the QoS override {name} holds for nothing{hint}")
        return sentences

    def why_refused(self, message: ParameterMessage) -> str:
        """What ROS would refuse without saying what can be set; empty where nothing is wrong."""
        name, kind = message.name, message.value.type
        if not name or not self._node.has_parameter(name):
            return why_unknown(plain_text(name), self._specs, self._cameras)
        allowed, refused = self._node.describe_parameter(name), f"{name} cannot be set: "
        if allowed.read_only:
            return f"{refused}it is read when the node starts; give it to the node then"
        if kind != allowed.type and not allowed.dynamic_typing:
            given = _KINDS.get(kind, "a type that ROS does not have").partition(",")[0]
            return f"{refused}it has to be {_KINDS[allowed.type]}, and {given} was given"
        for own, value in (
            (allowed.integer_range, message.value.integer_value),
            (allowed.floating_point_range, message.value.double_value),
        ):
            if own and not own[0].from_value <= value <= own[0].to_value:
                low, high = own[0].from_value, own[0].to_value
                return f"{refused}{value:g} is not from {low:g} to {high:g}"
        return ""

    def _check(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        for parameter in parameters:
            spec = self._specs.get(parameter.name)
            if spec is None:
                continue
            reason = spec.problem(parameter.value)
            if self.locked and not spec.live and self._node.has_parameter(parameter.name):
                reason = "it is read when the node is configured: clean up, set, configure"
            if reason:
                return SetParametersResult(
                    successful=False, reason=f"{parameter.name} cannot be set: {reason}"
                )
        # Counted here and not read here: values are in force only after this callback.
        self.revision += 1
        return SetParametersResult(successful=True)
