# SPDX-License-Identifier: Apache-2.0
"""A detector over a bag at full speed, without ROS; every set of images gets its turn.

Sets are put together by the node's synchronizer, whose clock is the log time, and boxes are chosen
as the node chooses them, so the bag that results says what the node would with time enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FIXED_FRAME, FrameSet
from labeldistill_core.classes import CLASSES
from labeldistill_core.errors import DataError
from labeldistill_core.runtime.detector import Detections, Detector
from labeldistill_ros.bags.frames import BASE_FRAME, camera_view, read_transforms
from labeldistill_ros.bags.reader import BagReader, Recorded
from labeldistill_ros.bags.recording import DETECTIONS_TOPIC, STATUS_TOPIC, TABLE_TOPIC
from labeldistill_ros.bags.sensors import image_topic, info_topic
from labeldistill_ros.bags.truth import SAMPLE_TOPIC, TRUTH_TOPIC
from labeldistill_ros.bags.writer import BagWriter, Storage
from labeldistill_ros.inputs.transforms import TransformBuffer, TransformError
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.boxes import detections_message
from labeldistill_ros.messages.stamps import stamp_of
from labeldistill_ros.messages.status import set_status
from labeldistill_ros.messages.tables import table_message
from labeldistill_ros.sets.report import Outcome, SetReport
from labeldistill_ros.sync.discontinuity import Continuity
from labeldistill_ros.sync.synchronizer import CameraSet, Synchronizer, SyncOptions

KEPT = (SAMPLE_TOPIC, TRUTH_TOPIC, "/tf", "/tf_static")
"""Topics that go into the new bag too, so that it can be scored alone."""
_STATUS = "diagnostic_msgs/msg/DiagnosticArray"


@dataclass(frozen=True)
class DetectOptions:
    """What is detected, and what of it is kept; the node has parameters of these names."""

    score_threshold: float = 0.1
    """Boxes of a lower score are left out."""
    max_boxes: int = 500
    """At most so many boxes of a set are kept, the best."""
    output_frame: str = BASE_FRAME
    """Frame that the boxes are written in."""
    policy: Annotated[Literal["skip", "mask"], tyro.conf.arg(name="missing-camera-policy")] = "skip"
    """Sets that lack images are left out (skip), or used without them (mask)."""
    min_cameras: int = 4
    """Fewest images of a set that is used under `mask`."""
    max_age_s: Annotated[float, tyro.conf.arg(name="max-age")] = 0.25
    """Seconds of silence after which a camera counts as dead."""
    reset_gap_s: Annotated[float, tyro.conf.arg(name="reset-gap")] = 2.0
    """Seconds between two sets after which past images are forgotten."""
    max_speed_m_s: Annotated[float, tyro.conf.arg(name="max-speed")] = 100.0
    """Metres per second of the vehicle beyond which past images are forgotten as well."""


@dataclass(frozen=True)
class DetectionRun:
    """What was done."""

    sets: int
    """Sets of images that there were."""
    processed: int
    """Of them, those that got boxes."""
    boxes: int
    """In all sets."""
    wall_s: float
    """How long it took."""
    bag_s: float
    """How long the bag is."""
    problems: dict[str, int]
    """Why sets got no boxes, and how often."""


@dataclass(frozen=True, eq=False)
class _Set:
    images: CameraSet[Any]
    infos: dict[str, Any]
    closed_ns: int


def detect_bag(
    bag: Path,
    out: Path,
    detector: Detector,
    options: DetectOptions = DetectOptions(),  # noqa: B008 - frozen
    *,
    storage: Storage = "mcap",
    force: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> DetectionRun:
    """Write a bag with the detector's topics, and those that scoring needs.

    Args:
        bag: with images, calibrations and transforms.
        out: folder of the bag to write.
        detector: the network.
        options: how.
        storage: of the new bag.
        force: replace a bag that is there.
        progress: called after each set with the number of sets so far.

    Raises:
        BagError: the bag is damaged or lacks a topic, or the new one cannot be written.
    """
    cameras = detector.config.cameras
    start_s, problems, counts = time.monotonic(), dict[str, int](), [0, 0, 0]
    continuity = Continuity(options.reset_gap_s, options.max_speed_m_s)
    detector.reset("a bag begins")
    with BagReader(bag) as reader, BagWriter(out, storage=storage, force=force) as writer:
        reader.require(*map(image_topic, cameras), *map(info_topic, cameras), "/tf")
        transforms, bag_s = read_transforms(reader), reader.duration_s
        for topic in KEPT:
            if topic in reader.topics:
                writer.connect(topic, reader.topics[topic], reader.qos(topic))
        for topic in (DETECTIONS_TOPIC, TABLE_TOPIC, STATUS_TOPIC):
            writer.connect(topic, _TYPES[topic])
        with ThreadPoolExecutor(min(len(cameras), 6)) as pool:
            for item in _sets(reader, cameras, options):
                if isinstance(item, Recorded):
                    writer.write(item.topic, item.msgtype, item.data, item.stamp_ns)
                    continue
                counts[0] += 1
                begun_s = time.monotonic()
                try:
                    frames, output_from_fixed = _assemble(item, transforms, options, pool)
                except (DataError, TransformError, ValueError) as error:
                    problems[str(error)] = problems.get(str(error), 0) + 1
                    _write_status(writer, item, counts, "refused", {})
                    continue
                pose = frames.views[0].fixed_from_ego
                if reason := continuity.broken(item.images.stamp_ns, pose):
                    detector.reset(reason)
                found = detector.detect(frames)
                boxes = best_boxes(found.in_frame(output_from_fixed), options)
                counts[1] += 1
                counts[2] += len(boxes)
                total_ms = (time.monotonic() - begun_s) * 1e3
                _write_boxes(writer, item, boxes)
                _write_status(writer, item, counts, "processed", _timings(found, total_ms))
                progress(counts[0])
    return DetectionRun(
        counts[0], counts[1], counts[2], time.monotonic() - start_s, bag_s, problems
    )


def best_boxes(boxes: Boxes3D, options: DetectOptions) -> Boxes3D:
    """Those that can be published, best first: finite, with a size and enough score."""
    usable = torch.isfinite(boxes.values[:, :7]).all(dim=1) & (boxes.sizes > 0).all(dim=1)
    boxes = boxes[usable & (boxes.scores >= options.score_threshold)]
    return boxes[boxes.scores.argsort(descending=True, stable=True)[: options.max_boxes]]


def _sets(
    reader: BagReader, cameras: tuple[str, ...], options: DetectOptions
) -> Iterator[_Set | Recorded]:
    """Usable sets at the log time at which the node would close them, and messages to keep."""
    anchor = "CAM_FRONT" if "CAM_FRONT" in cameras else cameras[0]
    synchronizer: Synchronizer[Any] = Synchronizer(
        SyncOptions(
            cameras,
            anchor,
            max_age_s=options.max_age_s,
            min_cameras=min(options.min_cameras, len(cameras)),
            policy=options.policy,
        )
    )
    images = {image_topic(camera): camera for camera in cameras}
    calibrations = {info_topic(camera): camera for camera in cameras}
    infos: dict[str, Any] = {}
    first_ns = now_ns = 0

    def closed(sets: list[CameraSet[Any]], at_ns: int) -> Iterator[_Set]:
        return (_Set(s, dict(infos), at_ns) for s in sets if s.usable)

    def until(end_s: float) -> Iterator[_Set]:
        while (due_s := synchronizer.next_deadline_s()) is not None and due_s <= end_s:
            yield from closed(synchronizer.poll(due_s), first_ns + round(due_s * 1e9))

    kept = [topic for topic in KEPT if topic in reader.topics]
    for recorded in reader.raw([*images, *calibrations, *kept]):
        first_ns, now_ns = first_ns or recorded.stamp_ns, recorded.stamp_ns
        now_s = (now_ns - first_ns) / 1e9
        yield from until(now_s)
        if recorded.topic in images:
            image = reader.decoded(recorded)
            sets = synchronizer.add(images[recorded.topic], stamp_of(image), image, now_s).sets
            yield from closed(sets, now_ns)
        elif recorded.topic in calibrations:
            infos[calibrations[recorded.topic]] = reader.decoded(recorded)
        else:
            yield recorded
    yield from until(float("inf"))


def _assemble(
    item: _Set, transforms: TransformBuffer, options: DetectOptions, pool: ThreadPoolExecutor
) -> tuple[FrameSet, Any]:
    images = item.images
    views = pool.map(
        lambda name: camera_view(name, images.frames[name].item, item.infos.get(name), transforms),
        images.frames,
    )
    frames = FrameSet(images.stamp_ns, tuple(views))
    if options.output_frame == FIXED_FRAME:
        pose = transforms.lookup(FIXED_FRAME, BASE_FRAME, images.stamp_ns)
        return frames, pose @ pose.inverse
    output = transforms.lookup(options.output_frame, FIXED_FRAME, images.stamp_ns)
    return frames, replace(output, source=FIXED_FRAME)


_TYPES = {
    DETECTIONS_TOPIC: "vision_msgs/msg/Detection3DArray",
    TABLE_TOPIC: "sensor_msgs/msg/PointCloud2",
    STATUS_TOPIC: _STATUS,
}


def _write_boxes(writer: BagWriter, item: _Set, boxes: Boxes3D) -> None:
    stamp_ns = item.images.stamp_ns
    for topic, built in (
        (DETECTIONS_TOPIC, detections_message(boxes, CLASSES, stamp_ns, family=BAG)),
        (TABLE_TOPIC, table_message(boxes, stamp_ns, BAG)),
    ):
        writer.write(topic, _TYPES[topic], built, item.closed_ns)


def _timings(found: Detections, total_ms: float) -> dict[str, float]:
    return {**{f"detect_{k}": v for k, v in found.timings_ms.items()}, "total": total_ms}


def _write_status(
    writer: BagWriter, item: _Set, counts: list[int], outcome: Outcome, timings_ms: dict[str, float]
) -> None:
    """The part of the node's status that scoring reads."""
    report = SetReport(
        item.images.stamp_ns,
        outcome,
        tuple(item.images.frames),
        item.images.missing,
        timings_ms=timings_ms,
    )
    totals = {"seen": counts[0], "processed": counts[1]}
    writer.write(STATUS_TOPIC, _STATUS, set_status(report, totals, "detect", BAG), item.closed_ns)
