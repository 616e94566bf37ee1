# SPDX-License-Identifier: Apache-2.0
"""The head as decoding needs it: heat maps everywhere, box codes only where boxes may be.

Of the head's work at inference, five sixths go into box codes of cells that nobody looks at.

Shapes: as in `network.center_head`; M cells that are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from labeldistill_core.network.center_head import (
    ALL_MAPS,
    BOX_MAPS,
    CenterHead,
    block_diagonal,
    stacked,
)

_Map = tuple[int, int, torch.dtype, torch.device]
"""Rows, columns, and what the features are."""


class BoxBranches(nn.Module):
    """The box branches of all tasks, computed for single cells.

    The second convolution of a branch looks at 3x3 values of the first, and that at 3x3 features:
    a cell's code depends on 5x5 features around it. Tasks are computed at once, since for some
    hundred cells starting an operation takes longer than the operation.

    T tasks, H hidden channels of the branches of a task together.
    """

    def __init__(self, tasks: Sequence[nn.ModuleDict]) -> None:
        """From branches whose norms were folded."""
        super().__init__()
        # All branches read the same patches, so their first convolutions are one product; the
        # second ones are block-diagonal, since each reads its own hidden channels alone.
        firsts = [_product(*stacked([task[name][0] for name in BOX_MAPS])) for task in tasks]  # type: ignore[index]
        lasts = [_product(*block_diagonal([task[name][-1] for name in BOX_MAPS])) for task in tasks]  # type: ignore[index]
        self.hidden_weight, self.hidden_bias = _parameters(firsts)  # (T, H, 9*C), (T, 1, H)
        self.code_weight, self.code_bias = _parameters(lasts)  # (T, 10, 9*H), (T, 1, 10)
        self._neighbours_on: dict[_Map, tuple[Tensor, Tensor]] = {}

    def forward(
        self,
        padded: Tensor,
        cells: Tensor,
        names: Sequence[str],
        tasks: slice | Sequence[int] = slice(None),
    ) -> Tensor:
        """Box codes of some cells.

        Args:
            padded: (B, Y + 4, X + 4, C) shared features with two zeros on each side, contiguous.
            cells: (B, T, M) row times X plus column.
            names: branches that compute, neighbours in the order of `BOX_MAPS`.
            tasks: whose cells these are.

        Returns:
            (B, T, M, 10) in the order of `TaskMaps.box_code`, or the part of it; float32.
        """
        batch, of_tasks, count = cells.shape
        triples, inside = self._neighbours(padded)
        cells = cells.transpose(0, 1)  # tasks are the products' batch
        index = triples.index_select(0, cells.flatten()).view(of_tasks, batch, -1)
        if batch > 1:
            sample = torch.arange(batch, dtype=index.dtype, device=index.device)
            index += sample[:, None] * (padded.shape[1] * padded.shape[2])
        # Three neighbours in a row lie side by side in memory: copied together, in a fifth of the
        # time that indexing takes.
        channels = padded.shape[3]
        last = padded.numel() // channels - 2
        patches = padded.as_strided((last, 3 * channels), (channels, 1))
        patches = patches.index_select(0, index.flatten())
        first, code = _rows(names, self.hidden_weight.shape[1] // len(BOX_MAPS))
        hidden = torch.baddbmm(
            self.hidden_bias[tasks, :, first],
            patches.view(of_tasks, batch * count * 9, 9 * channels),
            self.hidden_weight[tasks, first].mT,
        ).relu_()
        hidden = hidden.view(*cells.shape, 9, hidden.shape[2])
        # beyond the map the second convolution sees zeros, not what the first would say there
        hidden.mul_(inside.index_select(0, cells.flatten()).view(*cells.shape, 9, 1))
        weight = self.code_weight[tasks, code].unflatten(2, (9, -1))[..., first].flatten(2)
        hidden = hidden.view(of_tasks, batch * count, weight.shape[2])
        codes = torch.baddbmm(self.code_bias[tasks, :, code], hidden, weight.mT).float()
        return codes.view(*cells.shape, codes.shape[2]).transpose(0, 1)

    def _neighbours(self, padded: Tensor) -> tuple[Tensor, Tensor]:
        """What each cell of a map of this size depends on; computed once.

        Returns:
            Where the three rows of features around each of its nine neighbours begin in `padded`,
            (Y*X, 27), and whether the neighbours lie on the map, (Y*X, 9), one or zero.
        """
        rows, columns = padded.shape[1] - 4, padded.shape[2] - 4
        key = rows, columns, padded.dtype, padded.device
        if key not in self._neighbours_on:
            with torch.inference_mode(False):
                cell = torch.arange(rows * columns, device=padded.device)
                tap = torch.arange(9, device=padded.device)
                row = cell[:, None] // columns + tap // 3  # of the first convolution plus one
                column = cell[:, None] % columns + tap % 3
                triples = (row[..., None] + tap[:3]) * (columns + 4) + column[..., None]
                inside = (row >= 1) & (row <= rows) & (column >= 1) & (column <= columns)
                self._neighbours_on[key] = (
                    triples.flatten(1).int(),
                    inside.to(padded.dtype),
                )
        return self._neighbours_on[key]


@dataclass(frozen=True, eq=False)
class SparseTaskMaps:
    """What the head says of one task; takes the place of `TaskMaps` in decoding."""

    heatmap: Tensor
    """(B, K, Y, X) logits of an object's centre."""
    padded: Tensor
    """(B, Y + 4, X + 4, C), see `BoxBranches`."""
    branches: BoxBranches
    """Branches of all tasks that compute box codes."""
    task: int
    """Number of the task among them."""

    def codes_at(self, cells: Tensor, names: Sequence[str] = ALL_MAPS) -> Tensor:
        """See `TaskMaps.codes_at`."""
        return self.codes_of_tasks([self], cells[:, None], names)[:, 0]

    def codes_of_tasks(
        self, maps: Sequence[SparseTaskMaps], cells: Tensor, names: Sequence[str]
    ) -> Tensor:
        """See `TaskMaps.codes_of_tasks`."""
        all_of_them = len(maps) == len(self.branches.hidden_weight)
        tasks = slice(None) if all_of_them else [task.task for task in maps]
        code: Tensor = self.branches(self.padded, cells, names, tasks)
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
        self.branches = BoxBranches(tasks)

    def forward(self, features: Tensor) -> tuple[SparseTaskMaps, ...]:
        """(B, C, Y, X) to what decoding needs of each task."""
        shared = self.shared(features)
        # Channels last, so that a patch is gathered in whole rows.
        padded = pad(shared.permute(0, 2, 3, 1), (0, 0, 2, 2, 2, 2)).contiguous()
        heatmaps = self.heatmaps(shared).float().split(self.classes, dim=1)
        return tuple(
            SparseTaskMaps(heatmap, padded, self.branches, task)
            for task, heatmap in enumerate(heatmaps)
        )


def _rows(names: Sequence[str], hidden_channels: int) -> tuple[slice, slice]:
    """Where neighbouring branches lie in the hidden channels of all, and in the code."""
    begin = ALL_MAPS.index(names[0])
    end = begin + len(names)
    channels = list(BOX_MAPS.values())
    return (
        slice(begin * hidden_channels, end * hidden_channels),
        slice(sum(channels[:begin]), sum(channels[:end])),
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


def _product(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A convolution (O, C, rows, columns) as a product with patches (.., rows * columns * C)."""
    return weight.permute(0, 2, 3, 1).flatten(1), bias[None]


def _parameters(products: Sequence[tuple[Tensor, Tensor]]) -> tuple[nn.Parameter, nn.Parameter]:
    """Weights and biases of all tasks."""
    weights, biases = (torch.stack(parts).detach() for parts in zip(*products, strict=True))
    return nn.Parameter(weights), nn.Parameter(biases)
