# SPDX-License-Identifier: Apache-2.0
"""A frozen teacher that remembers: each cloud goes through the network once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from labeldistill_core.lidar.teacher import Teacher, TeacherOutput
from labeldistill_core.network.center_head import TaskMaps

_Kept = tuple[tuple[Tensor, ...], ...]


class CachedTeacher(nn.Module):
    """Same points, same output: without augmentation of the world, every epoch asks the same.

    Outputs are kept on the CPU in half precision, as far as the memory that was granted goes.
    """

    def __init__(self, teacher: Teacher, memory_bytes: int) -> None:
        """Take over a teacher in evaluation mode.

        Args:
            teacher: the network.
            memory_bytes: for what is kept; clouds beyond it are computed each time.
        """
        super().__init__()
        self.teacher, self.config = teacher, teacher.config
        self._free_bytes = memory_bytes
        self._kept: dict[bytes, _Kept] = {}

    def forward(self, points: Sequence[Tensor]) -> TeacherOutput:
        """See `Teacher`."""
        keys = [_key(cloud) for cloud in points]
        device = points[0].device
        found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = {key: cloud for key, cloud in zip(keys, points, strict=True) if key not in found}
        # Alone on a CPU: the last bits may depend on the rest of a batch, and a run that is taken
        # up meets its samples in other batches. A GPU sums in an order of its own anyway.
        together = len(missing) if device.type == "cuda" else 1
        while missing:
            batch = [missing.popitem() for _ in range(min(together, len(missing)))]
            output = self.teacher([cloud for _, cloud in batch])
            groups = (output.taps, *(tuple(vars(task).values()) for task in output.maps))
            groups = tuple(tuple(t.to("cpu", torch.float16) for t in group) for group in groups)
            for index, (key, _) in enumerate(batch):
                found[key] = self._keep(key, groups, index)
        rows = [found[key] for key in keys]
        with torch.autocast("cpu", enabled=False):  # which knows no float16
            taps, *maps = (
                tuple(torch.stack(parts).to(device).float() for parts in zip(*group, strict=True))
                for group in zip(*rows, strict=True)
            )
        return TeacherOutput(tuple(TaskMaps(*task) for task in maps), (taps[0], taps[1]))

    def _keep(self, key: bytes, groups: Sequence[Sequence[Tensor]], index: int) -> _Kept:
        """One sample's output, kept if there is room."""
        # Cloned, since a slice would keep the whole batch in memory.
        output = tuple(tuple(tensor[index].clone() for tensor in group) for group in groups)
        size = sum(tensor.nbytes for group in output for tensor in group)
        if size <= self._free_bytes:
            self._kept[key] = output
            self._free_bytes -= size
        return output


def _key(cloud: Tensor) -> bytes:
    # By content rather than by token: augmentation makes several clouds of one sample.
    return hashlib.blake2b(cloud.cpu().numpy().tobytes(), digest_size=16).digest()
