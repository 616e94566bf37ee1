# SPDX-License-Identifier: Apache-2.0
"""YAML that people write, read so that no text costs more than its length or ends in a traceback.

Source: YAML 1.1 as PyYAML reads it, but for numbers with an exponent, and without aliases.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import yaml

from labeldistill_core.errors import ConfigError
from labeldistill_core.names import plain_text

_LONGEST = 500
"""Of a sentence about a text of others."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain values, without aliases and without keys that stand twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        # A few lines of them stand for gigabytes, or for a value that holds itself.
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]
            raise ConfigError(f"an alias (*) stands in line {line}: write out what it stands for")
        return super().compose_node(parent, index)

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
        return super().construct_mapping(node, deep)


# PyYAML follows YAML 1.1, in which a number with an exponent needs a point and a sign.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parsed_yaml(text: str) -> Any:
    """Plain values of one document.

    Raises:
        ConfigError: it is no such document; says why in one line that can be printed.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except RecursionError as error:
        raise ConfigError("it is nested too deeply") from error
    # Values that look like dates and numbers and are none, or have the tag of another type, lead to
    # errors of Python's own types.
    except (
        yaml.YAMLError, ValueError, OverflowError, LookupError, AttributeError, TypeError,
    ) as error:  # fmt: skip
        raise ConfigError(plain_text(" ".join(str(error).split()), _LONGEST)) from error
