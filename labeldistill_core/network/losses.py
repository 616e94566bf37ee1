# SPDX-License-Identifier: Apache-2.0
"""Detection and depth losses of the student.

Shapes: B batch, K classes of a task, M objects, Y X grid cells, I images, D depth bins.
Source: CenterPoint (Yin et al., CVPR 2021); BEVDepth (Li et al., AAAI 2023), section 3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.nn.functional import binary_cross_entropy

from labeldistill_core.network.center_head import TaskMaps
from labeldistill_core.network.targets import TaskTargets

_BOX_WEIGHT = 0.25
_CLIP = 1e-4
DEPTH_WEIGHT = 3.0


@dataclass(frozen=True, eq=False)
class TaskLoss:
    """Losses of one task, scalars."""

    heatmap: Tensor
    """Focal loss of the heat map."""
    box: Tensor
    """Weighted L1 of the box codes."""


def detection_loss(
    maps: Sequence[TaskMaps], targets: Sequence[TaskTargets], code_weights: Tensor | None = None
) -> list[TaskLoss]:
    """Losses of all tasks; the detection loss is the sum of everything."""
    return [
        TaskLoss(
            focal_loss(m.heatmap, t.heatmap, object_count(t.heatmap.eq(1), at_least=1.0)),
            box_loss(m, t, code_weights),
        )
        for m, t in zip(maps, targets, strict=True)
    ]


def object_count(mask: Tensor, at_least: float) -> Tensor:
    """Mean over the processes of the number of True entries."""
    # The mean over processes makes the gradient of several GPUs that of one large batch.
    count = mask.sum().float()
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(count)
        count = count / distributed.get_world_size()
    return count.clamp(min=at_least)


def focal_loss(logits: Tensor, target: Tensor, count: Tensor) -> Tensor:
    """Gaussian focal loss (CornerNet, equation 1; alpha 2, beta 4).

    Args:
        logits: (B, K, Y, X).
        target: (B, K, Y, X) in 0 to 1; exactly 1 is a positive.
        count: divides the sum.
    """
    # Clipped as published, so that a sure mistake has a finite loss.
    p = logits.sigmoid().clamp(_CLIP, 1 - _CLIP)
    positive = -p.log() * (1 - p).square() * target.eq(1)
    negative = -(1 - p).log() * p.square() * (1 - target).pow(4)
    return (positive + negative).sum() / count


def box_loss(maps: TaskMaps, targets: TaskTargets, code_weights: Tensor | None = None) -> Tensor:
    """L1 between box codes at the objects' cells; unknown (NaN) targets do not count.

    Args:
        maps: of the head.
        targets: what they should say.
        code_weights: (10,) of the code's numbers; ones when None, as for the published students.
    """
    predicted = maps.codes_at(targets.cell)
    # Velocities of objects that are seen once are unknown; they must not count as zero.
    known = targets.valid[..., None] & ~targets.code.isnan()
    difference = (predicted - targets.code.nan_to_num()).abs()
    if code_weights is not None:
        difference = difference * code_weights
    count = object_count(targets.valid, at_least=1e-4)
    return _BOX_WEIGHT * (difference * known).sum() / count


def depth_loss(depth: Tensor, bins: Tensor, remainders: Tensor | None = None) -> Tensor:
    """Binary cross entropy between the depth distribution and the labelled bin or two bins.

    Args:
        depth: (I, D, h, w), a distribution over D.
        bins: (I, h, w) int64, -1 where there is no label.
        remainders: (I, h, w) share of the label that the bin behind gets; none when None.

    Returns:
        Sum over bins, mean over labelled cells, times `DEPTH_WEIGHT`; NaN where `depth` has any.
    """
    labelled = (bins >= 0)[:, None]  # weights instead of an index, whose size a GPU's host awaits
    index = bins.clamp(min=0)[:, None]
    target = torch.zeros_like(depth, dtype=torch.float32).scatter_(1, index, 1.0)
    if remainders is not None:
        share = remainders[:, None].to(target)
        target = target.scatter(1, index, 1 - share)
        # there is none behind the last
        target.scatter_add_(1, (index + 1).clamp(max=target.shape[1] - 1), share)
    with torch.autocast(depth.device.type, enabled=False):  # which forbids this loss
        depth = depth.float()
        # Of NaN this loss makes an assertion, on a GPU one that ends the process. It goes around
        # the loss instead, and into its sum.
        each = binary_cross_entropy(depth.nan_to_num(0.5), target, reduction="none")
        unknown = 0.0 * depth.detach().sum()
    return DEPTH_WEIGHT * (each * labelled).sum() / labelled.sum().clamp(min=1) + unknown
