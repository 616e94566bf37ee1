# SPDX-License-Identifier: Apache-2.0
"""CenterPoint head: feature map to heat maps and box codes.

Shapes: B batch, C channels, K classes of a task, Y X grid cells.
Source: CenterPoint (Yin et al., CVPR 2021), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d, pad

from labeldistill_core.config import HeadConfig

BOX_MAPS = {"offset": 2, "height": 1, "size": 3, "heading": 2, "velocity": 2}
"""Maps of a task beside its heat map, and their channels, in the order of the box code."""
ALL_MAPS = tuple(BOX_MAPS)
"""Their names."""
PLACE_MAPS = ("offset", "height")
"""Those that say where a box is, the first of the code."""
SHAPE_MAPS = ("size", "heading", "velocity")
"""Those that say what stands there, the rest of the code."""


@dataclass(frozen=True, eq=False)
class TaskMaps:
    """What the head says of one task, in every grid cell."""

    heatmap: Tensor
    """(B, K, Y, X) logits of an object's centre."""
    offset: Tensor
    """(B, 2, Y, X) x and y of the centre within the cell, in cells."""
    height: Tensor
    """(B, 1, Y, X) z of the centre, metres."""
    size: Tensor
    """(B, 3, Y, X) logarithms of length, width, height in metres."""
    heading: Tensor
    """(B, 2, Y, X) sine and cosine of yaw."""
    velocity: Tensor
    """(B, 2, Y, X) over ground, metres per second."""

    @property
    def box_code(self) -> Tensor:
        """(B, 10, Y, X): offset, height, size, heading, velocity."""
        return torch.cat([getattr(self, name) for name in BOX_MAPS], dim=1)

    def codes_at(self, cells: Tensor, names: Sequence[str] = ALL_MAPS) -> Tensor:
        """Box codes of some cells.

        Args:
            cells: (B, M) row times X plus column.
            names: maps that the codes are of, neighbours in the order of `BOX_MAPS`.

        Returns:
            (B, M, 10), or as many as these maps have channels.
        """
        # Cells before maps are put together: they are few, and so are then the gradients.
        codes = [
            getattr(self, name).flatten(2).gather(2, cells[:, None].expand(-1, BOX_MAPS[name], -1))
            for name in names
        ]
        return torch.cat(codes, dim=1).mT

    def codes_of_tasks(
        self, maps: Sequence[TaskMaps], cells: Tensor, names: Sequence[str]
    ) -> Tensor:
        """Codes (B, T, M, 10) of cells (B, T, M) of the tasks `maps` of a head, as `codes_at`."""
        codes = [task.codes_at(cells[:, i], names) for i, task in enumerate(maps)]
        return torch.stack(codes, dim=1)


class CenterHead(nn.Module):
    """One shared convolution, then six small branches for each task."""

    def __init__(self, config: HeadConfig, in_channels: int) -> None:
        """Build from the configuration."""
        super().__init__()
        self.shared = _conv_norm_relu(in_channels, config.shared_channels)
        self.tasks = nn.ModuleList(
            nn.ModuleDict(
                {
                    name: nn.Sequential(
                        *_conv_norm_relu(config.shared_channels, config.branch_channels),
                        nn.Conv2d(config.branch_channels, channels, 3, padding=1),
                    )
                    for name, channels in {**BOX_MAPS, "heatmap": len(classes)}.items()
                }
            )
            for classes in config.tasks
        )
        # A bias of -2.19 starts every cell at a score of 0.1, or the negatives of 16 thousand cells
        # swamp the first steps (focal loss, Lin et al., ICCV 2017, section 4.1). The published code
        # means to set it and never does.
        if config.heatmap_bias is not None:
            for task in self.tasks:
                nn.init.constant_(task["heatmap"][-1].bias, config.heatmap_bias)  # type: ignore[index]

    def forward(self, features: Tensor) -> tuple[TaskMaps, ...]:
        """(B, C, Y, X) to the maps of each task."""
        shared = self.shared(features)
        return tuple(_maps(task, shared) for task in self.tasks)  # type: ignore[arg-type]


def _maps(task: nn.ModuleDict, shared: Tensor) -> TaskMaps:
    """The branches side by side, as two convolutions; one by one they take twice as long."""
    branches: list[nn.Sequential] = list(task.values())  # type: ignore[arg-type]
    firsts, norms, _, lasts = zip(*branches, strict=True)
    hidden = normed_together(norms, conv2d(shared, *stacked(firsts), padding=1)).relu()
    maps = conv2d(hidden, *block_diagonal(lasts), padding=1).float()
    return TaskMaps(**dict(zip(task, maps.split([c.out_channels for c in lasts], 1), strict=True)))


def stacked(convs: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution that has the outputs of several of the same input."""
    return torch.cat([conv.weight for conv in convs]), torch.cat([bias_of(conv) for conv in convs])


def block_diagonal(convs: Sequence[nn.Conv2d]) -> tuple[Tensor, Tensor]:
    """Weight and bias of one convolution of stacked inputs to stacked outputs of several."""
    ins = [conv.in_channels for conv in convs]
    weights = [
        pad(conv.weight, (0, 0, 0, 0, sum(ins[:i]), sum(ins[i + 1 :])))
        for i, conv in enumerate(convs)
    ]
    return torch.cat(weights), torch.cat([bias_of(conv) for conv in convs])


def bias_of(conv: nn.Conv2d) -> Tensor:
    """Its bias, or zeros."""
    return conv.weight.new_zeros(conv.out_channels) if conv.bias is None else conv.bias


def normed_together(norms: Sequence[nn.Module], x: Tensor) -> Tensor:
    """Batch norms of equal parts of the channels in one go, running statistics included."""
    first = norms[0]
    if isinstance(first, nn.Identity):  # folded into the convolutions before them
        return x
    assert isinstance(first, nn.BatchNorm2d)
    assert first.momentum is not None
    mean, var, weight, bias = (
        torch.cat([getattr(norm, name) for norm in norms])
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    out = batch_norm(x, mean, var, weight, bias, first.training, first.momentum, first.eps)
    if first.training:
        new = {"running_mean": mean.chunk(len(norms)), "running_var": var.chunk(len(norms))}
        for name, parts in new.items():
            for norm, part in zip(norms, parts, strict=True):
                norm.get_buffer(name).copy_(part)
        for norm in norms:
            norm.get_buffer("num_batches_tracked").add_(1)
    return out


def _conv_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
