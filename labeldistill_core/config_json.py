# SPDX-License-Identifier: Apache-2.0
"""Configurations to JSON text and back, with every key and value checked."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import cattrs
from cattrs.v import format_exception

from labeldistill_core.errors import ConfigError
from labeldistill_core.names import plain_text

_MAX_MESSAGE = 2000
"""Characters that are told of a configuration that does not fit."""
_LARGEST = 1e300
"""Beyond it, integers of JSON are no floats."""
_LARGEST_INT = 2**32
"""Sizes and counts are far smaller, and a seed is below it."""

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


def from_mapping(kind: type[Config], mapping: Mapping[str, Any], file: str = "") -> Config:
    """A configuration from nested dictionaries, as YAML and JSON give them.

    Args:
        kind: class of the configuration.
        mapping: its values.
        file: that they were read from; errors then begin with it and name paths within it.

    Raises:
        ConfigError: naming each key that is unknown, missing or of the wrong type.
    """
    if not isinstance(mapping, Mapping):
        raise ConfigError(f"the configuration must be a mapping, not {type(mapping).__name__}")
    try:
        return _converter().structure(mapping, kind)
    except cattrs.ClassValidationError as error:
        found = cattrs.transform_error(error, "config", _describe)
        if file:
            parted = (one.rpartition(" @ config") for one in found)
            found = [
                f"{place.lstrip('.')}: {_choices(what)}".lstrip(": ") for what, _, place in parted
            ]
        causes = "; ".join(found)
        cut = causes if len(causes) <= _MAX_MESSAGE else f"{causes[:_MAX_MESSAGE]} ..."
        raise ConfigError(
            f"{file}: {cut}" if file else f"the configuration does not fit: {cut}"
        ) from error


def refuse_unknown_keys(kinds: Sequence[Any], mapping: Any, file: str, path: str = "") -> None:
    """Look for keys that no field has, before values are looked at.

    Args:
        kinds: dataclasses whose fields may stand in the mapping.
        mapping: nested dictionaries; what is no mapping has no keys.
        file: that it was read from.
        path: of the mapping in the file.

    Raises:
        ConfigError: naming the whole path of the first unknown key, and the field that is like it.
    """
    if not isinstance(mapping, Mapping):
        return
    hints = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    for key, value in mapping.items():
        place = f"{path}.{key}".lstrip(".")
        if key not in hints:
            near = get_close_matches(str(key), hints, n=1)
            meant = f"did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"{file}: {plain_text(place)} is no field; {meant}There are {', '.join(hints)}"
            )
        inner = [part for part in _parts(hints[key]) if is_dataclass(part)]
        if isinstance(value, Mapping) and inner:
            # Of alternatives, the one that has most of the keys is meant.
            best = max(inner, key=lambda kind: len({f.name for f in fields(kind)} & value.keys()))
            refuse_unknown_keys((best,), value, file, place)
        elif isinstance(value, list) and inner:
            for number, each in enumerate(value):
                refuse_unknown_keys(inner, each, file, f"{place}[{number}]")


def _choices(text: str) -> str:
    """What cattrs says of a value that is none of several, with the one that is like it."""
    said = re.fullmatch(r"(.*) not in literal typing\.Literal\[(.*)\]", text)
    if not said:
        return text
    near = get_close_matches(said[1], said[2].replace("'", "").split(", "), n=1)
    return f"{said[1]} is none of {said[2]}" + (f"; did you mean {near[0]}?" if near else "")


def _parts(hint: Any) -> list[Any]:
    """The types that a type is made of."""
    return [part for arg in get_args(hint) for part in _parts(arg)] or [hint]


@cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    for kind in (bool, int, float, str):
        converter.register_structure_hook(kind, _scalar)
    converter.register_structure_hook_func(_is_tuple, _tuple)
    return converter


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _tuple(values: Any, kind: Any) -> tuple[Any, ...]:
    # A text would be one of letters, and a mapping one of its keys.
    if not isinstance(values, (list, tuple)):
        raise ConfigError(f"{reprlib.repr(values)} is no list, as in [1, 2]")
    kinds = get_args(kind)
    if kinds[-1:] == (Ellipsis,):
        kinds = kinds[:1] * len(values)
    if len(values) != len(kinds):
        raise ConfigError(f"{reprlib.repr(values)} has {len(values)} values, not {len(kinds)}")
    found, errors = [], []
    for place, (value, inner) in enumerate(zip(values, kinds, strict=True)):
        try:
            found.append(_converter().structure(value, inner))
        except Exception as error:  # noqa: BLE001 - told all together, with their places
            note = cattrs.IterableValidationNote(f"in a list @ index {place}", place, inner)
            error.__notes__ = [*getattr(error, "__notes__", []), note]  # type: ignore[attr-defined]
            errors.append(error)
    if errors:
        raise cattrs.IterableValidationError("in a list", errors, kind)
    return tuple(found)


def _scalar(value: Any, kind: type) -> Any:
    # calling the type would make 128.7 to 128 and "false" to True
    fits = isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{reprlib.repr(value)} is no {kind.__name__}")
    # JSON's integers have any size, and Python reads NaN and Infinity where JSON has none
    if kind is float and not (abs(value) <= _LARGEST and math.isfinite(value)):
        raise ConfigError(f"{reprlib.repr(value)} is no finite number")
    if kind is int and abs(value) > _LARGEST_INT:
        raise ConfigError(f"{reprlib.repr(value)} is far too large")
    return kind(value)


def _describe(error: BaseException, kind: type | None) -> str:
    text = format_exception(error, kind)
    # our own checks are unknown to cattrs, and so is its check of choices
    return str(error) if text.startswith("unknown error") else text
