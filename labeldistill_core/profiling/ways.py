# SPDX-License-Identifier: Apache-2.0
"""The ways in which a detector can compute, as `torch_engine` and `Detector` take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from labeldistill_core.network.student import Student
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.device import Precision
from labeldistill_core.runtime.loading import torch_engine


@dataclass(frozen=True)
class Way:
    """How a detector computes; see `torch_engine` and `Detector`."""

    precision: Precision
    """Number format of the convolutions."""
    compile: bool = False
    """Whether `torch.compile` joins operations."""
    fixed_shapes: bool = False
    """Whether a step runs over fixed shapes, in a CUDA graph on a GPU."""
    device_resize: bool = False
    """Images are resized on the device."""
    device_decode: bool = False
    """Whether JPEGs are decoded on the device as well."""

    def detector(self, student: Student, device: str) -> Detector:
        """One that computes so."""
        engine = torch_engine(
            student,
            device=device,
            precision=self.precision,
            compile=self.compile,
            fixed_shapes=self.fixed_shapes,
        )
        return Detector(engine, device_resize=self.device_resize)

    def name(self, detector: Detector) -> str:
        """For tables."""
        parts = {
            "graph" if detector.device.type == "cuda" else "fixed shapes": self.fixed_shapes,
            "compiled": self.compile,
            "resized there": self.device_resize and not self.device_decode,
            "decoded there": self.device_decode,
        }
        return ", ".join([detector.precision, *(name for name, there in parts.items() if there)])


def ways_on(device: torch.device, precisions: Sequence[Precision], compile: bool) -> list[Way]:
    """What `bench` measures.

    By stage, a GPU runs the stages one by one; as the node runs them, in a graph, they are one.
    """
    ways, last = [Way(precision) for precision in precisions], precisions[-1]
    if device.type != "cuda":
        return ways + [Way(last, compile=True)] * compile
    # One thing more at a time, so that the table shows what each is worth.
    whole = Way(last, fixed_shapes=True, device_resize=True, device_decode=True)
    ways = [replace(way, device_resize=True) for way in ways]
    ways += [
        Way(last, fixed_shapes=True),
        replace(whole, device_decode=False),
        whole,
    ]
    return ways + [replace(whole, compile=True)] * compile
