# SPDX-License-Identifier: Apache-2.0
"""The label encoder: ground-truth boxes to features that the LiDAR detector's head understands.

Shapes: B batch, M boxes, C hidden channels, Y X grid cells.
Source: LabelDistill (Kim et al., ECCV 2024), section 3.2: g(y) = f(q(class + box)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.checkpoints import build_network, read_checkpoint
from labeldistill_core.classes import ClassList
from labeldistill_core.distillation.config import LabelEncoderConfig
from labeldistill_core.distillation.label_raster import owners
from labeldistill_core.network.resnet import BasicBlock

_RAW, _CELL = 9, 10


class LabelEncoder(nn.Module):
    """Boxes to two feature maps, at the grid's resolution and at half of it."""

    def __init__(self, config: LabelEncoderConfig) -> None:
        """Random weights."""
        super().__init__()
        self.config = config
        names = [name for task in config.tasks for name in task]
        self.classes = len(names)
        self._positions = ClassList(config.classes).positions_among(names)
        hidden = config.hidden_channels
        self.box_mlp = _mlp(_RAW if config.box_input == "raw" else _CELL, hidden)
        self.class_mlp = _mlp(self.classes, hidden)
        self.joint_mlp = _mlp(hidden, hidden)
        self.joint_norm = nn.LayerNorm(hidden)
        self.block = BasicBlock(hidden, hidden)
        self.levels = nn.ModuleList(
            nn.Sequential(
                # f of g(y) = f(q(...)): one convolution a level, side by side, as published.
                nn.Conv2d(hidden, out, 3, stride, 1, padding_mode="replicate"),
                _norm(config, (out, config.grid.rows // stride, config.grid.columns // stride)),
                nn.ReLU(inplace=True),
            )
            for out, stride in zip(config.channels, (1, 2), strict=True)
        )

    def forward(self, boxes: Sequence[Boxes3D]) -> tuple[Tensor, Tensor]:
        """Ground truth of each sample in the ego frame to (B, C0, Y, X) and (B, C1, Y/2, X/2)."""
        x = self.embed(boxes)
        x = self.block(x.permute(0, 3, 1, 2))
        return self.levels[0](x), self.levels[1](x)

    def embed(self, boxes: Sequence[Boxes3D]) -> Tensor:
        """(B, Y, X, C): what stands in each cell.

        Cells are found where the boxes are, on the CPU in training, so that nothing has to wait
        for a GPU to know how many there are.
        """
        boxes = [self._own(sample) for sample in boxes]
        owner = self._owners(boxes)
        values = torch.cat([sample.values for sample in boxes]).float()
        labels = torch.cat([sample.labels for sample in boxes])
        occupied = owner >= 0
        rows = self.box_rows(values, owner, occupied)
        classes = nn.functional.one_hot(labels, self.classes).float()[owner[occupied]]
        cells = occupied.flatten().nonzero()[:, 0]
        device = self.joint_norm.weight.device
        rows, classes, cells = (x.to(device) for x in (rows, classes, cells))
        # Boxes fill few cells, so the MLPs see those alone.
        if self.config.background == "empty":
            filled = self._encode(rows, classes)
            out = filled.new_zeros(owner.numel(), filled.shape[-1])
            out[cells] = filled
        else:
            # Published: the background is what the biases of the MLPs make of zeros.
            everywhere = [x.new_zeros(owner.numel(), x.shape[-1]) for x in (rows, classes)]
            everywhere[0][cells], everywhere[1][cells] = rows, classes
            out = self._encode(*everywhere)
        embedded: Tensor = out.unflatten(0, owner.shape)
        return embedded

    def owners(self, boxes: Sequence[Boxes3D]) -> Tensor:
        """(B, Y, X) index of the box in each cell; smaller boxes, or later tasks, lie on top.

        Boxes whose class the encoder does not know fill no cell and are not counted.
        """
        return self._owners([self._own(sample) for sample in boxes])

    def _own(self, boxes: Boxes3D) -> Boxes3D:
        """Boxes of the encoder's classes, labelled in the order of its tasks."""
        labels = boxes.labels.new_tensor(self._positions)[boxes.labels]
        return replace(boxes, labels=labels)[labels >= 0]

    def _owners(self, boxes: Sequence[Boxes3D]) -> Tensor:
        values = torch.cat([sample.values for sample in boxes])
        labels = torch.cat([sample.labels for sample in boxes])
        published = self.config.raster == "published"
        key = labels if published else -values[:, 3:5].prod(-1)
        # Drawn in this order, so that what comes last lies on top; stable, so that equal ones do
        # not swap.
        bottom_up = key.argsort(stable=True)
        order = torch.empty_like(bottom_up)
        order[bottom_up] = torch.arange(len(order), device=order.device)
        return owners(boxes, order, self.config.grid, published)

    def box_rows(self, values: Tensor, owner: Tensor, occupied: Tensor) -> Tensor:
        """(occupied cells, 9 or 10): input of the box MLP."""
        # A velocity is NaN where it cannot be estimated.
        box = values[owner[occupied]].nan_to_num()
        if self.config.box_input == "raw":
            return box
        cell = occupied.nonzero()[:, [2, 1]] + 0.5
        low = values.new_tensor([self.config.grid.x_m[0], self.config.grid.y_m[0]])
        offset = (box[:, :2] - low) / self.config.grid.cell_m - cell
        yaw = box[:, 6:7]
        # Tables hold boxes without a height; the log of zero would end the training.
        size = box[:, 3:6].clamp(min=1e-2).log()
        return torch.cat([offset, box[:, 2:3], size, yaw.sin(), yaw.cos(), box[:, 7:]], dim=1)

    def _encode(self, box: Tensor, label: Tensor) -> Tensor:
        # Phi_cls(c) + Phi_box(b) of the paper, in each cell that has a box.
        out: Tensor = self.joint_norm(self.joint_mlp(self.box_mlp(box) + self.class_mlp(label)))
        return out


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (B, C, Y, X)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _norm(config: LabelEncoderConfig, shape: tuple[int, int, int]) -> nn.Module:
    return nn.LayerNorm(shape) if config.norm == "map" else _ChannelNorm(shape[0])


def _mlp(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels)
    )


def load_label_encoder(path: Path) -> LabelEncoder:
    """Read a label encoder's checkpoint.

    Raises:
        CheckpointError: it is missing, damaged, or of another network.
    """
    return build_network(read_checkpoint(path, "label encoder"), LabelEncoderConfig, LabelEncoder)
