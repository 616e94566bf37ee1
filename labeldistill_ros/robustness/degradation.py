# SPDX-License-Identifier: Apache-2.0
"""What failures cost: official metrics of a data root while cameras, stamps or calibration fail.

Images go through the node's synchronizer and the detector, in the order of their stamps, but not
over DDS, so that the figures are the same on every machine. The data are key frames at 2 Hz.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FIXED_FRAME, CameraView, FrameSet
from labeldistill_core.data.images import decode_reduction
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.nuscenes_records import SensorRecord, images_of
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.errors import ConfigError
from labeldistill_core.evaluation.metrics import Metrics, evaluate
from labeldistill_core.evaluation.result_boxes import result_columns
from labeldistill_core.evaluation.result_columns import BoxArrays, ResultColumns
from labeldistill_core.frames import Transform
from labeldistill_core.installed_files import demo_model
from labeldistill_core.options import DetectorOptions, TablesOptions
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.bags.camera_faults import CameraFaults
from labeldistill_ros.sets.options import preferred_anchor
from labeldistill_ros.sync.camera_set import CameraSet, fewest_cameras
from labeldistill_ros.sync.synchronizer import Synchronizer, SyncOptions

_TRANSPORT_S = 0.005
"""Seconds from an exposure to the image's arrival; the same for all, so that nothing is late."""
_POLICIES: tuple[Literal["mask", "skip"], ...] = ("mask", "skip")


@dataclass(frozen=True)
class OperatingCondition:
    """What a detector has to cope with."""

    name: str
    """Name of the condition in the table."""
    faults: CameraFaults = field(default_factory=CameraFaults)
    """What goes wrong with the cameras."""
    every: int = 1
    """Only each so-many-th set is sent."""
    policy: Literal["skip", "mask"] = "mask"
    """Whether sets that lack images are left out, or used without them."""


def conditions(cameras: Sequence[str]) -> tuple[OperatingCondition, ...]:
    """The rows of the table; the first one is what the others are compared with.

    Args:
        cameras: names of the model's cameras.
    """
    return (
        # One policy a camera: `mask` is what the table is about. `skip` makes no set at all without
        # a camera, whichever it is, so a single row tells it.
        OperatingCondition("none", policy="skip"),
        *(
            OperatingCondition(f"{camera} off", CameraFaults(kill_camera=(camera,)))
            for camera in cameras
        ),
        OperatingCondition(
            "any camera off, skip", CameraFaults(kill_camera=(cameras[0],)), policy="skip"
        ),
        *(
            OperatingCondition(
                f"{share:.0%} of images lost, {policy}", CameraFaults(drop=share), policy=policy
            )
            for share in (0.05, 0.1, 0.2)
            for policy in _POLICIES
        ),
        *(
            OperatingCondition(f"stamps jitter by {ms} ms", CameraFaults(jitter_ms=ms))
            for ms in (3, 5)
        ),
        *(
            OperatingCondition(
                f"calibration off by {deg:g} degrees", CameraFaults(miscalibrate_deg=deg)
            )
            for deg in (0.5, 1.0)
        ),
        OperatingCondition("half the rate", every=2),
    )


@dataclass(frozen=True)
class Degradation:
    """What a condition does to the scores."""

    fault: str
    """Name of the condition under which the scores were reached."""
    mean_ap: float
    """Mean average precision over all key frames, from 0 to 1; those without a set are empty."""
    nds: float
    """nuScenes detection score over the same key frames, from 0 to 1."""
    sets: int
    """Sets that were detected in."""
    samples: int
    """Number of key frames that are scored, also those without a set."""


@dataclass(frozen=True)
class RobustnessOptions(DetectorOptions, TablesOptions):
    """Which model is scored, and on what."""

    split: str = "val"
    """Split to run on: train, val, all, or a name in the data root's splits.json."""
    scenes: int = 0
    """Run on the first so many of these scenes only; on all when 0."""

    def __post_init__(self) -> None:
        """Refuse numbers of scenes that there cannot be."""
        if self.scenes < 0:
            raise ConfigError("--scenes must be 0 or more")

    def chosen(self, tables: NuScenesTables) -> list[str]:
        """Names of the scenes to run on."""
        return split_scenes(tables, self.split)[: self.scenes or None]


def robustness(dataroot: Path, options: RobustnessOptions) -> Iterator[Degradation]:
    """Score a data root under one condition after the other, see `conditions`.

    Args:
        dataroot: nuScenes data root, real or synthetic.
        options: which model is scored, and on what.
    """
    model = options.model or demo_model()
    detector = Detector.load(model, device=options.device, precision=options.precision)
    tables = NuScenesTables(dataroot, options.version, detector.config.head.class_list)
    names = options.chosen(tables)
    for condition in conditions(detector.config.cameras):
        yield degradation(condition, tables, names, detector)


def degradation(
    condition: OperatingCondition, tables: NuScenesTables, scenes: Sequence[str], detector: Detector
) -> Degradation:
    """Metrics under one condition.

    Args:
        condition: what is wrong.
        tables: of the data root.
        scenes: names of its scenes.
        detector: the network.
    """
    results: dict[str, BoxArrays] = {}
    nothing = result_columns(Boxes3D.empty(FIXED_FRAME), detector.class_names)
    sets = 0
    for scene in tqdm(scenes, desc=condition.name, unit="scene", leave=False, disable=None):
        detector.reset()
        tokens = tables.samples(scene)
        # Every key frame is scored: what gave no set is an empty result, so that dropping hard
        # frames does not raise a score.
        results.update(dict.fromkeys(tokens, nothing))
        for token, frames in _sets(condition, tables, tokens, detector):
            found = detector.detect(frames)
            boxes = found.in_frame(Transform.identity(FIXED_FRAME, FIXED_FRAME))
            results[token] = result_columns(boxes, detector.class_names)
            sets += 1
    truths = [tables.ground_truth(token) for token in results]
    metrics: Metrics = evaluate(truths, ResultColumns(results))
    return Degradation(condition.name, metrics.mean_ap, metrics.nds, sets, len(results))


@dataclass(frozen=True, eq=False)
class _Exposure:
    """An image of a key frame as the vehicle gets it; decoded when its set is complete."""

    stamp_ns: int
    sample: str
    record: SensorRecord


def _sets(
    condition: OperatingCondition, tables: NuScenesTables, tokens: Sequence[str], detector: Detector
) -> Iterator[tuple[str, FrameSet]]:
    """Sets that the synchronizer makes of a scene's images, with the sample each belongs to."""
    cameras, faults = detector.config.cameras, condition.faults
    reduction = partial(decode_reduction, image=detector.config.image)
    events: list[_Exposure] = []
    first_ns: int | None = None
    # Each image is an event of its own, as on a vehicle: a fault may move it before or behind
    # others.
    for token in tokens[:: condition.every]:
        for record in images_of(token, tables.cameras(token), cameras):
            first_ns = record.stamp_ns if first_ns is None else first_ns
            if not faults.lost(record.token, record.channel, record.stamp_ns - first_ns):
                stamp_ns = record.stamp_ns + faults.stamp_error_ns(record.token)
                events.append(_Exposure(stamp_ns, token, record))
    # By the stamp with its error: the synchronizer sees no other time.
    events.sort(key=lambda event: event.stamp_ns)
    pose_at = _poses([event.record for event in events])

    def view(event: _Exposure) -> CameraView:
        view = event.record.view(reduction)
        if not faults.any:
            return view
        mounted = faults.mounted(view.calibration.ego_from_camera)
        # A false stamp gets the pose of that false time, since this is what a node would look up
        # in /tf.
        return replace(
            view,
            calibration=replace(view.calibration, ego_from_camera=mounted),
            stamp_ns=event.stamp_ns,
            fixed_from_ego=pose_at(event.stamp_ns),
        )

    for found in _closed(condition, cameras, events):
        views = tuple(view(frame.item) for frame in found.frames.values())
        yield found.frames[found.anchor].item.sample, FrameSet(found.stamp_ns, views)


def _closed(
    condition: OperatingCondition, cameras: tuple[str, ...], events: Sequence[_Exposure]
) -> Iterator[CameraSet[_Exposure]]:
    """Sets that are detected in, as the synchronizer closes them."""
    sync = Synchronizer[_Exposure](
        SyncOptions(
            cameras,
            preferred_anchor(cameras),
            min_cameras=fewest_cameras(cameras),
            policy=condition.policy,
        )
    )
    closed = []
    for event in events:
        # The steady clock is the stamps' own, so that no result depends on the machine's speed.
        now_s = event.stamp_ns / 1e9 + _TRANSPORT_S
        # What became due before this image came is closed first, in the order in which a node
        # would.
        while (due_s := sync.next_deadline_s()) is not None and due_s < now_s:
            closed += sync.poll(due_s + 1e-6)
        closed += sync.add(event.record.channel, event.stamp_ns, event, now_s).sets
    # Nothing follows the last image, so the deadlines of the last sets are let pass.
    closed += sync.poll(now_s + 1.0) if events else []
    return (found for found in closed if found.usable)


def _poses(records: Sequence[SensorRecord]) -> Callable[[int], Transform]:
    """The vehicle's pose at any time, from those of the images."""
    known: Mapping[int, Transform] = {one.stamp_ns: one.fixed_from_ego for one in records}
    stamps = sorted(known)

    def pose(stamp_ns: int) -> Transform:
        if len(stamps) == 1:
            return known[stamps[0]]
        i = min(max(bisect_right(stamps, stamp_ns) - 1, 0), len(stamps) - 2)
        before, after = stamps[i], stamps[i + 1]
        fraction = float(np.clip((stamp_ns - before) / (after - before), 0.0, 1.0))
        return known[before].interpolate(known[after], fraction)

    return pose
