# SPDX-License-Identifier: Apache-2.0
"""Which instants of a drive become key frames, and which of them form a scene."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEY_FRAME_PERIOD_S = 0.5
"""As nuScenes, whose metrics, histories and sweeps count in it."""
_LONGEST_GAP_S = 2.0
"""Between key frames of a scene; where more is missing, another scene begins."""
_APART_NS = 50_000_000
"""Between labels and their scan at most: half a turn of the slowest LiDAR, in which what drives at
10 m/s moves by half a metre."""
_SLACK = 0.1
"""Share by which a scene may be longer than asked, rather than leaving a short one behind."""

Times = NDArray[np.int64]


@dataclass(frozen=True)
class KeyFrame:
    """A sample: one image of each camera, and what else there is of its time."""

    stamp_ns: int
    """Time of the sample: that of its scan, or of its labels where there is no LiDAR, or the mean
    of its images."""
    images_ns: tuple[int, ...]
    """Stamp of each camera's image."""
    scan_ns: int | None
    """Stamp of the scan nearest to the images; None where none is near."""
    labels_ns: int | None
    """Stamp of the boxes; None where the drive has no labels."""


def period_ns(stamps_ns: Times) -> float:
    """Median time between messages; infinite for fewer than two."""
    return float(np.median(np.diff(np.sort(stamps_ns)))) if len(stamps_ns) > 1 else math.inf


def choose_key_frames(
    sets: NDArray[np.int64], scans: Times | None, labels: Times | None
) -> list[KeyFrame]:
    """Key frames every half second, or as often as there are sets or labels.

    Args:
        sets: (S, N) stamps of images that were taken together, in the order of time.
        scans: of the LiDAR, sorted; None without one.
        labels: of the boxes, sorted; None where the drive has none, as every key frame then has no
            boxes.
    """
    middles = sets.mean(axis=1) if len(sets) else np.empty(0)
    if scans is not None:
        period = min(period_ns(scans), KEY_FRAME_PERIOD_S * 1e9)
    else:
        period = min(period_ns(middles.astype(np.int64)), KEY_FRAME_PERIOD_S * 1e9)
    found = []
    used: set[int] = set()
    # Without labels the images choose the instants; with labels only those that were labelled are
    # worth keeping.
    if labels is None:
        for row, middle in enumerate(middles.tolist()):
            scan_ns = None if scans is None else nearest(scans, middle, period)
            # The scan's time, as nuScenes': boxes are then where the points are, and not where the
            # vehicle's motion has carried them.
            stamp_ns = round(middle) if scan_ns is None else scan_ns
            found.append(KeyFrame(stamp_ns, tuple(sets[row].tolist()), scan_ns, None))
    else:
        for label_ns in labels.tolist():
            scan_ns = (
                None if scans is None else nearest(scans, label_ns, min(period / 2, _APART_NS))
            )
            stamp_ns = label_ns if scan_ns is None else scan_ns
            middle = nearest(middles, stamp_ns, max(period, 1e8))
            if middle is None:
                continue
            row = int(np.searchsorted(middles, middle))
            if row not in used:  # labels may come more often than images
                used.add(row)
                found.append(KeyFrame(stamp_ns, tuple(sets[row].tolist()), scan_ns, label_ns))
    return _thinned(found)


def nearest(stamps: NDArray[Any], to: float, farthest: float) -> int | None:
    """The entry nearest to a time; None where none is near."""
    if not len(stamps):
        return None
    right = int(np.searchsorted(stamps, to))
    near = stamps[max(0, right - 1) : right + 1]
    best = near[np.abs(near - to).argmin()]
    return best.item() if abs(best - to) <= farthest else None


def _thinned(frames: Sequence[KeyFrame]) -> list[KeyFrame]:
    """Those that are about half a second apart, each with a scan of its own."""
    steps = period_ns(np.array([f.stamp_ns for f in frames], np.int64))
    # Half a step less, so that of two that are about as near to half a second the first counts.
    least_ns = KEY_FRAME_PERIOD_S * 1e9 - min(steps, KEY_FRAME_PERIOD_S * 1e9) / 2
    kept: list[KeyFrame] = []
    for frame in frames:
        if not kept or frame.stamp_ns - kept[-1].stamp_ns >= max(least_ns, 1):
            kept.append(frame)
    return kept


def cut(frames: Sequence[KeyFrame], longest_s: float) -> list[list[KeyFrame]]:
    """Scenes: whole where nothing is missing, and of about equal length where that is too long."""
    runs: list[list[KeyFrame]] = []
    for frame in frames:
        gap_ns = frame.stamp_ns - runs[-1][-1].stamp_ns if runs else math.inf
        if gap_ns > _LONGEST_GAP_S * 1e9:
            runs.append([])
        runs[-1].append(frame)
    scenes = []
    for run in runs:
        length_s = (run[-1].stamp_ns - run[0].stamp_ns) / 1e9
        pieces = max(1, math.ceil(length_s / longest_s - _SLACK))
        # Pieces of equal length: one of the longest and a stub would make a scene without a
        # history.
        edges = np.linspace(0, len(run), pieces + 1).round().astype(int).tolist()
        scenes += [run[a:b] for a, b in zip(edges, edges[1:], strict=False) if b > a]
    return scenes
