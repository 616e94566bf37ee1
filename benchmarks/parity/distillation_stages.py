# SPDX-License-Identifier: Apache-2.0
"""Parity of distillation: label raster, label encoder, adaptors, losses, gradients."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.parity.golden import GoldenFolder
from benchmarks.parity.result import StageComparison, features, gradient, integers, scalar
from benchmarks.parity.student_stages import build_student, recorded_maps
from benchmarks.parity.training_stages import (
    grid_cases,
    label_cases,
)
from labeldistill_core.distillation.adaptors import Adaptor
from labeldistill_core.distillation.config import (
    DistillationConfig,
    LabelEncoderConfig,
)
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.distillation.losses import ObjectMasks, feature_loss, response_loss
from labeldistill_core.distillation.partition import Partition
from labeldistill_core.network.center_head import TaskMaps
from labeldistill_core.network.losses import depth_loss, detection_loss
from labeldistill_core.network.targets import build_targets
from labeldistill_core.published import behaviour
from labeldistill_core.published.weights import (
    ADAPTOR_RENAMES,
    LABEL_ENCODER_RENAMES,
    STUDENT_RENAMES,
    rename,
    rename_part,
)

_TEACHERS: tuple[Literal["label", "lidar"], ...] = ("label", "lidar")
_CONFIG = behaviour.distillation(DistillationConfig())
_ROUNDING = 1e-7
_PERTURBED_STEPS = 4


def compare(golden: GoldenFolder) -> Iterator[StageComparison]:
    """All stages of distillation."""
    encoder, adaptors = build_label_encoder(golden), _build_adaptors(golden)
    yield from _raster(golden, encoder)
    yield from _encoder(golden, encoder)
    yield from _adaptors(golden, adaptors)
    yield from _losses(golden)
    yield from _gradients(golden, adaptors)


def build_label_encoder(golden: GoldenFolder) -> LabelEncoder:
    """The recorded label encoder, in evaluation mode."""
    conf, config = golden.confs["labelenc_conf"], golden.config
    encoder = LabelEncoder(
        behaviour.label_encoder(
            LabelEncoderConfig(
                config.grid, config.head.tasks, tuple(conf["out_features"]), conf["hidden_features"]
            )
        )
    )
    encoder.load_state_dict(rename_part(golden.weights, "label_encoder.", LABEL_ENCODER_RENAMES))
    return encoder.eval()


def _partitions(golden: GoldenFolder) -> list[Partition]:
    config = golden.config
    stacked = config.frames * config.depth_net.context_channels
    return [
        Partition.of(_CONFIG, stacked, config.frames),
        Partition.of(_CONFIG, config.bev_encoder.base_channels, 1),
    ]


def _build_adaptors(golden: GoldenFolder) -> nn.ModuleDict:
    channels = golden.confs["labelenc_conf"]["out_features"]
    adaptors = nn.ModuleDict(
        {
            f"{t}_adaptor": Adaptor([p.size(t) for p in _partitions(golden)], channels)
            for t in _TEACHERS
        }
    )
    adaptors.load_state_dict(rename_part(golden.weights, "distill_encoder_", ADAPTOR_RENAMES))
    return adaptors.eval()


def _adapted(
    golden: GoldenFolder, adaptors: nn.ModuleDict, taps: Sequence[Tensor], teacher: Any
) -> list[Tensor]:
    parts = [p.part(x, teacher) for p, x in zip(_partitions(golden), taps, strict=True)]
    result: list[Tensor] = adaptors[f"{teacher}_adaptor"](parts)
    return result


def _raster(golden: GoldenFolder, encoder: LabelEncoder) -> Iterator[StageComparison]:
    arrays = golden.arrays("targets")
    for case, (grid, boxes) in grid_cases(golden, arrays).items():
        if f"{case}/bev_mask" not in arrays:
            continue
        owner = LabelEncoder(replace(encoder.config, grid=grid, norm="channel")).owners(boxes)
        values = torch.cat([sample.values for sample in boxes]).float()
        labels = torch.cat([sample.labels for sample in boxes])
        none = torch.zeros(1, values.shape[1])
        box = torch.cat([values, none])[owner]
        one_hot = torch.cat(
            [
                nn.functional.one_hot(labels, encoder.classes),
                none[:, :1].long().expand(1, encoder.classes),
            ]
        )
        name = f"training/label_raster/{case}/"
        yield integers(name + "mask", (owner >= 0).int(), arrays[f"{case}/bev_mask"])
        yield features(name + "box", box.nan_to_num(), np.nan_to_num(arrays[f"{case}/bev_box"]))
        yield integers(name + "label", one_hot[owner], arrays[f"{case}/bev_label"])


@torch.no_grad()
def _encoder(golden: GoldenFolder, encoder: LabelEncoder) -> Iterator[StageComparison]:
    arrays, boxes = golden.arrays("label_encoder"), golden.boxes()
    embedded = encoder.embed(boxes)
    yield features(
        "label_encoder/embedding", embedded[:1].flatten(1, 2), arrays["eval/ln2_sample0"]
    )
    block = encoder.block(embedded[:1].permute(0, 3, 1, 2))
    yield features("label_encoder/block", block, arrays["eval/conv1_sample0"])
    for level, ours in enumerate(encoder(boxes)):
        yield features(f"label_encoder/level{level}", ours, arrays[f"eval/level{level}"])
    for level, ours in enumerate(encoder.train()(boxes)):
        stage = f"label_encoder/training/level{level}"
        yield features(stage, ours, arrays[f"train/level{level}"])
    # the forward pass above moved the running statistics
    encoder.load_state_dict(build_label_encoder(golden).state_dict())
    encoder.eval()


@torch.no_grad()
def _adaptors(golden: GoldenFolder, adaptors: nn.ModuleDict) -> Iterator[StageComparison]:
    arrays, evaluated = golden.arrays("adaptors_eval"), golden.arrays("student_eval")
    frames = [evaluated[f"bev/frame{i}"] for i in range(golden.config.frames)]
    taps = [
        torch.from_numpy(np.concatenate(frames, 1)),
        torch.from_numpy(evaluated["head/trunk_layer1"]),
    ]
    for teacher in _TEACHERS:
        for level, ours in enumerate(_adapted(golden, adaptors, taps, teacher)):
            yield features(
                f"training/adaptors/{teacher}_level{level}", ours, arrays[f"{teacher}/level{level}"]
            )


def _losses(golden: GoldenFolder) -> Iterator[StageComparison]:
    step, config = golden.arrays("train_step"), golden.config
    targets = build_targets(golden.boxes(), config.grid, config.head)
    masks = ObjectMasks.of(targets, _CONFIG.coarse_mask)
    for kind, levels in (("soft", masks.soft), ("binary", masks.binary)):
        for level, mask in enumerate(levels):
            recorded = step[f"feat_mask/{kind}_level{level}"]
            yield features(f"training/masks/{kind}_level{level}", mask, recorded)
    run = "teachers_eval"
    for teacher, levels in (("lidar", masks.soft), ("label", masks.binary)):
        ours = recorded_levels(step, f"{run}/adapt_{teacher}")
        theirs = recorded_levels(step, f"{run}/{teacher}_feats")
        losses = feature_loss(ours, theirs, levels)
        for level, loss in enumerate(losses):
            recorded = step[f"{run}/loss/{teacher}_feat_level{level}_unweighted"]
            yield scalar(f"training/{teacher}_feature_loss/level{level}", loss, recorded)
        total = behaviour.FEATURE_WEIGHT * torch.stack(losses).sum()
        recorded = step[f"{run}/loss/{teacher}_feat_x0.3"]
        yield scalar(f"training/{teacher}_feature_loss/weighted", total, recorded)
    student, teacher_maps = (
        recorded_maps(step, f"{run}/{name}", len(targets)) for name in ("preds", "lidar_preds")
    )
    tasks = response_loss(student, teacher_maps, targets, "published", golden.code_weights)
    heatmap, box = (torch.stack([getattr(t, part) for t in tasks]) for part in ("heatmap", "box"))
    yield from _odd_boxes(golden, step, student, teacher_maps)
    name = "training/response_loss/"
    yield features(name + "heatmap", heatmap, step[f"{run}/loss/per_task_resp_heatmap"])
    yield features(name + "box", box, step[f"{run}/loss/per_task_resp_bbox"])
    yield scalar(name + "total", (heatmap + box).sum(), step[f"{run}/loss/response"])


def _odd_boxes(
    golden: GoldenFolder,
    step: Mapping[str, Any],
    student: tuple[TaskMaps, ...],
    teacher: tuple[TaskMaps, ...],
) -> Iterator[StageComparison]:
    """Losses between the recorded maps and features, at boxes that are odd or missing."""
    arrays, config = golden.arrays("targets"), golden.config
    ours, theirs = (
        recorded_levels(step, f"teachers_eval/{x}") for x in ("adapt_lidar", "lidar_feats")
    )
    for case, boxes in label_cases(golden, arrays).items():
        if f"{case}/loss/response" not in arrays:
            continue
        name = f"training/odd_boxes/{case}/"
        targets = build_targets(boxes, config.grid, config.head)
        tasks = response_loss(student, teacher, targets, "published", golden.code_weights)
        total = torch.stack([task.heatmap + task.box for task in tasks]).sum()
        yield scalar(name + "response", total, arrays[f"{case}/loss/response"])
        masks = ObjectMasks.of(targets, _CONFIG.coarse_mask)
        for levels, array in (
            (masks.soft, "lidar_feat_unweighted"),
            (masks.binary, "feat_binary_unweighted_same_tensors"),
        ):
            if f"{case}/loss/{array}" in arrays:
                loss = torch.stack(feature_loss(ours, theirs, levels)).sum()
                yield scalar(name + array, loss, arrays[f"{case}/loss/{array}"])


def recorded_levels(step: Mapping[str, Any], name: str) -> list[Tensor]:
    """Recorded features of both levels."""
    return [torch.from_numpy(step[f"{name}/level{level}"]) for level in range(2)]


def _gradients(golden: GoldenFolder, adaptors: nn.ModuleDict) -> Iterator[StageComparison]:
    """One step of the student with frozen teachers, whose recorded outputs are used.

    A weight that differs by rounding turns some ReLU on or off behind batch norms over few values,
    and gradients move by per cent. So the allowed error is measured: several steps with weights
    that are changed by one part in `_ROUNDING` say how far gradients move by themselves.
    """
    total, ours = _step(golden, adaptors)
    recorded_total = golden.arrays("train_step")["teachers_eval/loss/total"]
    yield scalar("training/step/total", total, recorded_total)
    # Float64 is asked for values alone; how far perturbations move them is asked of float32.
    seeds = () if golden.double else range(_PERTURBED_STEPS)
    others = [_step(golden, adaptors, seed)[1] for seed in seeds]
    arrays = golden.arrays("train_grads")
    published = json.loads((golden.folder / "grad_names.json").read_text())
    renames = (*STUDENT_RENAMES, *ADAPTOR_RENAMES)
    norms = dict(zip(published, arrays["grad_norms"], strict=True))
    names = {name: rename(name, renames) for name in published}
    trained = [name for name in published if names[name] in ours]
    yield gradient(
        "training/gradients/norms",
        [torch.stack([run[names[name]].norm() for name in trained]) for run in (ours, *others)],
        np.array([norms[name] for name in trained]),
    )
    for key in arrays:
        if key.startswith("grad/"):
            name = key.removeprefix("grad/")
            runs = [run[names[name]] for run in (ours, *others)]
            yield gradient(f"training/gradients/{name}", runs, arrays[key])


def _step(
    golden: GoldenFolder, adaptors: nn.ModuleDict, seed: int | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss of a step, and gradients by our names; with a seed, from perturbed weights."""
    step, config = golden.arrays("train_step"), golden.config
    student = build_student(golden).train()
    student.depth_net.pyramid.dropout.p = 0.0  # as in the recording; otherwise random
    adaptors = copy.deepcopy(adaptors).train()
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in (*student.parameters(), *adaptors.parameters()):
                weight.mul_(1 + _ROUNDING * torch.randn(weight.shape, generator=generator))
    output, frame = student(golden.batch())
    targets = build_targets(golden.boxes(), config.grid, config.head)
    masks = ObjectMasks.of(targets, _CONFIG.coarse_mask)
    total = torch.stack(
        [t.heatmap + t.box for t in detection_loss(output.maps, targets, golden.code_weights)]
    ).sum()
    bins = torch.from_numpy(golden.dataset["depth_onehot_bins"].astype(np.int64)).flatten(0, 1)
    total = total + depth_loss(frame.depth, bins)
    run = "teachers_eval"
    for teacher, levels in (("lidar", masks.soft), ("label", masks.binary)):
        theirs = recorded_levels(step, f"{run}/{teacher}_feats")
        ours = _adapted(golden, adaptors, output.taps, teacher)
        total = (
            total + behaviour.FEATURE_WEIGHT * torch.stack(feature_loss(ours, theirs, levels)).sum()
        )
    lidar = recorded_maps(step, f"{run}/lidar_preds", len(targets))
    response = response_loss(output.maps, lidar, targets, "published", golden.code_weights)
    total = total + torch.stack([t.heatmap + t.box for t in response]).sum()
    total.backward()
    named = (*student.named_parameters(), *adaptors.named_parameters())
    return total.detach(), {name: p.grad for name, p in named if p.grad is not None}
