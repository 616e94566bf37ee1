# SPDX-License-Identifier: Apache-2.0
"""A vehicle with three cameras of its own, its recording, and ways to spoil it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from labeldistill_core.synthetic.dataset import WorldOptions
from labeldistill_ros.bags.reader import BagReader, Recorded
from labeldistill_ros.bags.writer import BagWriter

RIG = """
cameras:
  - {name: WIDE, size: [160, 96], field_of_view: 90, position: [1.8, 0.0, 1.4], rate: 10,
     distortion: {model: plumb_bob, coefficients: [-0.2, 0.05, 0.0, 0.0, 0.0]}, phase: -0.03}
  - {name: REAR, size: [128, 96], field_of_view: 130, position: [-0.5, 0.1, 1.2], rate: 20,
     distortion: {model: equidistant, coefficients: [-0.02, 0.0, 0.0, 0.0]}, yaw: 170, phase: -0.02}
  - {name: LEFT, size: [96, 64], intrinsics: {fx: 60, fy: 60, cx: 47, cy: 31},
     position: [1.0, 0.8, 1.3], yaw: 90, rate: 10, phase: -0.035}
lidar: {position: [0.8, 0.0, 1.9], yaw: -90}
"""
SCENE = "scene-0061"

Edit = Callable[[Recorded, Any], Any]
"""Takes a message, and gives it back changed, or None to leave it out, or a pair of the message and
another log time."""


def world_options(folder: Path, key_frames: int = 4) -> WorldOptions:
    """One scene through the sensors of this vehicle."""
    rig = folder / "rig.yaml"
    rig.write_text(RIG)
    return WorldOptions(1, key_frames, seed=2, rig=rig, workers=1)


def edited(bag: Path, out: Path, edit: Edit) -> Path:
    """A bag with every message as an edit has it."""
    with BagReader(bag) as reader, BagWriter(out) as writer:
        for recorded in reader.raw():
            found = edit(recorded, reader.decoded(recorded))
            if found is None:
                continue
            message, log_ns = found if isinstance(found, tuple) else (found, recorded.stamp_ns)
            writer.write(recorded.topic, recorded.msgtype, message, log_ns)
    return out


def without(*topics: str) -> Edit:
    """Leaves topics out."""
    return lambda recorded, message: None if recorded.topic in topics else message


def moved_stamps(topic: str, by_ns: int) -> Edit:
    """Sets the clock of a topic wrong."""

    def edit(recorded: Recorded, message: Any) -> Any:
        if recorded.topic == topic:
            stamp = message.header.stamp
            whole = stamp.sec * 10**9 + stamp.nanosec + by_ns
            stamp.sec, stamp.nanosec = divmod(whole, 10**9)
        return message

    return edit
