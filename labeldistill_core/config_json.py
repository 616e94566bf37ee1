# SPDX-License-Identifier: Apache-2.0
"""Configurations to JSON text and back, with every key and value checked."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar

import cattrs
from cattrs.v import format_exception

from labeldistill_core.errors import ConfigError

_MAX_MESSAGE = 2000
"""Characters that are told of a configuration that does not fit."""
_LARGEST = 1e300
"""Beyond it, integers of JSON are no floats."""

Config = TypeVar("Config")


def to_json(config: Any) -> str:
    """A configuration as JSON text, which `from_json` reads."""
    return json.dumps(to_mapping(config), indent=2)


def to_mapping(config: Any) -> dict[str, Any]:
    """A configuration as nested dictionaries, which `from_mapping` reads."""
    mapping: dict[str, Any] = _converter().unstructure(config)
    return mapping


def from_json(kind: type[Config], text: str) -> Config:
    """Read what `to_json` wrote.

    Raises:
        ConfigError: the text is no JSON, or a key is unknown, missing or of the wrong type.
    """
    try:
        return from_mapping(kind, json.loads(text))
    except ValueError as error:  # also an integer of too many digits
        raise ConfigError(f"the configuration is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ConfigError("the configuration is nested too deeply") from error


def from_mapping(kind: type[Config], mapping: Mapping[str, Any]) -> Config:
    """A configuration from nested dictionaries, as YAML and JSON give them.

    Raises:
        ConfigError: naming each key that is unknown, missing or of the wrong type.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"the configuration must be a mapping, not {type(mapping).__name__}")
    try:
        return _converter().structure(mapping, kind)
    except cattrs.ClassValidationError as error:
        causes = "; ".join(cattrs.transform_error(error, "config", _describe))
        cut = causes if len(causes) <= _MAX_MESSAGE else f"{causes[:_MAX_MESSAGE]} ..."
        raise ConfigError(f"the configuration does not fit: {cut}") from error


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (bool, int, float, str):
        converter.register_structure_hook(kind, _scalar)
    return converter


def _scalar(value: Any, kind: type) -> Any:
    # calling the type would make 128.7 to 128 and "false" to True
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{reprlib.repr(value)} is no {kind.__name__}")
    # JSON's integers have any size, and Python reads NaN and Infinity where JSON has none
    if kind is float and not (abs(value) <= _LARGEST and math.isfinite(value)):
        raise ConfigError(f"{reprlib.repr(value)} is no finite number")
    return kind(value)


def _describe(error: BaseException, kind: type | None) -> str:
    text = format_exception(error, kind)
    # our own checks are unknown to cattrs, and so is its check of choices
    return str(error) if text.startswith("unknown error") else text
