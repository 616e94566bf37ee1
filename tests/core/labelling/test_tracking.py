# SPDX-License-Identifier: Apache-2.0
"""Boxes of key frames put together to objects."""

import time

import numpy as np
import pytest

from labeldistill_core.labelling.tracking import DetectedFrame, track

Box = tuple[float, float, float, float, int, float]
"""x, y, vx, vy, label, length."""


UNKNOWN = float("nan")


def frame(
    seconds: float, *boxes: Box, scores: tuple[float, ...] = (), yaw: float = 0.0
) -> DetectedFrame:
    rows = np.array([box[:4] for box in boxes], np.float64).reshape(-1, 4)
    return DetectedFrame(
        round(seconds * 1e9),
        rows[:, :2],
        rows[:, 2:],
        np.full(len(boxes), yaw),
        np.array([box[4] for box in boxes], np.int64),
        np.array([box[5] for box in boxes], np.float64),
        np.array(scores or [0.5] * len(boxes)),
    )


def numbers(*frames: DetectedFrame) -> list[list[int]]:
    return [found.tolist() for found in track(frames)]


def test_a_fast_object_is_found_by_its_velocity() -> None:
    # twelve metres in half a second, past another one that stands
    first = frame(0, (0, 0, 24, 0, 0, 4.5), (13, 1, 0, 0, 0, 4.5))
    second = frame(0.5, (13, 1, 0, 0, 0, 4.5), (12, 0, 24, 0, 0, 4.5))
    assert numbers(first, second) == [[0, 1], [1, 0]]


def test_classes_are_kept_apart() -> None:
    first, second = frame(0, (0, 0, 0, 0, 0, 4)), frame(0.5, (0, 0, 0, 0, 1, 4))
    assert numbers(first, second) == [[0], [1]]


def test_near_people_are_two() -> None:
    first = frame(0, (0, 0, 0, 0, 0, 0.7))
    second = frame(0.5, (1.5, 0, 0, 0, 0, 0.7))
    assert numbers(first, second) == [[0], [1]]


def test_an_object_that_is_hidden_comes_back() -> None:
    seen = [frame(t, (10 * t, 0, 10, 0, 0, 4)) for t in (0, 0.5)]
    again = frame(1.5, (15, 0, 10, 0, 0, 4))
    assert numbers(*seen, frame(1.0), again) == [[0], [0], [], [0]]


def test_what_was_lost_for_long_is_another_one() -> None:
    assert numbers(frame(0, (0, 0, 0, 0, 0, 4)), frame(2, (0, 0, 0, 0, 0, 4))) == [[0], [1]]


def test_the_surest_box_chooses_first() -> None:
    first = frame(0, (0, 0, 0, 0, 0, 4))
    second = frame(0.5, (0.1, 0, 0, 0, 0, 4), (0.3, 0, 0, 0, 0, 4), scores=(0.4, 0.9))
    assert numbers(first, second) == [[0], [1, 0]]


def test_unknown_velocities_stand_still() -> None:
    first = frame(0, (5, 5, UNKNOWN, UNKNOWN, 0, 4))
    assert numbers(first, frame(0.5, (5.5, 5, UNKNOWN, UNKNOWN, 0, 4))) == [[0], [0]]


def still(seconds: float, *places: tuple[float, float], length: float = 4.5) -> DetectedFrame:
    """Boxes that tell no velocity and look along x."""
    return frame(seconds, *((x, y, UNKNOWN, UNKNOWN, 0, length) for x, y in places))


def test_without_velocities_a_queue_drives_ahead() -> None:
    # five metres each in half a second, so that the next one's old place is nearer than one's own
    first, second = still(0, (0, 0), (8, 0)), still(0.5, (13, 0), (5, 0))
    assert numbers(first, second) == [[0, 1], [1, 0]]


def test_without_velocities_the_way_so_far_goes_on() -> None:
    # the second step alone would be too far for an object at rest
    seen = [still(t, (24 * t, 0)) for t in (0, 0.5, 1.0)]
    assert numbers(*seen, still(2.0, (48, 1.2))) == [[0], [0], [0], [0]]


@pytest.mark.parametrize(
    ("place", "why"),
    [((5, 2), "another lane"), ((-5, 0), "behind"), ((19, 0), "faster than anything of its size")],
)
def test_without_velocities_nothing_leaps(place: tuple[float, float], why: str) -> None:
    assert numbers(still(0, (0, 0)), still(0.5, place)) == [[0], [1]], why


@pytest.mark.parametrize("same", [True, False])
def test_in_a_crowd_each_box_finds_what_is_nearest_and_free(same: bool) -> None:
    random = np.random.default_rng(0)
    before, after = random.normal(0, 1, (2, 80, 2))
    scores = np.full(80, 0.5) if same else random.random(80).round(2)
    first = frame(0, *((x, y, 0, 0, 0, 2) for x, y in before))
    second = frame(0.5, *((x, y, 0, 0, 0, 2) for x, y in after), scores=tuple(scores.tolist()))
    distances = np.linalg.norm(after[:, None] - before[None], axis=2)
    expected: dict[int, int] = {}
    pairs = [(-scores[i], distances[i, j], i, j) for i in range(80) for j in range(80)]
    for _, distance, box, number in sorted(pairs):
        if distance <= 2 and box not in expected and number not in expected.values():
            expected[box] = number
    found = numbers(first, second)[1]
    assert {box: number for box, number in enumerate(found) if number < 80} == expected


def test_two_thousand_boxes_in_one_place_take_seconds() -> None:
    crowd = [frame(t, *[(0.0, 0.0, 0.0, 0.0, 0, 2.0)] * 2000) for t in (0, 0.5)]
    began = time.process_time()
    found = numbers(*crowd)
    assert sorted(found[1]) == list(range(2000))
    assert time.process_time() - began < 10


def test_nothing_gives_nothing() -> None:
    assert track([]) == []
    assert numbers(frame(0), frame(0.5)) == [[], []]
