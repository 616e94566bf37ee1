# SPDX-License-Identifier: Apache-2.0
"""What a detector asks of whatever computes its network.

Shapes: N cameras, D depth bins, H W feature rows and columns, C context channels.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from labeldistill_core.cameras import CameraPose
from labeldistill_core.config import StudentConfig
from labeldistill_core.network.decode import Candidates
from labeldistill_core.network.depth_net import FrameFeatures
from labeldistill_core.network.student import CameraBatch
from labeldistill_core.runtime.device import Precision
from labeldistill_core.runtime.history import PastFrame


@dataclass(frozen=True)
class EngineInfo:
    """How an engine computes; it stays the same from one step to the next."""

    backend: Literal["torch", "onnx"]
    """The library that runs the network: torch or onnxruntime."""
    device: torch.device
    """Where the network runs and where depth and context of past frames are kept."""
    precision: Precision
    """Type of the convolutions, never "auto"; geometry, pooling and boxes are float32 always."""
    compiled: bool = False
    """Whether `torch.compile` joined the network's operations."""
    in_one_piece: bool = False
    """Whether a step cannot be timed by stages; its time then counts as the image network's."""
    checkpoint_sha256: str = ""
    """Hash of the file that the weights came from; empty for weights from elsewhere."""


@dataclass(frozen=True, eq=False)
class StepInput:
    """One set of images and the past frames that it is seen with."""

    batch: CameraBatch
    """One sample of one frame; the images may lie on the engine's device, the rest on the CPU."""
    poses: tuple[CameraPose | None, ...]
    """Of the N cameras in the order of the model; None where one is missing."""
    past: Sequence[PastFrame | None]
    """One a history age; None where there was no frame, which the current one then replaces."""


@dataclass(frozen=True, eq=False)
class StepOutput:
    """What the network says of a set, and what later steps need of it."""

    found: Candidates
    """Boxes before those that better ones suppress are taken out; on any device."""
    features: FrameFeatures
    """Depth (N, D, H, W) and context (N, C, H, W) of the set, on the engine's device."""


class Engine(Protocol):
    """Runs the streaming step of one network; knows neither time nor history."""

    @property
    def config(self) -> StudentConfig:
        """The network's configuration."""

    @property
    def info(self) -> EngineInfo:
        """How this engine computes."""

    @property
    def graph(self) -> str:
        """What became of the CUDA graph: "recorded", why not, or empty before the first step."""

    def step(self, inputs: StepInput, timings_ms: dict[str, float]) -> StepOutput:
        """One set of images to boxes.

        Args:
            inputs: the set and its past.
            timings_ms: to which each stage adds its wall-clock time.
        """


@contextmanager
def timed(timings_ms: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time that a stage takes to its entry, in milliseconds."""
    # What the host waits for: a GPU may still be at work when a stage ends, and a later one pays.
    start = time.perf_counter()
    yield
    timings_ms[stage] = timings_ms.get(stage, 0.0) + (time.perf_counter() - start) * 1e3
