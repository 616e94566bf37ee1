# SPDX-License-Identifier: Apache-2.0
"""Engines from networks and from files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from labeldistill_core.checkpoints import load_student
from labeldistill_core.errors import ConfigError
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.device import Precision, resolve_device, resolve_precision
from labeldistill_core.runtime.eager_engine import EagerEngine
from labeldistill_core.runtime.engine import Engine, EngineInfo
from labeldistill_core.runtime.fixed_step_engine import FixedStepEngine
from labeldistill_core.runtime.fuse import fuse
from labeldistill_core.runtime.onnx_engine import OnnxEngine, open_checkpoint

Backend = Literal["auto", "torch", "onnx"]


def torch_engine(
    student: Student,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    compile: bool = False,
    fixed_shapes: bool | None = None,
    checkpoint_sha256: str = "",
) -> Engine:
    """A network as torch computes it.

    Args:
        student: trained network; stays as it is.
        device: "cpu", "cuda:0" and so on, or "auto" for CUDA where there is one.
        precision: of the convolutions; geometry, pooling and boxes are float32 always. "auto" is
            the fastest one that the device computes natively.
        compile: let `torch.compile` join operations: faster steps, but the first takes half a
            minute. On the CPU it needs a C++ compiler.
        fixed_shapes: run every step over the same buffers, in a CUDA graph; see
            `runtime.fixed_step`. None: on a GPU.
        checkpoint_sha256: identity of the weights, for reports.

    Raises:
        ConfigError: the device is not there, or no compiler.
    """
    on = resolve_device(device)
    precision = resolve_precision(precision, on)
    # Fused on the CPU in float32, and rounded once.
    network = fuse(student, getattr(torch, precision)).to(on)
    if compile:
        _compile(network, on)
    fixed = on.type == "cuda" if fixed_shapes is None else fixed_shapes
    info = EngineInfo("torch", on, precision, compile, fixed, checkpoint_sha256)
    return FixedStepEngine(network, info) if fixed else EagerEngine(network, info)


def load_engine(
    path: Path | str,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    compile: bool = False,
    backend: Backend = "auto",
) -> Engine:
    """From a file that `save_student` wrote or, in ONNX form, `export_onnx`.

    Args:
        path: the file.
        device: see `torch_engine`; onnxruntime computes on the CPU only.
        precision: see `torch_engine`; onnxruntime computes in float32 only.
        compile: see `torch_engine`; onnxruntime does without.
        backend: what computes the network: torch, or onnxruntime in float32 on the CPU, for which
            a checkpoint is exported first. "auto": what the file's form says.

    Raises:
        CheckpointError: the file is missing, damaged or does not fit.
        ConfigError: the device is not there, or the backend is unknown or not for this file.
    """
    path = Path(path)
    if backend not in get_args(Backend):
        raise ConfigError(f"no backend {backend!r}: use {', '.join(get_args(Backend))}")
    if path.suffix == ".onnx":
        if backend == "torch":
            raise ConfigError(
                f"{path} is a graph for onnxruntime: set backend to auto or onnx, or name the "
                ".safetensors file"
            )
        return OnnxEngine(path, device=device, precision=precision)
    if backend == "onnx":
        return open_checkpoint(path, device=device, precision=precision)
    checkpoint = load_student(path)
    return torch_engine(
        checkpoint.student,
        device=device,
        precision=precision,
        compile=compile,
        checkpoint_sha256=checkpoint.sha256,
    )


def refuse_no_compiler(device: torch.device) -> None:
    """Refuse to compile where that cannot be.

    Raises:
        ConfigError: what is missing.
    """
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        raise ConfigError("compile needs a C++ compiler: install g++, or leave compile off")


def _compile(network: Student, device: torch.device) -> None:
    refuse_no_compiler(device)
    options: dict[str, Any] = {"freezing": True}  # weights are constants
    # The two parts apart: between them lies pooling, whose shapes change with the calibration.
    network.encode = torch.compile(network.encode, options=options)  # type: ignore[method-assign]
    network.detect = torch.compile(network.detect, options=options)  # type: ignore[method-assign]
