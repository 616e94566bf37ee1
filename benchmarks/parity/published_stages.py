# SPDX-License-Identifier: Apache-2.0
"""Parity of the label encoder's stage, and of a student's step with the teachers as they ran.

The published teachers were left in training mode, so their norms worked with the statistics of the
batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.parity.distillation_stages import build_label_encoder, recorded_levels
from benchmarks.parity.golden import GoldenFolder
from benchmarks.parity.result import StageComparison, features, scalar
from benchmarks.parity.student_stages import PUBLISHED_MAPS, recorded_maps
from benchmarks.parity.teacher_stages import build_teacher, recorded_points
from labeldistill_core.distillation.losses import ObjectMasks, feature_loss, response_loss
from labeldistill_core.network.center_head import TaskMaps
from labeldistill_core.network.losses import detection_loss
from labeldistill_core.network.targets import build_targets
from labeldistill_core.published import behaviour

_RUN = "official_all_train"


@torch.no_grad()
def compare(golden: GoldenFolder) -> Iterator[StageComparison]:
    """All stages."""
    targets = build_targets(golden.boxes(), golden.config.grid, golden.config.head)
    yield from _inverse_of_the_head(golden, targets)
    step = golden.arrays("train_step")
    if f"{_RUN}/loss/total" in step:
        yield from _step(golden, step, targets)


def _inverse_of_the_head(golden: GoldenFolder, targets: Any) -> Iterator[StageComparison]:
    """What the teacher's head reads from the label encoder's features, and its loss."""
    arrays, boxes = golden.arrays("label_encoder"), golden.boxes()
    for training, prefix, recorded in (
        (False, "label_encoder/head/", "eval"),
        (True, "label_encoder/head/training_", "all_train_as_released"),
    ):
        encoder, teacher = build_label_encoder(golden), build_teacher(golden)
        maps = teacher.train(training).detect(encoder.train(training)(boxes))
        for task, one in enumerate(maps):
            for theirs, ours in PUBLISHED_MAPS.items():
                name = f"{recorded}/teacher_head_on_label_feats/task{task}/{theirs}"
                if name in arrays:
                    stage = f"{prefix}task{task}_{ours}"
                    yield features(stage, getattr(one, ours), arrays[name])
        if (name := f"{recorded}/step1_detection_loss") in arrays:
            yield scalar(f"{prefix}loss", _detection(golden, maps, targets), arrays[name])


def _detection(golden: GoldenFolder, maps: tuple[TaskMaps, ...], targets: Any) -> Tensor:
    losses = detection_loss(maps, targets, golden.code_weights)
    return torch.stack([task.heatmap + task.box for task in losses]).sum()


def _step(golden: GoldenFolder, step: Mapping[str, Any], targets: Any) -> Iterator[StageComparison]:
    """Losses of a step; the student is the same as beside teachers in evaluation mode."""
    masks, name = ObjectMasks.of(targets, "bilinear"), "training/published/"
    lidar = build_teacher(golden).train()(recorded_points(golden))
    label = build_label_encoder(golden).train()(golden.boxes())
    student = recorded_maps(step, "teachers_eval/preds", len(targets))
    total = _detection(golden, student, targets)
    total = total + torch.as_tensor(step[f"{_RUN}/loss/depth_x3"])
    for teacher, taps, levels in (
        ("lidar", lidar.taps, masks.soft),
        ("label", label, masks.binary),
    ):
        losses = feature_loss(recorded_levels(step, f"teachers_eval/adapt_{teacher}"), taps, levels)
        for level, (tap, loss) in enumerate(zip(taps, losses, strict=True)):
            if (array := f"{_RUN}/{teacher}_feats/level{level}") in step:
                yield features(f"{name}{teacher}_level{level}", tap, step[array])
            array = f"{_RUN}/loss/{teacher}_feat_level{level}_unweighted"
            stage = f"{name}{teacher}_feature_loss/level{level}"
            yield scalar(stage, loss, step[array])
        total = total + behaviour.FEATURE_WEIGHT * torch.stack(losses).sum()
    tasks = response_loss(student, lidar.maps, targets, "published", golden.code_weights)
    response = torch.stack([task.heatmap + task.box for task in tasks]).sum()
    yield scalar(name + "response_loss", response, step[f"{_RUN}/loss/response"])
    yield scalar(name + "total", total + response, step[f"{_RUN}/loss/total"])
