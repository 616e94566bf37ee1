# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one safetensors file that holds a network's weights and its configuration."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from labeldistill_core.config import StudentConfig
from labeldistill_core.config_json import Config, from_json, to_json
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.files import write_whole
from labeldistill_core.names import plain_text
from labeldistill_core.network.student import Student
from labeldistill_core.weights import check_fit, load_weights, not_finite

_LOG = logging.getLogger(__name__)
_CONFIG_KEY = "labeldistill.config"
_NOTE_KEY = "labeldistill.note"
_KIND_KEY = "labeldistill.kind"
_RECORD_KEY = "labeldistill.record"
_WEIGHTS_KEY = "labeldistill.weights_sha256"
_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What a safetensors header calls the types of numbers."""

Network = TypeVar("Network", bound=nn.Module)
Kind = Literal["student", "teacher", "label encoder"]


@dataclass(frozen=True)
class CheckpointFile:
    """What the header of a file says; neither configuration nor weights have been looked at."""

    outline: Mapping[str, Tensor]
    """Types and shapes of the weights, by the names of our networks, on torch's meta device."""
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
    weights_sha256: str | None
    """Of the weights as they were written; None when the file does not say."""

    def weights(self) -> dict[str, Tensor]:
        """Read them.

        Raises:
            CheckpointError: the file is damaged.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in self.outline}
        except (SafetensorError, OSError) as error:
            raise _damaged(self.path, error) from error
        # safetensors has no check sum: a flipped bit would detect worse without a word.
        if self.weights_sha256 not in (None, weights_sha256(tensors)):
            raise CheckpointError(
                f"{self.path} is damaged: its weights are not those that were written"
            )
        return tensors


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
            not fit its configuration or are not finite.
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

    The same arguments give the same bytes.

    Args:
        path: file to write, usually `*.safetensors`.
        kind: of the network.
        network: whose weights are written.
        config: dataclass that the network was built from.
        note: one line on where the weights come from.
        dtype: storage type of the floating point weights; their own when None. Weights beyond its
            range, and running statistics of norms, are stored in their own.
        record: how it was trained, as JSON.

    Raises:
        CheckpointError: weights are not finite; a file of this name stays as it was.
        OSError: the file cannot be written; one of this name stays as it was.
    """
    state = network.state_dict()
    if bad := not_finite(state):
        raise CheckpointError(f"{path} is not written: {bad}")
    # Looked at above in their own type: only casting may take them out of range.
    tensors = {name: _stored(name, tensor.detach(), dtype) for name, tensor in state.items()}
    metadata = {
        _KIND_KEY: kind,
        _CONFIG_KEY: to_json(config),
        _NOTE_KEY: note,
        _RECORD_KEY: json.dumps(record or {}, indent=1),
        _WEIGHTS_KEY: weights_sha256(tensors),
    }
    write_whole(path, _serialized(tensors, metadata))


def _stored(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor as it is written."""
    # Where inputs hardly vary, as a camera's parameters, a norm divides its mean's rounding by 0.
    statistic = name.endswith(("running_mean", "running_var"))
    if dtype and tensor.is_floating_point() and not statistic:
        cast = tensor.to(dtype)
        tensor = cast if torch.isfinite(cast).all() else tensor
    return tensor.cpu().contiguous()


def _serialized(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file whose metadata are in order.

    The library keeps them in a hash map, so that the same content has other bytes, and another
    hash, from one process to the next.
    """
    content = save(tensors, metadata)
    begin = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:begin])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight, as the format asks
    return len(text).to_bytes(8, "little") + text + content[begin:]


def file_sha256(path: Path) -> str:
    """Hash of a file.

    Raises:
        CheckpointError: there is no such file.
    """
    if (path / "checkpoints" / "last.ckpt").is_file():
        raise CheckpointError(
            f"{path} is the folder of a run: give the *.safetensors in it, or, while the run goes "
            "on, what `labeldistill export` writes"
        )
    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path}: give the path of a .safetensors file")
    # In parts, so that a file of gigabytes takes no memory.
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def weights_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values, whatever else the file holds."""
    digest = hashlib.sha256()
    # Sorted, since the order of a state dict is that in which modules are registered, which may
    # change while the network stays the same.
    for name, tensor in sorted(tensors.items()):
        # The form too, or two tensors of swapped shapes would have one hash.
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def read_checkpoint(path: Path, kind: Kind) -> CheckpointFile:
    """Read the header of what `save_network` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or of another kind.
    """
    sha256 = file_sha256(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            outline = {
                name: _outline(path, name, part.get_dtype(), part.get_shape())
                for name in file.keys()  # noqa: SIM118 - no mapping
                for part in [file.get_slice(name)]
            }
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    if _CONFIG_KEY not in metadata:
        raise CheckpointError(
            f"{path} holds no network configuration: it was not written by this project; "
            "use `labeldistill convert-checkpoint`"
        )
    found = _kind(metadata)
    if found != kind:
        raise CheckpointError(f"{path} holds a {plain_text(str(found))}, and a {kind} is needed")
    return CheckpointFile(
        outline,
        metadata[_CONFIG_KEY],
        path,
        sha256,
        metadata.get(_NOTE_KEY, ""),
        _record(path, metadata.get(_RECORD_KEY, "{}")),
        metadata.get(_WEIGHTS_KEY),
    )


def _damaged(path: Path, error: Exception) -> CheckpointError:
    if path.suffix == ".onnx":
        return CheckpointError(
            f"{path} is an ONNX graph: give the *.safetensors that it was exported from"
        )
    if path.suffix == ".ckpt":
        return CheckpointError(
            f"{path} is no safetensors file: the network of a run's checkpoint is written by "
            "`labeldistill export`; published checkpoints are read with `labeldistill "
            "convert-checkpoint`"
        )
    return CheckpointError(
        f"{path} is truncated or no safetensors file ({error}); published checkpoints are "
        "read with `labeldistill convert-checkpoint`"
    )


def _outline(path: Path, name: str, dtype: str, shape: list[int]) -> Tensor:
    if dtype not in _TYPES:
        raise CheckpointError(
            f"{path}: {plain_text(name)} is of type {dtype}; weights are {', '.join(_TYPES)}"
        )
    return torch.empty(shape, dtype=_TYPES[dtype], device="meta")


def _record(path: Path, text: str) -> Mapping[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: its record is no JSON ({error})") from error
    if not isinstance(record, Mapping):
        raise CheckpointError(f"{path} is damaged: its record is no mapping")
    return record


def kind_of(path: Path) -> str:
    """Kind of the network in a file; empty when the file is none of ours.

    Raises:
        OSError: the file cannot be opened, so that nobody knows.
    """
    if path.is_file():
        with path.open("rb"):
            pass
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError):
        return ""
    return _kind(metadata) if _CONFIG_KEY in metadata else ""


def refuse_other_file(out: Path) -> None:
    """See that a network would take the place of nothing but a network.

    Raises:
        CheckpointError: what is there is another file.
    """
    if out.is_file() and out.stat().st_size and not kind_of(out):
        # Such as a checkpoint of a run, which could not be taken up any more.
        raise CheckpointError(
            f"{out} is there and is no file of a network: name another one to write, or remove it"
        )


def _kind(metadata: Mapping[str, str]) -> str:
    return metadata.get(_KIND_KEY, "student")  # as before files told it


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
        wanted = from_json(config, file.config)
    except ConfigError as error:
        raise CheckpointError(f"{file.path}: {error}") from error
    # Before the weights are read, so that a file of another network costs no memory.
    built = fitting_network(wanted, network, file.outline, str(file.path))
    load_weights(built, file.weights(), str(file.path))
    return built.eval()


def fitting_network(
    config: Config,
    network: Callable[[Config], Network],
    weights: Mapping[str, Tensor],
    origin: str,
) -> Network:
    """A network of a configuration, once it is known that weights fit it.

    Args:
        config: of the network.
        network: makes the network from it.
        weights: or their outline.
        origin: of both, for the message.

    Raises:
        CheckpointError: there can be no such network, or the weights do not fit it.
    """
    # A configuration can ask for any amount of memory; on the meta device nothing takes any.
    try:
        with torch.device("meta"), _Unfilled():
            outline = network(config).state_dict()
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{origin}: no network can be made of its configuration: {error}"
        ) from error
    check_fit(outline, weights, origin)
    return network(config)


class _Unfilled(TorchFunctionMode):
    """Leaves out random numbers, of which tensors on the meta device have none.

    For normally distributed ones torch would import its compiler, which takes two seconds.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Hand on all calls but those that fill a tensor."""
        if function in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return function(*args, **(kwargs or {}))
