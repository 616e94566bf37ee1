# SPDX-License-Identifier: Apache-2.0
"""A nuScenes scene as a rosbag: files as they are, true stamps, every ego pose, the truth.

Header stamp and log time are both the time of capture. Only samples all of whose images are there
are told of; of a partial data root the rest is left out and counted.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from labeldistill_core.classes import NUSCENES, ClassList
from labeldistill_core.config_json import to_mapping
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.nuscenes_records import SensorRecord
from labeldistill_core.errors import DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.camera_faults import CameraFaults
from labeldistill_ros.bags.sensors import (
    BASE_FRAME,
    MAP_FRAME,
    Entry,
    cloud_entry,
    image_entries,
    motion_entries,
    optical_frame,
)
from labeldistill_ros.bags.truth import (
    MARKERS_TOPIC,
    SAMPLE_TOPIC,
    TRUTH_TOPIC,
    BagSample,
    sample_message,
)
from labeldistill_ros.bags.writer import BagOutput, BagWriter, reliable
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.boxes import detections_message
from labeldistill_ros.messages.geometry import transform_stamped
from labeldistill_ros.messages.markers import truth_markers
from labeldistill_ros.ros_names import fault_of_names, ros_name

_LOG = logging.getLogger(__name__)

SCENE_TOPIC = "/nuscenes/scene"
_TF = "tf2_msgs/msg/TFMessage"
_MARGIN_NS = 1_000_000_000
"""Poses are kept for as long before the first and after the last image."""


@dataclass(frozen=True)
class ConversionOptions(BagOutput):
    """What goes into the bag of a scene."""

    sweeps: bool = True
    """Also take the images and clouds between the samples, which no ground truth belongs to."""
    clouds: bool = True
    """Take the LiDAR scans and radar sweeps."""
    can: bool = True
    """Take IMU and odometry, where the CAN bus expansion of nuScenes is there."""
    truth: bool = True
    """Write the samples and their ground truth, so that the bag can be scored alone."""
    zstd: bool = False
    """Compress chunks that get smaller by it, as LiDAR does and JPEG does not; mcap only."""
    start_ns: tyro.conf.Suppress[int | None] = None
    """Time of the first message instead of the true one; all others keep their distance to it."""
    faults: Annotated[CameraFaults, tyro.conf.arg(name="")] = field(default_factory=CameraFaults)
    """What goes wrong with the cameras; nothing by default."""


@dataclass(frozen=True)
class Conversion:
    """Numbers of what went into a bag."""

    samples: int
    """Number of samples with all their images."""
    samples_left_out: int
    """Number of samples of the scene of which an image is missing."""
    images: int
    """Number of images, those of samples and sweeps together."""
    images_left_out: int
    """Number of images that have no file, or belong to a sample that is left out."""
    images_lost: int
    """Number of images that the faults took."""
    clouds: int
    """Number of LiDAR scans and radar sweeps."""
    duration_s: float
    """Seconds from the first image to the last."""
    counts: dict[str, int]
    """Number of messages in the bag, by topic."""


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """A conversion leaves no cycles, and one search among the libraries' objects costs 0.1 s."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_no_search_for_garbage()
def convert_scene(
    tables: NuScenesTables,
    scene: str,
    out: Path,
    options: ConversionOptions = ConversionOptions(),  # noqa: B008 - frozen
    *,
    about: Mapping[str, str] | None = None,
) -> Conversion:
    """Write one scene as a bag.

    Args:
        tables: of the data root.
        scene: its name.
        out: folder of the bag.
        options: what goes in.
        about: description, place and so on, for `/nuscenes/scene`.

    Raises:
        DataError: no such scene, or no sample has all its images, or a file is damaged.
        BagError: the bag is there already or cannot be written.
    """
    tokens, faults = tables.samples(scene), options.faults
    # A sample that lacks an image is left out with its truth: detectors of all cameras would be
    # scored as if they had missed its boxes.
    whole = {token for token in tokens if tables.has_images(token)}
    if not whole:
        raise DataError(
            f"{scene}: none of its {len(tokens)} samples has all its images under "
            f"{tables.dataroot}; unpack the camera blobs there"
        )
    known = tables.sensor_data(scene)
    if fault := fault_of_names(dict.fromkeys(record.channel for record in known)):
        raise DataError(f"{scene}: {fault}: rename one in {tables.dataroot / tables.version}")
    records = [r for r in known if options.sweeps or r.is_key_frame]
    cameras = [record for record in records if record.modality == "camera"]
    faults.require({record.channel for record in cameras})
    there = [
        r for r in cameras if (r.sample_token in whole if r.is_key_frame else r.path.is_file())
    ]
    # Faults count from the first image that is there, and are drawn before anything is left out
    # for them, so that one fault does not change what another one hits.
    first_ns = there[0].stamp_ns
    kept = [r for r in there if not faults.lost(r.token, r.channel, r.stamp_ns - first_ns)]
    clouds = [r for r in records if options.clouds and r.modality != "camera" and r.is_there]
    # A sample's own stamp is that of its LiDAR scan, which may lie outside of the images' span.
    own = [tables.stamp_ns(token) for token in whole] if options.truth else []
    stamps_ns = [r.stamp_ns for r in (*there, *clouds)] + own
    span_ns = (min(stamps_ns), max(stamps_ns))
    poses = {
        r.stamp_ns: r.fixed_from_ego
        for r in known
        if span_ns[0] - _MARGIN_NS <= r.stamp_ns <= span_ns[1] + _MARGIN_NS
    }
    # Poses come from every sensor's records, also of those that are not taken: more of them make
    # the interpolation of /tf finer.
    begin_ns = min(span_ns[0], *poses)
    shift_ns = 0 if options.start_ns is None else options.start_ns - begin_ns
    images = [_moved(r, shift_ns + faults.stamp_error_ns(r.token)) for r in kept]

    # Messages are built when they are written: all images of a scene at once would not fit in
    # memory.
    entries = [entry for record in images for entry in image_entries(record)]
    entries += [cloud_entry(_moved(r, shift_ns)) for r in clouds]
    if options.truth:
        # The stamps as they are in the bag, errors included: scoring looks for the detector's
        # message at one of them.
        exposures: dict[str, dict[str, int]] = {token: {} for token in tokens if token in whole}
        for record in images:
            if record.is_key_frame:
                exposures[record.sample_token][record.channel] = record.stamp_ns
        for token, of_cameras_ns in exposures.items():
            entries += _sample_entries(tables, scene, token, of_cameras_ns, shift_ns)
    if options.can:
        entries += [
            e
            for e in motion_entries(tables.dataroot, scene, shift_ns)
            if span_ns[0] <= e.stamp_ns - shift_ns <= span_ns[1]
        ]
    entries += [_pose_entry(stamp_ns + shift_ns, pose) for stamp_ns, pose in poses.items()]
    # of the same time, the pose first: who gets an image can place it at once
    entries.sort(key=lambda entry: (entry.stamp_ns, entry.topic != "/tf", entry.topic))
    # Latched topics begin the bag, since nothing can be placed before /tf_static is known.
    first = [
        _static_entry(known, entries[0].stamp_ns, faults),
        _scene_entry(tables, scene, entries[0].stamp_ns, options, about or {}),
    ]
    with BagWriter(
        out,
        storage=options.storage,
        zstd=options.zstd,
        force=options.force,
        about=marks(scene, options, tables.class_list),
    ) as bag:
        for entry in (*first, *entries):
            bag.write(entry.topic, entry.msgtype, entry.build(), entry.stamp_ns, entry.qos)
    result = Conversion(
        samples=len(whole),
        samples_left_out=len(tokens) - len(whole),
        images=len(images),
        images_left_out=len(cameras) - len(there),
        images_lost=len(there) - len(kept),
        clouds=len(clouds),
        duration_s=(there[-1].stamp_ns - first_ns) / 1e9,
        counts=dict(bag.counts),
    )
    # Told and not refused: the blobs of nuScenes are unpacked one by one, and a part is useful.
    if result.samples_left_out or result.images_left_out:
        _LOG.warning(
            "%s: the data root is partial: %d of %d samples and %d of %d images left out",
            scene,
            result.samples_left_out,
            len(tokens),
            result.images_left_out,
            len(cameras),
        )
    return result


def marks(scene: str, options: ConversionOptions, classes: ClassList) -> dict[str, str]:
    """What tells a bag of this scene with these options from others, for its metadata."""
    content = {**asdict(options), "start_ns": options.start_ns is not None}  # "now" is never twice
    del content["force"]  # says nothing of what is in the bag
    if classes != NUSCENES:
        content["classes"] = [to_mapping(one) for one in classes.members]
    return {"nuscenes_scene": scene, "options": json.dumps(content, sort_keys=True)}


def _moved(record: SensorRecord, by_ns: int) -> SensorRecord:
    return replace(record, stamp_ns=record.stamp_ns + by_ns) if by_ns else record


def _sample_entries(
    tables: NuScenesTables,
    scene: str,
    token: str,
    camera_stamps_ns: Mapping[str, int],
    shift_ns: int,
) -> list[Entry]:
    truth = tables.ground_truth(token)
    stamp_ns = truth.stamp_ns + shift_ns
    truth = replace(truth, stamp_ns=stamp_ns)
    sample = BagSample(scene, truth, camera_stamps_ns)
    boxes = truth.boxes
    return [
        Entry(stamp_ns, SAMPLE_TOPIC, "std_msgs/msg/String", lambda: sample_message(sample)),
        Entry(
            stamp_ns,
            TRUTH_TOPIC,
            "vision_msgs/msg/Detection3DArray",
            lambda: detections_message(boxes, truth.classes.names, stamp_ns, truth.instances, BAG),
        ),
        Entry(
            stamp_ns,
            MARKERS_TOPIC,
            "visualization_msgs/msg/MarkerArray",
            lambda: truth_markers(boxes, truth.classes.names, stamp_ns, family=BAG),
        ),
    ]


def _pose_entry(stamp_ns: int, pose: Transform) -> Entry:
    def build() -> Any:
        moved = transform_stamped(pose, stamp_ns, MAP_FRAME, BASE_FRAME, BAG)
        return BAG.make(_TF, transforms=[moved])

    return Entry(stamp_ns, "/tf", _TF, build, reliable(100))


def _static_entry(records: Sequence[SensorRecord], stamp_ns: int, faults: CameraFaults) -> Entry:
    # The calibration of the first key frame: within a scene nuScenes has one for each sensor.
    sensors = {r.channel: r for r in reversed(records) if r.is_key_frame}
    transforms = []
    for name, record in sorted(sensors.items()):
        camera = record.modality == "camera"
        child = optical_frame(name) if camera else ros_name(name)
        mounted = faults.mounted(record.ego_from_sensor) if camera else record.ego_from_sensor
        transforms.append(transform_stamped(mounted, stamp_ns, BASE_FRAME, child, BAG))
    latched = reliable(1, latched=True)
    return Entry(stamp_ns, "/tf_static", _TF, lambda: BAG.make(_TF, transforms=transforms), latched)


def _scene_entry(
    tables: NuScenesTables,
    scene: str,
    stamp_ns: int,
    options: ConversionOptions,
    about: Mapping[str, str],
) -> Entry:
    content = {"scene": scene, "version": tables.version, **about, "options": asdict(options)}
    kind = "std_msgs/msg/String"
    text = BAG.make(kind, data=json.dumps(content))
    return Entry(stamp_ns, SCENE_TOPIC, kind, lambda: text, reliable(1, latched=True))
