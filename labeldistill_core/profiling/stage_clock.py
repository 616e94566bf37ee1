# SPDX-License-Identifier: Apache-2.0
"""Time of a step and of its stages."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

Times = dict[str, list[float]]
"""Milliseconds of each stage, one a step."""


def time_ms(step: Callable[[], object], device: torch.device) -> float:
    """Wall-clock time of a step, until the device has done it."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) * 1e3


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 of milliseconds."""
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {"p50": float(p50), "p95": float(p95), "p99": float(p99)}


class StageClock:
    """Adds up the time of named stages."""

    def __init__(self, device: torch.device) -> None:
        """Wait for `device` at both ends of a stage."""
        self._device = device
        self._since: dict[str, float] = {}
        self._spent: dict[str, float] = {}

    def start(self, name: str) -> None:
        """A stage begins."""
        self._since[name] = self._now()

    def stop(self, name: str) -> None:
        """It ends."""
        spent = (self._now() - self._since[name]) * 1e3
        self._spent[name] = self._spent.get(name, 0.0) + spent

    def take(self) -> dict[str, float]:
        """Milliseconds of each stage since the last call."""
        spent, self._spent = self._spent, {}
        return spent

    def _now(self) -> float:
        if self._device.type == "cuda":
            # Launches return at once; without waiting, a stage's time would be that of its
            # launches.
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
