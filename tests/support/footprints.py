# SPDX-License-Identifier: Apache-2.0
"""Boxes on the ground, for tests of what is drawn from them."""

from __future__ import annotations

import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.config import BevGrid

GRID = BevGrid((-16.0, 16.0), (-16.0, 16.0), cell_m=1.0)


def boxes(*rows: tuple[float, ...], label: str | list[str] = "car") -> Boxes3D:
    """x, y, length, width, yaw of each box."""
    names = [label] * len(rows) if isinstance(label, str) else label
    values = [[x, y, 0.0, length, width, 1.5, yaw, 1.0, 0.0] for x, y, length, width, yaw in rows]
    return Boxes3D(
        "ego",
        torch.tensor(values).reshape(-1, 9),
        torch.tensor([CLASSES.index(name) for name in names], dtype=torch.int64),
        torch.ones(len(rows)),
    )
