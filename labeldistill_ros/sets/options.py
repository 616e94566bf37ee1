# SPDX-License-Identifier: Apache-2.0
"""What the parameters say of finding, assembling and showing sets: the one place that reads them.

The node and `labeldistill bag detect` both come here, so a parameter means the same to both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from labeldistill_core.errors import ConfigError
from labeldistill_ros.parameters import Parameters, VehicleParameters
from labeldistill_ros.sets.arrival import Arrival
from labeldistill_ros.sets.assembly import AssemblyOptions
from labeldistill_ros.sets.selection import Selection
from labeldistill_ros.sync.approximate import ApproximateSynchronizer
from labeldistill_ros.sync.camera_set import fewest_cameras
from labeldistill_ros.sync.discontinuity import DiscontinuityCheck
from labeldistill_ros.sync.synchronizer import Synchronizer, SyncOptions


def preferred_anchor(cameras: Sequence[str]) -> str:
    """The camera whose stamp a set carries where none is named: nuScenes' front, or the first."""
    return "CAM_FRONT" if "CAM_FRONT" in cameras else cameras[0]


def sync_options(vehicle: VehicleParameters) -> SyncOptions:
    """Options of the synchronizer.

    Raises:
        ConfigError: they contradict each other or the model.
    """
    sync, names = vehicle.common.sync, tuple(vehicle.cameras)
    if sync.anchor and sync.anchor not in names:
        raise ConfigError(
            f"sync.anchor is {sync.anchor!r}: use one of the model's cameras {', '.join(names)}"
        )
    anchor = sync.anchor or preferred_anchor(names)
    offsets = {name: own.time_offset for name, own in vehicle.cameras.items()}
    given = {name: offset for name, offset in offsets.items() if math.isfinite(offset)}
    if given.get(anchor):
        raise ConfigError(
            f"cameras.{anchor}.time_offset is {given[anchor]:g}, but {anchor} is the anchor, from "
            "whose exposure all offsets count: leave its own out, or name another by sync.anchor"
        )
    return SyncOptions(
        names,
        anchor,
        sync.tolerance,
        sync.deadline or None,
        sync.max_age,
        fewest_cameras(names, sync.min_cameras),
        sync.missing_camera_policy,
        given,
    )


def make_synchronizer(
    vehicle: VehicleParameters,
) -> Synchronizer[Arrival] | ApproximateSynchronizer[Arrival]:
    """The synchronizer that the parameters ask for.

    Raises:
        ConfigError: the parameters contradict each other, or a library is missing.
    """
    options = sync_options(vehicle)
    if vehicle.common.sync.policy == "approximate_time":
        return ApproximateSynchronizer(options, vehicle.common.sync.slop)
    return Synchronizer(options)


def assembly_options(vehicle: VehicleParameters) -> AssemblyOptions:
    """Options of the assembler.

    Raises:
        ConfigError: the parameters of the synchronizer contradict each other or the model, or
            frames are empty or the same.
    """
    common, sync = vehicle.common, sync_options(vehicle)
    _check_frames(common)
    return AssemblyOptions(
        common.fixed_frame,
        common.base_frame,
        common.output_frame,
        common.tf_timeout,
        # Where incomplete sets are dropped, an image that cannot be decoded is as bad as one that
        # is lost.
        sync.min_cameras if sync.policy == "mask" else len(sync.cameras),
        common.images_rectified,
        "none" if common.ego_motion_source == "none" else common.missing_pose_policy,
        {camera: own.frame_id for camera, own in vehicle.cameras.items()},
    )


def _check_frames(common: Parameters) -> None:
    for name in ("fixed_frame", "base_frame", "output_frame"):
        if not getattr(common, name):
            raise ConfigError(f"{name} is empty: name a frame, such as map or base_link")
    # The vehicle would seem to stand, and the past be laid over the present where it was seen.
    if common.fixed_frame == common.base_frame and common.ego_motion_source != "none":
        raise ConfigError(
            f"fixed_frame and base_frame are both {common.base_frame!r}: fixed_frame has to be one "
            "that does not move with the vehicle, such as map or odom; where there is none, set "
            "ego_motion_source to none"
        )


def discontinuity_check(common: Parameters) -> DiscontinuityCheck:
    """What says that the past has to be forgotten."""
    return DiscontinuityCheck(common.history.reset_gap, common.history.max_speed)


def selection(vehicle: VehicleParameters) -> Selection:
    """Which boxes are shown, by score, number, distance and class."""
    common = vehicle.common
    thresholds = tuple(own.score_threshold for own in vehicle.classes.values())
    return Selection(common.score_threshold, common.max_boxes, common.max_range, thresholds)
