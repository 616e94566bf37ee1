# SPDX-License-Identifier: Apache-2.0
"""Who moves in the synthetic world moves as traffic does."""

from __future__ import annotations

import numpy as np
import pytest

from labeldistill_core.synthetic.actors import Actor, Motion, Turn
from labeldistill_core.synthetic.meshes import box
from labeldistill_core.synthetic.world import World

DURATION_S = 6.0


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [World.sample(np.random.default_rng([7, i]), DURATION_S) for i in range(10)]


def steady(speed_m_s: float) -> Motion:
    times = np.linspace(-1.0, 20.0, 50)
    return Motion(times, times * speed_m_s)


def car(s: float, d: float, direction: float, motion: Motion, turn: Turn | None = None) -> Actor:
    mesh = box((-2, -1, -1), (2, 1, 1), (0, 0, 0))
    return Actor("car", (4.0, 2.0, 1.5), mesh, s, d, direction, motion, 0.0, False, turn)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_turn_is_a_quarter_of_a_circle_at_the_speed_of_the_motion(side: int) -> None:
    speed, radius = 4.0, 8.0
    turning = car(100.0, -1.75, 0.0, steady(speed), Turn(10.0, radius, side))
    times = np.linspace(0.0, 10.0, 1001)
    s, d, direction = turning.track(times)
    step = np.hypot(np.diff(s), np.diff(d)) / np.diff(times)
    np.testing.assert_allclose(step, speed, rtol=1e-4)
    rate = np.diff(direction) / np.diff(times)
    inside = (speed * times[:-1] > 10.1) & (speed * times[1:] < 9.9 + radius * np.pi / 2)
    np.testing.assert_allclose(rate[inside], side * speed / radius, rtol=1e-6)
    outside = (speed * times[1:] < 10) | (speed * times[:-1] > 10 + radius * np.pi / 2)
    np.testing.assert_allclose(rate[outside], 0, atol=1e-9)
    # it heads where it moves
    travel = np.unwrap(np.arctan2(np.diff(d), np.diff(s)))
    np.testing.assert_allclose(travel, direction[:-1], atol=0.01)
    assert s[-1] == pytest.approx(110 + radius)
    assert direction[-1] == pytest.approx(side * np.pi / 2)


def test_vehicles_turn_and_touch_nobody(worlds: list[World]) -> None:
    times = np.arange(0.0, DURATION_S, 0.05)
    turned, sides = 0, set()
    for world in worlds:
        for actor in world.actors:
            if not actor.turn:
                continue
            others = [world.ego, *(other for other in world.actors if other is not actor)]
            assert not any(actor.touches(other, times[::5]) for other in others)
            yaws = np.unwrap([actor.pose(world.road, time)[3] for time in times])
            assert np.abs(np.diff(yaws) / 0.05).max() < 1.2  # rad/s
            turned += abs(yaws[-1] - yaws[0]) > 0.5
            sides.add(actor.turn.side)
    assert turned >= 10
    assert sides == {-1, 1}


def test_touching_is_seen_at_any_time_and_only_then() -> None:
    times = np.arange(0.0, 10.0, 0.1)
    crossing = car(50.0, -20.0, np.pi / 2, steady(4.0))  # over the street's middle after 5 s
    assert crossing.touches(car(30.0, 0.0, 0.0, steady(4.0)), times)
    assert not crossing.touches(car(10.0, 0.0, 0.0, steady(4.0)), times)
    assert not crossing.touches(car(30.0, 0.0, 0.0, steady(4.0)), times[:30])
    assert car(0.0, 0.0, 0.0, steady(0.0)).touches(car(3.9, 0.0, 0.0, steady(0.0)), times)
    assert not car(0.0, 0.0, 0.0, steady(0.0)).touches(car(0, 3.5, 0.0, steady(0.0)), times)


def test_traffic_keeps_to_the_right(worlds: list[World]) -> None:
    along, across = 0, 0
    for world in worlds:
        road = world.road
        for actor in world.actors:
            if actor.class_name == "pedestrian" or actor.turn or not actor.motion.moves:
                continue
            c, s = np.cos(actor.direction_rad), np.sin(actor.direction_rad)
            if abs(c) > 0.99:
                assert actor.d_m * c < 0
                along += 1
            elif abs(actor.d_m) > road.half_width_m:
                middle = min(road.crossings_s, key=lambda at: abs(at - actor.s_m))
                assert (actor.s_m - middle) * s > 0
                across += 1
    assert along >= 30
    assert across >= 5


def test_who_waits_in_a_cross_street_stands_on_its_right(worlds: list[World]) -> None:
    waiting = 0
    for world in worlds:
        road = world.road
        for actor in world.actors:
            middle = min(road.crossings_s, key=lambda at: abs(at - actor.s_m))
            s = np.sin(actor.direction_rad)
            in_lane = abs(abs(actor.s_m - middle) - 2.0) < 1e-6 and abs(abs(s) - 1) < 1e-9
            if actor.motion.moves or not in_lane or abs(actor.d_m) < road.half_width_m + 4.9:
                continue
            assert actor.d_m * s < 0  # it heads for the street
            assert (actor.s_m - middle) * s > 0
            waiting += 1
    assert waiting >= 10
