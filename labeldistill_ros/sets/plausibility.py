# SPDX-License-Identifier: Apache-2.0
"""Mountings that no vehicle has. They are told and not refused: a rig may be odd on purpose.

Frames: a camera's optical frame has z forward and y down; `ego` has x forward, y left, z up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import atan2, degrees
from typing import Any

import numpy as np

from labeldistill_core.cameras import CameraView

_STEEP = 0.8
"""Sine of an optical axis' elevation, 53 degrees; cameras for driving look at the road ahead."""
_ASIDE = 0.5
"""Cosine of 60 degrees: a camera that looks further away from what its name says is another's."""
_SAME_PLACE_M = 0.01
_SAME_AXIS = 0.99
"""Cosine of 8 degrees."""
_SIDES = {"FRONT": (1.0, 0.0), "BACK": (-1.0, 0.0), "LEFT": (0.0, 1.0), "RIGHT": (0.0, -1.0)}
"""Direction in `ego`, forward and left, by the word in a camera's name."""


def implausible(views: Sequence[CameraView], optical_frames: Mapping[str, str]) -> dict[str, str]:
    """What is odd about the cameras' mountings.

    Args:
        views: calibrated cameras of one set.
        optical_frames: ROS name of each camera's frame.

    Returns:
        A sentence by camera, beginning with its name and a colon.
    """
    found: dict[str, str] = {}
    axes = {view.calibration.name: _axis(view) for view in views}
    for a, b in combinations(views, 2):
        first, second = a.calibration.name, b.calibration.name
        frame = optical_frames[second]
        if frame == optical_frames[first]:
            found[second] = (
                f"{second}: its images come in the frame {frame!r} of {first}: give each camera "
                f"its own, in the driver or by cameras.{second}.frame_id"
            )
        elif _distance_m(a, b) < _SAME_PLACE_M and axes[first] @ axes[second] > _SAME_AXIS:
            found[second] = (
                f"{second}: it is mounted where {first} is and looks the same way: correct the "
                f"transform of {frame!r}"
            )
    for camera, axis in axes.items():
        frame = optical_frames[camera]
        if abs(axis[2]) > _STEEP:
            side = "upwards" if axis[2] > 0 else "downwards"
            found[camera] = (
                f"{camera}: its optical axis points {side}: {frame!r} seems to be a body frame (x "
                "forward, z up); name the optical one (z forward, y down) in the driver or by "
                f"cameras.{camera}.frame_id"
            )
        elif camera not in found and (named := _named_direction(camera)) is not None:
            flat = axis[:2] / np.linalg.norm(axis[:2])
            if flat @ named < _ASIDE:
                turned_deg = round(degrees(atan2(axis[1], axis[0])))
                side = "right" if turned_deg < 0 else "left"
                found[camera] = (
                    f"{camera}: it looks {abs(turned_deg)} degrees to the {side} of straight "
                    f"ahead, which its name denies: is {frame!r} another camera's frame, or are "
                    "two topics swapped?"
                )
    return found


def _axis(view: CameraView) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(3,), where the camera looks, in `ego`."""
    return np.asarray(view.calibration.ego_from_camera.rotation[:, 2], dtype=np.float64)


def _distance_m(a: CameraView, b: CameraView) -> float:
    first, second = a.calibration.ego_from_camera, b.calibration.ego_from_camera
    return float(np.linalg.norm(first.translation - second.translation))


def _named_direction(camera: str) -> np.ndarray[Any, np.dtype[np.float64]] | None:
    """(2,), forward and left; None where the name tells none."""
    words = [_SIDES[word] for word in camera.upper().split("_") if word in _SIDES]
    total = np.sum(words, axis=0) if words else np.zeros(2)
    length = float(np.linalg.norm(total))
    return total / length if length else None
