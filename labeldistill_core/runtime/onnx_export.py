# SPDX-License-Identifier: Apache-2.0
"""The streaming step as one ONNX graph of standard operators.

What depends on calibration and ego motion stays outside: the graph takes pooling tables.

Shapes: S frames, N cameras, D depth bins, H W feature rows and columns, C context channels,
Y X grid cells, P_s points of frame s in the grid, K classes of a task.
"""

from __future__ import annotations

import json
import logging
import re
from itertools import count
from pathlib import Path

import torch
from torch import Tensor, nn

from labeldistill_core.checkpoints import load_student
from labeldistill_core.config import StudentConfig
from labeldistill_core.errors import ConfigError
from labeldistill_core.files import whole_file
from labeldistill_core.network.depth_net import CAMERA_VECTOR_SIZE
from labeldistill_core.network.lift import PoolingTable
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.fuse import fuse

METADATA_KEY = "labeldistill"
OPSET = 18
"""The first one whose scatter operators add."""


class StreamingStep(nn.Module):
    """One set of images and what is kept of past ones, to maps."""

    def __init__(self, student: Student) -> None:
        """Of a network in evaluation mode, which stays as it is."""
        super().__init__()
        # Box codes in every cell, since the boxes are chosen outside the graph.
        self.student = fuse(student, torch.float32, peaks=False)

    def forward(
        self,
        images: Tensor,
        camera: Tensor,
        past_depth: Tensor,
        past_context: Tensor,
        tables: list[Tensor],
    ) -> tuple[Tensor, ...]:
        """The step.

        Args:
            images: (1, N, 3, rows, columns) uint8 in red, green, blue.
            camera: (N, 27), see `camera_vector`.
            past_depth: (S - 1, N, D, H, W) as earlier steps gave it.
            past_context: (S - 1, N, C, H, W) of the same frames, zero where one is missing.
            tables: three a frame, the current one first, see `table_inputs`.

        Returns:
            Depth (N, D, H, W), context (N, C, H, W), and for each task the heat map
            (1, K, Y, X) and the box code (1, 10, Y, X).
        """
        config = self.student.config
        current = self.student.encode(images, camera)
        depth = torch.cat([current.depth[None], past_depth]).flatten()
        context = torch.cat([current.context[None], past_context])
        rows = context.permute(0, 1, 3, 4, 2).flatten(0, 3)
        grid = (config.grid.rows, config.grid.columns)
        cells = []
        for frame in range(config.frames):
            context_row, depth_row, cell = tables[3 * frame : 3 * frame + 3]
            # No `embedding_bag`, for which ONNX has no operator: the product is built, P rows of C.
            lifted = rows[context_row] * depth[depth_row][:, None]
            summed = rows.new_zeros(grid[0] * grid[1], rows.shape[1]).index_add(0, cell, lifted)
            cells.append(summed.view(1, *grid, -1).permute(0, 3, 1, 2))
        maps = self.student.detect(torch.cat(cells, dim=1)).maps
        parts = [part for task in maps for part in (task.heatmap, task.box_code)]
        return (current.depth, current.context, *parts)


def table_inputs(table: PoolingTable, frame: int) -> tuple[Tensor, Tensor, Tensor]:
    """A table as the graph takes it.

    Args:
        table: where the rays of a frame fall.
        frame: whose depth and context to sum: 0 is the current one, which also stands in for a
            missing one.

    Returns:
        (P,) each: rows of the context and of the depth of all frames, and cells, ascending.
    """
    images, bins, height, width = table.depth_shape
    pixels = images * height * width
    counts = table.offsets.diff()
    cell = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    return table.feature_index + frame * pixels, table.depth_index + frame * pixels * bins, cell


def past_shapes(config: StudentConfig) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of the inputs `past_depth` and `past_context`."""
    past, cameras = config.frames - 1, len(config.cameras)
    height, width = config.feature_size
    return (
        (past, cameras, config.depth_bins.count, height, width),
        (past, cameras, config.depth_net.context_channels, height, width),
    )


def input_names(config: StudentConfig) -> list[str]:
    """Of the graph, in order."""
    names = ("context_row", "depth_row", "cell")
    tables = [f"{name}_{frame}" for frame in range(config.frames) for name in names]
    return ["images", "camera", "past_depth", "past_context", *tables]


def output_names(config: StudentConfig) -> list[str]:
    """Of the graph, in order."""
    tasks = range(len(config.head.tasks))
    maps = [f"{name}_{task}" for task in tasks for name in ("heatmap", "box_code")]
    return ["depth", "context", *maps]


def export_onnx(checkpoint: Path, out: Path) -> None:
    """Write a student as an ONNX graph that the node loads, float32.

    The graph is one streaming step with standard operators; the node computes the tables that it
    takes. Weights of 2 GB and more go to a file beside it.

    Args:
        checkpoint: student, `*.safetensors`.
        out: file to write, `*.onnx`.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or not a student's.
        ConfigError: `out` is no ONNX file, or the onnx package is not installed.
    """
    if out.suffix != ".onnx":
        raise ConfigError(f"{out} does not end in .onnx, by which the node knows the form")
    try:
        import onnx
    except ImportError as error:
        raise ConfigError(f"this needs onnx: pip install '.[onnx]' ({error})") from error
    source = load_student(checkpoint)
    config = source.student.config
    step = StreamingStep(source.student).eval()
    depth_shape, context_shape = past_shapes(config)
    size = (config.image.height, config.image.width)
    cameras = len(config.cameras)
    points = torch.export.Dim.AUTO
    # Another length for each frame, or the exporter would take all of them for one dimension.
    tables = [torch.arange(7 + frame) for frame in range(config.frames) for _ in range(3)]
    inputs = (
        torch.zeros(1, cameras, 3, *size, dtype=torch.uint8),
        torch.zeros(cameras, CAMERA_VECTOR_SIZE),
        torch.zeros(depth_shape),
        torch.zeros(context_shape),
        tables,
    )
    # Warnings of the exporter about itself, which a user cannot act on.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(
        step,
        inputs,
        input_names=input_names(config),
        output_names=output_names(config),
        dynamic_shapes=(None, None, None, None, [{0: points} for _ in tables]),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    told = {"config": config.to_json(), "sha256": source.sha256, "note": source.note}
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, json.dumps(told)
    # A protobuf message ends at 2 GiB.
    large = model.ByteSize() >= 2 << 30
    folder, name = out.resolve().parent, out.resolve().name
    own = re.compile(rf"{re.escape(name)}(\.\d+)?\.data")
    before = [path for path in folder.glob("*.data") if own.fullmatch(path.name)]
    # A new name, as onnx would append to a file that is there, which the old graph needs.
    names = (f"{name}.data" if n == 0 else f"{name}.{n}.data" for n in count())
    data = next(folder / data for data in names if folder / data not in before)
    try:
        # A node that starts meanwhile finds the old graph or the new one.
        with whole_file(out) as file:
            onnx.save(model, file, save_as_external_data=large, location=data.name)
    except BaseException:
        data.unlink(missing_ok=True)
        raise
    for path in before:
        path.unlink(missing_ok=True)
