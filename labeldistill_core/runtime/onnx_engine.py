# SPDX-License-Identifier: Apache-2.0
"""The step on onnxruntime: float32, on the CPU."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from labeldistill_core.checkpoints import file_sha256
from labeldistill_core.config import StudentConfig
from labeldistill_core.config_json import from_json
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.network.center_head import BOX_MAPS, TaskMaps
from labeldistill_core.network.decode import suppressed
from labeldistill_core.network.depth_net import FrameFeatures, camera_vector
from labeldistill_core.runtime.device import Precision, resolve_device
from labeldistill_core.runtime.engine import EngineInfo, StepInput, StepOutput, timed
from labeldistill_core.runtime.onnx_export import (
    METADATA_KEY,
    export_onnx,
    input_names,
    output_names,
    past_shapes,
    table_inputs,
)
from labeldistill_core.runtime.pooling_tables import PoolingTables


class OnnxEngine:
    """Computes pooling tables in torch and the rest in one graph; see `engine.Engine`."""

    graph = "not asked for"

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        checkpoint_sha256: str = "",
    ) -> None:
        """Open a file that `export_onnx` wrote.

        Args:
            path: the file.
            device: "cpu" or "auto"; nothing else is supported.
            precision: "float32" or "auto"; nothing else is supported.
            checkpoint_sha256: identity of the weights, for reports; that of the graph when empty.

        Raises:
            CheckpointError: the file is missing, damaged or another model.
            ConfigError: onnxruntime is not installed, or another device or precision was asked for.
        """
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError as error:
            raise ConfigError(
                f"{path} needs onnxruntime: pip install '.[onnx]' ({error})"
            ) from error
        on = torch.device("cpu") if device == "auto" else resolve_device(device)
        if on.type != "cpu" or precision not in ("auto", "float32"):
            raise ConfigError(
                f"{path} runs on the CPU in float32, not on {device} in {precision}: set device "
                "and precision to auto, or use the .safetensors file"
            )
        options = onnxruntime.SessionOptions()
        # As many as torch, which whoever limits a process sets.
        options.intra_op_num_threads = torch.get_num_threads()
        if not path.is_file():
            raise CheckpointError(f"cannot read {path}: there is no such file")
        try:
            # So that a report says which graph computed.
            sha256 = checkpoint_sha256 or file_sha256(path)
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except _load_errors() as error:
            raise CheckpointError(f"{path} is no ONNX model or damaged: {error}") from error
        self.config = _config(path, self._session.get_modelmeta().custom_metadata_map)
        self.info = EngineInfo("onnx", on, "float32", checkpoint_sha256=sha256)
        self._tables = PoolingTables(self.config, on)
        self._depth_shape, self._context_shape = past_shapes(self.config)

    def step(self, inputs: StepInput, timings_ms: dict[str, float]) -> StepOutput:
        """See `engine.Engine`; the graph's whole time counts as that of the image network."""
        batch = inputs.batch
        camera = camera_vector(
            batch.intrinsics[:, 0],
            batch.image_from_sensor[:, 0],
            batch.ego_from_camera[:, 0],
            batch.augmentation,
        )
        with timed(timings_ms, "lift"):
            current = table_inputs(self._tables.current(inputs), 0)
            tables = [*current]
            # A missing frame's rows are not looked at: its table points at those of the current
            # one.
            past_depth = torch.zeros(self._depth_shape)
            past_context = torch.zeros(self._context_shape)
            for index, frame in enumerate(inputs.past):
                if frame is None:
                    tables += current
                    continue
                tables += table_inputs(self._tables.past(inputs, frame), index + 1)
                past_depth[index] = frame.features.depth
                past_context[index] = frame.features.context
        with timed(timings_ms, "image_network"):
            outputs = self._run((batch.images[:, 0], camera, past_depth, past_context, *tables))
        depth, context, *maps = outputs
        tasks = tuple(
            TaskMaps(heatmap, *code.split(list(BOX_MAPS.values()), dim=1))
            for heatmap, code in zip(maps[::2], maps[1::2], strict=True)
        )
        with timed(timings_ms, "decode"):
            found = suppressed(tasks, self.config.grid, self.config.decode)
        return StepOutput(found, FrameFeatures(depth, context))

    def _run(self, inputs: tuple[Tensor, ...]) -> list[Tensor]:
        named = zip(input_names(self.config), inputs, strict=True)
        outputs = self._session.run(
            output_names(self.config),
            {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in named},
        )
        return [torch.from_numpy(output) for output in outputs]


def _load_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a file that it cannot make a session of."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # type: ignore[import-untyped]

    # One by one, since they have no class in common but `Exception`, which would hide our own
    # faults.
    return (
        state.EPFail,
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoModel,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )


def _config(path: Path, metadata: Mapping[str, str]) -> StudentConfig:
    """The student's configuration, which the exporter puts beside the graph."""
    try:
        told = json.loads(metadata[METADATA_KEY])
        return from_json(StudentConfig, told["config"])
    except (KeyError, TypeError, ValueError, RecursionError, ConfigError) as error:
        reason = f": {error}" if isinstance(error, ConfigError) else ""
        raise CheckpointError(
            f"{path} was not written by labeldistill export-onnx{reason}"
        ) from error


def open_checkpoint(path: Path, *, device: str, precision: Precision) -> OnnxEngine:
    """Export a student's checkpoint and open the graph.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or not a student's.
        ConfigError: onnx or onnxruntime is not installed, or see `OnnxEngine`.
    """
    with TemporaryDirectory() as folder:
        graph = Path(folder) / "student.onnx"
        export_onnx(path, graph)
        # The checkpoint's, since that is the file that users know; the graph goes with its folder.
        sha256 = file_sha256(path)
        return OnnxEngine(graph, device=device, precision=precision, checkpoint_sha256=sha256)
