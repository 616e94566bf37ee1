# SPDX-License-Identifier: Apache-2.0
"""Configurations as YAML text whose comments are the docstrings of the fields."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import yaml

_WIDTH = 100


def commented(config: Any, mapping: Mapping[str, Any], indent: int = 0) -> str:
    """YAML of a configuration.

    Args:
        config: a dataclass; its fields' docstrings become comments.
        mapping: its values as plain ones; a field that is not in it is left out.
        indent: columns before each line.
    """
    said, lines = _docstrings(type(config)), []
    space = " " * indent
    for field in fields(config):
        if field.name not in mapping:
            continue
        value, plain = getattr(config, field.name), mapping[field.name]
        wrapped = textwrap.wrap(said.get(field.name, ""), _WIDTH - indent - 2)
        lines += [f"{space}# {line}" for line in wrapped]
        if is_dataclass(value):
            lines += [f"{space}{field.name}:", commented(value, plain, indent + 2).rstrip("\n")]
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            lines.append(f"{space}{field.name}:")
            # The first one says what all of them mean.
            about = _docstrings(type(value[0]))
            for key, text in about.items():
                lines += textwrap.wrap(
                    f"{key}: {text}", _WIDTH, initial_indent=f"{space}# ",
                    subsequent_indent=f"{space}#   ",
                )  # fmt: skip
            lines += [f"{space}- {_flow(one)}" for one in plain]
        else:
            lines.append(f"{space}{field.name}: {_flow(plain)}")
    return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """A value in one line."""
    text = yaml.safe_dump(
        _plain(value), default_flow_style=True, width=float("inf"), sort_keys=False
    )
    return text.removesuffix("...\n").strip()


def _plain(value: Any) -> Any:
    """Lists for tuples, of which YAML knows nothing."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def _docstrings(kind: type) -> dict[str, str]:
    """Docstring of each field of a dataclass, those that it inherits first, in one line each."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not is_dataclass(base):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for entry, text in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name):
                value = text.value if isinstance(text, ast.Expr) else None
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found[entry.target.id] = " ".join(value.value.split())
    return found
