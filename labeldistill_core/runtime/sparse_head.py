# SPDX-License-Identifier: Apache-2.0
"""The head as decoding needs it: heat maps everywhere, box codes only where boxes may be.

Of the head's work at inference, five sixths go into box codes of cells that nobody looks at.

Shapes: as in `network.center_head`; M cells that are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from labeldistill_core.network.center_head import (
    BOX_MAPS,
    CenterHead,
    block_diagonal,
    stacked,
)

_CODE = sum(BOX_MAPS.values())


class BoxBranches(nn.Module):
    """The box branches of a task, computed for single cells.

    The second convolution of a branch looks at 3x3 values of the first, and that at 3x3 features:
    a cell's code depends on 5x5 features around it.
    """

    def __init__(self, task: nn.ModuleDict) -> None:
        """From branches whose norms were folded."""
        super().__init__()
        firsts: list[nn.Conv2d] = [task[name][0] for name in BOX_MAPS]  # type: ignore[index]
        lasts: list[nn.Conv2d] = [task[name][-1] for name in BOX_MAPS]  # type: ignore[index]
        # All branches read the same patches, so their first convolutions are one product.
        self.hidden = _linear(*stacked(firsts))
        # Block-diagonal, since each branch reads its own hidden channels alone.
        self.code = _linear(*block_diagonal(lasts))

    def forward(self, padded: Tensor, cells: Tensor) -> Tensor:
        """Box codes of some cells.

        Args:
            padded: (B, Y + 4, X + 4, C) shared features with two zeros on each side, contiguous.
            cells: (B, M) row times X plus column.

        Returns:
            (B, M, 10) in the order of `TaskMaps.box_code`, float32.
        """
        batch, rows, columns = padded.shape[0], padded.shape[1] - 4, padded.shape[2] - 4
        tap = torch.arange(9, device=padded.device)
        row = cells[..., None] // columns + tap // 3  # (B, M, 9), of the first convolution plus one
        column = cells[..., None] % columns + tap % 3
        sample = torch.arange(batch, device=padded.device).view(-1, 1, 1, 1)
        index = (sample * (rows + 4) + row[..., None] + tap[:3]) * (columns + 4)
        index = index + column[..., None]  # (B, M, 9, 3)
        # Three neighbours in a row lie side by side in memory: copied together, in a fifth of the
        # time that indexing takes.
        channels = padded.shape[-1]
        cells_in_all = batch * (rows + 4) * (columns + 4)
        triples = padded.as_strided((cells_in_all - 2, 3 * channels), (channels, 1))
        patches = triples.index_select(0, index.flatten()).view(*row.shape, 9 * channels)
        hidden = self.hidden(patches).relu()
        # beyond the map the second convolution sees zeros, not what the first would say there
        inside = (row >= 1) & (row <= rows) & (column >= 1) & (column <= columns)
        code: Tensor = self.code((hidden * inside[..., None]).flatten(2))
        return code.float()


@dataclass(frozen=True, eq=False)
class SparseTaskMaps:
    """What the head says of one task; takes the place of `TaskMaps` in decoding."""

    heatmap: Tensor
    """(B, K, Y, X) logits of an object's centre."""
    padded: Tensor
    """(B, Y + 4, X + 4, C), see `BoxBranches`."""
    branches: BoxBranches
    """Branches of the task that compute box codes, by name."""

    def codes_at(self, cells: Tensor) -> Tensor:
        """See `TaskMaps.codes_at`."""
        code: Tensor = self.branches(self.padded, cells)
        return code

    @property
    def box_code(self) -> Tensor:
        """(B, 10, Y, X), for comparisons."""
        batch, _, rows, columns = self.heatmap.shape
        cells = torch.arange(rows * columns, device=self.heatmap.device).expand(batch, -1)
        code: Tensor = self.codes_at(cells).mT.unflatten(2, (rows, columns))
        return code


class PeakHead(nn.Module):
    """A `CenterHead` with two convolutions for all heat maps, and box codes on demand."""

    def __init__(self, head: CenterHead) -> None:
        """From a head whose norms were folded."""
        super().__init__()
        tasks: list[nn.ModuleDict] = list(head.tasks)  # type: ignore[arg-type]
        firsts: list[nn.Conv2d] = [task["heatmap"][0] for task in tasks]  # type: ignore[index]
        lasts: list[nn.Conv2d] = [task["heatmap"][-1] for task in tasks]  # type: ignore[index]
        self.shared = head.shared
        self.heatmaps = nn.Sequential(
            conv_with(*stacked(firsts), firsts[0].padding),
            nn.ReLU(inplace=True),
            conv_with(*block_diagonal(lasts), lasts[0].padding),
        )
        self.classes = [conv.out_channels for conv in lasts]
        self.tasks = nn.ModuleList(BoxBranches(task) for task in tasks)

    def forward(self, features: Tensor) -> tuple[SparseTaskMaps, ...]:
        """(B, C, Y, X) to what decoding needs of each task."""
        shared = self.shared(features)
        # Channels last, so that a patch is gathered in whole rows.
        padded = pad(shared.permute(0, 2, 3, 1), (0, 0, 2, 2, 2, 2)).contiguous()
        heatmaps = self.heatmaps(shared).float().split(self.classes, dim=1)
        return tuple(
            SparseTaskMaps(heatmap, padded, branches)  # type: ignore[arg-type]
            for heatmap, branches in zip(heatmaps, self.tasks, strict=True)
        )


def conv_with(
    weight: Tensor, bias: Tensor, padding: object, dilation: tuple[int, int] = (1, 1)
) -> nn.Conv2d:
    """A convolution of stride 1 with these weights (O, C, rows, columns)."""
    out_channels, in_channels, *kernel = weight.shape
    conv = nn.utils.skip_init(
        # Without random weights, which would draw from the caller's stream.
        nn.Conv2d, in_channels, out_channels, kernel, padding=padding, dilation=dilation,
        device=weight.device, dtype=weight.dtype,
    )  # fmt: skip
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.bias.copy_(bias)
    out: nn.Conv2d = conv.eval()
    return out


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A convolution's product (O, C, rows, columns) for patches (.., rows * columns * C)."""
    patches = weight.permute(0, 2, 3, 1).flatten(1)
    linear = nn.Linear(patches.shape[1], patches.shape[0], device=weight.device)
    with torch.no_grad():
        linear.weight.copy_(patches)
        linear.bias.copy_(bias)
    return linear
