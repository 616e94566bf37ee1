# SPDX-License-Identifier: Apache-2.0
"""Head maps to boxes: best cells, box codes, circle suppression.

Shapes: B batch, T tasks, K classes of a task, Y X grid cells, M candidates of a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import EGO_FRAME
from labeldistill_core.config import BevGrid, DecodeConfig

_ROUNDS = 32
"""Of suppression on a GPU."""


class DecodableMaps(Protocol):
    """What decoding wants to know of a task; `TaskMaps` is one way to tell."""

    @property
    def heatmap(self) -> Tensor:
        """(B, K, Y, X) logits of an object's centre."""

    def codes_at(self, cells: Tensor) -> Tensor:
        """Box codes (B, M, 10) of cells (B, M), each row times X plus column."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Boxes of all tasks before and after suppression, with the same number for each task.

    T tasks; in a task by descending score.
    """

    boxes: Tensor
    """(B, T, M, 9): the columns of `BOX_FIELDS`, in the ego frame."""
    scores: Tensor
    """(B, T, M); NaN where the network computed none, which is never valid."""
    labels: Tensor
    """(B, T, M), counted through the tasks."""
    valid: Tensor
    """(B, T, M) bool, above the score threshold and within the limits."""
    keep: Tensor
    """(B, T, M) bool, those that no better one suppresses."""
    settled: Tensor
    """(1,) bool, false when `keep` needs more rounds of suppression."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Candidates:
        """On another device."""
        parts = (getattr(self, f.name) for f in fields(self))
        return Candidates(*(part.to(device, non_blocking=non_blocking) for part in parts))


def decode(maps: Sequence[DecodableMaps], grid: BevGrid, config: DecodeConfig) -> list[Boxes3D]:
    """Boxes of every sample in a batch, in the ego frame, on the CPU.

    Args:
        maps: one a task; labels count through the tasks in this order.
        grid: the cells.
        config: thresholds.

    Returns:
        One `Boxes3D` a sample; by task, then by descending score.
    """
    return remaining_boxes(suppressed(maps, grid, config).to("cpu"), config)


def suppressed(maps: Sequence[DecodableMaps], grid: BevGrid, config: DecodeConfig) -> Candidates:
    """The best cells of all tasks as boxes, and which of them remain; arguments as in `decode`.

    On a GPU nothing here waits for its results: shapes are fixed, and so is the number of rounds.
    """
    # A CPU saves work by shapes that follow the data; a GPU would have to be waited for to know
    # them.
    fixed = maps[0].heatmap.is_cuda
    best, classes = [], 0
    for task in maps:
        score, label, cell = _best_cells(task.heatmap, config)
        best.append((score, label + classes, cell))
        classes += task.heatmap.shape[1]
    scores, labels, cells = (torch.stack(part, dim=1) for part in zip(*best, strict=True))
    asked = [scores.shape[-1]] * len(maps)
    if not fixed:
        # Scores descend, so that those to keep of any task stand in front, behind NaN, which counts
        # as the largest number: whoever asked is to see it.
        asked = (~(scores <= config.score_threshold)).sum(dim=-1).amax(dim=0).tolist()
        scores, labels, cells = (values[..., : max(asked)] for values in (scores, labels, cells))
    codes = [
        task.codes_at(cells[:, i, :most])
        for i, (task, most) in enumerate(zip(maps, asked, strict=True))
    ]
    codes = [pad(code, (0, 0, 0, max(asked) - code.shape[1])) for code in codes]
    boxes = _boxes_of(torch.stack(codes, dim=1), cells, grid)
    valid = _valid(boxes, scores, config)
    keep, settled = circle_nms(
        boxes[..., :2], valid, config.nms_radius_m2, config.max_per_task, _ROUNDS if fixed else None
    )
    return Candidates(boxes, scores, labels, valid, keep, settled)


def remaining_boxes(found: Candidates, config: DecodeConfig) -> list[Boxes3D]:
    """What suppression leaves of each sample; finishes suppression where that is not done.

    Args:
        found: on the CPU.
        config: that they were found with.
    """
    keep = found.keep
    if not found.settled:
        keep, _ = circle_nms(
            found.boxes[..., :2], found.valid, config.nms_radius_m2, config.max_per_task
        )
    return [
        Boxes3D(EGO_FRAME, boxes[kept], labels[kept], scores[kept])
        for boxes, labels, scores, kept in zip(
            found.boxes, found.labels, found.scores, keep, strict=True
        )
    ]


def candidate_boxes(task: DecodableMaps, grid: BevGrid, config: DecodeConfig) -> list[Boxes3D]:
    """The best cells of one task as boxes, by descending score, before suppression.

    Labels count from zero within the task. Cells under the score threshold or with a centre
    outside the limits are left out.
    """
    scores, labels, cells = _best_cells(task.heatmap, config)
    boxes = _boxes_of(task.codes_at(cells), cells, grid)
    return [
        Boxes3D(EGO_FRAME, box[valid], label[valid], score[valid])
        for box, label, score, valid in zip(
            boxes, labels, scores, _valid(boxes, scores, config), strict=True
        )
    ]


def circle_nms(
    centers: Tensor,
    valid: Tensor,
    radius_m2: Sequence[float],
    limit: int,
    rounds: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Which centres no better one suppresses.

    A centre remains when no remaining one before it is near. With a number of rounds, all centres
    are looked at together, as a GPU wants it: starting from all, every round decides the centres
    whose suppressors have been decided, so the rounds end with the longest chain of neighbours,
    which is short. Without one, centres are looked at one by one, on the CPU.

    Args:
        centers: (B, T, M, 2) metres, in a task by descending score.
        valid: (B, T, M) bool; the others neither remain nor suppress.
        radius_m2: per task: a centre within this squared distance of a remaining one is dropped.
        limit: most centres of a task that remain.
        rounds: at most so many, without looking whether more are needed; None for one by one.

    Returns:
        (B, T, M) bool, and (1,) bool: whether the rounds were enough.
    """
    if rounds is None:
        return _circle_nms_one_by_one(centers, valid, radius_m2, limit), valid.new_ones(1)
    # Squares of differences, not |a|^2 + |b|^2 - 2ab, which loses all digits for near centres on a
    # large map.
    x, y = ((c[..., :, None] - c[..., None, :]).square() for c in centers.unbind(-1))
    squared = x + y
    pairs = zip(squared.unbind(1), radius_m2, strict=True)
    # Strictly below the diagonal: only a better candidate suppresses.
    near = torch.stack([task <= radius for task, radius in pairs], dim=1).tril(-1).float()
    before = keep = valid
    for _ in range(rounds):
        before, keep = keep, valid & ((near @ keep[..., None].float())[..., 0] == 0)
    return keep & (keep.cumsum(-1) <= limit), (before == keep).all()[None]


def _circle_nms_one_by_one(
    centers: Tensor, valid: Tensor, radius_m2: Sequence[float], limit: int
) -> Tensor:
    """(B, T, M) bool; a task ends when it has its `limit`, after few of its candidates."""
    keep = np.zeros(valid.shape, np.bool_)
    for sample, sample_valid, sample_keep in zip(centers.numpy(), valid.numpy(), keep, strict=True):
        tasks = zip(sample, sample_valid, sample_keep, radius_m2, strict=True)
        for (x, y), candidates, kept, radius in ((c.T, v, k, r) for c, v, k, r in tasks):
            left = candidates.copy()
            for _ in range(min(limit, len(left))):
                best = int(left.argmax())
                if not left[best]:
                    break
                kept[best] = True
                left &= ~((x - x[best]) ** 2 + (y - y[best]) ** 2 <= radius)
                left[best] = False  # also where its centre is not finite
    return torch.from_numpy(keep)


def _best_cells(heatmap: Tensor, config: DecodeConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels within the task and cells, (B, M) each, by descending score."""
    amount = min(config.max_candidates, heatmap[0, 0].numel())
    # Best cells of each class, then of all classes: what CenterPoint does, and ties fall in its
    # order.
    scores, cells = heatmap.sigmoid().flatten(2).topk(amount)  # (B, K, M): per class first
    scores, best = scores.flatten(1).topk(amount)
    return scores, best // amount, cells.flatten(1).gather(1, best)


def _boxes_of(code: Tensor, cells: Tensor, grid: BevGrid) -> Tensor:
    """Box codes (.., 10) of cells (..) as the columns of `BOX_FIELDS` (.., 9)."""
    x = (cells % grid.columns + code[..., 0]) * grid.cell_m + grid.x_m[0]
    y = (cells // grid.columns + code[..., 1]) * grid.cell_m + grid.y_m[0]
    # Sine and cosine need not lie on the unit circle; only their direction counts.
    yaw = torch.atan2(code[..., 6], code[..., 7])
    parts = (torch.stack([x, y], -1), code[..., 2:3], code[..., 3:6].exp(), yaw[..., None])
    return torch.cat([*parts, code[..., 8:]], dim=-1)


def _valid(boxes: Tensor, scores: Tensor, config: DecodeConfig) -> Tensor:
    limit_xy, limit_z = config.center_limit_m
    return (
        (scores > config.score_threshold)
        & (boxes[..., :2].abs() <= limit_xy).all(-1)
        & (boxes[..., 2].abs() <= limit_z)
    )
