# SPDX-License-Identifier: Apache-2.0
"""The transform buffer against composition by hand."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeldistill_core.frames import Transform
from labeldistill_ros.inputs.transforms import TransformBuffer, TransformError

S = 1_000_000_000


def yaw(angle: float) -> tuple[float, float, float, float]:
    return (float(np.cos(angle / 2)), 0.0, 0.0, float(np.sin(angle / 2)))


@pytest.fixture
def buffer() -> TransformBuffer:
    """A vehicle that drives 10 m/s along y and turns at 0.2 rad/s; a camera; a LiDAR."""
    tf = TransformBuffer()
    for k in range(21):
        t = k * 0.05
        tf.add("map", "odom", k * S // 20, yaw(0.0), (100.0, 0.0, 0.0))
        tf.add("odom", "base_link", k * S // 20, yaw(0.2 * t), (0.0, 10 * t, 0.0))
    tf.add("base_link", "camera", 0, (0.5, -0.5, 0.5, -0.5), (1.5, 0.1, 1.6), static=True)
    tf.add("base_link", "lidar", 0, yaw(np.pi / 2), (0.9, 0.0, 1.8), static=True)
    return tf


def test_interpolates_between_poses(buffer: TransformBuffer) -> None:
    pose = buffer.lookup("map", "base_link", 333_000_000)
    assert (pose.target, pose.source) == ("map", "base_link")
    np.testing.assert_allclose(pose.translation, [100.0, 3.33, 0.0], atol=1e-9)
    heading = pose.rotation @ [1, 0, 0]
    assert np.arctan2(heading[1], heading[0]) == pytest.approx(0.0666, abs=1e-9)


def test_through_the_tree_and_back(buffer: TransformBuffer) -> None:
    stamp = 700_000_001
    camera_from_lidar = buffer.lookup("camera", "lidar", stamp)
    base_from_lidar = buffer.lookup("base_link", "lidar", stamp)
    base_from_camera = buffer.lookup("base_link", "camera", stamp)
    np.testing.assert_allclose(
        camera_from_lidar.matrix, (base_from_camera.inverse @ base_from_lidar).matrix, atol=1e-12
    )
    to_map = buffer.lookup("map", "camera", stamp)
    np.testing.assert_allclose(
        buffer.lookup("camera", "map", stamp).matrix, to_map.inverse.matrix, atol=1e-9
    )
    same = buffer.lookup("camera", "camera", stamp)
    np.testing.assert_array_equal(same.matrix, np.eye(4))


@given(fraction=st.floats(0, 1))
def test_stays_on_the_segment(fraction: float) -> None:
    tf = TransformBuffer()
    tf.add("a", "b", 0, yaw(0.3), (0.0, 0.0, 0.0))
    tf.add("a", "b", S, yaw(-0.4), (2.0, 4.0, 6.0))
    got = tf.lookup("a", "b", round(fraction * S))
    np.testing.assert_allclose(got.translation, np.array([2, 4, 6]) * fraction, atol=1e-8)
    expected = Transform.from_quaternion("a", "b", yaw(0.3 - 0.7 * fraction), [0, 0, 0]).rotation
    np.testing.assert_allclose(got.rotation, expected, atol=1e-8)


def test_errors_name_the_frame_and_the_distance(buffer: TransformBuffer) -> None:
    with pytest.raises(TransformError, match=r"no transform names the frame 'radar'.*camera"):
        buffer.lookup("map", "radar", 0)
    with pytest.raises(TransformError, match=r"0.250 s newer than the newest of 21") as newer:
        buffer.lookup("odom", "camera", S + S // 4)
    assert newer.value.may_come
    with pytest.raises(TransformError, match=r"0.100 s older than the oldest") as older:
        buffer.lookup("map", "camera", -S // 10)
    assert not older.value.may_come
    buffer.add("world", "other", 0, yaw(0), (0.0, 0.0, 0.0), static=True)
    with pytest.raises(TransformError, match="different trees.*'map' and 'world'"):
        buffer.lookup("camera", "other", 0)
    with pytest.raises(TransformError, match="known frames: none"):
        TransformBuffer().lookup("map", "base_link", 0)


def test_static_transforms_hold_for_any_stamp_and_the_last_one_wins(
    buffer: TransformBuffer,
) -> None:
    buffer.add("base_link", "camera", 5, (0.5, -0.5, 0.5, -0.5), (1.6, 0.1, 1.6), static=True)
    for stamp in (-S, 0, 100 * S):
        assert buffer.lookup("base_link", "camera", stamp).translation[0] == 1.6


def test_history_is_bounded() -> None:
    tf = TransformBuffer(keep_s=1.0)
    for k in range(2000):
        tf.add("map", "base_link", k * S // 100, yaw(0), (float(k), 0.0, 0.0))
    assert tf.lookup("map", "base_link", 19 * S).translation[0] == pytest.approx(1900.0)
    with pytest.raises(TransformError, match="older than the oldest"):
        tf.lookup("map", "base_link", 15 * S)


def test_out_of_order_and_repeated_stamps() -> None:
    tf = TransformBuffer()
    for k in (0, 2, 1, 3, 3):
        tf.add("map", "base_link", k * S // 10, yaw(0), (float(k), 0.0, 0.0))
    assert tf.lookup("map", "base_link", S // 10).translation[0] == 1.0
    assert tf.lookup("map", "base_link", S // 4).translation[0] == pytest.approx(2.5)


def test_bag_loop_drops_the_future(buffer: TransformBuffer) -> None:
    assert buffer.add("odom", "base_link", 0, yaw(0), (7.0, 0.0, 0.0)) is True
    assert buffer.lookup("odom", "base_link", 0).translation[0] == 7.0
    with pytest.raises(TransformError, match="newer"):
        buffer.lookup("odom", "base_link", S // 2)
    assert buffer.add("odom", "base_link", S // 20, yaw(0), (7.5, 0.0, 0.0)) is False


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("number", [np.nan, np.inf, 1e9])
def test_a_pose_that_is_no_place_replaces_none(number: float, static: bool, axis: int) -> None:
    told: list[str] = []
    tf = TransformBuffer(tell=told.append)
    for k in range(3):
        place = [1.0, 2.0, 3.0]
        if k == 1:
            place[axis] = number
        tf.add("map", "base_link", k * S, yaw(0), (place[0], place[1], place[2]), static=static)
    (fault,) = told
    assert "'map' from 'base_link' was published as no rigid transform" in fault
    np.testing.assert_allclose(tf.lookup("map", "base_link", S).translation, [1, 2, 3])


def test_what_is_forgotten_never_is_whole_for_all_stamps() -> None:
    tf = TransformBuffer(keep_s=math.inf, jump_s=math.inf)
    for k in range(101):
        tf.add("map", "base_link", (1_700_000_000 + k) * S, yaw(0), (float(k), 0.0, 0.0))
        if k == 50:
            tf.add("map", "base_link", 0, yaw(0), (7.0, 7.0, 7.0))
    for k in range(100):
        found = tf.lookup("map", "base_link", 1_700_000_000 * S + k * S + S // 2)
        np.testing.assert_allclose(found.translation, [k + 0.5, 0, 0], atol=1e-6)


@pytest.mark.parametrize("endless", [False, True])
def test_long_gaps_are_not_filled(endless: bool) -> None:
    keep_s = math.inf if endless else 60.0
    tf = TransformBuffer(keep_s=keep_s, jump_s=math.inf)
    for second in (0, 10, 20.5):
        tf.add("map", "base_link", round(second * S), yaw(0), (second, 0.0, 0.0))
    assert tf.lookup("map", "base_link", 5 * S).translation[0] == pytest.approx(5)
    with pytest.raises(TransformError, match="10.500 s apart, and over more than 10 s"):
        tf.lookup("map", "base_link", 15 * S)


@pytest.mark.parametrize(
    ("wxyz", "translation"),
    [((0, 0, 0, 0), (1, 2, 3)), ((np.nan, 0, 0, 1), (0, 0, 0)), ((1, 0, 0, 0), (np.inf, 0, 0))],
)
def test_what_is_no_rigid_transform_is_named(
    wxyz: tuple[float, float, float, float], translation: tuple[float, float, float]
) -> None:
    tf = TransformBuffer()
    tf.add("map", "base_link", S, wxyz, translation)
    with pytest.raises(TransformError, match="'map' from 'base_link' was published as no rigid"):
        tf.lookup("base_link", "map", S)
    tf.add("map", "base_link", 2 * S, yaw(0.1), (1.0, 0.0, 0.0))
    assert tf.lookup("map", "base_link", 2 * S).translation[0] == 1.0


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("parent", "child"), [("camera", "map"), ("odom", "map"), ("map", "map")])
def test_an_edge_that_closes_a_loop_is_refused_and_told(
    parent: str, child: str, static: bool
) -> None:
    told: list[str] = []
    tf = TransformBuffer(tell=told.append)
    tf.add("map", "odom", 0, yaw(0), (1.0, 0.0, 0.0))
    tf.add("odom", "camera", 0, yaw(0), (1.0, 0.0, 0.0), static=True)
    tf.add(parent, child, 0, yaw(0), (0.0, 0.0, 0.0), static=static)
    assert tf.lookup("map", "camera", 0).translation[0] == 2.0
    (text,) = told
    assert "closes a loop: 'map' -> " in text


def test_a_moving_frame_that_is_silent_is_forgotten_where_it_is_in_the_way() -> None:
    told: list[str] = []
    tf = TransformBuffer(keep_s=10.0, tell=told.append)
    tf.add("base_link", "map", 0, yaw(0), (1.0, 0.0, 0.0))
    tf.add("map", "base_link", 5 * S, yaw(0), (1.0, 0.0, 0.0))
    assert len(told) == 1
    tf.add("map", "base_link", 11 * S, yaw(0), (2.0, 0.0, 0.0))
    assert tf.lookup("map", "base_link", 11 * S).translation[0] == 2.0
    tf.add("odom", "base_link", 22 * S, yaw(0), (3.0, 0.0, 0.0))
    assert tf.lookup("odom", "base_link", 22 * S).translation[0] == 3.0
    assert len(told) == 1


def test_two_parents_are_told_and_the_first_goes_on() -> None:
    told: list[str] = []
    tf = TransformBuffer(tell=told.append)
    for k in range(10):
        tf.add("map", "base_link", k * S, yaw(0), (float(k), 0.0, 0.0))
        tf.add("odom", "base_link", k * S, yaw(0), (0.0, 0.0, 0.0))
    assert tf.lookup("map", "base_link", 5 * S).translation[0] == 5.0
    assert len(told) == 10
    assert "'base_link' has two parents, 'map' and 'odom'" in told[0]


def test_a_static_frame_that_moves_to_another_parent_is_told() -> None:
    told: list[str] = []
    tf = TransformBuffer(tell=told.append)
    for parent in ("base_link", "base_link", "lidar"):
        tf.add(parent, "camera", 0, yaw(0), (1.0, 0.0, 0.0), static=True)
    assert tf.lookup("lidar", "camera", 0).translation[0] == 1.0
    (text,) = told
    assert "'camera' names another parent, 'lidar', than before, 'base_link'" in text


def test_tables_of_frames_have_an_end() -> None:
    told: list[str] = []
    tf = TransformBuffer(tell=told.append)
    tf.add("map", "x" * 100_000, 0, yaw(0), (0.0, 0.0, 0.0))
    assert len(told[0]) < 300
    for k in range(5000):
        tf.add("map", f"frame{k}", 0, yaw(0), (0.0, 0.0, 0.0))
    assert len(tf.frames()) <= 1001
    assert len(told) == 1 + 4000


def test_poses_of_many_joints_take_little_memory() -> None:
    buffer, count = TransformBuffer(), 10_000
    tracemalloc.start()
    for i in range(count):
        stamp_ns, place = i * 1_000_000, (0.1 * i, 0.2 * i, 0.3 * i)
        buffer.add("base_link", f"joint{i % 10}", stamp_ns, (1.0, 1e-9 * i, 0.0, 0.0), place)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held / count < 100  # bytes; as tuples of Python's numbers 430
    assert buffer.lookup("base_link", "joint3", 3_003_000_000).translation[2] == 0.3 * 3003
