# SPDX-License-Identifier: Apache-2.0
"""When /diagnostics complains."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Times beyond which /diagnostics speaks of a warning or an error."""

    camera_timeout_s: float
    """Seconds without an image after which a camera is an ERROR."""
    max_processing_time_s: float
    """Seconds from a set's last image to its boxes; a 95th percentile above is a WARN."""
    max_delay_s: float
    """Seconds without boxes, while images come, after which processing is an ERROR."""
