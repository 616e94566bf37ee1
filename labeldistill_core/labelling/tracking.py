# SPDX-License-Identifier: Apache-2.0
"""Boxes of key frames put together to objects over time.

Each box is compared with where the objects of its class should be: where they were in the frame
before, moved by the velocity that the box tells or, where it tells none, by that of the object so
far. The surest boxes choose first, and of equally sure ones the nearest. An object that is not
found goes on as it moved, and is given up after a while.

The library norfair does the same for points in images with Kalman filters, which here would
estimate anew what the detector tells already; scipy's optimal assignment is no better than the
greedy one where distances are far below those between objects.

Source: CenterPoint (Yin et al., CVPR 2021), section 4.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_NEAREST_M, _FARTHEST_M = 1.0, 5.0
"""Bounds of how far a box may be from where its object should be: about its length, as two objects
are no nearer; short ones are detected less exactly, and long ones no worse than this."""
_LENGTHS_PER_S = 8.0
"""Of its own, that an object may be ahead when nothing tells its velocity yet: 6 m/s of people and
36 m/s of cars."""
_LOST_S = 1.5
"""After which an object that was not found is given up; nuScenes tells no velocity over more."""
_STEP = 2**16
"""Pairs that are looked at between two looks at which are over."""


@dataclass(frozen=True, eq=False)
class DetectedFrame:
    """N boxes of a key frame, in a frame that does not move."""

    stamp_ns: int
    """Time of the key frame."""
    centers_m: NDArray[np.float64]
    """(N, 2) x and y."""
    velocities_m_s: NDArray[np.float64]
    """(N, 2) over ground; NaN where nothing tells it."""
    yaws_rad: NDArray[np.float64]
    """(N,) heading, counter-clockwise from x."""
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
    seen_ns: int
    seen_m: NDArray[np.float64]
    velocity_m_s: NDArray[np.float64]
    """NaN of what was seen once, by a box that told none."""

    def place_m(self, stamp_ns: int) -> NDArray[np.float64]:
        moved = np.nan_to_num(self.velocity_m_s) * (stamp_ns - self.seen_ns) / 1e9
        place: NDArray[np.float64] = self.seen_m + moved
        return place

    def see(self, stamp_ns: int, place_m: NDArray[np.float64], told: NDArray[np.float64]) -> None:
        if np.isnan(told).any() and stamp_ns > self.seen_ns:
            told = (place_m - self.seen_m) / ((stamp_ns - self.seen_ns) / 1e9)
        self.seen_ns, self.seen_m, self.velocity_m_s = stamp_ns, place_m, told


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
        objects = [o for o in objects if frame.stamp_ns - o.seen_ns <= _LOST_S * 1e9]
        numbers = np.full(len(frame.labels), -1, np.int64)
        for row, which in list(_pairs(frame, objects, before_ns)):
            found = objects[which]
            numbers[row] = found.number
            found.see(frame.stamp_ns, frame.centers_m[row], frame.velocities_m_s[row])
        for row in np.flatnonzero(numbers < 0).tolist():
            numbers[row] = count
            objects.append(
                _Object(
                    count,
                    int(frame.labels[row]),
                    frame.stamp_ns,
                    frame.centers_m[row],
                    frame.velocities_m_s[row],
                )  # fmt: skip
            )
            count += 1
        before_ns = frame.stamp_ns
        out.append(numbers)
    return out


def _pairs(
    frame: DetectedFrame, objects: Sequence[_Object], before_ns: int
) -> Iterator[tuple[int, int]]:
    """Boxes and objects that are the same."""
    if not objects or not len(frame.labels):
        return
    free = np.ones(len(objects), np.bool_)
    distances_m = _distances(frame, objects, before_ns)
    # From score to score rather than all pairs at once: of 2000 boxes in one place these would be
    # millions, and almost all detectors give each box a score of its own.
    order = np.argsort(-frame.scores, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(frame.scores[order])) + 1):
        near = [np.where(free, distances_m(row), np.inf) for row in rows.tolist()]
        for row, which in _nearest_first(rows, near, free):
            free[which] = False
            yield row, which


def _nearest_first(
    rows: NDArray[np.int64], near: Sequence[NDArray[np.float64]], free: NDArray[np.bool_]
) -> Iterator[tuple[int, int]]:
    """Equally sure boxes, those that are nearest to an object first.

    Args:
        rows: (N,) of the boxes.
        near: (M,) distances of each box to the objects, infinite where it is none of them.
        free: (M,) objects that are not found yet; changes while this runs.
    """
    which = [np.flatnonzero(np.isfinite(each)) for each in near]
    numbers = np.repeat(np.arange(len(rows)), [len(each) for each in which])
    columns = np.concatenate(which)
    by_distance = np.argsort(
        np.concatenate([each[own] for each, own in zip(near, which, strict=True)]), kind="stable"
    )
    waits = np.ones(len(rows), np.bool_)
    for part in np.split(by_distance, range(_STEP, len(by_distance), _STEP)):
        # Most pairs of a crowd are over before their turn.
        part = part[waits[numbers[part]] & free[columns[part]]]
        for number, column in zip(numbers[part].tolist(), columns[part].tolist(), strict=True):
            if waits[number] and free[column]:
                waits[number] = False
                yield int(rows[number]), column


def _distances(
    frame: DetectedFrame, objects: Sequence[_Object], before_ns: int
) -> Callable[[int], NDArray[np.float64]]:
    """What gives the (M,) distances of a box to the objects, infinite where it is none of them."""
    own = np.array([o.velocity_m_s for o in objects])
    places = np.array([o.place_m(before_ns) for o in objects])
    labels = np.array([o.label for o in objects])
    seen_s = (frame.stamp_ns - np.array([o.seen_ns for o in objects])) / 1e9

    def of_box(row: int) -> NDArray[np.float64]:
        told, length_m = frame.velocities_m_s[row], frame.lengths_m[row]
        moved = np.where(np.isnan(told), own, told) * (frame.stamp_ns - before_ns) / 1e9
        offsets = frame.centers_m[row] - places - np.nan_to_num(moved)
        distances: NDArray[np.float64] = np.linalg.norm(offsets, axis=1)
        # Without any velocity an object stood still, or drove where its box looks.
        unknown = np.isnan(moved).any(axis=1)
        ahead = np.array([np.cos(frame.yaws_rad[row]), np.sin(frame.yaws_rad[row])])
        along = (offsets * ahead).sum(axis=1)
        across = np.abs(offsets[:, 0] * ahead[1] - offsets[:, 1] * ahead[0])
        drove = (along > 0) & (along <= _LENGTHS_PER_S * length_m * seen_s) & (across <= _NEAREST_M)
        near = distances <= np.clip(length_m, _NEAREST_M, _FARTHEST_M)
        may_be = np.where(unknown, (distances <= _NEAREST_M) | drove, near)
        return np.where(may_be & (labels == frame.labels[row]), distances, np.inf)

    return of_box
