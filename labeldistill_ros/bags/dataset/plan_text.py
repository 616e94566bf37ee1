# SPDX-License-Identifier: Apache-2.0
"""What was found in a drive, for people."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from labeldistill_core.names import plain_text
from labeldistill_ros.bags.dataset.key_frames import period_ns
from labeldistill_ros.bags.dataset.plan import Drive, PlannedCamera
from labeldistill_ros.bags.dataset.survey import Stream
from labeldistill_ros.messages.calibration import is_distorted

_LONGEST_LINE = 1000
_GAP_PERIODS = 2.5
"""Of a topic's median period: what is longer is told as a gap."""


def plan_text(drive: Drive) -> str:
    """Topics, rates, frames, calibration, gaps and scenes of a drive, in lines.

    What the bag says itself is escaped where a terminal would obey it.
    """
    lines = [f"{drive.name}: {', '.join(map(str, drive.bags))}"]
    for name, topic in drive.topics.images.items():
        lines.append(f"  camera {name}: {_stream(topic, drive.survey.streams[topic])}")
        if camera := drive.cameras.get(name):
            lines.append(f"    {_calibration(camera)}")
    for topic in drive.topics.lidars:
        lines.append(f"  lidar: {_stream(topic, drive.survey.streams[topic])}")
    for lidar in drive.lidars:
        place = np.round(lidar.ego_from_sensor.translation, 3).tolist()
        lines.append(f"    {lidar.topic} is mounted at {place} m")
    for name, topic in drive.topics.radars.items():
        lines.append(f"  radar {name}: {_stream(topic, drive.survey.streams[topic])}")
    if not drive.topics.lidars:
        lines.append("  lidar: none")
    if poses := drive.poses:
        source = poses.odometry or "/tf"
        lines.append(
            f"  poses: {poses.body_frame} in {poses.fixed_frame}, from {source}; {_edges(drive)}"
        )
    if drive.topics.labels:
        lines.append(
            f"  labels: {_stream(drive.topics.labels, drive.survey.streams[drive.topics.labels])}"
        )
        named = ", ".join(f"{n} {c}" for c, n in drive.survey.class_names.most_common(20))
        lines.append(f"    boxes: {named or 'none'}")
    lines += [f"  not taken: {t}: {why}" for t, why in sorted(drive.topics.ignored.items())]
    lines.append(f"  {drive.sets} complete sets of images")
    lines += [f"  {line}" for line in _scenes(drive)]
    lines += [f"  note: {note}" for note in drive.notes]
    lines += [f"  problem: {problem}" for problem in drive.problems]
    return "\n".join(plain_text(line, _LONGEST_LINE) for line in lines)


def _stream(topic: str, stream: Stream) -> str:
    count = len(stream.stamps)
    if not count:
        return f"{topic}: no messages"
    stamps = np.sort(stream.stamps_ns)
    period = period_ns(stamps)
    late_ms = float(np.median(stream.logs_ns - stream.stamps_ns)) / 1e6
    steps = np.diff(stamps)
    gaps = steps[steps > _GAP_PERIODS * period]
    told = f"{topic} ({stream.msgtype}), {count} messages"
    if np.isfinite(period):
        told += f", {1e9 / period:.1f} Hz"
    told += f", frame {', '.join(stream.frame_ids)}, recorded after {late_ms:.0f} ms"
    if len(gaps):
        told += f", {len(gaps)} gaps of up to {gaps.max() / 1e9:.2f} s"
    return told


def _calibration(camera: PlannedCamera) -> str:
    known = camera.calibration
    k, place = known.intrinsics_px, np.round(known.ego_from_camera.translation, 3).tolist()
    bent = (
        f"{camera.info.distortion_model}, rectified on the way"
        if is_distorted(camera.info)
        else "none"
    )
    return (
        f"{known.width_px} x {known.height_px} pixels, focal length {k[0, 0]:.1f} {k[1, 1]:.1f}, "
        f"centre {k[0, 2]:.1f} {k[1, 2]:.1f}, distortion: {bent}; mounted at {place} m"
    )


def _edges(drive: Drive) -> str:
    assert drive.poses is not None
    edges = drive.survey.odometry if drive.poses.odometry else drive.survey.edges
    told = []
    for child in drive.poses.way:
        stamps = np.unique(np.frombuffer(edges.by_child[child].stamps_ns, np.int64))
        if len(stamps) > 1:
            steps = np.diff(stamps)
            told.append(
                f"{child} at {1e9 / float(np.median(steps)):.0f} Hz, gaps of up to "
                f"{steps.max() / 1e9:.2f} s"
            )
        else:
            told.append(f"{child} stands still")
    return "; ".join(told)


def _scenes(drive: Drive) -> Iterator[str]:
    frames = sum(len(scene.key_frames) for scene in drive.scenes)
    yield f"{len(drive.scenes)} scenes with {frames} key frames"
    for scene in drive.scenes:
        first, last = scene.key_frames[0], scene.key_frames[-1]
        length_s = (last.stamp_ns - first.stamp_ns) / 1e9
        yield (
            f"  {scene.name} ({scene.split}): {len(scene.key_frames)} key frames in "
            f"{length_s:.1f} s from {first.stamp_ns / 1e9:.3f} s on"
        )
