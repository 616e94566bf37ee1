# SPDX-License-Identifier: Apache-2.0
"""What a step computes and moves, by stage."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from labeldistill_core.profiling.bench_images import frame_set
from labeldistill_core.profiling.latency import watched
from labeldistill_core.runtime.detector import Detector


class Work(TorchDispatchMode):
    """Counts operations of convolutions and matrix products, and bytes of all operators.

    Bytes are those of an operator's inputs and outputs, which is what moves when nothing stays in
    a cache between two operators. A stage within another counts for itself only.
    """

    def __init__(self) -> None:
        """Begin with every count at zero."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.stages: dict[str, dict[str, float]] = {}
        """`gflop` and `gigabytes` (1e9 each) of every stage, and of `other`."""
        self._open = ["other"]

    def start(self, name: str) -> None:
        """Count for a stage from now on, also where it begins within another one."""
        self._open.append(name)

    def stop(self, name: str) -> None:
        """Count again for the stage in which this one began."""
        self._open.remove(name)

    def __torch_dispatch__(
        self,
        func: Any,
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count an operator, or those of which it is made."""
        kwargs = kwargs or {}
        known = flop_registry.get(func._overloadpacket)
        # Composite operators have no entry in torch's table of operations; their parts have.
        if known is None and func is not torch.ops.prim.device.default:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        # A view moves no bytes: it is another description of the same memory.
        if not func.is_view:
            tensors = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
            self._add("gigabytes", sum(x.nbytes for x in tensors) / 1e9)
        if known is not None:
            self._add("gflop", known(*args, **kwargs, out_val=out) / 1e9)
        return out

    def _add(self, name: str, value: float) -> None:
        stage = self.stages.setdefault(self._open[-1], {"gflop": 0.0, "gigabytes": 0.0})
        stage[name] += value


def measure_work(detector: Detector) -> dict[str, dict[str, float]]:
    """Operations and bytes of the stages of a step, see `Work`.

    Args:
        detector: computes stage by stage; its history is lost.
    """
    work = Work()
    with watched(detector, work):
        for index in range(detector.config.frames):
            last = index == detector.config.frames - 1
            # Only the last set has its whole history behind it, which is what a step costs.
            with work if last else nullcontext():
                detector.detect(frame_set(float(index), detector.config))
    detector.reset("measured")
    return work.stages
