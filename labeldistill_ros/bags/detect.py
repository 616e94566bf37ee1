# SPDX-License-Identifier: Apache-2.0
"""A detector over a bag at full speed, without ROS; every set of images gets its turn.

Sets are put together by the node's synchronizer, whose clock is the log time, and processed by the
node's pipeline, so the bag that results says what the node would with time enough.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from labeldistill_core.errors import ConfigError
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.bags.detect_options import DetectOptions
from labeldistill_ros.bags.detector_output import DETECTIONS_TOPIC, STATUS_TOPIC, TABLE_TOPIC
from labeldistill_ros.bags.partial_folder import refuse_source
from labeldistill_ros.bags.poses import read_poses
from labeldistill_ros.bags.reader import BagReader, Recorded
from labeldistill_ros.bags.truth import SAMPLE_TOPIC, TRUTH_TOPIC
from labeldistill_ros.bags.writer import BagOutput, BagWriter
from labeldistill_ros.inputs.topics import CameraTopics
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.boxes import detections_message
from labeldistill_ros.messages.calibration import AmbiguityWatch
from labeldistill_ros.messages.status import set_status
from labeldistill_ros.messages.tables import table_message
from labeldistill_ros.parameters import VehicleParameters
from labeldistill_ros.ros_names import fault_of_names
from labeldistill_ros.sets.arrival import ClosedSet
from labeldistill_ros.sets.assembly import Assembler
from labeldistill_ros.sets.gathering import SetGathering, TimeWentBack
from labeldistill_ros.sets.options import assembly_options, discontinuity_check, selection
from labeldistill_ros.sets.pipeline import SetPipeline, SetResult
from labeldistill_ros.sets.report import SetTally
from labeldistill_ros.sets.together import together

_LOG = logging.getLogger(__name__)
_MOST_TOLD = 100
"""Sentences about cameras; they hold names out of the bag."""

KEPT = (SAMPLE_TOPIC, TRUTH_TOPIC, "/tf", "/tf_static")
"""Topics that go into the new bag too, so that it can be scored alone."""
_TYPES = {
    DETECTIONS_TOPIC: "vision_msgs/msg/Detection3DArray",
    TABLE_TOPIC: "sensor_msgs/msg/PointCloud2",
    STATUS_TOPIC: "diagnostic_msgs/msg/DiagnosticArray",
}


@dataclass(frozen=True)
class DetectionRun:
    """What came of detecting in a bag."""

    sets: int
    """Sets of images that there were."""
    processed: int
    """Sets that got boxes."""
    boxes: int
    """Number of boxes that were written, over all sets."""
    wall_s: float
    """Seconds that it took, by the wall clock."""
    bag_s: float
    """Seconds from the first message of the bag to the last."""
    problems: Mapping[str, int]
    """Why sets got no boxes, and how often."""
    without_pose: int
    """Sets that were processed without history, since the vehicle's pose was not known."""
    images_left_out: int = 0
    """Images that went into no set: late, twice there, or too few of one instant to be a set."""


def detect_bag(
    bag: Path,
    out: Path,
    detector: Detector,
    options: DetectOptions = DetectOptions(),  # noqa: B008 - frozen
    *,
    output: BagOutput = BagOutput(),  # noqa: B008 - frozen
    progress: Callable[[int], None] = lambda _: None,
) -> DetectionRun:
    """Write a bag with the detector's topics, and those that scoring needs.

    Args:
        bag: with images, calibrations and transforms.
        out: folder of the bag to write.
        detector: the network.
        options: how.
        output: how the new bag is written.
        progress: called after each set, whatever became of it, with the number of sets so far.

    Raises:
        BagError: the bag is damaged or lacks a topic, or the new one cannot be written.
        ConfigError: the options contradict each other or the model.
    """
    refuse_source(out, bag)
    start_s = time.monotonic()
    # A detector may come from another bag, whose past is not this one's.
    detector.reset()
    with BagReader(bag) as reader:
        there = [topic for topic, count in reader.counts().items() if count]
        vehicle = options.vehicle(detector.config.cameras, detector.class_names, there)
        events = _Events(reader, vehicle)
        with (
            Assembler(
                assembly_options(vehicle),
                read_poses(reader, vehicle.common),
                len(vehicle.cameras),
                detector.config.image,
            ) as assembler,
            BagWriter(out, storage=output.storage, force=output.force, source=bag) as writer,
        ):
            topics = _Output(writer, detector.class_names)
            topics.connect(reader)
            pipeline = SetPipeline(detector, assembler, discontinuity_check(vehicle.common))
            for event in events:
                if isinstance(event, Recorded):
                    writer.write(event.topic, event.msgtype, event.data, event.stamp_ns)
                elif isinstance(event, TimeWentBack):
                    pipeline.forget("the stamps went back")
                else:
                    result = _process(event, pipeline, vehicle)
                    topics.write(result, events.log_ns(event))
                    progress(topics.tally.counts["seen"])
        counts = topics.tally.counts
        return DetectionRun(
            counts["seen"],
            counts["processed"],
            topics.boxes,
            time.monotonic() - start_s,
            reader.duration_s,
            topics.problems + events.problems,
            topics.without_pose,
            events.left_out,
        )


def _process(closed: ClosedSet, pipeline: SetPipeline, vehicle: VehicleParameters) -> SetResult:
    if not closed.images.usable:
        lacking = f"no image of {', '.join(closed.images.missing)}"
        return SetResult(closed.report("incomplete", "missing camera"), refusal=lacking)
    result = pipeline.process(closed, selection(vehicle))
    if result.failure:
        raise result.failure  # on a vehicle the next set may do better; here it would be the same
    return result


class _Events:
    """What happens in a bag: messages to keep, sets that are closed, jumps of time."""

    def __init__(self, reader: BagReader, vehicle: VehicleParameters) -> None:
        topics = {
            camera: CameraTopics.of(camera, vehicle.common, own)
            for camera, own in vehicle.cameras.items()
        }
        self._images = {topic.image: camera for camera, topic in topics.items()}
        if fault := fault_of_names(vehicle.cameras):
            raise ConfigError(f"{fault}, and have one topic: train the model with other names")
        self._calibrations = {topic.info: camera for camera, topic in topics.items()}
        self._ambiguity = AmbiguityWatch(rectified=vehicle.common.images_rectified)
        reader.require(*self._images, *self._calibrations)
        self._reader, self._gathering = reader, SetGathering(vehicle)
        self._first_ns: int | None = None

    @property
    def problems(self) -> Counter[str]:
        """Images that belong to no set, and how often."""
        unstamped = self._gathering.unstamped.items()
        what = "its images have no stamp, or one before 1970"
        return Counter({f"{camera}: {what}": n for camera, n in unstamped})

    @property
    def left_out(self) -> int:
        """Images that went into no set."""
        counts = self._gathering.synchronizer.counts
        return sum(counts[why] for why in ("unmatched", "late", "duplicate"))

    def log_ns(self, closed: ClosedSet) -> int:
        """Log time at which a set was closed."""
        return (self._first_ns or 0) + round(closed.closed_s * 1e9)

    def __iter__(self) -> Iterator[Recorded | ClosedSet | TimeWentBack]:
        kept = [topic for topic in KEPT if topic in self._reader.topics]
        for recorded in self._reader.raw([*self._images, *self._calibrations, *kept]):
            if self._first_ns is None:
                self._first_ns = recorded.stamp_ns
            # The log time is the steady clock: deadlines pass as they did on the vehicle, however
            # fast the bag is read.
            now_s = (recorded.stamp_ns - self._first_ns) / 1e9
            yield from self._gathering.until(now_s)
            if recorded.topic in self._images:
                camera = self._images[recorded.topic]
                yield from self._gathering.add(camera, self._reader.decoded(recorded), now_s)
            # The newest before an image, as the node has it.
            elif recorded.topic in self._calibrations:
                self._on_info(recorded.topic, self._reader.decoded(recorded))
            else:
                yield recorded
        # Nothing follows: sets that still wait are closed at their deadlines.
        yield from self._gathering.until(float("inf"))

    def _on_info(self, topic: str, info: Any) -> None:
        camera = self._calibrations[topic]
        self._gathering.infos[camera] = info
        if text := self._ambiguity.look(camera, topic, info):
            _LOG.warning("%s", text)


class _Output:
    """Writes what the node would publish, and counts."""

    def __init__(self, writer: BagWriter, class_names: tuple[str, ...]) -> None:
        self._writer, self._class_names = writer, class_names
        self.tally = SetTally()
        self.problems: Counter[str] = Counter()
        self.boxes = self.without_pose = 0
        self._told: set[str] = set()

    def connect(self, reader: BagReader) -> None:
        for topic in KEPT:
            if topic in reader.topics:
                self._writer.connect(topic, reader.topics[topic], reader.qos(topic))
        for topic, kind in _TYPES.items():
            self._writer.connect(topic, kind)

    def write(self, result: SetResult, log_ns: int) -> None:
        stamp_ns = result.report.stamp_ns
        report = replace(result.report, age_s=(log_ns - stamp_ns) / 1e9)
        self.tally.add(report)
        self.boxes += report.boxes
        self.without_pose += bool(report.pose)
        for text in together(result.implausible):
            if text not in self._told and len(self._told) < _MOST_TOLD:
                self._told.add(text)
                _LOG.warning("%s", text)
        if result.refusal:
            self.problems[result.refusal] += 1
        if result.detected:
            boxes = result.detected.boxes
            named = detections_message(boxes, self._class_names, stamp_ns, family=BAG)
            self._write(DETECTIONS_TOPIC, named, log_ns)
            self._write(TABLE_TOPIC, table_message(boxes, stamp_ns, BAG), log_ns)
        totals = {outcome: count for outcome, count in self.tally.totals.items() if count}
        status = set_status(report, totals, "detect", BAG)
        self._write(STATUS_TOPIC, status, log_ns)

    def _write(self, topic: str, message: Any, log_ns: int) -> None:
        self._writer.write(topic, _TYPES[topic], message, log_ns)
