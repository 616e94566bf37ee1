# SPDX-License-Identifier: Apache-2.0
"""Images of a drive that were taken together, by the node's own synchronizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from labeldistill_ros.bags.dataset.survey import Stream
from labeldistill_ros.parameters import CameraParameters, Parameters, VehicleParameters
from labeldistill_ros.sets.options import sync_options
from labeldistill_ros.sync.synchronizer import CameraSet, Synchronizer


def image_sets(streams: Mapping[str, Stream]) -> NDArray[np.int64]:
    """Complete sets, in the order of time.

    Args:
        streams: of the images, by camera.

    Returns:
        (S, N) stamps in nanoseconds, a column for each camera in the order of the streams.
    """
    cameras = list(streams)
    vehicle = VehicleParameters(Parameters(), {c: CameraParameters() for c in cameras}, {})
    synchronizer: Synchronizer[None] = Synchronizer(sync_options(vehicle))
    stamps = np.concatenate([streams[c].stamps_ns for c in cameras])
    logs = np.concatenate([streams[c].logs_ns for c in cameras])
    whose = np.repeat(np.arange(len(cameras)), [len(streams[c].stamps) for c in cameras])
    found: list[Sequence[int]] = []

    def keep(sets: Sequence[CameraSet[None]]) -> None:
        for images in sets:
            if not images.missing:
                found.append([images.frames[camera].stamp_ns for camera in cameras])

    def until(end_s: float) -> None:
        while (due_s := synchronizer.next_deadline_s()) is not None and due_s <= end_s:
            keep(synchronizer.poll(due_s))

    # Of images with one log time, as a converter or a slow clock gives, by the time of exposure.
    order = np.lexsort((stamps, logs))
    first_ns = int(logs[order[0]]) if len(order) else 0
    # The time of recording is the steady clock: deadlines pass as they did on the vehicle.
    for i, stamp_ns, log_ns in zip(
        whose[order].tolist(), stamps[order].tolist(), logs[order].tolist(), strict=True
    ):
        now_s = (log_ns - first_ns) / 1e9
        until(now_s)
        keep(synchronizer.add(cameras[i], stamp_ns, None, now_s).sets)
    until(math.inf)
    sets = np.array(found, np.int64).reshape(-1, len(cameras))
    return sets[np.argsort(sets.mean(axis=1), kind="stable")]
