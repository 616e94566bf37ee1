# SPDX-License-Identifier: Apache-2.0
"""What failures cost: official metrics of a data root while cameras, stamps or calibration fail.

Images go through the node's synchronizer and the detector, in the order of their stamps, but not
over DDS, so that the figures are the same on every machine. The data are key frames at 2 Hz.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from labeldistill_core.cameras import CAMERAS, FIXED_FRAME, CameraView, FrameSet
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.evaluation.metrics import Metrics, evaluate
from labeldistill_core.evaluation.results import ResultBox, result_boxes
from labeldistill_core.frames import Transform
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.sync.synchronizer import Synchronizer, SyncOptions

_TRANSPORT_S = 0.005


@dataclass(frozen=True)
class Fault:
    """One condition."""

    name: str
    """For the table."""
    off: tuple[str, ...] = ()
    """Cameras that send nothing."""
    loss: float = 0.0
    """Share of the images that is lost, of each camera."""
    jitter_s: float = 0.0
    """Standard deviation of the stamps; poses are looked up at the wrong time accordingly."""
    turn_deg: float = 0.0
    """Each camera is mounted so much off its calibration, about a random axis."""
    every: int = 1
    """Only each so-many-th set is sent."""
    policy: str = "mask"
    """What the node does with incomplete sets."""


FAULTS: tuple[Fault, ...] = (
    Fault("none", policy="skip"),
    *(Fault(f"{camera} off", off=(camera,)) for camera in CAMERAS),
    Fault("any camera off, skip", off=(CAMERAS[1],), policy="skip"),
    *(
        Fault(f"{share:.0%} of images lost, {policy}", loss=share, policy=policy)
        for share in (0.05, 0.1, 0.2)
        for policy in ("mask", "skip")
    ),
    *(Fault(f"stamps jitter by {ms} ms", jitter_s=ms / 1e3) for ms in (3, 5)),
    *(Fault(f"calibration off by {deg:g} degrees", turn_deg=deg) for deg in (0.5, 1.0)),
    Fault("half the rate", every=2),
)


@dataclass(frozen=True)
class Degradation:
    """What a fault does."""

    fault: str
    """Name."""
    mean_ap: float
    """mAP over all key frames; those without boxes count as empty."""
    nds: float
    """nuScenes detection score, likewise."""
    sets: int
    """Sets that were detected in."""
    samples: int
    """Key frames."""


def run_fault(
    fault: Fault, tables: NuScenesTables, scenes: Sequence[str], detector: Detector, seed: int = 0
) -> Degradation:
    """Metrics under one fault.

    Args:
        fault: what is wrong.
        tables: of the data root.
        scenes: names of its scenes.
        detector: the network.
        seed: of what is random.
    """
    rng = np.random.default_rng(seed)
    results: dict[str, list[ResultBox]] = {}
    sets = 0
    for scene in tqdm(scenes, desc=fault.name, unit="scene", leave=False, disable=None):
        detector.reset(f"scene {scene}")
        tokens = tables.samples(scene)
        results.update({token: [] for token in tokens})
        for token, frames in _sets(fault, tables, tokens, detector, rng):
            found = detector.detect(frames)
            boxes = found.in_frame(Transform.identity(FIXED_FRAME, FIXED_FRAME))
            results[token] = result_boxes(token, boxes, detector.class_names)
            sets += 1
    metrics: Metrics = evaluate([tables.ground_truth(token) for token in results], results)
    return Degradation(fault.name, metrics.mean_ap, metrics.nds, sets, len(results))


def _sets(
    fault: Fault,
    tables: NuScenesTables,
    tokens: Sequence[str],
    detector: Detector,
    rng: np.random.Generator,
) -> list[tuple[str, FrameSet]]:
    """Sets that the synchronizer makes of a scene's images, with the sample each belongs to."""
    cameras = detector.config.cameras
    turns = {camera: _turn(camera, fault.turn_deg, rng) for camera in cameras}
    events: list[tuple[int, str, str, CameraView]] = []
    for token in tokens[:: fault.every]:
        for camera, view in tables.frame_set(token, cameras).by_name.items():
            lost = rng.random() < fault.loss
            late_ns = round(rng.normal(0.0, fault.jitter_s) * 1e9)
            if camera in fault.off or lost:
                continue
            events.append((view.stamp_ns + late_ns, camera, token, view))
    events.sort(key=lambda event: event[0])
    pose_at = _poses([event[3] for event in events])
    sync = Synchronizer[tuple[str, CameraView]](
        SyncOptions(
            cameras,
            "CAM_FRONT" if "CAM_FRONT" in cameras else cameras[0],
            policy="mask" if fault.policy == "mask" else "skip",
        )
    )
    closed = []
    for stamp_ns, camera, token, view in events:
        now_s = stamp_ns / 1e9 + _TRANSPORT_S
        while (due_s := sync.next_deadline_s()) is not None and due_s < now_s:
            closed += sync.poll(due_s + 1e-6)
        calibration = replace(
            view.calibration, ego_from_camera=view.calibration.ego_from_camera @ turns[camera]
        )
        moved = view
        if fault.jitter_s or fault.turn_deg:
            moved = replace(
                view, calibration=calibration, stamp_ns=stamp_ns, fixed_from_ego=pose_at(stamp_ns)
            )
        closed += sync.add(camera, stamp_ns, (token, moved), now_s).sets
    closed += sync.poll(now_s + 1.0) if events else []
    return [
        (
            found.frames[found.anchor].item[0],
            FrameSet(found.stamp_ns, tuple(frame.item[1] for frame in found.frames.values())),
        )
        for found in closed
        if found.usable
    ]


def _turn(camera: str, angle_deg: float, rng: np.random.Generator) -> Transform:
    """A small rotation of an optical frame about a random axis."""
    axis = rng.normal(size=3)
    half = np.deg2rad(angle_deg) / 2
    xyz = np.sin(half) * axis / np.linalg.norm(axis)
    return Transform.from_quaternion(camera, camera, (np.cos(half), *xyz), (0.0, 0.0, 0.0))


def _poses(views: Sequence[CameraView]) -> Callable[[int], Transform]:
    """The vehicle's pose at any time, from those of the images."""
    known: Mapping[int, Transform] = {view.stamp_ns: view.fixed_from_ego for view in views}
    stamps = sorted(known)

    def pose(stamp_ns: int) -> Transform:
        i = min(max(bisect_right(stamps, stamp_ns) - 1, 0), len(stamps) - 2)
        before, after = stamps[i], stamps[i + 1]
        fraction = float(np.clip((stamp_ns - before) / (after - before), 0.0, 1.0))
        return known[before].interpolate(known[after], fraction)

    return pose
