# SPDX-License-Identifier: Apache-2.0
"""One scene of a drive: its files, and its rows of the tables.

The messages of the scene are gone through once, in the order in which they were recorded; a file
is written when its message comes, so that memory does not grow with the length of a scene.
"""

from __future__ import annotations

import heapq
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from labeldistill_core.cameras import EGO_FRAME, FIXED_FRAME
from labeldistill_core.data.image_header import check_header, ends_whole
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.data.tables.columns import LIDAR
from labeldistill_core.data.tables.writing import Rows, SceneRows, sensor_row, visibility_rows
from labeldistill_core.errors import BagError, DataError
from labeldistill_core.files import naming
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.dataset.clouds import Points, moved, radar_file, scan_points
from labeldistill_ros.bags.dataset.edges import fault_of_pose
from labeldistill_ros.bags.dataset.labels import (
    LabelledBox,
    add_annotations,
    boxes_of,
    with_identities,
)
from labeldistill_ros.bags.dataset.options import DatasetOptions
from labeldistill_ros.bags.dataset.plan import Drive, ScenePlan
from labeldistill_ros.bags.dataset.roles import Role, partner_scans, roles_of
from labeldistill_ros.bags.dataset.survey import MOVING_TOPIC, STATIC_TOPIC
from labeldistill_ros.bags.dataset.topics import BOXES, COMPRESSED
from labeldistill_ros.bags.reader import BagReader, Recorded
from labeldistill_ros.inputs.decoding import to_rgb
from labeldistill_ros.inputs.rectification import Rectifier
from labeldistill_ros.inputs.transforms import TransformBuffer, TransformError
from labeldistill_ros.messages.calibration import is_distorted
from labeldistill_ros.messages.stamps import stamp_of
from labeldistill_ros.ros_names import frame_name

_MARGIN_NS = 2_000_000_000
"""Poses are read for as long before and after the scene, since they come late or early."""
_PNG, _JPEG = "png", "jpg"


@dataclass(frozen=True)
class WrittenScene:
    """What went into a scene."""

    key_frames: int
    """Number of samples."""
    images: int
    """Number of images, those of samples and sweeps together."""
    scans: int
    """Number of LiDAR scans and radar sweeps."""
    boxes: int
    """Number of annotations."""
    bytes_written: int
    """Size of all its files."""


@dataclass
class _Taken:
    """A file that was written."""

    role: Role
    filename: str
    size_px: tuple[int, int] = (0, 0)


@dataclass
class _PartialScan:
    """Points of the main LiDAR that wait for those of the others."""

    stamp_ns: int
    role: Role
    points: dict[str, tuple[int, Points]] = field(default_factory=dict)


class SceneWriter:
    """Writes one scene of a drive."""

    def __init__(self, drive: Drive, scene: ScenePlan, root: Path, options: DatasetOptions) -> None:
        """Prepare; nothing is written yet."""
        assert drive.poses is not None
        self._drive, self._scene, self._root, self._options = drive, scene, root, options
        self._poses = drive.poses
        self._rows = SceneRows(scene.name)
        self._cameras = {c.topic: (name, c) for name, c in drive.cameras.items()}
        self._rectifier = Rectifier()
        # A scene is short, and its poses are asked for at its end: none may be forgotten, and a
        # recording played in order has no time that is set back.
        self._buffer = TransformBuffer(keep_s=math.inf, jump_s=math.inf)
        self._roles = roles_of(drive, scene, options)
        self._partners = partner_scans(drive, self._roles)
        self._waiting: list[_PartialScan] = []
        self._labels: dict[int, list[LabelledBox]] = {}
        self._told: set[int] = set()
        self._written: list[tuple[int, _Taken]] = []
        self._known = options.known_categories
        self._bytes = 0

    def write(self, map_file: str) -> tuple[Rows, WrittenScene]:
        """Write the files; returns the rows and their numbers.

        Args:
            map_file: mask below the data root.

        Raises:
            BagError: a message is damaged or missing.
            OSError: the disk is full.
        """
        for reader, recorded in self._messages():
            try:
                self._take(reader, recorded)
            except DataError as error:
                where = f"{reader.path}: {recorded.topic} at {recorded.stamp_ns / 1e9:.3f} s"
                raise BagError(f"{where}: {error}") from error
        # A partner's cloud may never have come, as at the end of a bag: the scan goes without it.
        self._merge_waiting(at_end=True)
        if absent := {t: list(r) for t, r in self._roles.items() if r}:
            topic, stamps = next(iter(absent.items()))
            raise BagError(
                f"{topic}: the message of {stamps[0] / 1e9:.6f} s came once and is not there any "
                "more: does something write to the bag?"
            )
        return self._finish(map_file)

    def _messages(self) -> Iterator[tuple[BagReader, Recorded]]:
        drive, (begin_ns, end_ns) = self._drive, self._scene.span_ns
        sensors = [c.topic for c in drive.cameras.values()] + [s.topic for s in drive.lidars]
        sensors += [radar.topic for radar in drive.radars.values()]
        # In the wider span, too: of messages of one time, the narrow one knows the first.
        labels = [drive.topics.labels] if drive.label_frame else []
        moving = [self._poses.odometry or MOVING_TOPIC]
        static = [] if self._poses.odometry else [STATIC_TOPIC]
        wide_ns = (begin_ns - _MARGIN_NS, end_ns + _MARGIN_NS)
        with ExitStack() as stack:
            streams = []
            for number, bag in enumerate(drive.bags):
                reader = stack.enter_context(BagReader(bag))
                for topics, span_ns in (
                    (static, None), ([*moving, *labels], wide_ns), (sensors, (begin_ns, end_ns)),
                ):  # fmt: skip
                    there = [topic for topic in topics if topic in reader.topics]
                    if there:
                        streams.append(_numbered(reader, there, span_ns, number))
            # Static transforms were latched before; the others come in the order of recording.
            for _, _, reader, recorded in heapq.merge(*streams, key=lambda item: item[:2]):
                yield reader, recorded

    def _take(self, reader: BagReader, recorded: Recorded) -> None:
        topic = recorded.topic
        if topic in (STATIC_TOPIC, MOVING_TOPIC):
            self._add_transforms(reader.decoded(recorded), static=topic == STATIC_TOPIC)
            return
        message = reader.decoded(recorded)
        if topic == self._poses.odometry:
            self._add_odometry(message)
            return
        stamp_ns = stamp_of(message)
        if recorded.msgtype == BOXES:
            # One time may have several messages, as of a publisher for each class; what two bags
            # have in common is one.
            is_new = hash(recorded.data) not in self._told
            self._told.add(hash(recorded.data))
            if is_new and any(f.labels_ns == stamp_ns for f in self._scene.key_frames):
                known, shared = self._known, self._drive.survey.shared_ids
                self._labels.setdefault(stamp_ns, []).extend(boxes_of(message, known, shared))
            return
        if topic in self._partners and stamp_ns in self._partners[topic]:
            for scan_ns in self._partners[topic].pop(stamp_ns):
                self._part(scan_ns).points[topic] = (stamp_ns, scan_points(message))
            self._merge_waiting()
        role = self._roles[topic].pop(stamp_ns, None) if topic in self._roles else None
        if role is None:
            return
        if topic in self._cameras:
            self._take_image(recorded.msgtype, message, role)
        elif role.sensor in self._drive.radars:
            self._write_file(stamp_ns, role, radar_file(message), "pcd", (0, 0))
        elif len(self._drive.lidars) == 1:
            self._write_scan(stamp_ns, role, scan_points(message))
        else:
            part = self._part(stamp_ns)
            part.role, part.points[topic] = role, (stamp_ns, scan_points(message))
            self._merge_waiting()

    def _take_image(self, msgtype: str, message: Any, role: Role) -> None:
        name, camera = self._cameras[self._drive.cameras[role.sensor].topic]
        calibration = camera.calibration
        size_px = (calibration.width_px, calibration.height_px)
        stamp_ns = stamp_of(message)
        bent = is_distorted(camera.info) and not self._options.images_rectified
        if msgtype == COMPRESSED and not bent and not _is_mosaic(message):
            data = bytes(message.data)
            header = check_header(data, size_px)
            found_px, form = (header.width_px, header.height_px), header.form
            _refuse_other_size(name, found_px, size_px)
            # As they are: to encode them again would cost time and quality. Only the header is
            # read, unless the end is missing.
            if not ends_whole(data, form):
                decode_jpeg(data, largest_wh=size_px)  # refuses it, unless bytes follow its end
            self._write_file(stamp_ns, role, data, _PNG if form == "png" else _JPEG, size_px)
            return
        pixels = to_rgb(message, largest_wh=size_px)
        _refuse_other_size(name, (pixels.shape[1], pixels.shape[0]), size_px)
        if bent:
            pixels = self._rectifier.apply(name, pixels, camera.info)
        jpeg = io.BytesIO()
        Image.fromarray(pixels).save(jpeg, "JPEG", quality=self._options.jpeg_quality)
        self._write_file(stamp_ns, role, jpeg.getvalue(), _JPEG, size_px)

    def _write_scan(self, stamp_ns: int, role: Role, points: Points) -> None:
        self._write_file(stamp_ns, role, points.tobytes(), "pcd.bin", (0, 0))

    def _write_file(
        self, stamp_ns: int, role: Role, data: bytes, ending: str, size_px: tuple[int, int]
    ) -> None:
        folder = f"{'samples' if role.is_key else 'sweeps'}/{role.sensor}"
        # The pattern of nuScenes, out of which tools read sensor and time.
        name = f"{folder}/{self._scene.name}__{role.sensor}__{stamp_ns // 1000}.{ending}"
        path = self._root / name
        # Not under another name first: nothing is taken for whole before the tables tell of it.
        with naming(path):
            try:
                path.write_bytes(data)
            except FileNotFoundError:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        self._bytes += len(data)
        self._written.append((stamp_ns, _Taken(role, name, size_px)))

    def _part(self, scan_ns: int) -> _PartialScan:
        for part in self._waiting:
            if part.stamp_ns == scan_ns:
                return part
        self._waiting.append(_PartialScan(scan_ns, Role(LIDAR, False, -1)))
        return self._waiting[-1]

    def _merge_waiting(self, *, at_end: bool = False) -> None:
        """Write scans of several LiDARs all of whose points and poses are there."""
        main = self._drive.lidars[0].topic if self._drive.lidars else ""
        for part in list(self._waiting):
            awaited = any(part.stamp_ns in scans for ts in self._partners.values()
                          for scans in ts.values())  # fmt: skip
            if main not in part.points or (awaited and not at_end):
                continue
            try:
                merged = self._merged(part)
            except TransformError:
                if at_end:
                    raise
                continue  # its pose has not come yet
            self._waiting.remove(part)
            self._write_scan(part.stamp_ns, part.role, merged)

    def _merged(self, part: _PartialScan) -> Points:
        """All points in the frame of the main LiDAR, at its time."""
        mounts = {lidar.topic: lidar.ego_from_sensor for lidar in self._drive.lidars}
        main = self._drive.lidars[0].topic
        main_from_fixed = (self._pose(part.stamp_ns) @ mounts[main]).inverse
        clouds = [part.points[main][1]]
        for topic, (stamp_ns, points) in part.points.items():
            if topic != main:
                # The vehicle moves between the two scans.
                clouds.append(moved(points, main_from_fixed @ self._pose(stamp_ns) @ mounts[topic]))
        return np.concatenate(clouds)

    def _add_transforms(self, message: Any, *, static: bool) -> None:
        for stamped in message.transforms:
            parent, child = map(frame_name, (stamped.header.frame_id, stamped.child_frame_id))
            # Wheels, doors and arms publish by the hundred a second; only the way to the vehicle
            # counts.
            if child in self._poses.way:
                turn, shift = stamped.transform.rotation, stamped.transform.translation
                self._add_pose(parent, child, stamp_of(stamped), turn, shift, static=static)

    def _add_odometry(self, message: Any) -> None:
        turn, place = message.pose.pose.orientation, message.pose.pose.position
        fixed, body = self._poses.fixed_frame, self._poses.body_frame
        self._add_pose(fixed, body, stamp_of(message), turn, place, static=False)

    def _add_pose(
        self, parent: str, child: str, stamp_ns: int, turn: Any, place: Any, *, static: bool
    ) -> None:
        pose = np.array([place.x, place.y, place.z, turn.w, turn.x, turn.y, turn.z])
        survey = self._drive.survey
        edges = survey.odometry if self._poses.odometry else survey.edges
        # The plan tells of those that are left out.
        if not fault_of_pose(pose) and stamp_ns not in edges.by_child[child].lone:
            self._buffer.add(
                parent, child, stamp_ns, (turn.w, turn.x, turn.y, turn.z),
                (place.x, place.y, place.z), static=static,
            )  # fmt: skip

    def _pose(self, stamp_ns: int) -> Transform:
        """`fixed_from_ego`."""
        poses = self._poses
        body = self._buffer.lookup(poses.fixed_frame, poses.body_frame, stamp_ns)
        return replace(body, target=FIXED_FRAME) @ poses.body_from_ego

    def _finish(self, map_file: str) -> tuple[Rows, WrittenScene]:
        rows, drive, options = self._rows, self._drive, self._options
        samples = rows.add_samples(f.stamp_ns // 1000 for f in self._scene.key_frames)
        rows.describe(
            samples, map_file, description=drive.name, vehicle=options.vehicle,
            location=options.location, date_captured=_date(self._scene.key_frames[0].stamp_ns),
        )  # fmt: skip
        for name, camera in drive.cameras.items():
            mounted = camera.calibration
            rows.mount(name, mounted.ego_from_camera, mounted.intrinsics_px)
            rows.tables["sensor"].append(sensor_row(name, "camera"))
        if drive.lidars:
            rows.mount(LIDAR, drive.lidars[0].ego_from_sensor, None)
            rows.tables["sensor"].append(sensor_row(LIDAR, "lidar"))
        for name, radar in drive.radars.items():
            rows.mount(name, radar.ego_from_sensor, None)
            rows.tables["sensor"].append(sensor_row(name, "radar"))
        rows.tables["visibility"] = visibility_rows()
        scans: dict[int, Any] = {}
        # By time and name: bags interleave by the load of the recorder, and tables should not.
        for stamp_ns, taken in sorted(self._written, key=lambda item: (item[0], item[1].filename)):
            role, pose = taken.role, self._pose(stamp_ns)
            rows.add_file(
                role.sensor, samples[role.sample], stamp_ns // 1000, pose, taken.filename,
                is_key=role.is_key, size_px=taken.size_px,
            )  # fmt: skip
            if role.is_key and role.sensor == LIDAR:
                scans[role.sample] = (taken.filename, pose @ drive.lidars[0].ego_from_sensor)
        rows.link_data()
        self._annotate(samples, scans)
        images = sum(t.role.sensor in drive.cameras for _, t in self._written)
        boxes = len(rows.tables["sample_annotation"])
        numbers = WrittenScene(
            len(samples), images, len(self._written) - images, boxes, self._bytes
        )
        return rows.tables, numbers

    def _annotate(self, samples: list[str], scans: Mapping[int, Any]) -> None:
        key_frames = enumerate(self._scene.key_frames)
        stamps = {k: f.labels_ns for k, f in key_frames if f.labels_ns is not None}
        found = with_identities(list(stamps.values()), list(map(self._placed, stamps.values())))
        instances: dict[str, str] = {}
        for k, boxes in zip(stamps, found, strict=True):
            points = None
            if k in scans:
                # Read again rather than kept: the scans of a scene are the largest part of it.
                name, fixed_from_lidar = scans[k]
                scan = np.fromfile(self._root / name, np.float32).reshape(-1, 5)
                points = fixed_from_lidar.apply(scan[:, :3])
            instances |= add_annotations(self._rows, samples[k], boxes, points)
        self._rows.link_annotations(instances)

    def _placed(self, labels_ns: int) -> list[LabelledBox]:
        """Boxes of a message, in the fixed frame."""
        label_from_ego = self._drive.label_from_ego
        if label_from_ego is None:
            fixed_from_label = Transform.identity(FIXED_FRAME, self._drive.label_frame)
        else:
            pose = self._pose(labels_ns)
            fixed_from_label = pose @ replace(label_from_ego, source=EGO_FRAME).inverse
        return [
            replace(box, frame_from_box=fixed_from_label @ box.frame_from_box)
            for box in self._labels[labels_ns]
        ]


def _numbered(
    reader: BagReader, topics: list[str], span_ns: tuple[int, int] | None, number: int
) -> Iterator[tuple[int, int, BagReader, Recorded]]:
    for recorded in reader.raw(topics, span_ns):
        yield 0 if span_ns is None else recorded.stamp_ns, number, reader, recorded


def _is_mosaic(message: Any) -> bool:
    """Whether a compressed image is that of a Bayer sensor, whose colours are yet to be made."""
    return str(message.format).startswith("bayer_")


def _refuse_other_size(name: str, found_px: tuple[int, int], wanted_px: tuple[int, int]) -> None:
    if found_px != wanted_px:
        raise DataError(
            f"{name}: the image is {found_px[0]} x {found_px[1]} pixels, its camera_info says "
            f"{wanted_px[0]} x {wanted_px[1]}: record a camera_info for this size"
        )


def _date(stamp_ns: int) -> str:
    return str(np.datetime64(stamp_ns, "ns").astype("datetime64[D]"))
