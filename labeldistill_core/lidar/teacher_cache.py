# SPDX-License-Identifier: Apache-2.0
"""A frozen teacher that remembers: each cloud goes through the network once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor, nn

from labeldistill_core.checkpoints import file_sha256
from labeldistill_core.lidar.output_cache import OutputCache
from labeldistill_core.lidar.teacher import Teacher, TeacherOutput, load_teacher
from labeldistill_core.network.center_head import TaskMaps


class CachedTeacher(nn.Module):
    """Same points, same output: without augmentation of the world, every epoch asks the same.

    Outputs are kept on disk in half precision, for all runs with the same teacher. A sample's
    output is the same whether it was kept or not.
    """

    def __init__(self, teacher: Teacher, folder: Path, sha256: str, limit_bytes: int) -> None:
        """Take over a teacher in evaluation mode.

        Args:
            teacher: the network.
            folder: for what is kept, of all teachers.
            sha256: of the teacher's file.
            limit_bytes: for what is kept; clouds beyond it are computed each time.
        """
        super().__init__()
        self.teacher, self.config = teacher, teacher.config
        self._folder, self._sha256, self._limit_bytes = folder, sha256, limit_bytes
        self._caches: dict[str, OutputCache] = {}

    @classmethod
    def load(cls, file: Path, folder: Path, limit_bytes: int) -> CachedTeacher:
        """Read a teacher's checkpoint; see `load_teacher`."""
        return cls(load_teacher(file).eval(), folder, file_sha256(file), limit_bytes)

    def forward(self, points: Sequence[Tensor]) -> TeacherOutput:
        """See `Teacher`."""
        device = points[0].device
        cache = self._cache(device)
        keys = [_key(cloud) for cloud in points]
        found = {key: kept for key in keys if (kept := cache.read(key)) is not None}
        missing = {key: cloud for key, cloud in zip(keys, points, strict=True) if key not in found}
        # Alone on a CPU: the last bits may depend on the rest of a batch, and a run that is taken
        # up meets its samples in other batches. A GPU sums in an order of its own anyway.
        together = len(missing) if device.type == "cuda" else 1
        while missing:
            batch = [missing.popitem() for _ in range(min(together, len(missing)))]
            tensors = _tensors(self.teacher([cloud for _, cloud in batch]))
            halves = [tensor.to("cpu", torch.float16) for tensor in tensors]
            for index, (key, _) in enumerate(batch):
                found[key] = [half[index] for half in halves]
                cache.write(key, found[key])
        with torch.autocast("cpu", enabled=False):  # which knows no float16
            batched = [
                torch.stack(parts).to(device).float()
                for parts in zip(*(found[key] for key in keys), strict=True)
            ]
        return _output(batched)

    def _cache(self, device: torch.device) -> OutputCache:
        """The file of what is computed on such a device in the present precision."""
        dtype = torch.float32
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        where = f"{device.type} {dtype}"
        if where not in self._caches:
            self._caches[where] = OutputCache(
                self._folder, (self._sha256, where), self._limit_bytes
            )
        return self._caches[where]


def _tensors(output: TeacherOutput) -> list[Tensor]:
    return [*output.taps, *(tensor for task in output.maps for tensor in vars(task).values())]


def _output(tensors: Sequence[Tensor]) -> TeacherOutput:
    """The reverse of `_tensors`."""
    (first, second), maps = tensors[:2], tensors[2:]
    each = len(fields(TaskMaps))
    tasks = tuple(TaskMaps(*maps[at : at + each]) for at in range(0, len(maps), each))
    return TeacherOutput(tasks, (first, second))


def _key(cloud: Tensor) -> bytes:
    # By content rather than by token: it changes with whatever changes a sample, be it data,
    # settings or augmentation.
    return hashlib.blake2b(cloud.cpu().numpy().tobytes(), digest_size=16).digest()
