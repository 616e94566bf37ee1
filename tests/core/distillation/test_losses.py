# SPDX-License-Identifier: Apache-2.0
"""Feature and response losses, and the masks of objects."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from labeldistill_core.distillation.losses import ObjectMasks, feature_loss, response_loss
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.network.center_head import BOX_MAPS, TaskMaps
from labeldistill_core.network.targets import build_targets
from tests.core.lidar.test_lidar import SMALL, random_cloud
from tests.support.footprints import GRID, boxes


def test_feature_loss_by_hand() -> None:
    student, teacher = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 2.0)
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, 0, 1, 1], mask[1, 0, 2, 2] = 1.0, 0.5
    (loss,) = feature_loss([student], [teacher], [mask])
    assert loss == pytest.approx(1.5 * 3 * 4.0 / 1.5)
    (empty,) = feature_loss([student], [teacher], [torch.zeros(2, 1, 4, 4)])
    assert empty == 0


def test_a_feature_loss_on_the_scale_of_the_teacher_has_no_unit() -> None:
    student, teacher = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    mask = torch.rand(2, 1, 4, 4)
    (loss,) = feature_loss([student], [teacher], [mask], scale="teacher")
    nothing_learned = feature_loss([torch.zeros_like(teacher)], [teacher], [mask], scale="teacher")
    torch.testing.assert_close(nothing_learned, [torch.tensor(1.0)])
    # larger features and more channels
    wide = [10 * torch.cat([x, x], 1) for x in (student, teacher)]
    torch.testing.assert_close(feature_loss(wide[:1], wide[1:], [mask], scale="teacher"), [loss])
    (plain,), (plain_wide,) = (
        feature_loss([a], [b], [mask]) for a, b in ((student, teacher), wide)
    )
    torch.testing.assert_close(plain_wide, 200 * plain)
    nobody = torch.zeros(2, 1, 4, 4)
    assert feature_loss([student], [teacher], [nobody], scale="teacher")[0] == 0


def test_masks_are_where_objects_are() -> None:
    targets = build_targets([boxes((0.5, 0.5, 4.0, 2.0, 0.0))], GRID, SMALL.head)
    masks = ObjectMasks.of(targets)
    assert masks.soft[0].shape == (1, 1, 32, 32)
    assert masks.soft[1].shape == (1, 1, 16, 16)
    assert masks.soft[0][0, 0, 16, 16] == 1
    assert set(masks.binary[0].unique().tolist()) == {0.0, 1.0}
    assert masks.binary[0].sum() == 25


def test_an_object_weighs_the_same_wherever_it_stands() -> None:
    head = replace(SMALL.head, least_radius=1)

    def weights(coarse: str) -> set[float]:
        found = set()
        for x in (-9.5, 0.5, 1.5, 7.5):
            targets = build_targets([boxes((x, 4.5, 0.5, 0.5, 0.0))], GRID, head)
            mask = ObjectMasks.of(targets, coarse).soft[1]  # type: ignore[arg-type]
            found.add(round(float(mask.max()), 2))
        return found

    assert weights("max") == {1.0}
    assert min(weights("bilinear")) < 0.7


def test_response_loss_has_its_least_at_the_teacher() -> None:
    """The soft loss pulls a score at an object to the teacher's; the published one only down."""

    torch.manual_seed(0)
    teacher = Teacher(SMALL).eval()
    with torch.no_grad():
        maps = teacher([random_cloud(500)]).maps
    targets = build_targets([boxes((0.5, 0.5, 4.0, 2.0, 0.0))], SMALL.grid, SMALL.head)
    place = targets[0].heatmap[0, 0].eq(1).nonzero()[0].tolist()

    def pull(kind: Literal["soft", "published"], at: float) -> float:
        theirs, ours = copy.deepcopy(maps), copy.deepcopy(maps)
        theirs[0].heatmap.data.fill_(2.0)
        logits = torch.full_like(maps[0].heatmap, at).requires_grad_()
        ours = (replace(ours[0], heatmap=logits), *ours[1:])
        losses = response_loss(ours, theirs, targets, kind)
        (gradient,) = torch.autograd.grad(losses[0].heatmap, logits)
        return float(gradient[0, 0, place[0], place[1]])

    assert pull("soft", -2.0) < 0 < pull("soft", 4.0)
    assert pull("published", -2.0) >= 0
    same = response_loss(maps, maps, targets, "published")
    assert all(float(task.box) == 0 for task in same)


def test_a_teacher_that_is_further_from_the_truth_than_the_student_is_not_followed() -> None:
    targets = build_targets([boxes((0.5, 0.5, 4.0, 2.0, 0.0))], GRID, SMALL.head)
    (truth,) = targets[0].code[targets[0].valid]
    row, column = divmod(int(targets[0].cell[targets[0].valid]), 32)

    def maps(code: Tensor) -> tuple[Tensor, TaskMaps]:
        grid = torch.zeros(1, 10, 32, 32)
        grid[0, :, row, column] = code
        grid.requires_grad_()
        parts = grid.split(list(BOX_MAPS.values()), dim=1)
        return grid, TaskMaps(torch.zeros_like(targets[0].heatmap), *parts)

    # the student is off by one; the teacher by two in the first five numbers, else by a half
    grid, ours = maps(truth + 1)
    _, theirs = maps(truth + torch.tensor([2.0] * 5 + [0.5] * 5))
    pulled = {}
    kinds: tuple[Literal["soft", "published"], ...] = ("soft", "published")
    for kind in kinds:
        (loss,) = response_loss([ours], [theirs], targets[:1], kind)
        (gradient,) = torch.autograd.grad(loss.box, grid)
        pulled[kind] = gradient[0, :, row, column].sign().tolist()
    assert pulled == {"soft": [0.0] * 5 + [1.0] * 5, "published": [-1.0] * 5 + [1.0] * 5}
