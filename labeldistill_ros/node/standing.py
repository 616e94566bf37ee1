# SPDX-License-Identifier: Apache-2.0
"""Conditions that are wrong for longer than a moment: of single cameras, and of the whole node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from labeldistill_ros.sets.together import together

STANDING_PERIOD_S = 60.0
"""Between two warnings of something that stays wrong until somebody mends it."""
_LASTS_S = 3.0
"""A busy machine and the first images make many things look wrong for a second or two."""


class Condition(NamedTuple):
    """What may be wrong, and with which camera."""

    kind: str
    """A word for what is wrong."""
    camera: str = ""
    """Name of the camera; empty where it is none's."""


class StandingConditions:
    """Which conditions have held for seconds; not thread-safe."""

    def __init__(self) -> None:
        """Begin with nothing wrong."""
        self._since_s: dict[Condition, float] = {}
        self._lasting: dict[Condition, str] = {}

    def update(self, found: Mapping[Condition, str], now_s: float, at_once: str = "") -> None:
        """Take what is wrong now.

        Args:
            found: sentences by condition; those of a camera begin with its name and a colon.
            now_s: steady clock.
            at_once: a kind that does not pass by itself, so that there is nothing to wait for.
        """
        self._since_s = {key: self._since_s.get(key, now_s) for key in found}
        self._lasting = {
            key: text
            for key, text in found.items()
            if key.kind == at_once or now_s - self._since_s[key] >= _LASTS_S
        }

    def of_camera(self, camera: str, *kinds: str) -> str:
        """The first of these that is wrong with a camera for seconds; else empty."""
        return next((t for k in kinds if (t := self._lasting.get(Condition(k, camera)))), "")

    def of_kind(self, kind: str) -> list[str]:
        """What of this kind has been wrong for seconds; equal sentences of cameras are one."""
        own = {key.camera: text for key, text in self._lasting.items() if key.kind == kind}
        return together(own)

    @property
    def lines(self) -> dict[str, str]:
        """All that has been wrong for seconds, by a key that stays while it is so."""
        kinds = dict.fromkeys(key.kind for key in self._lasting)
        return {f"{kind}/{i}": t for kind in kinds for i, t in enumerate(self.of_kind(kind))}
