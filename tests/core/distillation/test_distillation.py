# SPDX-License-Identifier: Apache-2.0
"""Partition, adaptors, and teachers that stay frozen beside the student."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from labeldistill_core.config import BevGrid
from labeldistill_core.distillation import losses as losses_module
from labeldistill_core.distillation.adaptors import Adaptor
from labeldistill_core.distillation.config import (
    DistillationConfig,
    LabelEncoderConfig,
)
from labeldistill_core.distillation.distiller import Distiller, Frozen
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.distillation.losses import feature_loss
from labeldistill_core.distillation.partition import Partition
from labeldistill_core.errors import ConfigError
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.network.student import Student
from labeldistill_core.network.targets import build_targets
from labeldistill_core.training.label_encoder import LabelEncoderStage
from labeldistill_core.training.recipe import Recipe
from tests.core.lidar.test_lidar import SMALL, random_cloud
from tests.support.footprints import boxes
from tests.support.small_networks import small


@pytest.mark.parametrize("frames", [1, 3])
def test_partition_per_frame_and_contiguous(frames: int) -> None:
    channels = 12 * frames
    x = torch.arange(channels).view(1, channels, 1, 1).float()
    each = Partition.of(DistillationConfig(ratio=(1, 3, 2)), channels, frames)
    expected = {"label": range(6), "lidar": range(6, 8)}
    for name, within in expected.items():
        part = each.part(x, name).flatten().int().tolist()  # type: ignore[arg-type]
        assert part == [12 * frame + channel for frame in range(frames) for channel in within]
        assert each.size(name) == len(part)  # type: ignore[arg-type]
    whole = Partition.of(DistillationConfig(partition="contiguous"), channels, frames)
    third = channels // 3
    assert whole.part(x, "label").flatten().int().tolist() == list(range(third))
    assert whole.part(x, "lidar").flatten().int().tolist() == list(range(third, 2 * third))
    none = Partition.of(DistillationConfig(partition="none"), channels, frames)
    assert torch.equal(none.part(x, "label"), x)
    assert torch.equal(none.part(x, "lidar"), x)


def test_a_teacher_without_a_channel_is_told() -> None:
    few = DistillationConfig(ratio=(1, 20, 2))
    with pytest.raises(ConfigError, match=r"ratio \(1, 20, 2\) leaves the LiDAR features none"):
        Partition.of(few, 24, 2)
    assert Partition.of(replace(few, lidar_weight=0.0), 24, 2).size("label") == 20


def distiller(config: DistillationConfig) -> tuple[Distiller, Student]:
    from labeldistill_core.lidar.config import TeacherConfig
    from labeldistill_core.lidar.teacher import Teacher

    torch.manual_seed(0)
    student = small()
    teacher_config = TeacherConfig(
        student.grid, (0.8, 0.8, 0.8), 5, (2000, 2000), (8, 8, 8), (1, 1), 8, (8, 12), (1, 1),
        (8, 8), student.head,
    )  # fmt: skip
    encoder = LabelEncoder(LabelEncoderConfig(student.grid, student.head.tasks, (8, 12), 16))
    return Distiller(config, student, Teacher(teacher_config), encoder), Student(student)


def student_step(made: Distiller, student: Student) -> dict[str, Tensor]:
    config = student.config
    rows, columns = config.grid.rows, config.grid.columns
    context = config.depth_net.context_channels
    frames = [torch.randn(2, context, rows, columns) for _ in range(config.frames)]
    frames[0].requires_grad_()
    output = student.detect(torch.cat(frames, 1))
    truth = [boxes((5.0, 5.0, 4.0, 2.0, 0.0)), boxes((-9.0, 3.0, 8.0, 2.5, 0.0), label="bus")]
    targets = build_targets(truth, config.grid, config.head)
    losses: dict[str, Tensor] = made(
        output, targets, truth, [random_cloud(800), random_cloud(900, 1)]
    )
    torch.stack(list(losses.values())).sum().backward()
    losses["current frame"] = frames[0].grad.abs().sum(dim=(0, 2, 3))  # type: ignore[union-attr]
    return losses


def test_teachers_are_frozen_in_the_full_sense() -> None:
    made, student = distiller(DistillationConfig())
    made.train()
    frozen = [made.teacher, made.label_encoder]
    before = [
        {n: t.clone() for n, t in f.on(torch.device("cpu")).state_dict().items()}
        for f in frozen
        if f is not None
    ]
    losses = student_step(made, student)
    assert {"lidar", "label", "response"} < set(losses)
    names = {name.partition(".")[0] for name, _ in made.named_parameters()}
    assert names == {"lidar_adaptor", "label_adaptor"}
    assert {name.partition(".")[0] for name in made.state_dict()} == names
    for one, state in zip(frozen, before, strict=True):
        assert one is not None
        network = one.on(torch.device("cpu"))
        assert not network.training
        assert all(p.grad is None and not p.requires_grad for p in network.parameters())
        assert all(torch.equal(t, state[n]) for n, t in network.state_dict().items())
    assert copy.deepcopy(made).teacher is made.teacher
    assert isinstance(made.teacher, Frozen)


def test_adaptors_begin_near_zero_and_learn() -> None:
    torch.manual_seed(0)
    adaptor = Adaptor([4, 8], [6, 10])
    student = [torch.randn(2, 4, 8, 8), torch.randn(2, 8, 4, 4)]
    features = [torch.randn(2, 6, 8, 8).relu(), torch.randn(2, 10, 4, 4).relu()]
    masks = [torch.ones(2, 1, *x.shape[2:]) for x in features]
    optimizer = torch.optim.Adam(adaptor.parameters(), lr=0.01)
    found = []
    for _ in range(100):
        losses = feature_loss(adaptor(student), features, masks, scale="teacher")
        found.append([loss.item() for loss in losses])
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    assert found[0] == pytest.approx([1.0, 1.0], abs=0.1)
    assert max(found[-1]) < 0.6
    published = Adaptor([4, 8], [6, 10], quiet=False)
    assert min(feature_loss(published(student), features, masks, scale="teacher")) > 1.5


@pytest.mark.parametrize(
    ("weights", "touched"),
    [((0.3, 0.0), range(2, 5)), ((0.0, 0.3), range(2))],
)
def test_each_teacher_shapes_its_own_channels(weights: tuple[float, float], touched: range) -> None:
    lidar, label = weights
    config = DistillationConfig(lidar, label, 0.0, ratio=(3, 2, 3))
    made, student = distiller(config)

    # level 0 alone, so that what flows back comes straight from the loss
    def first_level(
        taps: Sequence[Tensor], teacher: str, features: Sequence[Tensor], masks: Sequence[Tensor]
    ) -> list[Tensor]:
        return feature_loss(made.adapted(taps, teacher)[:1], features[:1], masks[:1])

    made.features = first_level  # type: ignore[method-assign]
    gradient = student_step(made, student)["current frame"]
    assert gradient.nonzero().flatten().tolist() == list(touched)


def test_publishedteachers_work_with_the_statistics_of_the_batch() -> None:
    made, student = distiller(DistillationConfig(teacher_norm="batch"))
    usual, _ = distiller(DistillationConfig())
    clouds = [random_cloud(800), random_cloud(900, 1)]
    truth = [boxes((5.0, 5.0, 4.0, 2.0, 0.0)), boxes()]
    for name, given in (("teacher", clouds), ("label_encoder", truth)):
        ours = getattr(usual, name).on(torch.device("cpu"))
        theirs = getattr(made, name).on(torch.device("cpu"))
        before = {n: t.clone() for n, t in theirs.state_dict().items() if "running" in n}
        both = [n(given).taps if name == "teacher" else n(given) for n in (ours, theirs)]
        assert not torch.allclose(both[0][0], both[1][0], rtol=0.1)
        alone = theirs(given[:1])
        alone = alone.taps if name == "teacher" else alone
        assert not torch.allclose(alone[0][0], both[1][0][0])
        # what the teacher was trained to is not lost
        assert all(torch.equal(theirs.state_dict()[n], t) for n, t in before.items())
        assert not any(p.requires_grad for p in theirs.parameters())
    assert all(torch.isfinite(x).all() for x in student_step(made, student).values())


def test_published_feature_losses_count_the_objects_of_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    student, teacher = torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4)
    mask = torch.zeros(1, 1, 4, 4)
    mask[0, 0, 1, 1:3] = 1.0
    # the other process has three times as many
    monkeypatch.setattr(losses_module, "mean_over_processes", lambda value: 2 * value)
    (whole,) = feature_loss([student], [teacher], [mask])
    (alone,) = feature_loss([student], [teacher], [mask], "process")
    assert whole == pytest.approx(1.0)
    assert alone == pytest.approx(2.0)
    made, student_network = distiller(DistillationConfig(objects="process"))
    one = student_step(made, student_network)
    made, student_network = distiller(DistillationConfig(objects="all"))
    two = student_step(made, student_network)
    assert float(one["label"]) == pytest.approx(2 * float(two["label"]), rel=1e-4)


def test_the_published_head_works_with_batch_statistics_in_training_alone() -> None:
    from labeldistill_core.lidar.teacher import Teacher

    config = LabelEncoderConfig(SMALL.grid, SMALL.head.tasks, SMALL.second_channels, 32)
    torch.manual_seed(0)
    teacher = Teacher(SMALL)
    stage = LabelEncoderStage(config, Recipe(), teacher, norm="batch")
    sample: Any = SimpleNamespace(boxes=(boxes((3.0, 2.0, 4.0, 2.0, 0.3)),))
    for mode in (True, False):
        stage.train(mode).losses(sample)
        assert teacher.training is mode
    usual = LabelEncoderStage(config, Recipe(), teacher)
    usual.train().losses(sample)
    assert not teacher.training


def test_a_missing_teacher_is_named() -> None:
    made, _ = distiller(DistillationConfig())
    with pytest.raises(ConfigError, match="--teacher"):
        Distiller(DistillationConfig(), small(), None, None)
    with pytest.raises(ConfigError, match="--label-encoder"):
        Distiller(DistillationConfig(0.0, 0.3, 0.0), small(), None, None)
    other = replace(small(), grid=BevGrid(cell_m=1.6))
    encoder = made.label_encoder
    assert encoder is not None
    with pytest.raises(ConfigError, match="label encoder has other cells"):
        Distiller(DistillationConfig(0.0, 0.3, 0.0), other, None, encoder.on(torch.device("cpu")))
    # also where it is asked for responses alone
    with pytest.raises(ConfigError, match="teacher has other cells"):
        Distiller(DistillationConfig(0.0, 0.0, 1.0), other, Teacher(SMALL), None)
    for weight in (-1, math.nan, math.inf):
        with pytest.raises(ConfigError, match="must be numbers, 0 or more"):
            DistillationConfig(lidar_weight=weight)
