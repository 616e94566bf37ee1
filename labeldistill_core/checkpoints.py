# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file that holds a network's weights and its configuration."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from labeldistill_core.config import Config, StudentConfig, from_json, to_json
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.network.student import Student

_LOG = logging.getLogger(__name__)
_CONFIG_KEY = "labeldistill.config"
_NOTE_KEY = "labeldistill.note"
_KIND_KEY = "labeldistill.kind"
_RECORD_KEY = "labeldistill.record"
_WEIGHTS_KEY = "labeldistill.weights_sha256"
_LISTED = 8
"""Names that an error message lists before it only counts."""

Network = TypeVar("Network", bound=nn.Module)
Kind = Literal["student", "teacher", "label encoder"]


@dataclass(frozen=True)
class CheckpointFile:
    """What a file holds; the configuration is still text."""

    tensors: dict[str, Tensor]
    """By the names of our networks."""
    config: str
    """JSON."""
    path: Path
    """Where it came from."""
    sha256: str
    """Of the whole file."""
    note: str
    """What the file says of its origin."""
    record: Mapping[str, Any]
    """How it was trained; empty when the file does not say."""


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
    record: Mapping[str, Any]
    """How it was trained; empty when the file does not say."""


def save_student(
    path: Path,
    student: Student,
    note: str = "",
    dtype: torch.dtype | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write a student, see `save_network`."""
    save_network(path, "student", student, student.config, note, dtype, record)


def load_student(path: Path) -> StudentCheckpoint:
    """Read what `save_student` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, not a student checkpoint, or its weights do
            not fit its configuration.
    """
    file = read_checkpoint(path, "student")
    student = build_network(file, StudentConfig, Student)
    return StudentCheckpoint(student, path, file.sha256, file.note, file.record)


def save_network(
    path: Path,
    kind: Kind,
    network: nn.Module,
    config: Any,
    note: str = "",
    dtype: torch.dtype | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, their hash and the configuration; the file appears whole or not at all.

    Args:
        path: file to write, usually `*.safetensors`.
        kind: of the network.
        network: whose weights are written.
        config: dataclass that the network was built from.
        note: one line on where the weights come from.
        dtype: storage type of the floating point weights; their own when None.
        record: how it was trained, as JSON.

    Raises:
        CheckpointError: the file cannot be written; a file of this name stays as it was.
    """
    tensors = {
        name: (tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor)
        .detach()
        .cpu()
        .contiguous()
        for name, tensor in network.state_dict().items()
    }
    metadata = {
        _KIND_KEY: kind,
        _CONFIG_KEY: to_json(config),
        _NOTE_KEY: note,
        _RECORD_KEY: json.dumps(record or {}, indent=1),
        _WEIGHTS_KEY: weights_sha256(tensors),
    }
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata)
        os.replace(partial, path)
    except (SafetensorError, OSError) as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {path}: {error}") from error


def file_sha256(path: Path) -> str:
    """Hash of a file.

    Raises:
        CheckpointError: there is no such file.
    """
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: give the path of a .safetensors file")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values, whatever else the file holds."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def read_checkpoint(path: Path, kind: Kind) -> CheckpointFile:
    """Read what `save_network` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or of another kind.
    """
    sha256 = file_sha256(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or no safetensors file ({error}); published checkpoints are "
            "read with `labeldistill convert-checkpoint`"
        ) from error
    if _CONFIG_KEY not in metadata:
        raise CheckpointError(
            f"{path} holds no network configuration: it was not written by this project; "
            "use `labeldistill convert-checkpoint`"
        )
    found = metadata.get(_KIND_KEY, "student")
    if found != kind:
        raise CheckpointError(f"{path} holds a {found}, and a {kind} is needed")
    if metadata.get(_WEIGHTS_KEY, weights := weights_sha256(tensors)) != weights:
        raise CheckpointError(f"{path} is damaged: its weights are not those that were written")
    return CheckpointFile(
        tensors,
        metadata[_CONFIG_KEY],
        path,
        sha256,
        metadata.get(_NOTE_KEY, ""),
        json.loads(metadata.get(_RECORD_KEY, "{}")),
    )


def kind_of(path: Path) -> str:
    """Kind of the network in a file; empty when the file says nothing of it."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError):
        return ""
    return metadata.get(_KIND_KEY, "")


def build_network(
    file: CheckpointFile, config: type[Config], network: Callable[[Config], Network]
) -> Network:
    """The network of a checkpoint, in evaluation mode, on the CPU, float32.

    Args:
        file: that was read.
        config: class of its configuration.
        network: makes the network from it.

    Raises:
        CheckpointError: the configuration is damaged, or the weights do not fit it.
    """
    try:
        built = network(from_json(config, file.config))
    except ConfigError as error:
        raise CheckpointError(f"{file.path}: {error}") from error
    load_weights(built, file.tensors, str(file.path))
    return built.eval()


def load_weights(network: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    """Copy weights into a network, all or none.

    Raises:
        CheckpointError: listing the names that are missing, unexpected or of another shape.
    """
    wanted = network.state_dict()
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
    network.load_state_dict(tensors)
