# SPDX-License-Identifier: Apache-2.0
"""Which topics of a drive are its sensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labeldistill_core.data.tables.columns import LIDAR
from labeldistill_core.errors import BagError
from labeldistill_core.names import fault_of_name, fault_of_relative_path, shown
from labeldistill_ros.bags.dataset.options import DatasetOptions
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.truth import TRUTH_TOPIC
from labeldistill_ros.inputs.decoding import holds_depth

COMPRESSED, RAW = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"
INFO, CLOUD = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/PointCloud2"
TRANSFORMS, ODOMETRY = "tf2_msgs/msg/TFMessage", "nav_msgs/msg/Odometry"
BOXES = "vision_msgs/msg/Detection3DArray"
RADAR_FIELDS = (
    "x", "y", "z", "dyn_prop", "id", "rcs", "vx", "vy", "vx_comp", "vy_comp",
    "is_quality_valid", "ambig_state", "x_rms", "y_rms", "invalid_state", "pdh0", "vx_rms",
    "vy_rms",
)  # fmt: skip
"""Of nuScenes' radars; its devkit reads no others."""
_MOST_CAMERAS = 64
_OVERLAY = "/debug/overlay/"


@dataclass
class Contents:
    """What the topics of all bags of a drive hold; one may begin in a later bag."""

    topics: dict[str, str] = field(default_factory=dict)
    """Type of each."""
    counts: Counter[str] = field(default_factory=Counter)
    """Number of its messages."""
    points: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the fields of each cloud's points."""
    depths: set[str] = field(default_factory=set)
    """Topics of images that hold depth."""

    def add(self, reader: BagReader) -> None:
        """Look at one more bag.

        Raises:
            BagError: it is damaged.
        """
        counts = reader.counts()
        for topic, kind in reader.topics.items():
            is_known = bool(self.counts[topic])
            self.topics[topic] = kind
            self.counts[topic] += counts.get(topic, 0)
            if is_known or kind not in (CLOUD, COMPRESSED, RAW):
                continue
            _, message = next(reader.messages([topic]), (None, None))
            if message is not None:
                self._take(topic, kind, message)

    def _take(self, topic: str, kind: str, message: Any) -> None:
        if kind == CLOUD:
            self.points[topic] = tuple(each.name for each in message.fields)
        elif holds_depth(message):
            self.depths.add(topic)


@dataclass(frozen=True)
class SensorTopics:
    """The topics that are read."""

    images: Mapping[str, str]
    """Topic of its images by the name of the camera."""
    infos: Mapping[str, str]
    """Topic of its calibration by the name of the camera."""
    lidars: tuple[str, ...]
    """Topics of points that become one scan, in the frame of the first."""
    radars: Mapping[str, str]
    """Topic of its points by the name of the radar."""
    labels: str
    """Topic of boxes that become annotations; empty without."""
    odometry: str
    """Topic of the vehicle's motion, where it is not taken from /tf; empty then."""
    ignored: Mapping[str, str]
    """Topics that could be sensors, and why they are not read."""

    @property
    def all(self) -> tuple[str, ...]:
        """All that are read, but for transforms."""
        others = (*self.lidars, *self.radars.values(), self.labels, self.odometry)
        return (*self.images.values(), *self.infos.values(), *(t for t in others if t))


def choose_topics(contents: Contents, options: DatasetOptions) -> SensorTopics:
    """Find the sensors among the topics of a drive.

    Args:
        contents: what the topics hold.
        options: what the user named.

    Raises:
        BagError: there is no camera, one has no calibration, or it is not clear which cloud is
            that of the LiDAR.
    """
    # Of others: a topic goes into paths, sentences and a terminal.
    points = contents.points
    odd = [t for t in contents.topics if fault_of_relative_path(t.removeprefix("/"))]
    ignored: dict[str, str] = {t: "that is no name of a topic" for t in odd}
    topics = {t: kind for t, kind in contents.topics.items() if t not in odd}
    images = dict(options.cameras) or _cameras(topics, contents, ignored)
    if not images:
        raise BagError(
            "no image topic (sensor_msgs/CompressedImage or Image): record the cameras; the bag "
            f"has {_listed(topics)}"
        )
    infos = {}
    for name, topic in images.items():
        if topics.get(topic) not in (COMPRESSED, RAW):
            what = "no image topic" if topic in topics else "not in the bag"
            raise BagError(f"{name}: {topic} is {what}; it has {_listed(_of(topics, _IMAGES))}")
        infos[name] = _beside(topic)
        if topics.get(infos[name]) != INFO:
            raise BagError(
                f"{name}: {topic} has no calibration, as no {infos[name]} (sensor_msgs/CameraInfo) "
                "is in the bag: record it, or name the cameras to take by --cameras NAME TOPIC ..."
            )
        if topic in contents.depths:
            raise BagError(f"{name}: {topic} holds depth, and colours are needed")
    if len(images) > _MOST_CAMERAS:
        raise BagError(f"{len(images)} cameras: name those to take by --cameras NAME TOPIC ...")
    return SensorTopics(
        images,
        infos,
        _lidars(topics, points, options, ignored),
        _radars(topics, points, images),
        _labels(topics, options, ignored),
        _odometry(topics, options),
        ignored,
    )


_IMAGES = (COMPRESSED, RAW)


def _of(topics: Mapping[str, str], kinds: Sequence[str]) -> list[str]:
    return sorted(topic for topic, kind in topics.items() if kind in kinds)


def _listed(names: object) -> str:
    known = sorted(names)  # type: ignore[call-overload]
    there = ", ".join(n if n.isprintable() and len(n) < 100 else shown(n) for n in known[:30])
    return there + (f" and {len(known) - 30} more" if len(known) > 30 else "") or "none"


def _parent(image: str) -> str:
    """What the topics of a camera have in common."""
    return image.removesuffix("/compressed").rpartition("/")[0]


def _beside(image: str) -> str:
    """Topic of the calibration, by the rule of `image_transport`: beside the raw images."""
    return f"{_parent(image)}/camera_info"


def _cameras(
    topics: Mapping[str, str], contents: Contents, ignored: dict[str, str]
) -> dict[str, str]:
    """Image topic of each camera; of several one with messages, and the compressed one."""
    found: dict[str, str] = {}
    for topic in _of(topics, _IMAGES):
        if _OVERLAY in topic:
            ignored[topic] = "an overlay of the detector"
            continue
        if topic in contents.depths:
            ignored[topic] = "it holds depth"
            continue
        before = found.get(_parent(topic))
        if before is None:
            found[_parent(topic)] = topic
            continue
        first, second = sorted(
            (before, topic),
            key=lambda t: (not contents.counts[t], topics[t] != COMPRESSED, "rect" in t, t),
        )
        found[_parent(topic)] = first
        ignored[second] = f"{first} is of the same camera"
    names = _names_of(list(found), "CAMERA", ())
    for name, topic in zip(names, found.values(), strict=True):
        if fault := fault_of_name(name):
            raise BagError(f"{shown(topic)} gives no name for a camera, {fault}: use --cameras")
    return dict(zip(names, found.values(), strict=True))


def _names_of(parents: Sequence[str], unnamed: str, taken: Collection[str]) -> list[str]:
    """A name for each sensor: as much of its topic as tells them apart, from behind."""
    for depth in range(1, 10):
        names = ["_".join(p.strip("/").split("/")[-depth:]).upper() or unnamed for p in parents]
        if len({*names, *taken}) == len(names) + len(taken):
            return names
    return [f"{unnamed}_{name}" for name in names] if len(set(names)) == len(names) else names


def _lidars(
    topics: Mapping[str, str],
    points: Mapping[str, Sequence[str]],
    options: DatasetOptions,
    ignored: dict[str, str],
) -> tuple[str, ...]:
    clouds = _of(topics, (CLOUD,))
    if options.without_lidar:
        return ()
    for topic in options.lidars:
        if topic not in clouds:
            raise BagError(f"--lidars: no cloud {topic} in the bag; it has {_listed(clouds)}")
        if not {"x", "y", "z"} <= set(points.get(topic, ())):
            raise BagError(f"--lidars: the points of {topic} have no x, y, z")
    if options.lidars:
        return options.lidars
    found = []
    for topic in clouds:
        names = set(points.get(topic, ()))
        if points.get(topic) == RADAR_FIELDS:
            continue
        if not {"x", "y", "z"} <= names:
            ignored[topic] = "its points have no x, y, z"
        elif "intensity" not in names:
            ignored[topic] = "its points have no intensity; name it by --lidars if it is a LiDAR"
        else:
            found.append(topic)
    if len(found) > 1:
        raise BagError(
            f"{len(found)} clouds of points look like a LiDAR's: name those to merge, the main one "
            f"first, by --lidars {' '.join(found)}"
        )
    return tuple(found)


def _radars(
    topics: Mapping[str, str], points: Mapping[str, Sequence[str]], cameras: Collection[str]
) -> dict[str, str]:
    found = [t for t in _of(topics, (CLOUD,)) if points.get(t) == RADAR_FIELDS]
    # `/radar_front/points` is RADAR_FRONT
    names = _names_of([t.rpartition("/")[0] for t in found], "RADAR", (*cameras, LIDAR))
    return dict(zip(names, found, strict=True))


def _labels(topics: Mapping[str, str], options: DatasetOptions, ignored: dict[str, str]) -> str:
    known = _of(topics, (BOXES,))
    for topic in known:
        if topic != options.labels:
            ignored[topic] = "boxes become labels only where --labels names them"
    if options.labels and options.labels not in known:
        # The default is a topic that this project's own bags have, and others need not.
        if options.labels == TRUTH_TOPIC:
            return ""
        raise BagError(
            f"--labels: no boxes (vision_msgs/Detection3DArray) on {options.labels}; the bag has "
            f"{_listed(known)}"
        )
    return options.labels


def _odometry(topics: Mapping[str, str], options: DatasetOptions) -> str:
    known = _of(topics, (ODOMETRY,))
    if options.ego_motion_source == "tf":
        return ""
    if options.odometry_topic:
        if options.odometry_topic not in known:
            raise BagError(
                f"--odometry-topic: no {options.odometry_topic} (nav_msgs/Odometry) in the bag; it "
                f"has {_listed(known)}"
            )
        return options.odometry_topic
    if len(known) == 1:
        return known[0]
    if options.ego_motion_source == "odometry":
        raise BagError(f"which odometry? name it by --odometry-topic: {_listed(known)}")
    return ""
