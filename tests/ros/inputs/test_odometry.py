# SPDX-License-Identifier: Apache-2.0
"""Where the vehicle is by odometry, where /tf has its mountings alone."""

from __future__ import annotations

import numpy as np
import pytest

from labeldistill_core.frames import Transform
from labeldistill_ros.inputs.odometry import OdometryPoses
from labeldistill_ros.inputs.transforms import Lookup, TransformBuffer, TransformError

S = 1_000_000_000
STILL = (1.0, 0.0, 0.0, 0.0)


def lookup_in(buffer: TransformBuffer) -> Lookup:
    return lambda target, source, stamp_ns, _: buffer.lookup(target, source, stamp_ns)


@pytest.fixture
def tf() -> TransformBuffer:
    buffer = TransformBuffer()
    buffer.add("base_link", "lidar", 0, STILL, (1.0, 0.0, 1.8), static=True)
    return buffer


@pytest.fixture
def poses(tf: TransformBuffer) -> OdometryPoses:
    odometry = TransformBuffer()
    for second in range(3):
        odometry.add("odom", "base_link", second * S, STILL, (10.0 * second, 0.0, 0.0))
    return OdometryPoses(lookup_in(odometry), lookup_in(tf), "/odom", "odom", "base_link")


def found(poses: OdometryPoses, target: str, source: str) -> list[float]:
    pose: Transform = poses.lookup(target, source, S + S // 2, 0.0)
    assert (pose.target, pose.source) == (target, source)
    metres: list[float] = np.round(pose.translation, 9).tolist()
    return metres


def test_what_is_mounted_is_found_by_way_of_the_vehicle(poses: OdometryPoses) -> None:
    assert found(poses, "odom", "base_link") == [15.0, 0.0, 0.0]
    assert found(poses, "base_link", "odom") == [-15.0, 0.0, 0.0]
    assert found(poses, "odom", "lidar") == [16.0, 0.0, 1.8]
    assert found(poses, "lidar", "odom") == [-16.0, 0.0, -1.8]
    assert found(poses, "lidar", "base_link") == [-1.0, 0.0, -1.8]


def test_a_map_above_the_odometry_needs_no_vehicle(
    poses: OdometryPoses, tf: TransformBuffer
) -> None:
    tf.add("map", "odom", 0, STILL, (100.0, 0.0, 0.0), static=True)
    assert found(poses, "map", "odom") == [100.0, 0.0, 0.0]


def test_frames_that_nobody_names_are_told(poses: OdometryPoses) -> None:
    with pytest.raises(TransformError, match="no transform names the frame 'radar'"):
        poses.lookup("radar", "odom", S, 0.0)
    with pytest.raises(TransformError, match="/odom: .* newer than the newest") as raised:
        poses.lookup("lidar", "odom", 5 * S, 0.0)
    assert raised.value.may_come


def test_the_body_is_named_as_tf2_names_it(poses: OdometryPoses) -> None:
    assert poses.body_of("/lidar") == "lidar"
    assert poses.body_of("") == "base_link"
