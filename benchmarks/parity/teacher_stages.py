# SPDX-License-Identifier: Apache-2.0
"""Parity of the LiDAR teacher: points, voxels, sparse encoder, SECOND, head, boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from benchmarks.parity.golden import GoldenFolder, bev_augmentation
from benchmarks.parity.result import StageComparison, features, integers
from benchmarks.parity.student_stages import PUBLISHED_MAPS, compare_boxes
from labeldistill_core.lidar.config import SweepsConfig, TeacherConfig
from labeldistill_core.lidar.encoder import SparseEncoder
from labeldistill_core.lidar.points import cloud
from labeldistill_core.lidar.sparse import SparseTensor
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.lidar.voxels import voxelize
from labeldistill_core.network.decode import decode
from labeldistill_core.published.config import teacher_config
from labeldistill_core.published.weights import rename_teacher

_PADDING = -999.0
_CLOUDS = 9
"""Scans that the published code takes: the sample's, and the first eight others."""


def compare(golden: GoldenFolder) -> Iterator[StageComparison]:
    """All stages of the teacher."""
    config = teacher_config(golden.confs, golden.config)
    yield from _clouds(golden, config.sweeps)
    yield from _teacher(golden, config)


def _clouds(golden: GoldenFolder, config: SweepsConfig) -> Iterator[StageComparison]:
    for sample, index in enumerate(golden.params["idxs"]):
        scans = golden.scans(index)[:_CLOUDS]
        bev = bev_augmentation(golden.dataset["bda_params"][sample])
        ours = cloud(scans, golden.lidar_ego(index), bev, config)
        theirs = _unpadded(golden.dataset["lidar_pts"][sample, 0])
        yield features(f"preprocessing/lidar_sweeps/{sample}", ours, theirs)


def build_teacher(golden: GoldenFolder) -> Teacher:
    """The recorded teacher, in evaluation mode."""
    teacher = Teacher(teacher_config(golden.confs, golden.config))
    teacher.load_state_dict(rename_teacher(golden.weights))
    return teacher.eval()


def recorded_points(golden: GoldenFolder) -> list[torch.Tensor]:
    """(P, 5) of each sample."""
    return [torch.from_numpy(_unpadded(p[0])) for p in golden.dataset["lidar_pts"]]


def _unpadded(points: Any) -> Any:
    return points[points[:, 0] != _PADDING]


@torch.no_grad()
def _teacher(golden: GoldenFolder, config: TeacherConfig) -> Iterator[StageComparison]:
    arrays, teacher, points = (
        golden.arrays("teacher"),
        build_teacher(golden),
        recorded_points(golden),
    )
    for mode, limit in zip(("train", "eval"), config.max_voxels, strict=True):
        voxels = voxelize(points, config, limit)
        name = f"teacher/voxels/{mode}_"
        yield integers(name + "indices", voxels.indices, arrays[f"voxelize_{mode}/coords_bzyx"])
        yield integers(name + "count", voxels.count, arrays[f"voxelize_{mode}/num_points"])
    yield features("teacher/voxels/mean", voxels.mean, arrays["vfe"])
    seen: dict[str, SparseTensor] = {}
    hooks = _watch(teacher.encoder, seen)
    bev = teacher.encoder(voxels, len(points))
    for hook in hooks:
        hook.remove()
    for stage, ours in seen.items():
        yield from _sparse_stage(stage, ours, arrays)
    yield features("teacher/sparse_encoder/bev", bev, arrays["sparse_encoder_bev"])
    taps = teacher.second(bev)
    for level, tap in enumerate(taps):
        yield features(f"teacher/second/level{level}", tap, arrays[f"second/level{level}"])
    yield features("teacher/neck", teacher.neck(taps), arrays["neck"])
    maps = teacher.detect(taps)
    for task, one in enumerate(maps):
        for theirs, field in PUBLISHED_MAPS.items():
            if f"preds/task{task}/{theirs}" in arrays:
                recorded = arrays[f"preds/task{task}/{theirs}"]
                yield features(f"teacher/head/task{task}_{field}", getattr(one, field), recorded)
    for sample, boxes in enumerate(decode(maps, config.grid, config.decode)):
        yield from compare_boxes(f"teacher/boxes/{sample}", boxes, arrays, f"det/{sample}")


def _watch(encoder: SparseEncoder, seen: dict[str, SparseTensor]) -> list[Any]:
    def keep(name: str) -> Any:
        def hook(_: Any, __: Any, output: SparseTensor) -> None:
            seen[name] = output

        return hook

    stages = {f"encoder_layer{i + 1}": stage for i, stage in enumerate(encoder.stages)}
    modules = {"conv_input": encoder.input, **stages}
    return [module.register_forward_hook(keep(name)) for name, module in modules.items()]


def _sparse_stage(
    stage: str, ours: SparseTensor, arrays: Mapping[str, Any]
) -> Iterator[StageComparison]:
    name, recorded = f"teacher/sparse_encoder/{stage}_", f"sparse/{stage}/"
    if recorded + "indices_bzyx" not in arrays:
        return
    order = np.lexsort(ours.indices.numpy().T[::-1])
    theirs = arrays[recorded + "features"]
    yield integers(name + "shape", ours.shape, arrays[recorded + "spatial_shape"])
    yield integers(name + "indices", ours.indices.numpy()[order], arrays[recorded + "indices_bzyx"])
    yield features(name + "features", ours.features.numpy()[order][: len(theirs)], theirs)
