# SPDX-License-Identifier: Apache-2.0
"""Boxes of key frames put together to objects over time.

Each box is moved back to the frame before by its own velocity, and belongs to the nearest object of
its class that is near enough; the surest boxes choose first. An object that is not found goes on as
it moved, and is given up after a while.

The library norfair does the same for points in images with Kalman filters, which here would
estimate anew what the detector tells already; scipy's optimal assignment is no better than the
greedy one where distances are far below those between objects.

Source: CenterPoint (Yin et al., CVPR 2021), section 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NEAREST_M, _FARTHEST_M = 1.0, 5.0
"""Bounds of how far a box may be from where its object should be: about its length, as two objects
are no nearer; short ones are detected less exactly, and long ones no worse than this."""
_LOST_S = 1.5
"""After which an object that was not found is given up; nuScenes tells no velocity over more."""


@dataclass(frozen=True, eq=False)
class DetectedFrame:
    """N boxes of a key frame, in a frame that does not move."""

    stamp_ns: int
    """Time of the key frame."""
    centers_m: NDArray[np.float64]
    """(N, 2) x and y."""
    velocities_m_s: NDArray[np.float64]
    """(N, 2) over ground; NaN counts as standing still."""
    labels: NDArray[np.int64]
    """(N,) classes."""
    lengths_m: NDArray[np.float64]
    """(N,) along the heading."""
    scores: NDArray[np.float64]
    """(N,) how sure the detector is."""


@dataclass
class _Object:
    number: int
    label: int
    center_m: NDArray[np.float64]
    velocity_m_s: NDArray[np.float64]
    seen_ns: int


def track(frames: Sequence[DetectedFrame]) -> list[NDArray[np.int64]]:
    """Number of the object of each box, frame by frame.

    Args:
        frames: of one drive, in the order of time.

    Returns:
        (N,) for each frame; a number stands for one object in all of them.
    """
    objects: list[_Object] = []
    count, out = 0, []
    before_ns = frames[0].stamp_ns if frames else 0
    for frame in frames:
        elapsed_s = (frame.stamp_ns - before_ns) / 1e9
        before_ns = frame.stamp_ns
        objects = [o for o in objects if frame.stamp_ns - o.seen_ns <= _LOST_S * 1e9]
        velocities = np.nan_to_num(frame.velocities_m_s, nan=0.0)
        earlier = frame.centers_m - velocities * elapsed_s
        numbers = np.empty(len(frame.labels), np.int64)
        free = list(objects)
        for row in np.argsort(-frame.scores, kind="stable").tolist():
            found = _nearest(free, frame, row, earlier[row])
            if found is None:
                found = _Object(count, int(frame.labels[row]), earlier[row], velocities[row], 0)
                objects.append(found)
                count += 1
            else:
                free.remove(found)
            numbers[row] = found.number
            found.center_m, found.velocity_m_s = frame.centers_m[row], velocities[row]
            found.seen_ns = frame.stamp_ns
        for lost in free:
            lost.center_m = lost.center_m + lost.velocity_m_s * elapsed_s
        out.append(numbers)
    return out


def _nearest(
    objects: list[_Object], frame: DetectedFrame, row: int, earlier: NDArray[np.float64]
) -> _Object | None:
    same = [o for o in objects if o.label == frame.labels[row]]
    if not same:
        return None
    distances = np.linalg.norm(np.array([o.center_m for o in same]) - earlier, axis=1)
    limit_m = float(np.clip(frame.lengths_m[row], _NEAREST_M, _FARTHEST_M))
    best = int(distances.argmin())
    return same[best] if distances[best] <= limit_m else None
