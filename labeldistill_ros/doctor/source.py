# SPDX-License-Identifier: Apache-2.0
"""What a bag or a live system gives to the checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labeldistill_ros.doctor.finding import Finding
from labeldistill_ros.doctor.observation import Observation
from labeldistill_ros.doctor.topics import Types
from labeldistill_ros.inputs.transforms import Lookup


@dataclass(frozen=True, eq=False)
class Source:
    """A vehicle that was observed."""

    seen: Observation
    """What came from its cameras and LiDARs."""
    types: Types
    """Types of all of its topics."""
    lookup: Lookup
    """Transforms at the stamps of the images."""
    refused: Sequence[str]
    """What the tree of transforms refused, in sentences."""
    silent: Mapping[str, str]
    """What is known of cameras whose topic is there and from which no image came."""
    clock: str
    """What the stamps were compared with, in words."""
    connections: Sequence[Finding] = ()
    """What only a live system has: QoS, publishers, a clock that does not run."""
