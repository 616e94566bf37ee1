# SPDX-License-Identifier: Apache-2.0
"""A ROS parameter file as the node would take it, read without ROS."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from labeldistill_core.errors import ConfigError
from labeldistill_core.files import TEXT_BYTES, read_bounded
from labeldistill_core.yaml_text import parsed_yaml
from labeldistill_ros.parameters import (
    CameraParameters,
    ClassParameters,
    Parameters,
    Spec,
    VehicleParameters,
    check,
    flatten,
    why_unknown,
    with_values,
)

P = TypeVar("P")

_PARAMETERS = "ros__parameters"


def _cased(*words: str) -> frozenset[str]:
    return frozenset(form for w in words for form in (w, w.capitalize(), w.upper()))


_YES, _NO = _cased("y", "yes", "true", "on"), _cased("n", "no", "false", "off")
_INTEGER = re.compile(r"[-+]?((?P<hex>0[xX][0-9a-fA-F]+)|(?P<octal>0[0-7]*)|[1-9][0-9]*)")
_FLOAT = re.compile(
    r"[-+]?((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|0[xX]([\da-fA-F]+\.?[\da-fA-F]*|\.[\da-fA-F]+)"
    r"([pP][-+]?\d+)?)",
    re.ASCII,
)
_SPECIAL = re.compile(r"[-+]?((?i:nan|inf|infinity)|\.(inf|Inf|INF))|\.(nan|NaN|NAN)")
_OF_ROS = ("qos_overrides.", "use_sim_time", "start_type_description_service")
"""Parameters of every node."""


@dataclass(frozen=True)
class GivenParameters:
    """What a user sets of the node's parameters; all others are at default."""

    values: Mapping[str, Any] = field(default_factory=dict)
    """By whole name, such as `sync.tolerance`."""

    @classmethod
    def of_file(cls, path: Path, node: str = "/detector") -> GivenParameters:
        """What a parameter file says for a node.

        Args:
            path: of the file.
            node: full name of the node; the file's sections may name it by wildcards.

        Raises:
            ConfigError: it is no parameter file, or no section of it is for this node.
            OSError: it cannot be read.
        """
        try:
            content = parsed_yaml(read_bounded(path, TEXT_BYTES).decode(), _as_ros)
        except (ConfigError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is no parameter file: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{path} is no parameter file: it holds no sections")
        sections = list(_sections(content, ""))
        values: dict[str, Any] = {}
        # Of several sections that fit, the later one counts, as in ROS.
        fitting = [given for name, given in sections if _fits(name, node)]
        if not fitting:
            named = ", ".join(name for name, _ in sections) or "none"
            raise ConfigError(
                f"{path} has no parameters for the node {node}: its sections are {named}; use "
                f"/**, and {_PARAMETERS} below it"
            )
        for given in fitting:
            values.update(_flat(given, ""))
        return cls(values)

    def common(self) -> Parameters:
        """All parameters but those of single cameras and classes.

        Raises:
            ConfigError: a value is of the wrong type or out of range.
        """
        return self._tree(Parameters(), "")

    def vehicle(self, cameras: Sequence[str], classes: Sequence[str]) -> VehicleParameters:
        """All parameters, for a model of these cameras and classes.

        Raises:
            ConfigError: a value is of the wrong type or out of range, or no camera is enabled.
        """
        own = {name: self._tree(CameraParameters(), f"cameras.{name}.") for name in cameras}
        enabled = {name: parameters for name, parameters in own.items() if parameters.enabled}
        if not enabled:
            raise ConfigError(f"none of {', '.join(cameras)} is enabled: cameras.<name>.enabled")
        thresholds = {name: self._tree(ClassParameters(), f"classes.{name}.") for name in classes}
        return VehicleParameters(self.common(), enabled, thresholds)

    def unknown(self, cameras: Sequence[str], classes: Sequence[str]) -> list[str]:
        """One sentence for each parameter that was given and that the node does not have."""
        known = [
            *(name for name, _, _ in flatten(Parameters())),
            *(n for c in cameras for n, _, _ in flatten(CameraParameters(), f"cameras.{c}.")),
            *(n for c in classes for n, _, _ in flatten(ClassParameters(), f"classes.{c}.")),
        ]
        return [
            why_unknown(name, known, cameras)
            for name in self.values
            if name not in known and not name.startswith(_OF_ROS)
        ]

    def _tree(self, defaults: P, prefix: str) -> P:
        values = {
            name: _checked(name, self.values.get(name, default), default, spec)
            for name, default, spec in flatten(defaults, prefix)
        }
        return with_values(defaults, prefix, values)


def _as_ros(text: str) -> Any:
    """What a word without quotes is to ROS, which asks C and not YAML.

    Source: `get_value` of rcl_yaml_param_parser.
    """
    if not text:
        return None  # which ROS does not take
    if text in _YES or text in _NO:
        return text in _YES
    if found := _INTEGER.fullmatch(text):
        number = int(text, 16 if found["hex"] else 8 if found["octal"] else 10)
        if -(1 << 63) <= number < 1 << 63:
            return number
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    if _FLOAT.fullmatch(text):
        real = float.fromhex(text) if "x" in text.lower() else float(text)
        # What a double can hold too coarsely, or not at all, is a word.
        zero = not re.search("[1-9a-f]", re.split("[eEpP]", text)[0].lower().replace("0x", ""))
        if zero or sys.float_info.min <= abs(real) < math.inf:
            return real
    return text


def _sections(content: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Names of nodes, perhaps with wildcards, and what is given for them."""
    for key, value in content.items():
        if not isinstance(value, dict):
            continue
        if key == _PARAMETERS:
            yield prefix, value
        else:
            yield from _sections(value, f"{prefix}/{str(key).strip('/')}")


def _fits(pattern: str, node: str) -> bool:
    """Whether a section's name means a node: `*` is one part of a name, `**` any number."""
    parts = {"**": r"(?:/[^/]+)*", "*": "/[^/]+"}
    words = pattern.strip("/").split("/")
    wanted = "".join(parts.get(word, f"/{re.escape(word)}") for word in words)
    return re.fullmatch(wanted, "/" + node.strip("/")) is not None


def _flat(given: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _checked(name: str, value: Any, default: Any, spec: Spec) -> Any:
    """The value, where the node would take it."""
    # Exactly this type, as ROS converts none: 1 is no float, and true is no int.
    if type(value) is not type(default):
        raise ConfigError(
            f"parameter {name} must be of type {type(default).__name__}, for example "
            f"{default!r}, not {value!r}. {spec.text}"
        )
    check(name, value, spec)
    return value
