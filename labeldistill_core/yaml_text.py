# SPDX-License-Identifier: Apache-2.0
"""YAML that people write, read so that no text costs more than its length or ends in a traceback.

Source: YAML 1.1 as PyYAML reads it, but for numbers with an exponent, and without aliases.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import yaml

from labeldistill_core.errors import ConfigError
from labeldistill_core.names import plain_text

_ODD = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_LONGEST = 500
"""Of a sentence about a text of others."""
_STRING, _PLAIN = "tag:yaml.org,2002:str", "!plain"
"""Tags of a text, and of what a reader has rules of its own for."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain values, without aliases and without keys that stand twice."""

    plain: Callable[[str], Any] | None = None

    def construct_plain(self, node: yaml.ScalarNode) -> Any:
        assert self.plain
        return self.plain(self.construct_scalar(node))

    def compose_node(self, parent: Any, index: Any) -> Any:
        # A few lines of them stand for gigabytes, or for a value that holds itself.
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise ConfigError(f"an alias (*) stands in line {line}: write out what it stands for")
        told = getattr(self.peek_event(), "tag", None)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        if self.plain and isinstance(node, yaml.ScalarNode):
            is_text = told == _STRING or node.style in ("'", '"')
            node.tag = _STRING if is_text else _PLAIN
        return node

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        if isinstance(text, str):
            text.encode()  # half of a pair, as an escape may write it, is no character
        return text

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        counts = Counter(key.value for key, _ in node.value if isinstance(key.value, str))
        if twice := [key for key, count in counts.items() if count > 1]:
            raise ConfigError(
                f"the key {plain_text(twice[0])} stands twice, the last time in line "
                f"{node.end_mark.line}"
            )
        for key, _ in node.value:
            if key.tag == _PLAIN:
                key.tag = _STRING  # a name, whatever it looks like
        return super().construct_mapping(node, deep)


_Loader.add_constructor(_PLAIN, _Loader.construct_plain)
# PyYAML follows YAML 1.1, in which a number with an exponent needs a point and a sign.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parsed_yaml(text: str, plain: Callable[[str], Any] | None = None) -> Any:
    """Plain values of one document.

    Args:
        text: of the document.
        plain: what a value is that has no quotes, for readers with rules of their own, which look
            at no tag but that of a text, and to which keys are names; as in YAML 1.1 when None.

    Raises:
        ConfigError: it is no such document; says why in one line that can be printed.
    """
    try:
        loader = _Loader(text)
        loader.plain = plain
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except RecursionError as error:
        raise ConfigError("it is nested too deeply") from error
    # Values that look like dates and numbers and are none, or have the tag of another type, lead to
    # errors of Python's own types.
    except (
        yaml.YAMLError, ValueError, OverflowError, LookupError, AttributeError, TypeError,
    ) as error:  # fmt: skip
        raise ConfigError(plain_text(" ".join(str(error).split()), _LONGEST)) from error


def quoted(text: str) -> str:
    """Text as YAML reads it back, whatever its characters: `12` stays text, ` #` is no comment."""
    # What YAML takes for the end of a line, or for no text at all.
    return _ODD.sub(lambda odd: f"\\u{ord(odd[0]):04x}", json.dumps(text, ensure_ascii=False))
