# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from labeldistill_core.config import BevGrid, DecodeConfig
from labeldistill_core.network.center_head import TaskMaps
from labeldistill_core.network.decode import (
    candidate_boxes,
    decode,
    remaining_boxes,
    suppressed,
)
from labeldistill_core.network.suppression import circle_nms

GRID = BevGrid((-8.0, 8.0), (-4.0, 4.0), (-5.0, 3.0), cell_m=1.0)  # 16 columns, 8 rows
ONE_TASK = DecodeConfig(nms_radius_m2=(4.0,))


def blank(classes: int) -> TaskMaps:
    maps = {"offset": 2, "height": 1, "size": 3, "heading": 2, "velocity": 2}
    return TaskMaps(
        torch.full((1, classes, 8, 16), -9.0),
        **{name: torch.zeros(1, channels, 8, 16) for name, channels in maps.items()},
    )


def put(task: TaskMaps, row: int, column: int, logit: float, label: int = 0) -> None:
    task.heatmap[0, label, row, column] = logit


def test_a_box_by_hand() -> None:
    task = blank(2)
    put(task, 2, 5, 2.0, label=1)
    task.offset[0, :, 2, 5] = torch.tensor([0.25, 0.5])
    task.height[0, 0, 2, 5] = -0.7
    task.size[0, :, 2, 5] = torch.tensor([4.0, 2.0, 1.5]).log()
    task.heading[0, :, 2, 5] = torch.tensor([2.0, 0.0])  # sine first, of any length
    task.velocity[0, :, 2, 5] = torch.tensor([3.0, -1.0])
    (boxes,) = candidate_boxes(task, GRID, ONE_TASK)
    assert boxes.labels.tolist() == [1]
    assert boxes.scores.tolist() == pytest.approx([torch.tensor(2.0).sigmoid().item()])
    expected = [-2.75, -1.5, -0.7, 4.0, 2.0, 1.5, torch.pi / 2, 3.0, -1.0]
    assert boxes.values[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_labels_count_through_the_tasks() -> None:
    tasks = [blank(1), blank(2), blank(2)]
    for task, label in zip(tasks, (0, 1, 0), strict=True):
        put(task, 4, 4, 3.0, label)
    (boxes,) = decode(tasks, GRID, DecodeConfig(nms_radius_m2=(1.0, 1.0, 1.0)))
    assert boxes.labels.tolist() == [0, 2, 3]


def test_the_best_of_a_neighbourhood_remains() -> None:
    task = blank(2)
    put(task, 4, 4, 1.0, 0)
    put(task, 4, 5, 2.0, 1)  # suppresses both neighbours, of whichever class
    put(task, 4, 6, 1.5, 0)
    put(task, 4, 9, 0.5, 0)
    (boxes,) = decode([task], GRID, ONE_TASK)
    assert boxes.values[:, 0].tolist() == [-3.0, 1.0]
    assert boxes.labels.tolist() == [1, 0]
    assert boxes.scores[0] > boxes.scores[1]


def test_score_threshold() -> None:
    task = blank(1)
    put(task, 1, 1, -0.1)
    put(task, 6, 12, 0.1)
    (all_boxes,) = decode([task], GRID, ONE_TASK)
    (some,) = decode([task], GRID, replace(ONE_TASK, score_threshold=0.5))
    assert (len(all_boxes), len(some)) == (2, 1)
    assert some.scores.item() > 0.5


def test_most_boxes_and_candidates() -> None:
    task = blank(1)
    for index in range(5):
        put(task, 0, 3 * index, 3.0 - index / 10)
    assert len(decode([task], GRID, ONE_TASK)[0]) == 5
    (boxes,) = decode([task], GRID, replace(ONE_TASK, max_per_task=3))
    assert boxes.values[:, 0].tolist() == [-8.0, -5.0, -2.0]
    (boxes,) = decode([task], GRID, replace(ONE_TASK, max_candidates=2))
    assert boxes.values[:, 0].tolist() == [-8.0, -5.0]


def test_centres_beyond_the_limits_are_dropped() -> None:
    task = blank(1)
    put(task, 4, 4, 1.0)
    put(task, 4, 10, 1.0)
    task.height[0, 0, 4, 4] = 11.0
    task.offset[0, 0, 4, 10] = 80.0
    assert len(decode([task], GRID, ONE_TASK)[0]) == 0


def test_samples_do_not_mix() -> None:
    one, two = blank(1), blank(1)
    put(one, 4, 4, 1.0)
    put(two, 1, 9, 1.0)
    put(two, 6, 9, 1.0)
    both = TaskMaps(
        *(
            torch.cat([getattr(one, name), getattr(two, name)])
            for name in ("heatmap", "offset", "height", "size", "heading", "velocity")
        )
    )
    assert [len(boxes) for boxes in decode([both], GRID, ONE_TASK)] == [1, 2]


def remain(
    centers: Tensor, radius_m2: float, limit: int, rounds: int | None = None
) -> tuple[list[int], bool]:
    keep, settled = circle_nms(
        centers[None, None], torch.ones(1, 1, len(centers), dtype=torch.bool), (radius_m2,), limit,
        rounds,
    )  # fmt: skip
    return keep[0, 0].nonzero()[:, 0].tolist(), bool(settled)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(0, 10_000), st.integers(1, 10))
def test_circle_nms(n: int, seed: int, limit: int) -> None:
    centers = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) * 10
    expected: list[int] = []
    for index in range(n):
        if all(((centers[index] - centers[k]) ** 2).sum() > 4.0 for k in expected):
            expected.append(index)
    assert remain(centers, 4.0, 1000) == (expected, True)
    assert remain(centers, 4.0, limit) == (expected[:limit], True)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400), st.integers(0, 10_000), st.integers(1, 90), st.data())
def test_suppression_goes_on_where_it_stopped(
    n: int, seed: int, limit: int, data: st.DataObject
) -> None:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(2, 1, n, 2, generator=generator) * 30
    valid = torch.rand(2, 1, n, generator=generator) < 0.8
    whole, _ = circle_nms(centers, valid, (1.0,), limit)
    decided = data.draw(st.integers(0, n))
    halfway, _ = circle_nms(centers[..., :decided, :], valid[..., :decided], (1.0,), limit)
    known = torch.cat([halfway, valid[..., decided:]], dim=-1)
    both, _ = circle_nms(centers, known, (1.0,), limit, decided=decided)
    assert torch.equal(both, whole)


def test_the_radius_is_squared() -> None:
    centers = torch.tensor([[0.0, 0.0], [2.5, 0.0]])
    assert remain(centers, 6.24, 9)[0] == [0, 1]
    assert remain(centers, 6.25, 9)[0] == [0]


def test_a_chain_of_neighbours_needs_a_round_for_each() -> None:
    chain = torch.stack([torch.arange(9.0), torch.zeros(9)], dim=1)
    every_other = [0, 2, 4, 6, 8]
    assert remain(chain, 1.0, 99) == (every_other, True)
    found, settled = remain(chain, 1.0, 99, rounds=3)
    assert found != every_other
    assert not settled
    assert remain(chain, 1.0, 99, rounds=10) == (every_other, True)


def test_what_is_not_settled_is_finished() -> None:
    task = blank(1)
    for column in range(9):
        put(task, 4, column, 3.0 - column / 10)
    (expected,) = decode([task], GRID, ONE_TASK)
    found = suppressed([task], GRID, ONE_TASK, fixed=True)
    halfway = replace(found, keep=found.valid, settled=torch.tensor([False]))
    (boxes,) = remaining_boxes(halfway, ONE_TASK)
    assert torch.equal(boxes.values, expected.values)
    assert boxes.values[:, 0].tolist() == [-8.0, -5.0, -2.0]


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9999])
def test_the_way_of_a_cpu_finds_the_boxes_of_fixed_shapes(threshold: float) -> None:
    random = torch.Generator().manual_seed(3)
    grid = BevGrid((-32.0, 32.0), (-32.0, 32.0), (-5.0, 3.0), cell_m=1.0)

    def task(classes: int, level: float) -> TaskMaps:
        shapes = {"offset": 2, "height": 1, "size": 3, "heading": 2, "velocity": 2}
        heatmap = torch.randn(2, classes, 64, 64, generator=random) + level
        heatmap[1] -= 2.0  # the second sample has fewer candidates
        parts = {n: torch.randn(2, c, 64, 64, generator=random) for n, c in shapes.items()}
        return TaskMaps(heatmap, **{**parts, "height": 5 * parts["height"]})

    # Full after few candidates, after many, never, and without any.
    tasks = [task(1, 3.0), task(2, 3.0), task(2, 0.0), task(1, -40.0)]
    config = DecodeConfig(score_threshold=threshold, nms_radius_m2=(0.1, 6.0, 60.0, 1.0))
    fixed = remaining_boxes(suppressed(tasks, grid, config, fixed=True), config)
    found = decode(tasks, grid, config)
    for boxes, expected in zip(found, fixed, strict=True):
        assert torch.equal(boxes.values, expected.values)
        assert torch.equal(boxes.labels, expected.labels)
        assert torch.equal(boxes.scores, expected.scores)
    amounts = torch.bincount(fixed[0].labels, minlength=6)
    assert threshold > 0.5 or amounts[0] == 83 > amounts[3:5].sum() > 0


def test_a_score_that_is_not_finite_is_told() -> None:
    task = blank(1)
    put(task, 4, 4, 1.0)
    assert suppressed([task], GRID, ONE_TASK).finite
    put(task, 2, 2, float("nan"))
    for fixed in (False, True):
        found = suppressed([task], GRID, ONE_TASK, fixed=fixed)
        assert not found.finite
        assert len(remaining_boxes(found, ONE_TASK)[0]) == 1
