# SPDX-License-Identifier: Apache-2.0
"""What is wrong in tables: by scene, so that one bad scene does not end the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


class TableFaults:
    """The first fault of each scene, and what concerns none of them."""

    def __init__(self) -> None:
        """None yet."""
        self.by_scene: dict[int, str] = {}
        """Message by row of the scene."""
        self.notes: list[str] = []
        """What the user is told at each opening."""

    def add(self, scene: int, message: str) -> None:
        """Tell of a scene, unless something is wrong with it already."""
        self.by_scene.setdefault(scene, message)

    def where(
        self, bad: NDArray[np.bool_], scenes: NDArray[np.int64], message: Callable[[int], str]
    ) -> None:
        """Tell of rows.

        Args:
            bad: (N,) rows that have a fault.
            scenes: (N,) row of the scene that each belongs to; below 0 where to none.
            message: what is wrong with a row.
        """
        rows = np.flatnonzero(bad & (scenes >= 0))
        for scene, first in zip(*np.unique(scenes[rows], return_index=True), strict=True):
            self.add(int(scene), message(int(rows[first])))
