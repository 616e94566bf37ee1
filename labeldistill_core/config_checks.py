# SPDX-License-Identifier: Apache-2.0
"""What configurations check when they are built."""

from __future__ import annotations

from typing import Any

from labeldistill_core.errors import ConfigError


def require(condition: bool, message: str) -> None:
    """Refuse what a network cannot be made of.

    Raises:
        ConfigError: with the message, unless the condition holds.
    """
    if not condition:
        raise ConfigError(message)


def require_positive(name: str, *values: float) -> None:
    """Refuse sizes and counts of which a network cannot be made."""
    positive = all(0 < value < float("inf") for value in values or (0.0,))
    require(positive, f"{name} is {', '.join(map(str, values)) or 'empty'}: use positive numbers")


def require_reach(grid: Any, center_limit_m: tuple[float, float]) -> None:
    """Refuse limits of decoding by which boxes would be lost that a grid has cells for.

    Args:
        grid: a `BevGrid`.
        center_limit_m: see `DecodeConfig`.
    """
    flat_m, up_m = max(map(abs, grid.x_m + grid.y_m)), max(map(abs, grid.z_m))
    require(
        flat_m <= center_limit_m[0] and up_m <= center_limit_m[1],
        f"decode.center_limit_m is {center_limit_m}, and the grid reaches {flat_m:g} m far and "
        f"{up_m:g} m up or down: boxes beyond the limit are dropped, so let it be at least that",
    )
