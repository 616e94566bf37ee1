# SPDX-License-Identifier: Apache-2.0
"""Losses between the student and its teachers.

Shapes: B batch, C channels, K classes of a task, Y X grid cells.
Source: LabelDistill (Kim et al., ECCV 2024), section 3.3; quality focal loss: Li et al., NeurIPS
2020, equation 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, distributed
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate, max_pool2d

from labeldistill_core.network.center_head import TaskMaps
from labeldistill_core.network.losses import TaskLoss, box_loss, focal_loss, object_count
from labeldistill_core.network.targets import TaskTargets

# CenterPoint's bound on scores, which keeps logarithms finite.
_CLIP = 1e-4


@dataclass(frozen=True, eq=False)
class ObjectMasks:
    """Where objects are, at the two levels of features."""

    soft: tuple[Tensor, Tensor]
    """(B, 1, Y, X) and (B, 1, Y/2, X/2): sum of all heat maps."""

    @classmethod
    def of(
        cls, targets: Sequence[TaskTargets], coarse: Literal["max", "bilinear"] = "max"
    ) -> ObjectMasks:
        """From the targets of the head.

        Args:
            targets: heat maps of each task.
            coarse: how the second level is made, see `DistillationConfig.coarse_mask`.
        """
        full = torch.cat([t.heatmap for t in targets], dim=1).sum(1, keepdim=True)
        if coarse == "max":
            return cls((full, max_pool2d(full, 2)))
        size = (full.shape[2] // 2, full.shape[3] // 2)
        return cls((full, interpolate(full, size, mode="bilinear", align_corners=True)))

    @property
    def binary(self) -> tuple[Tensor, Tensor]:
        """One wherever `soft` is positive."""
        return tuple(mask.gt(0).to(mask.dtype) for mask in self.soft)  # type: ignore[return-value]


def feature_loss(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    masks: Sequence[Tensor],
    objects: Literal["all", "process"] = "all",
    scale: Literal["teacher", "cell"] = "cell",
) -> list[Tensor]:
    """Squared difference in masked cells, summed over channels, for each level.

    Args:
        student: (B, C, Y, X), adapted.
        teacher: (B, C, Y, X).
        masks: (B, 1, Y, X) weights.
        objects: whose mask counts, see `DistillationConfig.objects`.
        scale: what the sum over cells is divided by: the teacher's own squares in the same cells,
            or the sum of the mask.

    Returns:
        A scalar a level.
    """
    losses = []
    for levels in zip(student, teacher, masks, strict=True):
        ours, theirs, mask = levels
        if mask.device.type == "cpu":
            # Objects fill few cells and the others count nothing, neither do their gradients. A GPU
            # does the whole map before its host knows how many there are.
            there = mask[:, 0].nonzero(as_tuple=True)
            ours, theirs, mask = (level.movedim(1, -1)[there] for level in levels)
        # float32: squares summed over hundreds of channels leave what half precision can hold.
        error = (theirs.float() - ours.float()).square().sum(1, keepdim=True)
        amount, least = mask.sum(), 1.0
        if scale == "teacher":
            amount, least = (mask * theirs.float().square()).sum(), _CLIP
        if objects == "all":
            # DDP takes the mean of the gradients, so dividing each by the mean count gives what one
            # process with the whole batch would get.
            amount = mean_over_processes(amount)
        losses.append((mask * error).sum() / amount.clamp(min=least))
    return losses


def response_loss(
    student: Sequence[TaskMaps],
    teacher: Sequence[TaskMaps],
    targets: Sequence[TaskTargets],
    kind: Literal["soft", "published"],
    code_weights: Tensor | None = None,
) -> list[TaskLoss]:
    """Difference between the maps of the student and of the LiDAR detector, for each task.

    Heat maps are compared with the teacher's score near objects, box codes at objects' centres;
    `soft` compares only those numbers of a code in which the teacher is nearer to the truth than
    the student (Chen et al., NeurIPS 2017, "teacher bounded regression loss").
    """
    losses = []
    for ours, theirs, target in zip(student, teacher, targets, strict=True):
        # Only near objects: elsewhere the teacher's own false boxes would be taught.
        score = theirs.heatmap.sigmoid().clamp(_CLIP, 1 - _CLIP) * target.heatmap
        count = object_count(target.heatmap.eq(1), at_least=1.0)
        heatmap = (
            focal_loss(ours.heatmap, score, count)
            if kind == "published"
            else _quality_focal_loss(ours.heatmap, score, count)
        )
        code = theirs.codes_at(target.cell)
        left_out = target.code.isnan()
        if kind == "soft":
            error, own_error = (
                (maps.codes_at(target.cell).detach() - target.code).abs() for maps in (theirs, ours)
            )
            left_out = left_out | (error >= own_error)
        # `box_loss` passes over NaN.
        code = code.masked_fill(left_out, float("nan"))
        losses.append(TaskLoss(heatmap, box_loss(ours, replace(target, code=code), code_weights)))
    return losses


def _quality_focal_loss(logits: Tensor, target: Tensor, count: Tensor) -> Tensor:
    cross = binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (cross * (target - logits.sigmoid()).square()).sum() / count


def mean_over_processes(value: Tensor) -> Tensor:
    """A number's mean over all processes that train together; without gradient if several do."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    value = value.detach().clone()
    distributed.all_reduce(value)
    return value / distributed.get_world_size()
