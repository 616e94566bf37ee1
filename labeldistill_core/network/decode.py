# SPDX-License-Identifier: Apache-2.0
"""Head maps to boxes: best cells, box codes, and which of them remain.

Shapes: B batch, T tasks, K classes of a task, Y X grid cells, M candidates of a task.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import torch
from torch import Tensor
from typing_extensions import Self

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import EGO_FRAME
from labeldistill_core.config import BevGrid, DecodeConfig
from labeldistill_core.network.center_head import ALL_MAPS, PLACE_MAPS, SHAPE_MAPS
from labeldistill_core.network.suppression import circle_nms

_ROUNDS = 32
"""Of suppression on a GPU."""
_FIRST = 128
"""Candidates of a task that are looked at before it is known whether more are needed: in a scene
that is full of objects, so many leave `max_per_task` boxes."""


class DecodableMaps(Protocol):
    """What decoding wants to know of a task; `TaskMaps` is one way to tell."""

    @property
    def heatmap(self) -> Tensor:
        """(B, K, Y, X) logits of an object's centre."""

    def codes_at(self, cells: Tensor, names: Sequence[str] = ALL_MAPS) -> Tensor:
        """Box codes of cells (B, M), each row times X plus column; see `TaskMaps.codes_at`."""

    def codes_of_tasks(self, maps: Sequence[Self], cells: Tensor, names: Sequence[str]) -> Tensor:
        """Of cells (B, T, M) of several tasks of a head, in their order."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Boxes of all tasks before and after suppression, with the same number for each task.

    T tasks; in a task by descending score. A CPU leaves out those that suppression drops.
    """

    boxes: Tensor
    """(B, T, M, 9): the columns of `BOX_FIELDS`, in the ego frame."""
    scores: Tensor
    """(B, T, M)."""
    labels: Tensor
    """(B, T, M), counted through the tasks."""
    valid: Tensor
    """(B, T, M) bool, above the score threshold and within the limits."""
    keep: Tensor
    """(B, T, M) bool, those that no better one suppresses."""
    settled: Tensor
    """(1,) bool, false when `keep` needs more rounds of suppression."""
    finite: Tensor
    """(1,) bool, false when a score is NaN, which is never valid."""

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


def suppressed(
    maps: Sequence[DecodableMaps],
    grid: BevGrid,
    config: DecodeConfig,
    fixed: bool | None = None,
) -> Candidates:
    """The best cells of all tasks as boxes, and which of them remain.

    Args:
        maps: as in `decode`, and the next two as well.
        grid: the cells.
        config: thresholds.
        fixed: whether shapes and the number of rounds are fixed, so that nothing waits for its
            results; when not given, on a GPU. A CPU saves work by shapes that follow the data.
    """
    classes = [task.heatmap.shape[1] for task in maps]
    best = _best_cells(torch.cat([task.heatmap for task in maps], dim=1), classes, config)
    scores, labels, cells = (torch.stack(part, dim=1) for part in zip(*best, strict=True))
    finite = ~scores.isnan().any()[None]
    if not (maps[0].heatmap.is_cuda if fixed is None else fixed):
        return _remaining(maps, scores, labels, cells, finite, grid, config)
    codes = maps[0].codes_of_tasks(maps, cells, ALL_MAPS)
    boxes = _boxes_of(codes, cells, grid)
    valid = _valid(boxes, scores, config)
    keep, settled = circle_nms(
        boxes[..., :2], valid, config.nms_radius_m2, config.max_per_task, _ROUNDS
    )
    return Candidates(boxes, scores, labels, valid, keep, settled, finite)


def _remaining(
    maps: Sequence[DecodableMaps],
    scores: Tensor,
    labels: Tensor,
    cells: Tensor,
    finite: Tensor,
    grid: BevGrid,
    config: DecodeConfig,
) -> Candidates:
    """Candidates that suppression leaves, from the best cells (B, T, M) of all tasks.

    Centres are computed for as many as are needed until a task is full, and the rest of the code
    for boxes that remain: less than a third of the work where all cells are candidates.
    """
    # Scores descend, so that those to keep stand in front, behind NaN, which counts as the largest
    # number.
    asked = (~(scores <= config.score_threshold)).sum(dim=-1).amax(dim=0).tolist()
    most = max(asked)
    scores, labels, cells = (values[..., :most] for values in (scores, labels, cells))
    centers = scores.new_full((*scores.shape, 3), torch.nan)
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for part in (slice(0, min(_FIRST, most)), slice(_FIRST, most)):
        full = (keep.sum(dim=-1) >= config.max_per_task).all(dim=0).tolist()
        tasks = [i for i, done in enumerate(full) if asked[i] > part.start and not done]
        if not tasks:
            break
        places, seen = cells[:, tasks, part], slice(0, part.stop)
        codes = maps[0].codes_of_tasks([maps[i] for i in tasks], places, PLACE_MAPS)
        centers[:, tasks, part] = found = _centers(codes, places, grid)
        keep[:, tasks, part] = _valid(found, scores[:, tasks, part], config)
        keep[:, tasks, seen], _ = circle_nms(
            centers[:, tasks, seen, :2],
            keep[:, tasks, seen],
            [config.nms_radius_m2[i] for i in tasks],
            config.max_per_task,
            decided=part.start,
        )
    # Those that remain to the front, in their order.
    left = int(keep.sum(-1).max())
    chosen = (~keep).byte().argsort(dim=-1, stable=True)[..., :left]
    scores, labels, cells, keep = (x.gather(-1, chosen) for x in (scores, labels, cells, keep))
    centers = centers.gather(2, chosen[..., None].expand(-1, -1, -1, 3))
    boxes = _boxes_at(centers, maps[0].codes_of_tasks(maps, cells, SHAPE_MAPS))
    return Candidates(boxes, scores, labels, keep, keep, keep.new_ones(1), finite)


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
    ((scores, labels, cells),) = _best_cells(task.heatmap, [task.heatmap.shape[1]], config)
    boxes = _boxes_of(task.codes_at(cells), cells, grid)
    return [
        Boxes3D(EGO_FRAME, box[valid], label[valid], score[valid])
        for box, label, score, valid in zip(
            boxes, labels, scores, _valid(boxes, scores, config), strict=True
        )
    ]


def _best_cells(
    heatmaps: Tensor, classes: Sequence[int], config: DecodeConfig
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Scores, labels and cells, (B, M) each, of each task, by descending score.

    Args:
        heatmaps: (B, K, Y, X) of all classes of all tasks.
        classes: how many classes each task has.
        config: thresholds.
    """
    amount = min(config.max_candidates, heatmaps[0, 0].numel())
    # Best cells of each class, then of all classes: what CenterPoint does, and ties fall in its
    # order.
    scores, cells = heatmaps.sigmoid().flatten(2).topk(amount)  # (B, K, M)
    found, first = [], 0
    for count in classes:
        own = slice(first, first + count)
        score, best = scores[:, own].flatten(1).topk(amount)
        label, cell = best // amount + first, cells[:, own].flatten(1).gather(1, best)
        found.append((score, label, cell))
        first += count
    return found


def _boxes_of(code: Tensor, cells: Tensor, grid: BevGrid) -> Tensor:
    """Box codes (.., 10) of cells (..) as the columns of `BOX_FIELDS` (.., 9)."""
    return _boxes_at(_centers(code, cells, grid), code[..., 3:])


def _boxes_at(centers: Tensor, shape: Tensor) -> Tensor:
    """Boxes (.., 9) of centres (.., 3) and what their codes (.., 7) say behind the place."""
    # Sine and cosine need not lie on the unit circle; only their direction counts.
    yaw = torch.atan2(shape[..., 3], shape[..., 4])
    return torch.cat([centers, shape[..., :3].exp(), yaw[..., None], shape[..., 5:]], dim=-1)


def _centers(code: Tensor, cells: Tensor, grid: BevGrid) -> Tensor:
    """Centres (.., 3) of box codes that begin with offset and height."""
    x = (cells % grid.columns + code[..., 0]) * grid.cell_m + grid.x_m[0]
    y = (cells // grid.columns + code[..., 1]) * grid.cell_m + grid.y_m[0]
    return torch.stack([x, y, code[..., 2]], dim=-1)


def _valid(boxes: Tensor, scores: Tensor, config: DecodeConfig) -> Tensor:
    """Of boxes whose columns begin with the centre."""
    limit_xy, limit_z = config.center_limit_m
    return (
        (scores > config.score_threshold)
        & (boxes[..., :2].abs() <= limit_xy).all(-1)
        & (boxes[..., 2].abs() <= limit_z)
    )
