# SPDX-License-Identifier: Apache-2.0
"""Head maps to boxes: best cells, box codes, circle suppression.

Shapes: B batch, K classes of a task, Y X grid cells, M candidates, N boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import EGO_FRAME
from labeldistill_core.config import BevGrid, DecodeConfig


class Peaks(Protocol):
    """What decoding wants to know of a task; `TaskMaps` is one way to tell."""

    @property
    def heatmap(self) -> Tensor:
        """(B, K, Y, X) logits of an object's centre."""

    def codes_at(self, cells: Tensor) -> Tensor:
        """Box codes (B, M, 10) of cells (B, M), each row times X plus column."""


def decode(maps: Sequence[Peaks], grid: BevGrid, config: DecodeConfig) -> list[Boxes3D]:
    """Boxes of every sample in a batch, in the ego frame.

    Args:
        maps: one a task; labels count through the tasks in this order.
        grid: the cells.
        config: thresholds.

    Returns:
        One `Boxes3D` a sample; by task, then by descending score.
    """
    batch = maps[0].heatmap.shape[0]
    per_sample: list[list[Boxes3D]] = [[] for _ in range(batch)]
    first_label = 0
    for task, radius_m2 in zip(maps, config.nms_radius_m2, strict=True):
        for sample, candidates in enumerate(candidate_boxes(task, grid, config)):
            keep = circle_nms(candidates.centers[:, :2], radius_m2, config.max_per_task)
            boxes = candidates[keep]
            per_sample[sample].append(
                Boxes3D(boxes.frame, boxes.values, boxes.labels + first_label, boxes.scores)
            )
        first_label += task.heatmap.shape[1]
    return [
        Boxes3D(
            EGO_FRAME,
            torch.cat([boxes.values for boxes in tasks]),
            torch.cat([boxes.labels for boxes in tasks]),
            torch.cat([boxes.scores for boxes in tasks]),
        )
        for tasks in per_sample
    ]


def candidate_boxes(task: Peaks, grid: BevGrid, config: DecodeConfig) -> list[Boxes3D]:
    """The best cells of one task as boxes, by descending score, before suppression.

    Labels count from zero within the task. Cells under the score threshold or with a centre
    outside the limits are left out.
    """
    batch, classes, rows, columns = task.heatmap.shape
    amount = min(config.max_candidates, rows * columns)
    scores, cells = task.heatmap.sigmoid().flatten(2).topk(amount)  # (B, K, M): per class first
    scores, best = scores.flatten(1).topk(amount)
    labels = best // amount
    cells = cells.flatten(1).gather(1, best)
    # they descend, so that those to keep of any sample stand in front
    kept = int((scores > config.score_threshold).sum(dim=1).max())
    scores, labels, cells = (values[:, :kept] for values in (scores, labels, cells))
    code = task.codes_at(cells)
    x = (cells % columns + code[..., 0]) * grid.cell_m + grid.x_m[0]
    y = (cells // columns + code[..., 1]) * grid.cell_m + grid.y_m[0]
    yaw = torch.atan2(code[..., 6], code[..., 7])
    values = torch.cat(
        [
            torch.stack([x, y], -1),
            code[..., 2:3],
            code[..., 3:6].exp(),
            yaw[..., None],
            code[..., 8:],
        ],
        dim=-1,
    )
    limit_xy, limit_z = config.center_limit_m
    valid = (
        (scores > config.score_threshold)
        & (values[..., :2].abs() <= limit_xy).all(-1)
        & (values[..., 2].abs() <= limit_z)
    )
    return [Boxes3D(EGO_FRAME, values[b], labels[b], scores[b])[valid[b]] for b in range(batch)]


def circle_nms(centers: Tensor, radius_m2: float, limit: int) -> Tensor:
    """Indices of centres that no better centre suppresses.

    Args:
        centers: (N, 2) metres, by descending score.
        radius_m2: a centre within this squared distance of a kept one is dropped.
        limit: most indices that are returned.

    Returns:
        (<= limit,) int64, ascending, on the device of `centers`.
    """
    difference = centers[:, None] - centers[None]
    near = (difference.square().sum(-1) <= radius_m2).cpu().numpy()
    alive = [True] * len(centers)
    keep: list[int] = []
    for index in range(len(centers)):
        if alive[index]:
            keep.append(index)
            if len(keep) == limit:
                break
            for other in near[index].nonzero()[0]:
                alive[other] = False
    return torch.tensor(keep, dtype=torch.int64, device=centers.device)
