# SPDX-License-Identifier: Apache-2.0
"""What configurations check when they are built."""

from __future__ import annotations

from labeldistill_core.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Refuse what a network cannot be made of.

    Raises:
        ConfigError: with the message, unless the condition holds.
    """
    if not condition:
        raise ConfigError(message)


def require_positive(name: str, *values: float) -> None:
    """Refuse sizes and counts of which a network cannot be made.

    Raises:
        ConfigError: a value is not positive and finite, or there is none.
    """
    positive = all(0 < value < float("inf") for value in values or (0.0,))
    require(positive, f"{name} is {', '.join(map(str, values)) or 'empty'}: use positive numbers")
