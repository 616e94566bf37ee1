# SPDX-License-Identifier: Apache-2.0
"""Parity of the student in evaluation mode, from the backbone to the boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.parity.golden import GoldenFolder
from benchmarks.parity.result import StageComparison, absolute, features, integers
from labeldistill_core.boxes import Boxes3D
from labeldistill_core.network.center_head import TaskMaps
from labeldistill_core.network.decode import candidate_boxes, decode
from labeldistill_core.network.depth_net import camera_vector
from labeldistill_core.network.lift import grid_cells, pool
from labeldistill_core.network.student import Student
from labeldistill_core.published.weights import rename_student
from labeldistill_core.weights import load_weights

PUBLISHED_MAPS = {
    "heatmap": "heatmap",
    "reg": "offset",
    "height": "height",
    "dim": "size",
    "rot": "heading",
    "vel": "velocity",
}
"""Published names of a task's maps to ours."""


def build_student(golden: GoldenFolder) -> Student:
    """The student of a golden folder with its recorded weights."""
    student = Student(golden.config)
    load_weights(student, rename_student(golden.weights), str(golden.folder))
    return student


def recorded_maps(arrays: Mapping[str, Any], prefix: str, tasks: int) -> tuple[TaskMaps, ...]:
    """Recorded head maps of all tasks as ours."""
    return tuple(
        TaskMaps(
            **{
                ours: torch.from_numpy(arrays[f"{prefix}/task{task}/{theirs}"])
                for theirs, ours in PUBLISHED_MAPS.items()
            }
        )
        for task in range(tasks)
    )


@torch.no_grad()
def compare(golden: GoldenFolder) -> Iterator[StageComparison]:
    """All stages of the student."""
    recorded = golden.arrays("student_eval")
    student, batch = build_student(golden).eval(), golden.batch()
    seen: dict[str, Tensor] = {}
    camera = camera_vector(
        batch.intrinsics[:, 0],
        batch.image_from_sensor[:, 0],
        batch.ego_from_camera[:, 0],
        batch.augmentation,
    )
    yield features("student/camera_vector", camera, recorded["depth_net/camera_vector27"])
    frames, points = [], []
    for frame in range(batch.images.shape[1]):
        hooks = _watch(student, seen) if frame == 0 else []
        frames.append(student.encode(batch.images[:, frame], camera))
        for hook in hooks:
            hook.remove()
        points.append(
            student.ray_points(
                batch.intrinsics[:, frame],
                batch.image_from_sensor[:, frame],
                batch.ego_from_camera[:, frame],
                batch.augmentation,
            )
        )
    yield from _image_network(seen, recorded)
    name, cameras = "student/depth_net/", len(golden.config.cameras)
    yield features(name + "depth_frame0", frames[0].depth, recorded["depth/frame0"])
    yield features(name + "context_frame0", frames[0].context, recorded["context/frame0"])
    if len(frames) > 1:
        past = recorded["depth/frame1_cam0_sample0"]
        yield features(name + "depth_frame1", frames[1].depth[:1], past)
    yield from _geometry(golden, points, recorded)
    cells = []
    for frame, encoded in enumerate(frames):
        table = student.pooling_table(
            batch.intrinsics[:, frame],
            batch.image_from_sensor[:, frame],
            batch.ego_from_camera[:, frame],
            batch.augmentation,
            batch.use[:, frame],
        )
        cells.append(pool(encoded, table))
        yield features(f"student/bev_frame{frame}", cells[-1], recorded[f"bev/frame{frame}"])
    assert frames[0].depth.shape[0] % cameras == 0
    hooks = _watch(student, seen)
    maps = student.detect(torch.cat(cells, dim=1)).maps
    for hook in hooks:
        hook.remove()
    yield from _bev_network(seen, recorded)
    for task, ours in enumerate(maps):
        for theirs, field in PUBLISHED_MAPS.items():
            stage = f"student/head/task{task}_{field}"
            yield features(stage, getattr(ours, field), recorded[f"preds/task{task}/{theirs}"])
    yield from _boxes(golden, maps, recorded)


def _watch(student: Student, seen: dict[str, Tensor]) -> list[Any]:
    """Keep the outputs of inner modules of the next forward pass."""
    net, trunk = student.depth_net, student.bev_encoder.trunk
    backbone = student.image_encoder.backbone
    inner: dict[str, nn.Module] = {
        **{f"stage{i}": backbone.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)},
        "neck": student.image_encoder.neck,
        "camera_norm": net.camera_norm,
        "reduce": net.reduce,
        "context_gate": net.context_gate,
        "depth_gate": net.depth_gate,
        "blocks": net.blocks,
        "pyramid": net.pyramid,
        "offset": net.deform.get_submodule("offset"),
        "deform": net.deform,
        "depth_out": net.depth_out,
        "context_out": net.context_out,
        **{f"layer{i}": trunk.get_submodule(f"layer{i}") for i in (1, 2, 3)},
        "stem_norm": trunk.bn1,
        "bev_neck": student.bev_encoder.neck,
        "shared": student.head.shared,
    }

    def keep(name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen[name] = output.clone()

    return [m.register_forward_hook(partial(keep, name)) for name, m in inner.items()]


def _image_network(
    seen: Mapping[str, Tensor], recorded: Mapping[str, Any]
) -> Iterator[StageComparison]:
    for level in (1, 2, 3, 4):
        theirs = recorded[f"img_backbone/C{level + 1}_frame0_img0"]
        yield features(f"student/image_backbone/stage{level}", seen[f"stage{level}"][:1], theirs)
    yield features("student/image_neck", seen["neck"], recorded["img_neck/frame0"])
    yield features(
        "student/depth_net/camera_norm",
        seen["camera_norm"],
        recorded["depth_net/camera_vector27_bn"],
    )
    for ours, theirs in (
        ("reduce", "reduce_conv"),
        ("context_gate", "context_se"),
        ("depth_gate", "depth_se"),
        ("blocks", "depth_conv2"),
        ("pyramid", "aspp"),
        ("offset", "dcn_offset"),
        ("deform", "dcn"),
    ):
        array = recorded[f"depth_net/{theirs}_frame0_first2imgs"]
        yield features(f"student/depth_net/{ours}", seen[ours][: len(array)], array)
    out = recorded["depth_net/out_frame0_sample0"]
    ours_out = torch.cat([seen["depth_out"], seen["context_out"]], dim=1)[: len(out)]
    yield features("student/depth_net/logits_and_context", ours_out, out)


def _geometry(
    golden: GoldenFolder, points: list[Tensor], recorded: Mapping[str, Any]
) -> Iterator[StageComparison]:
    name, grid = "student/geometry/", golden.config.grid
    yield absolute(
        name + "points_frame0", points[0][:1], recorded["geometry/frame0_xyz_sample0"], 1e-3
    )
    cells = recorded["geometry/frame0_voxel"]
    yield integers(name + "cells_frame0", _int16(grid_cells(points[0], grid)), cells)
    if len(points) == 1:
        return
    theirs = recorded["geometry/frame1_xyz_cam1_sample0"]
    yield absolute(name + "points_frame1", points[1][0, 1], theirs, 1e-3)
    cells = recorded["geometry/frame1_voxel_sample0"]
    yield integers(name + "cells_frame1", _int16(grid_cells(points[1][:1], grid)), cells)


def _int16(cells: Tensor) -> Tensor:
    return cells.clamp(-(2**15), 2**15 - 1)


def _bev_network(
    seen: Mapping[str, Tensor], recorded: Mapping[str, Any]
) -> Iterator[StageComparison]:
    stem = recorded["head/trunk_stem"]
    yield features("student/trunk/stem", seen["stem_norm"].relu()[: len(stem)], stem)
    for level in (1, 2, 3):
        theirs = recorded[f"head/trunk_layer{level}"]
        yield features(f"student/trunk/stage{level}", seen[f"layer{level}"], theirs)
    yield features("student/bev_neck", seen["bev_neck"], recorded["head/neck"])
    shared = recorded["head/shared_conv_sample0"]
    yield features("student/head/shared", seen["shared"][: len(shared)], shared)


def _boxes(
    golden: GoldenFolder, maps: tuple[TaskMaps, ...], recorded: Mapping[str, Any]
) -> Iterator[StageComparison]:
    grid, config = golden.config.grid, golden.config.decode
    for task, task_maps in enumerate(maps):
        for sample, boxes in enumerate(candidate_boxes(task_maps, grid, config)):
            key = f"decode_pre_nms/task{task}/{sample}"
            yield from compare_boxes(
                f"student/candidates/task{task}_{sample}", boxes, recorded, key
            )
    for sample, boxes in enumerate(decode(maps, grid, config)):
        yield from compare_boxes(f"student/boxes/{sample}", boxes, recorded, f"det/{sample}")


def compare_boxes(
    stage: str, boxes: Boxes3D, recorded: Mapping[str, Any], key: str
) -> Iterator[StageComparison]:
    """Boxes against those recorded under a key."""
    ours = np.concatenate(
        [boxes.values.numpy(), boxes.scores[:, None].numpy(), boxes.labels[:, None].numpy()], axis=1
    )
    theirs = np.concatenate(
        [
            recorded[f"{key}/{name}"].reshape(-1, width)
            for name, width in (("boxes", 9), ("scores", 1), ("labels", 1))
        ],
        axis=1,
    )
    # candidates with nearly equal scores may change places
    yield absolute(stage, _sorted_rows(ours), _sorted_rows(theirs), 1e-2)


def _sorted_rows(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    order = np.lexsort((rows[:, 1].round(2), rows[:, 0].round(2), rows[:, 10]))
    return np.asarray(rows[order])
