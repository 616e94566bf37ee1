# SPDX-License-Identifier: Apache-2.0
"""Names as ROS has them: of sensors, as parts of topics and frames, and of frames."""

from __future__ import annotations

import re
from collections.abc import Iterable

from labeldistill_core.names import shown


def frame_name(name: str) -> str:
    """A frame's name as tf2 has it: it takes `/map` for `map`, and publishes no such name."""
    return name.removeprefix("/")


def ros_name(sensor: str) -> str:
    """A sensor's name as ROS can have it, such as `cam_front` for `CAM_FRONT`.

    In lower case; `_` for what is neither letter nor digit, and before a digit at the start.
    """
    name = re.sub(r"[^a-z0-9_]", "_", sensor.lower())
    return f"_{name}" if name[:1].isdigit() else name


def ros_names(sensors: Iterable[str]) -> dict[str, str]:
    """`ros_name` of each sensor, with a number behind it where another has the same already."""
    found: dict[str, str] = {}
    for sensor in sensors:
        name, count = ros_name(sensor), 1
        while name in found.values():
            count += 1
            name = f"{ros_name(sensor)}_{count}"
        found[sensor] = name
    return found


def fault_of_names(sensors: Iterable[str]) -> str:
    """Which sensors would have one name in ROS, and their messages one topic; empty where none."""
    known: dict[str, str] = {}
    for sensor in sensors:
        first = known.setdefault(ros_name(sensor), sensor)
        if first != sensor:
            return f"{shown(first)} and {shown(sensor)} would both be {ros_name(sensor)} in ROS"
    return ""
