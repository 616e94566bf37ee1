# SPDX-License-Identifier: Apache-2.0
import numpy as np

from benchmarks.images.measure import by_pillow, medians
from labeldistill_core.data.images import ImageTransform


def test_ways_take_turns_and_the_first_turn_does_not_count() -> None:
    turns: list[str] = []
    times = iter([0.0, 9.0, 10.0, 19.0, 20.0, 20.001, 21.0, 21.002])
    found = medians(
        {"a": lambda turn: turns.append(f"a{turn}"), "b": lambda turn: turns.append(f"b{turn}")},
        1,
        lambda: next(times),
    )
    assert turns == ["a0", "b0", "a1", "b1"]
    assert {name: round(ms, 3) for name, ms in found.items()} == {"a": 1.0, "b": 2.0}


def test_what_is_compared_is_the_same() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    transform = ImageTransform(0.5, (80, 45), (4, 10, 76, 45), flip=True, rotate_deg=3.0)
    difference = by_pillow(transform, image).int() - transform.apply_planes(image).int()
    assert difference.abs().max() <= 1
