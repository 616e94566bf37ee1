# SPDX-License-Identifier: Apache-2.0
"""The parameters that may change while the node is active."""

from __future__ import annotations

from collections.abc import Sequence

from labeldistill_ros.parameter_store import ParameterStore
from labeldistill_ros.parameters import Parameters
from labeldistill_ros.sets.options import selection
from labeldistill_ros.sets.selection import Selection


class LiveParameters:
    """What the parameters say now; read anew when they have changed.

    `refresh` belongs to the thread that spins the node; what it finds can be read from any thread.
    """

    def __init__(
        self, store: ParameterStore, cameras: Sequence[str], classes: Sequence[str]
    ) -> None:
        """Read all parameters of a model of these cameras and classes."""
        self._store, self._cameras, self._classes = store, cameras, classes
        self._revision = -1
        self.refresh()

    def refresh(self) -> None:
        """Read the parameters anew if any was set since the last call."""
        # Called at every image: one comparison, unless something was set.
        if self._revision == self._store.revision:
            return
        self._revision = self._store.revision
        # All of them and not what changed: parameters are checked against one another.
        vehicle = self._store.vehicle(self._cameras, self._classes)
        self.common: Parameters = vehicle.common
        """Parameters that are not those of single cameras or classes."""
        self.selection: Selection = selection(vehicle)
        """Which boxes are shown, by the parameters as they are now."""
