# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch

from labeldistill_core.network.center_head import TaskMaps
from labeldistill_core.network.losses import (
    box_loss,
    depth_loss,
    detection_loss,
    focal_loss,
    object_count,
)
from labeldistill_core.network.targets import TaskTargets


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_focal_loss_by_hand() -> None:
    logits = torch.tensor([logit(0.7), logit(0.2), logit(0.6)]).view(1, 1, 1, 3)
    target = torch.tensor([1.0, 0.0, 0.5]).view(1, 1, 1, 3)
    positive = -math.log(0.7) * 0.3**2
    negative = -math.log(0.8) * 0.2**2
    near = -math.log(0.4) * 0.6**2 * 0.5**4
    found = focal_loss(logits, target, torch.tensor(2.0)).item()
    assert found == pytest.approx((positive + negative + near) / 2, rel=1e-5)


def test_focal_loss_is_finite_for_certain_mistakes() -> None:
    logits = torch.tensor([-1e4, 1e4]).view(1, 1, 1, 2)
    target = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert focal_loss(logits, target, torch.tensor(1.0)).item() == pytest.approx(
        -2 * math.log(1e-4), rel=1e-2
    )


def maps_and_targets(
    predicted: list[list[float]], wanted: list[list[float]], valid: list[bool]
) -> tuple[TaskMaps, TaskTargets]:
    """One sample, a grid of one row; `predicted` and `wanted` (M, 10) for cells 0, 1, ..."""
    code = torch.tensor(predicted).T[None, :, None]  # (1, 10, 1, M)
    parts = code.split([2, 1, 3, 2, 2], dim=1)
    heat = torch.zeros(1, 1, 1, len(predicted))
    maps = TaskMaps(heat, *parts)
    cells = torch.arange(len(predicted))[None]
    return maps, TaskTargets(heat, cells, torch.tensor(wanted)[None], torch.tensor([valid]))


def test_box_loss_by_hand() -> None:
    predicted = [[1.0] * 10, [2.0] * 10, [9.0] * 10]
    wanted = [[0.5] * 10, [2.0] * 9 + [5.0], [0.0] * 10]
    maps, targets = maps_and_targets(predicted, wanted, [True, True, False])
    # 10 * 0.5 and 3, over two objects, times a quarter; the third is padding
    assert box_loss(maps, targets).item() == pytest.approx(0.25 * (5.0 + 3.0) / 2)


def test_unknown_velocity_does_not_count() -> None:
    wanted = [[0.5] * 8 + [math.nan, math.nan]]
    maps, targets = maps_and_targets([[1.0] * 10], wanted, [True])
    assert box_loss(maps, targets).item() == pytest.approx(0.25 * 8 * 0.5)


def test_no_object_gives_no_box_loss() -> None:
    maps, targets = maps_and_targets([[1.0] * 10], [[0.0] * 10], [False])
    assert box_loss(maps, targets).item() == 0.0


def test_detection_loss_counts_the_cells_that_are_one() -> None:
    maps, targets = maps_and_targets([[1.0] * 10] * 2, [[0.5] * 10] * 2, [True, True])
    hot = TaskTargets(torch.ones(1, 1, 1, 2), targets.cell, targets.code, targets.valid)
    (loss,) = detection_loss([maps], [hot])
    assert loss.heatmap.item() == pytest.approx(-math.log(0.5) * 0.25, rel=1e-5)
    assert loss.box.item() == pytest.approx(0.25 * 5.0)
    (empty,) = detection_loss([maps], [targets])  # no cell is one: divided by one
    assert empty.heatmap.item() == pytest.approx(-2 * math.log(0.5) * 0.25, rel=1e-5)


def test_count_has_a_floor() -> None:
    assert object_count(torch.tensor([True, False, True]), 1.0).item() == 2
    assert object_count(torch.tensor([False]), 1e-4).item() == pytest.approx(1e-4)


def test_depth_loss_by_hand() -> None:
    depth = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]).T.reshape(1, 3, 1, 2)
    bins = torch.tensor([[[0, -1]]])
    expected = -(math.log(0.7) + math.log(0.8) + math.log(0.9))
    assert depth_loss(depth, bins).item() == pytest.approx(3 * expected, rel=1e-5)
    both = depth_loss(depth, torch.tensor([[[0, 2]]])).item()
    second = -(math.log(0.7) + math.log(0.7) + math.log(0.4))
    assert both == pytest.approx(3 * (expected + second) / 2, rel=1e-5)


def test_depth_loss_shares_a_label_between_two_bins() -> None:
    depth = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]]).T.reshape(1, 3, 1, 2)
    bins, remainders = torch.tensor([[[0, 2]]]), torch.tensor([[[0.25, 0.5]]])
    first = [0.75, 0.25, 0.0]
    expected = sum(
        -t * math.log(p) - (1 - t) * math.log(1 - p)
        for t, p in zip(first, [0.6, 0.3, 0.1], strict=True)
    )
    last = -(math.log(0.8) + math.log(0.7) + math.log(0.5))  # no bin is behind the last
    found = depth_loss(depth, bins, remainders).item()
    assert found == pytest.approx(3 * (expected + last) / 2, rel=1e-5)
    whole = depth_loss(depth, bins, torch.zeros(1, 1, 2))
    assert whole.item() == pytest.approx(depth_loss(depth, bins).item())


def test_depth_loss_without_labels_is_zero_and_has_a_gradient() -> None:
    depth = torch.full((1, 3, 1, 2), 1 / 3, requires_grad=True)
    loss = depth_loss(depth, torch.full((1, 1, 2), -1))
    assert loss.item() == 0.0
    loss.backward()
    assert depth.grad is not None


def test_depth_loss_under_autocast() -> None:
    depth = torch.tensor([0.7, 0.2, 0.1]).view(1, 3, 1, 1)
    bins = torch.zeros(1, 1, 1, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16):
        loss = depth_loss(depth, bins)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, depth_loss(depth, bins))
