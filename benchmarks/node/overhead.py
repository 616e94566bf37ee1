# SPDX-License-Identifier: Apache-2.0
"""What the node adds to the detector: its time for a set beside that of the detector alone.

Alone, the same detector takes the same sets from the same JPEG bytes to boxes in the same process,
as offline evaluation does: images decoded in threads, then one call of `Detector.detect`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from labeldistill_core.cameras import CameraCalibration, CameraView, FrameSet
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.frames import Transform
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.node.worker import SingleSlotWorker
from labeldistill_ros.sets.arrival import ClosedSet

_SETS = 60
"""How many sets go through the detector alone."""


@dataclass(frozen=True)
class Alone:
    """Milliseconds of one set."""

    decode: float
    """JPEG bytes to pixels, all cameras."""
    detector: float
    """The detector's own stages."""
    total: float
    """From JPEG bytes to boxes, milliseconds."""


class SeenSets:
    """The newest sets that the node processed, without their images."""

    def __init__(self) -> None:
        """Start empty."""
        self._sets: deque[tuple[int, list[tuple[CameraCalibration, int, Transform]]]]
        self._sets = deque(maxlen=_SETS)

    def add(self, frames: FrameSet) -> None:
        """Remember stamps, calibrations and poses."""
        views = [(v.calibration, v.stamp_ns, v.fixed_from_ego) for v in frames.views]
        self._sets.append((frames.stamp_ns, views))

    def alone(self, detector: Detector, jpeg: bytes) -> list[Alone]:
        """Put the sets through the detector; only those with a whole history, if there are any.

        Args:
            detector: that of the node, which must be inactive.
            jpeg: what every camera sent.
        """
        # The node's history is of the same sets, so that they would seem to go back in time.
        detector.reset("alone")
        rows: list[Alone] = []
        whole: list[Alone] = []
        with ThreadPoolExecutor(min(6, os.cpu_count() or 1)) as threads:
            for stamp_ns, views in self._sets:
                start_s = time.perf_counter()
                images = threads.map(decode_jpeg, [jpeg] * len(views))
                taken = zip(views, images, strict=True)
                frames = FrameSet(stamp_ns, tuple(CameraView(c, t, i, p) for (c, t, p), i in taken))
                decoded_s = time.perf_counter()
                found = detector.detect(frames)
                total_ms = (time.perf_counter() - start_s) * 1e3
                own_ms = sum(found.timings_ms.values())
                rows.append(Alone((decoded_s - start_s) * 1e3, own_ms, total_ms))
                # Past frames are pooled too, so that a set without them is too cheap.
                if found.history_valid == len(detector.config.history_s):
                    whole.append(rows[-1])
        return whole or rows


@contextmanager
def work_timed(
    worker: SingleSlotWorker[ClosedSet], processed: Callable[[], int]
) -> Iterator[list[float]]:
    """Milliseconds that a node's worker spends on each set, all that it does included.

    Args:
        worker: of an active node.
        processed: how many sets went through the detector; the others are not counted.
    """
    times_ms: list[float] = []
    work = worker.work

    def timed(closed: ClosedSet) -> None:
        before, start_s = processed(), time.perf_counter()
        work(closed)
        if processed() > before:
            times_ms.append((time.perf_counter() - start_s) * 1e3)

    worker.work = timed
    try:
        yield times_ms
    finally:
        worker.work = work


def overhead(work_ms: list[float], detector_ms: list[float], alone: list[Alone]) -> dict[str, Any]:
    """Medians, and two shares of the node's time for a set.

    Args:
        work_ms: of the node's worker, whole sets.
        detector_ms: of the detector's stages within it.
        alone: of the detector alone.
    """
    whole, within = median(work_ms), median(detector_ms)
    offline = median(row.total for row in alone)
    return {
        "set_ms": whole,
        "detector_ms": within,
        "alone_ms": {
            "decode": median(row.decode for row in alone),
            "detector": median(row.detector for row in alone),
            "total": offline,
        },
        "added_ms": whole - offline,
        "added_share": (whole - offline) / whole,
        "share_outside_detector": (whole - within) / whole,
    }
