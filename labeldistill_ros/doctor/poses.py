# SPDX-License-Identifier: Apache-2.0
"""Is it known where the vehicle is at the stamps of the images, and is the tree one tree?"""

from __future__ import annotations

from collections.abc import Sequence

from labeldistill_ros.doctor.finding import Finding, Level
from labeldistill_ros.doctor.observation import Observation
from labeldistill_ros.inputs.transforms import Lookup, TransformError

_MOST = 400
"""Stamps that are looked up; a minute of a camera at 12 Hz has 720."""
_NEGLIGIBLE = 0.05
"""Share of stamps without pose that the beginning and the end of an observation explain."""


def check_poses(seen: Observation, lookup: Lookup, refused: Sequence[str]) -> list[Finding]:
    """Transforms at the stamps of the images.

    Args:
        seen: what came.
        lookup: gives the transform between two ROS frames at a stamp.
        refused: what the tree of transforms refused, in sentences.
    """
    found = [Finding("transforms", "fault", text) for text in dict.fromkeys(refused)]
    common = seen.vehicle.common
    if common.ego_motion_source == "none":
        text = "ego_motion_source is none, so past frames are not used; tf and odometry tell more"
        return [*found, Finding("poses", "warning", text)]
    stamps = sorted(stamp for own in seen.stamps_ns.values() for stamp in own)
    # Spread over the whole drive: poses are often there at its beginning and lost later.
    stamps = stamps[:: max(1, len(stamps) // _MOST)]
    if not stamps:
        return found
    pairs = [(common.fixed_frame, common.base_frame)]
    if common.output_frame not in (common.fixed_frame, common.base_frame):
        # Boxes leave the network in the vehicle's frame and go by way of the fixed one, so another
        # output frame has to be known at the same stamps.
        pairs.append((common.output_frame, common.fixed_frame))
    for target, source in pairs:
        failures = []
        for stamp_ns in stamps:
            try:
                lookup(target, source, stamp_ns, 0.0)
            except TransformError as error:
                failures.append(str(error))
        name, there = f"{target} from {source}", len(stamps) - len(failures)
        text = f"{name} at {there} of {len(stamps)} stamps"
        if len(failures) <= _NEGLIGIBLE * len(stamps):
            found.append(Finding("poses", "ok", text))
            continue
        # Without any pose the history never fills; with some it is short of what it could be.
        needed = common.missing_pose_policy == "required" or target == common.output_frame
        level: Level = "fault" if not there or needed else "warning"
        text += (
            f": {failures[len(failures) // 2]}; see to localization or odometry, its clock, and to "
            "fixed_frame and base_frame"
        )
        found.append(Finding("poses", level, text))
    return found
