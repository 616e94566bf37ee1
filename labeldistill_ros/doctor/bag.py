# SPDX-License-Identifier: Apache-2.0
"""What a bag holds of a vehicle, without ROS; its log time is the clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from labeldistill_ros.bags.poses import read_poses
from labeldistill_ros.bags.reader import BagReader, Recorded
from labeldistill_ros.doctor.observation import Observation
from labeldistill_ros.doctor.source import Source
from labeldistill_ros.doctor.topics import COMPRESSED, IMAGE, INFO, ODOMETRY, is_lidar
from labeldistill_ros.inputs.topics import CameraTopics
from labeldistill_ros.messages.stamps import stamp_of_cdr
from labeldistill_ros.parameters import Parameters, VehicleParameters


def observe_bag(bag: Path, vehicle: VehicleParameters) -> Source:
    """Read a bag from its beginning to its end.

    Raises:
        BagError: it is damaged or no bag.
        ConfigError: the parameters contradict each other.
    """
    refused: list[str] = []
    with BagReader(bag) as reader:
        types = {topic: (kind,) for topic, kind in reader.topics.items()}
        images, infos = _cameras(reader, vehicle)
        clouds = [topic for topic, kinds in types.items() if is_lidar(topic, kinds)]
        seen, counts = Observation(vehicle, reader.duration_s), reader.counts()
        # The node's timeouts are of a steady clock; a bag's log time is the nearest thing to one.
        first_ns, now_s = None, 0.0
        for recorded in reader.raw([*images, *infos, *clouds]):
            first_ns = recorded.stamp_ns if first_ns is None else first_ns
            now_s = (recorded.stamp_ns - first_ns) / 1e9
            if camera := images.get(recorded.topic):
                seen.image(camera, reader.decoded(recorded), now_s, recorded.stamp_ns)
            elif sharing := infos.get(recorded.topic):
                info = reader.decoded(recorded)
                for camera in sharing:
                    seen.info(camera, info)
            else:
                _take_cloud(seen, recorded)
        seen.end(now_s)
        lookup = read_poses(reader, _with_odometry(reader, vehicle.common), refused.append)
    silent = {
        camera: f"{camera}: {topic} is in the bag, without a message: look at its driver, and at "
        "what was recorded"
        for topic, camera in images.items()
        if not counts[topic]
    }
    return Source(seen, types, lookup, refused, silent, "the bag's log time")


def _cameras(
    reader: BagReader, vehicle: VehicleParameters
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Camera by image topic, and those that share a `camera_info` topic, as far as there."""
    images: dict[str, str] = {}
    infos: dict[str, list[str]] = {}
    for camera, own in vehicle.cameras.items():
        topics = CameraTopics.of(camera, vehicle.common, own)
        # A topic of another type is left out here and told by `check_topics`: messages of it could
        # not be decoded as images.
        if reader.topics.get(topics.image) == (COMPRESSED if topics.compressed else IMAGE):
            images[topics.image] = camera
        if reader.topics.get(topics.info) == INFO:
            infos.setdefault(topics.info, []).append(camera)
    return images, infos


def _take_cloud(seen: Observation, recorded: Recorded) -> None:
    # Of a cloud only the head is of interest, and it may have a million points.
    seen.cloud(recorded.topic, stamp_of_cdr(recorded.data), recorded.stamp_ns)


def _with_odometry(reader: BagReader, common: Parameters) -> Parameters:
    """The parameters, or those for /tf where the bag lacks the odometry, which is told as such."""
    there = reader.topics.get(common.odometry_topic) == ODOMETRY
    return common if there else replace(common, ego_motion_source="tf")
