# SPDX-License-Identifier: Apache-2.0
"""The detector on onnxruntime."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from labeldistill_core.cameras import CameraPose
from labeldistill_core.config import StudentConfig, from_json
from labeldistill_core.errors import CheckpointError, ConfigError
from labeldistill_core.network.center_head import BOX_MAPS, TaskMaps
from labeldistill_core.network.decode import Candidates, suppressed
from labeldistill_core.network.depth_net import FrameFeatures, camera_vector
from labeldistill_core.network.lift import (
    PoolingTable,
    bin_depths,
    feature_pixels,
    ray_matrices,
    ray_points,
)
from labeldistill_core.network.student import CameraBatch
from labeldistill_core.runtime.detector import Detector, timed
from labeldistill_core.runtime.device import Precision, resolve_device
from labeldistill_core.runtime.history import PastFrame
from labeldistill_core.runtime.onnx_export import (
    METADATA_KEY,
    export_onnx,
    input_names,
    output_names,
    past_shapes,
    table_inputs,
)


def open_onnx(
    path: Path,
    *,
    device: str = "cpu",
    precision: Precision = "float32",
    history_tolerance_s: float = 0.1,
) -> Detector:
    """A graph, or a checkpoint that is exported on the spot; errors as in `OnnxDetector`."""

    def opened(graph: Path) -> OnnxDetector:
        return OnnxDetector(
            graph, device=device, precision=precision, history_tolerance_s=history_tolerance_s
        )

    if path.suffix == ".onnx":
        return opened(path)
    with TemporaryDirectory() as folder:
        graph = Path(folder) / "student.onnx"
        export_onnx(path, graph)
        detector = opened(graph)
    detector.checkpoint_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return detector


class OnnxDetector(Detector):
    """Float32 on the CPU; history, geometry and decoding are those of `Detector`."""

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        precision: Precision = "float32",
        history_tolerance_s: float = 0.1,
    ) -> None:
        """Open a file that `export_onnx` wrote.

        Args:
            path: the file.
            device: "cpu", or "auto" on a machine without CUDA.
            precision: "float32" or "auto".
            history_tolerance_s: as in `Detector`.

        Raises:
            CheckpointError: the file is missing, damaged or another model.
            ConfigError: onnxruntime is not installed, or another device or precision was asked for.
        """
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError as error:
            raise ConfigError(f"{path} needs onnxruntime: pip install '.[onnx]'") from error
        self.device = torch.device("cpu") if device == "auto" else resolve_device(device)
        if self.device.type != "cpu" or precision not in ("auto", "float32"):
            raise ConfigError(
                f"{path} runs on the CPU in float32, not on {device} in {precision}: set device "
                "and precision to auto, or use the .safetensors file"
            )
        self.backend, self.precision, self.compiled = "onnx", "float32", False
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            content = path.read_bytes()
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            told = json.loads(self._session.get_modelmeta().custom_metadata_map[METADATA_KEY])
        except OSError as error:
            raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
        except KeyError as error:
            raise CheckpointError(f"{path} was not written by labeldistill export-onnx") from error
        except Exception as error:  # onnxruntime's own errors have no common class
            raise CheckpointError(f"{path} is no ONNX model or damaged: {error}") from error
        config = from_json(StudentConfig, told["config"])
        self._depth_shape, self._context_shape = past_shapes(config)
        size = (config.image.height, config.image.width)
        self._rays = (feature_pixels(size, config.feature_size), bin_depths(config.depth_bins))
        self._begin(config, history_tolerance_s, hashlib.sha256(content).hexdigest())

    def _compute(
        self,
        stamp_ns: int,
        poses: tuple[CameraPose | None, ...],
        batch: CameraBatch,
        past: list[PastFrame | None],
        timings: dict[str, float],
    ) -> tuple[Candidates, PastFrame]:
        """One run of the graph; its time counts as that of the image network."""
        geometry = (batch.intrinsics[:, 0], batch.image_from_sensor[:, 0])
        camera = camera_vector(*geometry, batch.ego_from_camera[:, 0], batch.augmentation)
        # depth and context are not known yet, and tables do not need them
        unknown = FrameFeatures(torch.empty(0), torch.empty(0))
        now = PastFrame(stamp_ns, unknown, poses, *geometry)
        with timed(timings, "lift"):
            newest = table_inputs(self._current_table(now), 0)
            tables = [*newest]
            past_depth = torch.zeros(self._depth_shape)
            past_context = torch.zeros(self._context_shape)
            for index, frame in enumerate(past):
                if frame is None:
                    tables += newest
                    continue
                tables += table_inputs(self._table(now, frame), index + 1)
                past_depth[index], past_context[index] = (
                    frame.features.depth,
                    frame.features.context,
                )
        with timed(timings, "image_network"):
            inputs = (batch.images[:, 0], camera, past_depth, past_context, *tables)
            names = input_names(self.config)
            outputs = self._session.run(
                output_names(self.config),
                {
                    name: np.ascontiguousarray(tensor.numpy())
                    for name, tensor in zip(names, inputs, strict=True)
                },
            )
        depth, context, *maps = (torch.from_numpy(output) for output in outputs)
        tasks = tuple(
            TaskMaps(heatmap, *code.split(list(BOX_MAPS.values()), dim=1))
            for heatmap, code in zip(maps[::2], maps[1::2], strict=True)
        )
        with timed(timings, "decode"):
            found = suppressed(tasks, self.config.grid, self.config.decode)
        return found, PastFrame(stamp_ns, FrameFeatures(depth, context), poses, *geometry)

    def _pooling_table(
        self, then: PastFrame, ego_from_camera: torch.Tensor, use: torch.Tensor
    ) -> PoolingTable:
        rays = ray_matrices(
            then.intrinsics, then.image_from_sensor, ego_from_camera, torch.eye(4)[None]
        )
        return PoolingTable.build(ray_points(*self._rays, rays), self.config.grid, use)
