# SPDX-License-Identifier: Apache-2.0
"""What each message of a scene becomes: an image or scan of a key frame, or one between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labeldistill_core.data.tables.columns import LIDAR
from labeldistill_ros.bags.dataset.key_frames import nearest, period_ns
from labeldistill_ros.bags.dataset.options import DatasetOptions
from labeldistill_ros.bags.dataset.plan import Drive, ScenePlan, posed


@dataclass(frozen=True)
class Role:
    """What a message becomes."""

    sensor: str
    """Channel of the tables."""
    is_key: bool
    """Whether it belongs to a sample itself; otherwise it lies between two."""
    sample: int
    """Number of that sample, or of the one that follows."""


def roles_of(drive: Drive, scene: ScenePlan, options: DatasetOptions) -> dict[str, dict[int, Role]]:
    """Roles by topic and stamp, for the cameras, the main LiDAR and the radars."""
    frames = scene.key_frames
    keys: dict[str, tuple[str, list[int | None]]] = {
        camera.topic: (name, [f.images_ns[i] for f in frames])
        for i, (name, camera) in enumerate(drive.cameras.items())
    }
    if drive.lidars:
        keys[drive.lidars[0].topic] = (LIDAR, [frame.scan_ns for frame in frames])
    told = posed(drive)
    for name, radar in drive.radars.items():
        sweeps = np.sort(drive.survey.streams[radar.topic].stamps_ns)
        turn_ns, sweeps = period_ns(sweeps), sweeps[told(sweeps)]
        # Radars run freely: the sweep nearest to the sample, each once.
        near = [nearest(sweeps, frame.stamp_ns, min(turn_ns, 1e8)) for frame in frames]
        keys[radar.topic] = (name, near)
    roles = {}
    for topic, (sensor, stamps) in keys.items():
        own = {s: Role(sensor, True, k) for k, s in enumerate(stamps) if s is not None}
        if options.sweeps and own:
            every = np.sort(drive.survey.streams[topic].stamps_ns)
            # nuScenes' sweeps lie between the samples of their scene: none before the first or
            # after the last.
            every = every[(every > min(own)) & (every < max(own))]
            # a sweep goes with the sample that follows it
            known = np.array(sorted(own), np.int64)
            for stamp_ns in every[told(every)].tolist():
                if stamp_ns not in own:
                    following = int(known[np.searchsorted(known, stamp_ns)])
                    own[stamp_ns] = Role(sensor, False, own[following].sample)
        roles[topic] = own
    return roles


def partner_scans(
    drive: Drive, roles: dict[str, dict[int, Role]]
) -> dict[str, dict[int, list[int]]]:
    """Stamps of the other LiDARs' clouds by topic, and the scans of the main one they go with."""
    out: dict[str, dict[int, list[int]]] = {}
    if len(drive.lidars) < 2:
        return out
    main, *others = (lidar.topic for lidar in drive.lidars)
    streams, told = drive.survey.streams, posed(drive)
    # Of LiDARs that turn at one rate each cloud has a partner within half a turn.
    farthest_ns = period_ns(streams[main].stamps_ns) / 2
    for topic in others:
        stamps = np.sort(streams[topic].stamps_ns)
        stamps = stamps[told(stamps)]
        out[topic] = {}
        for scan_ns in roles[main] if len(stamps) else ():
            near = int(stamps[np.abs(stamps - scan_ns).argmin()])
            if abs(near - scan_ns) <= farthest_ns:
                out[topic].setdefault(near, []).append(scan_ns)
    return out
