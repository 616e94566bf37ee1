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
from torch.nn.functional import pad
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

    def codes_of_all(self, maps: Sequence[Self], cells: Tensor, names: Sequence[str]) -> Tensor:
        """Of cells (B, T, M) of all tasks of a head, of which this is one."""


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
    best, classes = [], 0
    for task in maps:
        score, label, cell = _best_cells(task.heatmap, config)
        best.append((score, label + classes, cell))
        classes += task.heatmap.shape[1]
    scores, labels, cells = (torch.stack(part, dim=1) for part in zip(*best, strict=True))
    finite = ~scores.isnan().any()[None]
    if not (maps[0].heatmap.is_cuda if fixed is None else fixed):
        return _remaining(maps, scores, labels, cells, finite, grid, config)
    codes = maps[0].codes_of_all(maps, cells, ALL_MAPS)
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
    scores, labels, cells = (values[..., : max(asked)] for values in (scores, labels, cells))
    front = slice(0, _FIRST)
    places = maps[0].codes_of_all(maps, cells[..., front], PLACE_MAPS)

    def remain(tasks: slice) -> Tensor:
        """Those of the first candidates of some tasks, (B, T, M) bool, that none suppresses."""
        seen = slice(0, places.shape[2])
        centers = _centers(places[:, tasks], cells[:, tasks, seen], grid)
        valid = _valid(centers, scores[:, tasks, seen], config)
        radius_m2, limit = config.nms_radius_m2[tasks], config.max_per_task
        return circle_nms(centers[..., :2], valid, radius_m2, limit)[0]

    keep = remain(slice(None))
    if max(asked) > _FIRST:
        more = (0, max(asked) - _FIRST)
        places, keep = pad(places, (0, 0, *more), value=torch.nan), pad(keep, more)
        full = (keep.sum(-1) >= config.max_per_task).all(dim=0).tolist()
        for i, task in enumerate(maps):
            if asked[i] > _FIRST and not full[i]:
                rest = slice(_FIRST, asked[i])
                places[:, i, rest] = task.codes_at(cells[:, i, rest], PLACE_MAPS)
                keep[:, i : i + 1] = remain(slice(i, i + 1))
    # Those that remain to the front, in their order.
    most = int(keep.sum(-1).max())
    chosen = (~keep).byte().argsort(dim=-1, stable=True)[..., :most]
    scores, labels, cells, keep = (x.gather(-1, chosen) for x in (scores, labels, cells, keep))
    places = places.gather(2, chosen[..., None].expand(-1, -1, -1, 3))
    codes = torch.cat([places, maps[0].codes_of_all(maps, cells, SHAPE_MAPS)], dim=-1)
    boxes = _boxes_of(codes, cells, grid)
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
    scores, labels, cells = _best_cells(task.heatmap, config)
    boxes = _boxes_of(task.codes_at(cells), cells, grid)
    return [
        Boxes3D(EGO_FRAME, box[valid], label[valid], score[valid])
        for box, label, score, valid in zip(
            boxes, labels, scores, _valid(boxes, scores, config), strict=True
        )
    ]


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
    # Sine and cosine need not lie on the unit circle; only their direction counts.
    yaw = torch.atan2(code[..., 6], code[..., 7])
    parts = (_centers(code, cells, grid), code[..., 3:6].exp(), yaw[..., None])
    return torch.cat([*parts, code[..., 8:]], dim=-1)


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
