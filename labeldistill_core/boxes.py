# SPDX-License-Identifier: Apache-2.0
"""3D boxes and the frame they are in.

Shapes: N boxes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from labeldistill_core.frames import Transform

BOX_FIELDS = ("x", "y", "z", "length", "width", "height", "yaw", "vx", "vy")
"""Columns of `Boxes3D.values`: metres, metres, radians, metres per second."""


# Not compared by value: tensors give no single truth for `==`, and near is what tests mean.
@dataclass(frozen=True, eq=False)
class Boxes3D:
    """N upright boxes in one frame.

    Length runs along the heading, yaw is measured from +x towards +y, the centre is the geometric
    centre, and the velocity is over ground, along the axes of `frame`.

    Examples:
        A car ten metres ahead, as seen from a map in which the vehicle heads north:

        >>> values = torch.tensor([[10.0, 0.0, 0.8, 4.6, 1.9, 1.6, 0.0, 5.0, 0.0]])
        >>> boxes = Boxes3D("ego", values, labels=torch.tensor([0]), scores=torch.ones(1))
        >>> north = (0.5**0.5, 0.0, 0.0, 0.5**0.5)
        >>> map_from_ego = Transform.from_quaternion("map", "ego", north, (100.0, 50.0, 0.0))
        >>> boxes.transformed(map_from_ego).centers.round(decimals=3).tolist()
        [[100.0, 60.0, 0.8]]
        >>> len(boxes[boxes.scores > 0.5])
        1
    """

    frame: str
    """Name of the frame of centre, yaw and velocity."""
    values: Tensor
    """(N, 9): the columns of `BOX_FIELDS`. A velocity may be NaN where it is unknown."""
    labels: Tensor
    """(N,) int64: an index into the list of classes in ground truth and in results, into the
    `class_names` of the network in what it detects."""
    scores: Tensor
    """(N,) in 0 to 1; ones for ground truth."""

    def __post_init__(self) -> None:
        """Refuse columns that do not fit together."""
        n = self.values.shape[0]
        if self.values.shape != (n, len(BOX_FIELDS)):
            raise ValueError(f"values must be (N, 9), not {tuple(self.values.shape)}")
        if self.labels.shape != (n,) or self.scores.shape != (n,):
            raise ValueError(f"{n} boxes need {n} labels and {n} scores")

    @classmethod
    def empty(cls, frame: str) -> Boxes3D:
        """No boxes, in a frame that still has its name."""
        return cls(frame, torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64), torch.zeros(0))

    def __len__(self) -> int:
        """Number of boxes."""
        return self.values.shape[0]

    @property
    def centers(self) -> Tensor:
        """(N, 3) geometric centres, metres."""
        return self.values[:, 0:3]

    @property
    def sizes(self) -> Tensor:
        """(N, 3) length, width, height in metres."""
        return self.values[:, 3:6]

    @property
    def yaws(self) -> Tensor:
        """(N,) headings, radians from +x towards +y."""
        return self.values[:, 6]

    @property
    def velocities(self) -> Tensor:
        """(N, 2) over ground along x and y, metres per second; NaN where unknown."""
        return self.values[:, 7:9]

    def __getitem__(self, index: Tensor) -> Boxes3D:
        """The boxes that an index or mask tensor selects."""
        return replace(
            self, values=self.values[index], labels=self.labels[index], scores=self.scores[index]
        )

    def to(self, device: torch.device | str) -> Boxes3D:
        """The same boxes on another device."""
        return replace(
            self,
            values=self.values.to(device),
            labels=self.labels.to(device),
            scores=self.scores.to(device),
        )

    def transformed(self, target_from_source: Transform) -> Boxes3D:
        """In another frame; computed in float64, which the result keeps.

        The heading and the velocity turn in space; the result keeps their part in the target's
        xy plane, since a box stays upright.

        Raises:
            ValueError: the boxes are not in the transform's source frame.
        """
        if target_from_source.source != self.frame:
            raise ValueError(
                f"boxes are in {self.frame!r}, the transform starts from "
                f"{target_from_source.source!r}"
            )
        # Maps have their origin kilometres away, where float32 has steps of a quarter of a
        # millimetre.
        values = self.values.double()
        rotation = torch.as_tensor(target_from_source.rotation, device=values.device)
        shift = torch.as_tensor(target_from_source.translation, device=values.device)
        yaw = values[:, 6]
        # A direction and not an angle is turned, since the target's frame may be tilted.
        heading = torch.stack([yaw.cos(), yaw.sin()], dim=1) @ rotation[:2, :2].T
        moved = values.clone()
        moved[:, 0:3] = values[:, 0:3] @ rotation.T + shift
        moved[:, 6] = torch.atan2(heading[:, 1], heading[:, 0])
        moved[:, 7:9] = values[:, 7:9] @ rotation[:2, :2].T
        return replace(self, frame=target_from_source.target, values=moved)

    def corners(self) -> Tensor:
        """(N, 8, 3) corners in metres.

        The first four are the front face (top left, top right, bottom right, bottom left, seen
        along the heading), the last four the rear face in the same order.
        """
        signs = self.values.new_tensor(
            np.array(
                [
                    [1, 1, 1],
                    [1, -1, 1],
                    [1, -1, -1],
                    [1, 1, -1],
                    [-1, 1, 1],
                    [-1, -1, 1],
                    [-1, -1, -1],
                    [-1, 1, -1],
                ]
            )
        )
        local = signs * self.sizes[:, None] / 2
        c, s = self.yaws.cos()[:, None], self.yaws.sin()[:, None]
        # Turned about z alone: a box is upright in its own frame.
        x = local[..., 0] * c - local[..., 1] * s
        y = local[..., 0] * s + local[..., 1] * c
        return torch.stack([x, y, local[..., 2]], dim=-1) + self.centers[:, None]
