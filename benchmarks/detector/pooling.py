# SPDX-License-Identifier: Apache-2.0
"""Pooling by table against the naive lift.

The naive lift builds depth x context for every point, as LSS describes it, and adds the rows to
their cells with `index_add`. It is written with the channels last, which spares it the copy that
the order of the paper's code needs: no straw man. Both use the same table of points, so the ratio
says nothing of geometry, which is timed on its own.

Shapes: as in `network.lift`; L lifted points, L = B*N*D*H*W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from benchmarks.detector.report import Speedup
from benchmarks.timing import alternate, peak_mib
from labeldistill_core.data.batch import camera_batch
from labeldistill_core.network.depth_net import FrameFeatures
from labeldistill_core.network.lift import PoolingTable, pool, ray_matrices, ray_points
from labeldistill_core.network.student import Student
from labeldistill_core.profiling.bench_images import frame_set
from labeldistill_core.profiling.stage_clock import time_ms


def measure_pooling(
    student: Student, repeats: int
) -> tuple[list[Speedup], dict[str, float], dict[str, float]]:
    """Pooling of one frame against the naive lift.

    Returns:
        Comparisons, differences and times of single steps, see `Report`.
    """
    config, device = student.config, student.depths.device
    batch = camera_batch([frame_set(0.0, config)], config).to(device)
    geometry = (batch.intrinsics[:, 0], batch.image_from_sensor[:, 0], batch.ego_from_camera[:, 0])
    points = student.ray_points(*geometry, batch.augmentation)
    table = PoolingTable.build(points, config.grid)
    cells = cell_of_point(table)
    images, bins, height, width = table.depth_shape
    channels = config.depth_net.context_channels
    depth = torch.rand(table.depth_shape, device=device).softmax(dim=1)
    context = torch.randn(images, channels, height, width, device=device)
    context = context.to(memory_format=torch.channels_last)
    upstream = torch.randn(config.grid.rows, config.grid.columns, channels, device=device)
    upstream = upstream.permute(2, 0, 1)[None]
    leaves = (depth.requires_grad_(), context.requires_grad_())

    def backward(lift: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(lift(), leaves, upstream)

    def fast() -> Tensor:
        return pool(FrameFeatures(depth, context), table)

    def plain() -> Tensor:
        return naive_lift(depth, context, table, cells)

    with torch.no_grad():
        differences = {"pooling": relative_difference([fast()], [plain()])}
        fast_ms, plain_ms = alternate([fast, plain], repeats, device)
        peaks = [peak_mib(step, device) for step in (fast, plain)]
    comparisons = [Speedup("pooling, forward", fast_ms, plain_ms, 30.0, *peaks)]
    # Training pools with gradients, which for the naive lift needs the lifted tensor twice.
    both = [lambda: backward(fast), lambda: backward(plain)]
    differences["pooling, gradients"] = relative_difference(both[0](), both[1]())
    fast_ms, plain_ms = alternate(both, repeats, device)
    peaks = [peak_mib(step, device) for step in both]
    comparisons.append(Speedup("pooling, forward + backward", fast_ms, plain_ms, 10.0, *peaks))
    rays_ms, table_ms = alternate(
        [
            lambda: student.ray_points(*geometry, batch.augmentation),
            lambda: PoolingTable.build(points, config.grid),
        ],
        repeats,
        device,
    )
    return comparisons, differences, {"ray points": rays_ms, "pooling table": table_ms}


@torch.inference_mode()
def measure_traffic(student: Student, repeats: int) -> dict[str, float]:
    """Pooling of all frames of a step, in one table on a GPU, and the bytes that it moves.

    Args:
        student: on its device.
        repeats: of ten runs in a row, so that the launch of one hides behind the one before.

    Returns:
        `ms` of one run; `least_gb`, when each input is read once and each result written once;
        `gathered_gb`, when each of a cell's rows comes from memory, however often it was read.
        1e9 bytes each.
    """
    config, device = student.config, student.depths.device
    batch = camera_batch([frame_set(0.0, config)] * config.frames, config).to(device)
    rays = ray_matrices(
        batch.intrinsics[0],
        batch.image_from_sensor[0],
        batch.ego_from_camera[0],
        torch.eye(4, device=device)[None],
    )
    points = ray_points(student.pixels, student.depths, rays)
    table = PoolingTable.build(points, config.grid, fixed=device.type == "cuda")
    images, _, height, width = table.depth_shape
    channels = config.depth_net.context_channels
    depth = torch.rand(table.depth_shape, device=device).softmax(dim=1)
    context = torch.randn(images, channels, height, width, device=device)
    context = context.to(memory_format=torch.channels_last)
    features = FrameFeatures(depth, context)

    def ten() -> None:
        for _ in range(10):
            pool(features, table)

    times_ms = [time_ms(ten, device) / 10 for _ in range(repeats + 1)][1:]
    indices = (table.feature_index, table.depth_index, table.offsets)
    point_bytes = sum(x.nbytes for x in indices) + 4 * len(table.depth_index)
    if table.share is not None:
        point_bytes += table.share.nbytes
    moved = point_bytes + pool(features, table).nbytes
    return {
        "ms": float(np.median(times_ms)),
        "least_gb": (moved + context.nbytes) / 1e9,
        "gathered_gb": (moved + 4 * channels * len(table.feature_index)) / 1e9,
    }


def naive_lift(depth: Tensor, context: Tensor, table: PoolingTable, cells: Tensor) -> Tensor:
    """Depth x context of all points, then the sum of those that fall in a cell.

    Args:
        depth: (B*N, D, H, W).
        context: (B*N, C, H, W).
        table: which points fall in the grid.
        cells: (P,) cell of each of them, see `cell_of_point`.

    Returns:
        (B, C, Y, X), as `lift.pool`.
    """
    lifted = depth[..., None] * context.permute(0, 2, 3, 1)[:, None]  # (B*N, D, H, W, C)
    rows = lifted.flatten(0, 3)  # (L, C)
    batch, height, width = table.grid_shape
    summed = rows.new_zeros(batch * height * width, rows.shape[1])
    summed = summed.index_add(0, cells, rows[table.depth_index])
    return summed.view(batch, height, width, -1).permute(0, 3, 1, 2)


def cell_of_point(table: PoolingTable) -> Tensor:
    """(P,) cell of each point that falls in the grid."""
    counts = table.offsets.diff()
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)


def relative_difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """Largest absolute difference over the largest value, or over one where that is less."""
    differences = [
        float((a - b).abs().max()) / max(1.0, float(b.abs().max()))
        for a, b in zip(one, other, strict=True)
    ]
    return float(np.max(differences))  # numpy's keeps a NaN
