# SPDX-License-Identifier: Apache-2.0
"""Transforms whose stamps, kinds or names are wrong: it is told, and the right ones hold."""

from __future__ import annotations

import math

import pytest

from labeldistill_ros.inputs.transforms import TransformBuffer, TransformError

S = 1_000_000_000
T = 1_600_000_000 * S
HOUR = 3600 * S
STILL = (1.0, 0.0, 0.0, 0.0)


class Tree:
    """A buffer with a clock by which transforms arrive."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.buffer = TransformBuffer(tell=self.told.append)
        self.now_s = 50.0

    def add(
        self, parent: str, child: str, stamp_ns: int, x: float = 0.0, *, static: bool = False
    ) -> bool:
        place = (x, 0.0, 0.0)
        return self.buffer.add(
            parent, child, stamp_ns, STILL, place, static=static, arrival_s=self.now_s
        )

    def drive(self, tenths: range, parent: str = "map", child: str = "base_link") -> None:
        """One metre each tenth of a second."""
        for k in tenths:
            self.now_s += 0.1
            self.add(parent, child, T + k * S // 10, float(k))

    def x(self, tenths: float, parent: str = "map", child: str = "base_link") -> float:
        pose = self.buffer.lookup(parent, child, T + round(tenths * S / 10))
        return float(pose.translation[0])


@pytest.fixture
def tree() -> Tree:
    tree = Tree()
    tree.drive(range(20))
    return tree


@pytest.mark.parametrize(("parent", "child"), [("odom", "base_link"), ("base_link", "map")])
def test_a_stamp_far_ahead_makes_no_frame_silent(tree: Tree, parent: str, child: str) -> None:
    tree.add(parent, child, T + HOUR)
    tree.drive(range(20, 40))
    assert tree.x(35.5) == pytest.approx(35.5)
    assert len(tree.told) == 1
    assert "two parents" in tree.told[0] or "closes a loop" in tree.told[0]


@pytest.mark.parametrize("off_ns", [HOUR, -HOUR, -S, -5 * HOUR, -T - S])
def test_a_stray_stamp_moves_nothing(tree: Tree, off_ns: int) -> None:
    tree.add("map", "base_link", T + 2 * S + off_ns, 5e6 if off_ns != -S else 10.0)
    tree.drive(range(20, 24))
    for tenths in (21, 22.5, 23):
        assert tree.x(tenths) == pytest.approx(tenths)


@pytest.mark.parametrize("off_ns", [HOUR, -HOUR])
@pytest.mark.parametrize("often", [1, 3])
def test_a_second_publisher_with_a_wrong_clock_is_told(off_ns: int, often: int) -> None:
    tree = Tree()
    for k in range(100):
        tree.drive(range(k, k + 1))
        for i in range(often):
            tree.now_s += 0.01
            tree.add("map", "base_link", T + k * S // 10 + i + off_ns, 1e6)
        if k > 10:
            assert tree.x(k) == k
            assert tree.x(k - 0.5) == pytest.approx(k - 0.5)
    assert tree.told
    assert all("'base_link' in 'map' go back and forth" in text for text in tree.told)


def test_time_that_is_set_back_is_believed_when_nothing_newer_comes(tree: Tree) -> None:
    for k in range(3):
        tree.now_s += 0.1
        tree.add("map", "base_link", T + k * S // 10, 100.0 + k)
    assert tree.x(1.5) == pytest.approx(101.5)
    with pytest.raises(TransformError, match=r"newer") as newer:
        tree.x(10)
    assert newer.value.may_come
    assert not tree.told


@pytest.mark.parametrize("stamp_ns", [0, T, T + HOUR])
def test_a_static_frame_outlives_transforms_that_move_it(tree: Tree, stamp_ns: int) -> None:
    tree.add("base_link", "camera", 0, 1.5, static=True)
    for parent in ("base_link", "map"):
        tree.add(parent, "camera", stamp_ns, 7.0)
    tree.now_s += 100.0
    assert tree.x(10.0, "base_link", "camera") == 1.5
    assert "is static and comes on /tf as well" in tree.told[0]
    assert "two parents" in tree.told[1]


def test_static_counts_also_where_it_comes_later(tree: Tree) -> None:
    tree.add("base_link", "camera", T, 7.0)
    tree.add("base_link", "camera", 0, 1.5, static=True)
    assert tree.x(10.0, "base_link", "camera") == 1.5
    (text,) = tree.told
    assert "'camera' in 'base_link' is static and comes on /tf as well" in text


@pytest.mark.parametrize("first", [True, False])
def test_one_static_transform_does_not_stop_the_vehicle(first: bool) -> None:
    tree = Tree()
    if first:
        tree.add("map", "base_link", 0, 777.0, static=True)
    tree.drive(range(10))
    tree.add("map", "base_link", 0, 777.0, static=True)
    tree.drive(range(10, 20))
    assert tree.x(15.5) == pytest.approx(15.5)
    assert "is static and comes on /tf as well" in tree.told[-1]
    tree.now_s += 11.0
    tree.add("map", "other", T)
    assert tree.x(15.5) == 777.0


def test_frames_that_are_silent_give_way_in_a_full_table(tree: Tree) -> None:
    tree.add("base_link", "camera", 0, 1.5, static=True)
    for k in range(5000):
        tree.add("map", f"frame{k}", T + HOUR)
    assert "1000 frames are known" in tree.told[-1]
    tree.now_s += 11.0
    tree.told.clear()
    tree.drive(range(20, 22), "base_link", "radar")
    assert tree.x(20.5, "base_link", "radar") == pytest.approx(20.5)
    assert tree.x(20.5, "base_link", "camera") == 1.5
    assert not tree.told


def test_poses_far_apart_in_time_are_not_mixed() -> None:
    tree = Tree()
    tree.add("map", "base_link", T - HOUR, 5e6)
    tree.now_s += 1.0
    tree.add("map", "base_link", T + S, 10.0)
    with pytest.raises(TransformError, match="3601.000 s apart") as error:
        tree.x(5)
    assert error.value.may_come


def test_names_with_a_slash_before_them_are_those_without(tree: Tree) -> None:
    tree.add("/base_link", "/camera", 0, 1.5, static=True)
    assert tree.x(10.0, "base_link", "camera") == 1.5
    pose = tree.buffer.lookup("/map", "/camera", T)
    assert (pose.target, pose.source) == ("/map", "/camera")


@pytest.mark.parametrize(("parent", "child"), [("", "a"), ("a", ""), ("/", "a")])
def test_a_transform_names_both_frames(tree: Tree, parent: str, child: str) -> None:
    tree.add(parent, child, T)
    assert "it has to name both frames" in tree.told[0]


@pytest.mark.parametrize("wxyz", [(math.nan,) * 4, (0.0,) * 4, (2.0, 0.0, 0.0, 0.0), STILL])
def test_what_is_no_rigid_transform_is_left_out_where_others_are(
    tree: Tree, wxyz: tuple[float, float, float, float]
) -> None:
    tree.add("base_link", "camera", 0, 1.5, static=True)
    far = (math.inf, 0.0, 0.0) if wxyz == STILL else (0.0, 0.0, 0.0)
    for k in range(20, 30):
        tree.drive(range(k, k + 1))
        stamp_ns = T + k * S // 10 + S // 20
        tree.buffer.add("map", "base_link", stamp_ns, wxyz, far, arrival_s=tree.now_s)
    tree.buffer.add("base_link", "camera", 0, wxyz, far, static=True, arrival_s=tree.now_s)
    assert tree.x(25.7, "map", "camera") == pytest.approx(27.2)
    assert all("was published as no rigid transform" in text for text in tree.told)
    assert len(tree.told) == 11
