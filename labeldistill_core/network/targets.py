# SPDX-License-Identifier: Apache-2.0
"""Targets of the head: heat maps and box codes of ground-truth boxes.

Shapes: B batch, K classes of a task, M objects of the fullest sample, Y X grid cells.
Source: CenterPoint (Yin et al., CVPR 2021), section 4; CornerNet (Law and Deng, ECCV 2018) for
the radius.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.config import BevGrid, HeadConfig

_OVERLAP = 0.1


@dataclass(frozen=True, eq=False)
class TaskTargets:
    """What one task should say."""

    heatmap: Tensor
    """(B, K, Y, X); 1 at centres, Gaussian around them."""
    cell: Tensor
    """(B, M) int64, y * columns + x of each object; 0 where there is none."""
    code: Tensor
    """(B, M, 10) in the order of `TaskMaps.box_code`; an unknown velocity is NaN."""
    valid: Tensor
    """(B, M) bool, False for padding."""

    def to(self, device: torch.device) -> TaskTargets:
        """On another device."""
        return TaskTargets(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def build_targets(
    boxes: Sequence[Boxes3D], grid: BevGrid, head: HeadConfig
) -> tuple[TaskTargets, ...]:
    """Targets of all tasks.

    Args:
        boxes: ground truth of each sample in the (augmented) ego frame, labels by
            `head.classes`; a class that is in no task is left out.
        grid: the cells; a centre outside is left out.
        head: groups the classes into tasks.

    Returns:
        One `TaskTargets` a task, on the boxes' device.

    Raises:
        ConfigError: a task has a class that ground truth cannot have.
    """
    targets = []
    for classes in head.tasks:
        channels = boxes[0].labels.new_tensor(head.class_list.positions_among(classes))
        per_sample = [_task_objects(sample, grid, head, channels) for sample in boxes]
        cell, code, label, radius = (
            pad_sequence(list(column), batch_first=True) for column in zip(*per_sample, strict=True)
        )
        count = torch.tensor([len(objects[0]) for objects in per_sample], device=cell.device)
        valid = torch.arange(cell.shape[1], device=cell.device) < count[:, None]
        heatmap = _draw(cell, label, radius, valid, len(classes), grid)
        targets.append(TaskTargets(heatmap, cell, code, valid))
    return tuple(targets)


def _task_objects(
    boxes: Boxes3D, grid: BevGrid, head: HeadConfig, channels: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cell (M,), code (M, 10), label within the task (M,) and radius (M,) of one sample.

    `channels` has the label within the task of each of `head.classes`, -1 for those of other tasks.
    """
    channel = channels[boxes.labels]
    values = boxes.values
    low = values.new_tensor([grid.x_m[0], grid.y_m[0]])
    center = (values[:, :2] - low) / grid.cell_m
    whole = center.trunc() if grid.index_rounding == "truncate" else center.floor()
    limit = values.new_tensor([grid.columns, grid.rows])
    keep = (
        (channel >= 0)
        & (whole >= 0).all(-1)
        & (whole < limit).all(-1)
        & (values[:, 3:6] > 0).all(-1)
    )
    values, center, whole = values[keep], center[keep], whole[keep]
    yaw = values[:, 6:7]
    code = torch.cat(
        [center - whole, values[:, 2:3], values[:, 3:6].log(), yaw.sin(), yaw.cos(), values[:, 7:]],
        dim=1,
    )
    cell = (whole[:, 1] * grid.columns + whole[:, 0]).long()
    radius = gaussian_radius(values[:, 3:5] / grid.cell_m).clamp(min=head.least_radius)
    return cell, code, channel[keep], radius


def gaussian_radius(size: Tensor) -> Tensor:
    """(M,) largest shift in cells at which a box still overlaps itself by `_OVERLAP`."""
    total, area = size.sum(-1), size.prod(-1)
    o = _OVERLAP
    # three ways in which the corners can move: both inwards, both outwards, one each
    roots = [
        _root(torch.ones_like(total), -total, area * (1 - o) / (1 + o)),
        _root(torch.full_like(total, 4), -2 * total, (1 - o) * area),
        _root(torch.full_like(total, 4 * o), 2 * o * total, (o - 1) * area),
    ]
    return torch.stack(roots).amin(0).long()


def _root(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    # divided by 2 and not by 2a, as CornerNet's code and all that build on it
    return (-b + (b * b - 4 * a * c).sqrt()) / 2


def _draw(
    cell: Tensor, label: Tensor, radius: Tensor, valid: Tensor, classes: int, grid: BevGrid
) -> Tensor:
    """(B, K, Y, X): the largest of all objects' Gaussians in each cell."""
    reach = int(radius.max()) if valid.any() else 0
    span = torch.arange(-reach, reach + 1, device=cell.device)
    dy, dx = torch.meshgrid(span, span, indexing="ij")
    x = (cell % grid.columns)[..., None, None] + dx
    y = (cell // grid.columns)[..., None, None] + dy
    r = radius[..., None, None]
    sigma = (2 * r + 1) / 6
    value = torch.exp(-(dx * dx + dy * dy) / (2 * sigma * sigma))
    use = valid[..., None, None] & (dx.abs() <= r) & (dy.abs() <= r)
    use = use & (x >= 0) & (x < grid.columns) & (y >= 0) & (y < grid.rows)
    sample = torch.arange(len(cell), device=cell.device)[:, None, None, None]
    layer = sample * classes + label[..., None, None]
    index = (layer * grid.rows + y) * grid.columns + x
    flat = value.new_zeros(len(cell) * classes * grid.rows * grid.columns)
    flat = flat.scatter_reduce(0, index[use], value.expand_as(use)[use], "amax")
    return flat.view(len(cell), classes, grid.rows, grid.columns)
