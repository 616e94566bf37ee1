# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file that holds the student's weights and its configuration."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from labeldistill_core.config import StudentConfig
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.network.student import Student

_LOG = logging.getLogger(__name__)
_CONFIG_KEY = "labeldistill.config"
_NOTE_KEY = "labeldistill.note"
_LISTED = 8
"""Names that an error message lists before it only counts."""


@dataclass(frozen=True)
class StudentCheckpoint:
    """A student that was read from a file."""

    student: Student
    """In evaluation mode, on the CPU, float32."""
    path: Path
    """Where it came from."""
    sha256: str
    """Of the whole file."""
    note: str
    """What the file says of its origin."""


def save_student(
    path: Path, student: Student, note: str = "", dtype: torch.dtype | None = None
) -> None:
    """Write weights and configuration; the file appears whole or not at all.

    Args:
        path: file to write, usually `*.safetensors`.
        student: the network.
        note: one line on where the weights come from.
        dtype: storage type of the floating point weights; their own when None.
    """
    tensors = {
        name: (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor)
        .detach()
        .cpu()
        .contiguous()
        for name, tensor in student.state_dict().items()
    }
    metadata = {_CONFIG_KEY: student.config.to_json(), _NOTE_KEY: note}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata)
    os.replace(partial, path)


def load_student(path: Path) -> StudentCheckpoint:
    """Read what `save_student` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, not a student checkpoint, or its weights do
            not fit its configuration.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: give the path of a .safetensors file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({error}); official checkpoints are "
            "read with `labeldistill convert-checkpoint`"
        ) from error
    if _CONFIG_KEY not in metadata:
        raise CheckpointError(
            f"{path} holds no network configuration: it was not written by this project; "
            "use `labeldistill convert-checkpoint`"
        )
    try:
        config = StudentConfig.from_json(metadata[_CONFIG_KEY])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    student = Student(config)
    load_weights(student, tensors, str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return StudentCheckpoint(student.eval(), path, digest, metadata.get(_NOTE_KEY, ""))


def load_weights(student: Student, tensors: dict[str, Tensor], origin: str) -> None:
    """Copy weights into a network, all or none.

    Raises:
        CheckpointError: listing the names that are missing, unexpected or of another shape.
    """
    wanted = student.state_dict()
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    misshapen = [
        f"{name} is {tuple(tensors[name].shape)}, the network has {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    problems = [
        f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{' ...' if len(names) > _LISTED else ''}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{origin} does not fit the network; is it another preset? " + "; ".join(problems)
        )
    student.load_state_dict(tensors)
