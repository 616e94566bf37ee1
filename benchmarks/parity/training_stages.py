# SPDX-License-Identifier: Apache-2.0
"""Parity of training: targets, losses, and the student in training mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.parity.golden import GoldenFolder, recorded_boxes
from benchmarks.parity.result import (
    StageComparison,
    features,
    integers,
    scalar,
)
from benchmarks.parity.student_stages import PUBLISHED_MAPS, build_student, recorded_maps
from labeldistill_core.boxes import Boxes3D
from labeldistill_core.config import BevGrid
from labeldistill_core.network.losses import depth_loss, detection_loss
from labeldistill_core.network.targets import TaskTargets, build_targets

_GRID = "grid128"


def compare(golden: GoldenFolder) -> Iterator[StageComparison]:
    """All stages of training."""
    targets, step = golden.arrays("targets"), golden.arrays("train_step")
    yield from _targets(golden, targets)
    yield from _losses(golden, targets, step)
    yield from _student_in_training(golden, step)


def label_cases(golden: GoldenFolder, arrays: Mapping[str, Any]) -> dict[str, list[Boxes3D]]:
    """Ground truth of each recorded case: the data set's, and odd ones."""
    samples = golden.boxes()
    edge = recorded_boxes(arrays["edge/gt_boxes"], arrays["edge/gt_labels"])
    zeroed = recorded_boxes(arrays["edge/gt_boxes"], arrays["edge/gt_labels"])
    zeroed.values.nan_to_num_(0.0)
    none = edge[torch.zeros(0, dtype=torch.int64)]
    return {
        "dataset": samples,
        "edge_nan": [edge, *samples[1:]],
        "edge_zeroed_nan": [zeroed, *samples[1:]],
        "edge_and_empty": [zeroed, *(none for _ in samples[1:])],
        "all_empty": [none for _ in samples],
    }


def grid_cases(
    golden: GoldenFolder, arrays: Mapping[str, Any]
) -> dict[str, tuple[BevGrid, list[Boxes3D]]]:
    """Cells and boxes of each case whose targets were recorded, also on the published grid."""
    cases = {
        case: (golden.config.grid, boxes) for case, boxes in label_cases(golden, arrays).items()
    }
    if f"{_GRID}/gt_boxes/0" in arrays:
        boxes = [
            recorded_boxes(
                arrays[f"{_GRID}/gt_boxes/{i}"],
                arrays[f"{_GRID}/gt_labels/{i}"],
            )
            for i in range(len(golden.params["idxs"]))
        ]
        cases[_GRID] = (BevGrid(index_rounding="truncate"), boxes)
    return {c: value for c, value in cases.items() if f"{c}/heatmap/task0" in arrays}


def _targets(golden: GoldenFolder, arrays: Mapping[str, Any]) -> Iterator[StageComparison]:
    for case, (grid, boxes) in grid_cases(golden, arrays).items():
        for task, ours in enumerate(build_targets(boxes, grid, golden.config.head)):
            stage = f"training/targets/{case}/task{task}_"
            yield features(stage + "heatmap", ours.heatmap, arrays[f"{case}/heatmap/task{task}"])
            for sample in range(len(boxes)):
                valid = arrays[f"{case}/mask/task{task}"][sample] > 0
                theirs = np.concatenate(
                    [
                        arrays[f"{case}/ind/task{task}"][sample][valid][:, None],
                        arrays[f"{case}/anno_box/task{task}"][sample][valid],
                    ],
                    axis=1,
                )
                rows = _object_rows(ours, sample)
                yield integers(f"{stage}cells_{sample}", rows[:, 0], _ordered(theirs)[:, 0])
                yield features(f"{stage}codes_{sample}", rows[:, 1:], _ordered(theirs)[:, 1:])


def _object_rows(targets: TaskTargets, sample: int) -> np.ndarray[Any, Any]:
    valid = targets.valid[sample]
    cell, code = targets.cell[sample][valid], targets.code[sample][valid]
    return _ordered(torch.cat([cell[:, None].to(code.dtype), code], dim=1).numpy())


def _ordered(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    # objects are a set; an unknown velocity is compared as zero and in the loss
    rows = np.nan_to_num(rows)
    return np.asarray(rows[np.lexsort(rows.round(3).T[::-1])])


def _losses(
    golden: GoldenFolder, arrays: Mapping[str, Any], step: Mapping[str, Any]
) -> Iterator[StageComparison]:
    config = golden.config
    maps = recorded_maps(step, "teachers_eval/preds", len(config.head.tasks))
    for case, boxes in label_cases(golden, arrays).items():
        losses = detection_loss(
            maps, build_targets(boxes, config.grid, config.head), golden.code_weights
        )
        total = torch.stack([task.heatmap + task.box for task in losses]).sum()
        if case == "dataset":
            name, recorded = "training/losses/", "teachers_eval/loss/"
            heatmap = torch.stack([task.heatmap for task in losses])
            box = torch.stack([task.box for task in losses])
            yield features(name + "heatmap", heatmap, step[recorded + "per_task_heatmap"])
            yield features(name + "box", box, step[recorded + "per_task_bbox"])
            yield scalar(name + "detection", total, step[recorded + "detection"])
            continue
        theirs = arrays[f"{case}/loss/detection"]
        if np.isnan(theirs):
            # the published loss is NaN for an unknown velocity; ours leaves the velocity out
            note = "published loss is NaN, ours finite"
            passed = bool(total.isfinite())
            yield replace(integers(f"training/losses/{case}", [passed], [True]), note=note)
        else:
            yield scalar(f"training/losses/{case}", total, theirs)
    depth = torch.from_numpy(step["teachers_eval/depth_pred"])
    bins = torch.from_numpy(golden.dataset["depth_onehot_bins"].astype(np.int64)).flatten(0, 1)
    yield scalar(
        "training/losses/depth", depth_loss(depth, bins), step["teachers_eval/loss/depth_x3"]
    )


@torch.no_grad()
def _student_in_training(
    golden: GoldenFolder, step: Mapping[str, Any]
) -> Iterator[StageComparison]:
    student = build_student(golden).train()
    student.depth_net.pyramid.dropout.p = 0.0  # as in the recording; otherwise random
    output, frame = student(golden.batch())
    name, recorded = "training/student/", "teachers_eval/"
    yield features(name + "depth", frame.depth, step[recorded + "depth_pred"])
    cells: Sequence[Tensor] = output.taps[0].chunk(golden.config.frames, dim=1)
    for number, frame_cells in enumerate(cells):
        if (array := f"{recorded}bev/frame{number}") in step:
            stage = f"{name}bev_frame{number}"
            yield features(stage, frame_cells, step[array])
    for task, maps in enumerate(output.maps):
        for theirs, ours in PUBLISHED_MAPS.items():
            array = step[f"{recorded}preds/task{task}/{theirs}"]
            stage = f"{name}task{task}_{ours}"
            yield features(stage, getattr(maps, ours), array)
