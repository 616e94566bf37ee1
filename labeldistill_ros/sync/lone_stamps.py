# SPDX-License-Identifier: Apache-2.0
"""Stamps that one message has by itself.

As that of a driver's first message, before its clock was set, or where a bit flipped. They would
stretch the drive to decades, in which every other sensor is silent.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NEIGHBOURS = 11
"""Messages, in the order of recording, of which more than half have to be right."""
_APART_NS = 1_000_000_000
_WIDTHS = 2.0
"""Of the middle half of the neighbours; the first of messages at one rate is half a width away."""


def lone_stamps(stamps_ns: NDArray[np.int64], logs_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) whether a message's stamp is not of the time of its neighbours.

    Stamps differ from those around them after a pause as well, and what they are behind the
    recording differs where the recorder was busy. A stamp that is wrong differs in both.

    Args:
        stamps_ns: (N,) of the messages, in the order in which they were recorded.
        logs_ns: (N,) when they were recorded.
    """
    # In floats, since the difference of two stamps may be longer than 64 bits tell.
    stamps = stamps_ns.astype(np.float64)
    late = logs_ns.astype(np.float64) - stamps
    found = np.zeros(len(stamps), np.bool_)
    if len(stamps) < 3 or np.abs(np.diff(late)).max() <= _APART_NS:
        return found
    return _apart(stamps) & _apart(late)


def _apart(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) which values are far from the middle half of their neighbours."""
    size = min(_NEIGHBOURS, len(values))
    windows = np.sort(np.lib.stride_tricks.sliding_window_view(values, size), axis=1)
    low, high = windows[:, -(-(size - 1) // 4)], windows[:, 3 * (size - 1) // 4]
    # The first and the last messages have their neighbours on one side.
    window = np.clip(np.arange(len(values)) - size // 2, 0, len(windows) - 1)
    low, high = low[window], high[window]
    allowed = _APART_NS + _WIDTHS * (high - low)
    return (values < low - allowed) | (values > high + allowed)
