# SPDX-License-Identifier: Apache-2.0
"""What becomes of a drive: its sensors, its scenes and their key frames; nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from labeldistill_core.cameras import EGO_FRAME, CameraCalibration
from labeldistill_core.data.tables.columns import LIDAR
from labeldistill_core.errors import BagError
from labeldistill_core.frames import Transform
from labeldistill_core.names import shown
from labeldistill_ros.bags.dataset.checks import (
    Problems,
    drive_span_ns,
    label_faults,
    left_out,
    silence_faults,
    stamp_faults,
    unposed,
    why_no_key_frame,
)
from labeldistill_ros.bags.dataset.image_sets import image_sets
from labeldistill_ros.bags.dataset.key_frames import KeyFrame, choose_key_frames, cut, period_ns
from labeldistill_ros.bags.dataset.options import DatasetOptions
from labeldistill_ros.bags.dataset.survey import Stamps, Stream, Survey
from labeldistill_ros.bags.dataset.topics import SensorTopics
from labeldistill_ros.inputs.rectification import check_distortion
from labeldistill_ros.messages.calibration import calibration_from_info, why_ambiguous
from labeldistill_ros.messages.stamps import stamp_of

_POSES_APART_S = 1.0
"""Between two poses that are interpolated; a vehicle may turn in more."""
_MOST_TOLD = 10
"""Of frames with poses that none can have."""


@dataclass(frozen=True, eq=False)
class PlannedCamera:
    """A camera of a drive."""

    topic: str
    """Of its images."""
    info: Any
    """Its `camera_info`."""
    calibration: CameraCalibration
    """Without distortion, as the tables have it."""


@dataclass(frozen=True, eq=False)
class PlannedLidar:
    """A LiDAR or a radar of a drive."""

    topic: str
    """Of its points."""
    ego_from_sensor: Transform
    """Its mounting."""


@dataclass(frozen=True, eq=False)
class PlannedPoses:
    """Where the vehicle's poses come from."""

    fixed_frame: str
    """ROS name of the frame that does not move."""
    body_frame: str
    """ROS name of the frame whose motion is told."""
    body_from_ego: Transform
    """From the vehicle frame, which stands in it."""
    way: tuple[str, ...]
    """Frames between the two, each in its parent."""
    odometry: str
    """Topic of odometry that tells it; empty where /tf does."""


@dataclass(frozen=True, eq=False)
class Drive:
    """What was found in the bags of one drive."""

    name: str
    """Of its scenes' names the first part."""
    bags: tuple[Path, ...]
    """The bags."""
    topics: SensorTopics
    """Which topics are read."""
    survey: Survey
    """What they hold."""
    cameras: Mapping[str, PlannedCamera]
    """By name; empty where there are problems."""
    lidars: tuple[PlannedLidar, ...]
    """Merged in the frame of the first."""
    radars: Mapping[str, PlannedLidar]
    """By name."""
    poses: PlannedPoses | None
    """Where the vehicle is; None where nothing tells it."""
    label_frame: str
    """ROS name of the frame of the labels; empty without labels."""
    label_from_ego: Transform | None
    """The vehicle frame in that of the labels; None where the labels are in the fixed frame."""
    scenes: tuple[ScenePlan, ...]
    """None where there are problems."""
    sets: int
    """Complete sets of images."""
    problems: tuple[str, ...]
    """Why it cannot be converted; empty where it can."""
    notes: tuple[str, ...]
    """What is good to know."""

    @property
    def image_streams(self) -> dict[str, Stream]:
        """Messages of each camera, by its name."""
        return {c: self.survey.streams[t] for c, t in self.topics.images.items()}


@dataclass(frozen=True, eq=False)
class ScenePlan:
    """A scene that is to be written."""

    name: str
    """Of the scene."""
    split: str
    """train or val."""
    key_frames: tuple[KeyFrame, ...]
    """In the order of time."""
    span_ns: tuple[int, int]
    """Log times between which all its messages were recorded."""


def plan_drive(
    name: str,
    bags: tuple[Path, ...],
    topics: SensorTopics,
    survey: Survey,
    options: DatasetOptions,
) -> Drive:
    """Decide what becomes of a drive.

    Args:
        name: of the drive.
        bags: of it.
        topics: which are read.
        survey: what is in them, of all bags.
        options: what the user wants.
    """
    problems, notes = Problems(), []
    for topic in topics.all:
        if topic not in survey.infos and topic not in topics.infos.values():
            survey.streams.setdefault(topic, Stream(""))
    survey.streams.pop(topics.odometry, None)
    called = {f"{c} ({t})": survey.streams[t] for c, t in topics.images.items()}
    clouds = (*topics.lidars, *topics.radars.values())
    called |= {topic: survey.streams[topic] for topic in clouds}
    # Images and clouds alone say when a drive begins: poses and labels may begin long before.
    span_ns = drive_span_ns(called, options)
    begin_ns = span_ns[0] - round(options.since_s * 1e9)
    for stream in called.values():
        stream.keep((stream.stamps_ns >= span_ns[0]) & (stream.stamps_ns <= span_ns[1]))
    if logs := [stream.logs_ns for stream in called.values() if len(stream.logs)]:
        survey.keep_calibrations((min(map(min, logs)), max(map(max, logs))))
    problems += stamp_faults(called)
    if not problems:  # a clock that is off would accuse the others of silence
        problems += silence_faults(
            {c: called[f"{c} ({t})"] for c, t in topics.images.items()}, begin_ns
        )
    problems += label_faults(survey.class_names, options.known_categories)
    if survey.shared_ids:
        told = ", ".join(map(shown, sorted(survey.shared_ids)[:3]))
        notes.append(
            f"{topics.labels}: boxes with the id {told} are not told apart by it: they are put "
            "together to objects over the key frames by class, place and heading"
        )
    if not topics.lidars and not options.without_lidar:
        notes.append("no LiDAR: no teacher can be trained, nor depth be learned from its points")
    refused = [*survey.edges.refused.values(), *survey.odometry.refused.values()]
    notes += [f"{fault}; such poses are left out" for fault in refused[:_MOST_TOLD]]
    labelled = survey.streams.get(topics.labels) if topics.labels else None
    all_streams = called | ({topics.labels: labelled} if labelled else {})
    notes += islice(left_out(all_streams, survey.edges, survey.odometry), _MOST_TOLD)

    cameras = {}
    for camera, topic in topics.images.items():
        planned = problems.tried(
            lambda c=camera, t=topic: _camera(  # type: ignore[misc]
                c, t, topics.infos[c], survey, options, begin_ns
            ),
            None,
        )
        if planned:
            cameras[camera] = planned
            odd = why_ambiguous(camera, topics.infos[camera], planned.info)
            notes += [odd] if odd and not options.images_rectified else []
    lidars = tuple(
        PlannedLidar(topic, mount)
        for topic in topics.lidars
        if (mount := problems.tried(lambda t=topic: _mount(LIDAR, t, survey, options), None))  # type: ignore[misc]
    )
    radars = {
        name: PlannedLidar(topic, mount)
        for name, topic in topics.radars.items()
        if (mount := problems.tried(lambda n=name, t=topic: _mount(n, t, survey, options), None))  # type: ignore[misc]
    }
    poses = problems.tried(lambda: _poses(topics, survey, options), None)
    label_frame, label_from_ego = "", None
    if labelled and len(labelled.stamps):
        label_frame = next(iter(labelled.frame_ids))
        # Labels are often made, and recorded, long after the drive and in any order.
        times = type(labelled.stamps)("q", sorted(labelled.stamps))
        problems += stamp_faults({topics.labels: replace(labelled, stamps=times, logs=times)})
        if poses and label_frame != poses.fixed_frame:
            label_from_ego = problems.tried(
                lambda: survey.edges.standing(label_frame, options.base_frame), None
            )
    whole = bool(cameras) and len(cameras) == len(topics.images) and poses is not None
    sets = np.empty((0, len(topics.images)), np.int64)
    if all(len(survey.streams[topic].stamps) for topic in topics.images.values()):
        sets = image_sets({c: survey.streams[t] for c, t in topics.images.items()})
    drive = Drive(
        name, bags, topics, survey, cameras, lidars, radars, poses, label_frame, label_from_ego, (),
        len(sets), (), (),
    )  # fmt: skip
    scenes: tuple[ScenePlan, ...] = ()
    if whole and not problems and poses:
        scenes = _scenes(drive, sets, options, notes)
        if not scenes:
            edges = survey.odometry if poses.odometry else survey.edges
            posed_ns = [edges.by_child[child].stamps_ns for child in poses.way]
            labels = topics.labels if label_frame else ""
            images = list(drive.image_streams.values()) if len(sets) else []
            problems.append(why_no_key_frame(images, posed_ns, labels))
    return replace(drive, scenes=scenes, problems=tuple(problems), notes=tuple(notes))


def _frame_of(topic: str, survey: Survey) -> str:
    frames = survey.streams[topic].frame_ids
    return next(iter(frames), "")


def _mount(name: str, topic: str, survey: Survey, options: DatasetOptions) -> Transform:
    mounted = survey.edges.standing(options.base_frame, _frame_of(topic, survey))
    # The names of ROS end here; the numbers stay.
    return replace(mounted, target=EGO_FRAME, source=name)


def _camera(
    name: str, topic: str, told_on: str, survey: Survey, options: DatasetOptions, begin_ns: int
) -> PlannedCamera:
    infos = survey.infos.get(told_on)
    if not infos:
        raise BagError(
            f"{name}: no message on {told_on}, so that its calibration is unknown: "
            "record it from the start"
        )
    mounted = _mount(name, topic, survey, options)
    first, *others = (
        calibration_from_info(
            name, info, mounted, rectified=options.images_rectified, undistorted=True
        )
        for _, info in infos
    )
    if not options.images_rectified:
        check_distortion(name, infos[0][1])
    for (log_ns, info), other in zip(infos[1:], others, strict=True):
        same_lens = np.array_equal(info.d, infos[0][1].d) or options.images_rectified
        if not (first.equals(other) and same_lens):
            # A tenth of a second up, so that what begins there has the new one alone.
            after_s = ((stamp_of(info) or log_ns) - begin_ns) // 10**8 / 10 + 0.1
            raise BagError(
                f"{name}: its calibration changes after {after_s:.1f} s, and a scene has one: cut "
                "the bag there (--since, --until), or publish one camera_info"
            )
    return PlannedCamera(topic, infos[0][1], first)


def _poses(topics: SensorTopics, survey: Survey, options: DatasetOptions) -> PlannedPoses:
    base = options.base_frame
    if options.ego_motion_source != "odometry":
        # map before odom: where both are there, odom drifts, and scenes of one map could not be put
        # together.
        candidates = (options.fixed_frame,) if options.fixed_frame else ("map", "odom")
        for fixed in candidates:
            if way := survey.edges.way(fixed, base):
                for child in way:
                    if fault := survey.edges.faults.get(child):
                        raise BagError(fault)
                still = Transform.identity(base, EGO_FRAME)
                return PlannedPoses(fixed, base, still, tuple(way), "")
        if options.ego_motion_source == "tf" or not survey.odometry.by_child:
            known = ", ".join(map(shown, survey.edges.frames[:30])) or "none"
            or_odometry = "" if options.ego_motion_source == "tf" else ", or odometry"
            raise BagError(
                f"nothing tells where the vehicle is: no transforms lead from "
                f"{' or '.join(map(shown, candidates))} to {shown(base)}: record /tf and "
                f"/tf_static{or_odometry}, or name the frames by --fixed-frame and --base-frame "
                f"(frames in the bag: {known})"
            )
    if not survey.odometry.by_child:
        raise BagError(f"no message on {topics.odometry}: record it, or take the poses from /tf")
    ((body, edge),) = list(survey.odometry.by_child.items())[:1]
    if fault := survey.odometry.faults.get(body):
        raise BagError(f"{topics.odometry}: {fault}")
    if body == base:
        body_from_base = Transform.identity(body, base)
    else:
        body_from_base = survey.edges.standing(body, base)
    return PlannedPoses(
        edge.parent, body, replace(body_from_base, source=EGO_FRAME), (body,), topics.odometry
    )


def _scenes(
    drive: Drive,
    sets: Stamps,
    options: DatasetOptions,
    notes: list[str],
) -> tuple[ScenePlan, ...]:
    survey = drive.survey
    told = posed(drive)
    whole = told(sets.ravel()).reshape(sets.shape).all(axis=1)
    notes += unposed(whole)
    sets = sets[whole]
    scans = None
    if drive.lidars:
        scans = np.sort(survey.streams[drive.lidars[0].topic].stamps_ns)
        scans = scans[told(scans)]
    labels = None
    if drive.label_frame:
        labels = np.sort(survey.streams[drive.topics.labels].stamps_ns)
        labels = labels[told(labels)]
    frames = choose_key_frames(sets, scans, labels)
    if lacking := sum(frame.scan_ns is None for frame in frames) if drive.lidars else 0:
        notes.append(f"{lacking} of {len(frames)} key frames have no scan near their images")
    cuts = cut(frames, options.scene_length_s)
    first_ns, last_ns = (frames[0].stamp_ns, frames[-1].stamp_ns) if frames else (0, 0)
    scenes = []
    for number, piece in enumerate(cuts):
        name = drive.name if len(cuts) == 1 else f"{drive.name}-{number:04d}"
        middle = (piece[0].stamp_ns + piece[-1].stamp_ns) / 2
        # By time and not at random: neighbouring scenes show the same street, and a model must not
        # be scored on what it was trained on.
        late = middle > last_ns - options.val_share * (last_ns - first_ns)
        held_out = late or not {name, drive.name}.isdisjoint(options.val)
        span_ns = _logs(drive, piece)
        scenes.append(ScenePlan(name, "val" if held_out else "train", tuple(piece), span_ns))
    return tuple(scenes)


def posed(drive: Drive) -> Callable[[Stamps], Any]:
    """Tells of (N,) stamps at which of them the vehicle's pose is known."""
    poses = drive.poses
    assert poses is not None
    edges = drive.survey.odometry if poses.odometry else drive.survey.edges
    return lambda stamps: edges.known(list(poses.way), stamps, _POSES_APART_S)


def _logs(drive: Drive, frames: list[KeyFrame]) -> tuple[int, int]:
    """Log times around the messages of a scene."""
    first_ns = min(min(f.images_ns) for f in frames[:1])
    last_ns = max(max(f.images_ns) for f in frames[-1:])
    first_ns = min(first_ns, frames[0].stamp_ns, frames[0].labels_ns or first_ns)
    last_ns = max(last_ns, frames[-1].stamp_ns, frames[-1].labels_ns or last_ns)
    streams = drive.survey.streams
    # What goes with a key frame may come before its first image and after its last: sweeps of
    # radars, which run freely, and of the other LiDARs, which turn half a turn around the first.
    apart_ns = [min(period_ns(streams[r.topic].stamps_ns), 1e8) for r in drive.radars.values()]
    if len(drive.lidars) > 1:
        apart_ns.append(min(period_ns(streams[drive.lidars[0].topic].stamps_ns), 1e9) / 2)
    first_ns -= round(max(apart_ns, default=0.0))
    last_ns += round(max(apart_ns, default=0.0))
    # Bags are indexed by log time and scenes are cut by stamp: what lies between two stamps may
    # have been recorded later than what follows it.
    begin_ns, end_ns = 2**62, 0
    for stream in streams.values():
        inside = (stream.stamps_ns >= first_ns) & (stream.stamps_ns <= last_ns)
        if inside.any():
            begin_ns = min(begin_ns, int(stream.logs_ns[inside].min()))
            end_ns = max(end_ns, int(stream.logs_ns[inside].max()) + 1)
    return begin_ns, end_ns
