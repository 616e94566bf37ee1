# SPDX-License-Identifier: Apache-2.0
"""Label encoder, partition, adaptors and the losses between student and teachers."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES, TASKS
from labeldistill_core.config import BevGrid
from labeldistill_core.distillation import losses as losses_module
from labeldistill_core.distillation.adaptors import Adaptor
from labeldistill_core.distillation.config import (
    DistillationConfig,
    LabelEncoderConfig,
)
from labeldistill_core.distillation.distiller import Distiller, Frozen
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.distillation.losses import ObjectMasks, feature_loss, response_loss
from labeldistill_core.distillation.partition import Partition
from labeldistill_core.errors import ConfigError
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.network.center_head import BOX_MAPS, TaskMaps
from labeldistill_core.network.student import Student
from labeldistill_core.network.targets import build_targets
from labeldistill_core.presets import PRESETS
from labeldistill_core.published import behaviour
from labeldistill_core.training.label_encoder import LabelEncoderStage
from labeldistill_core.training.recipe import Recipe
from tests.core.lidar.test_lidar import SMALL, random_cloud
from tests.support.small_networks import small

GRID = BevGrid((-16.0, 16.0), (-16.0, 16.0), cell_m=1.0)
ENCODER = LabelEncoderConfig(GRID, TASKS, (8, 12), hidden_channels=16)


def boxes(*rows: tuple[float, ...], label: str | list[str] = "car") -> Boxes3D:
    """x, y, length, width, yaw of each box."""
    names = [label] * len(rows) if isinstance(label, str) else label
    values = [[x, y, 0.0, length, width, 1.5, yaw, 1.0, 0.0] for x, y, length, width, yaw in rows]
    return Boxes3D(
        "ego",
        torch.tensor(values).reshape(-1, 9),
        torch.tensor([CLASSES.index(name) for name in names], dtype=torch.int64),
        torch.ones(len(rows)),
    )


def filled(encoder: LabelEncoder, *samples: Boxes3D) -> set[tuple[int, int, int, int]]:
    """Sample, x and y of each filled cell, and the box in it."""
    owner = encoder.owners(samples)
    return {(b, x, y, int(owner[b, y, x])) for b, y, x in (owner >= 0).nonzero().tolist()}


def test_a_footprint_fills_the_cells_it_covers() -> None:
    encoder = LabelEncoder(ENCODER)
    # 4 x 2 m around (0, 0): cells whose centres are within 2 and 1 m
    cells = filled(encoder, boxes((0.0, 0.0, 4.0, 2.0, 0.0)))
    assert cells == {(0, x, y, 0) for x in range(14, 18) for y in (15, 16)}
    turned = filled(encoder, boxes((0.0, 0.0, 4.0, 2.0, math.pi / 2)))
    assert turned == {(0, y, x, 0) for _, x, y, _ in cells}


def test_every_box_has_the_cell_of_its_centre_and_small_ones_lie_on_top() -> None:
    encoder = LabelEncoder(ENCODER)
    thin = filled(encoder, boxes((0.9, 0.9, 0.1, 0.1, 0.3)))
    assert thin == {(0, 16, 16, 0)}
    both = boxes((0.5, 0.5, 0.5, 0.5, 0.0), (0.0, 0.0, 6.0, 6.0, 0.0), label=["pedestrian", "bus"])
    owner = encoder.owners([both])
    assert owner[0, 16, 16] == 0
    assert (owner == 1).sum() == 35
    outside = filled(encoder, boxes((40.0, 0.0, 4.0, 2.0, 0.0)), boxes((0.0, 0.0, 1.0, 1.0, 0.0)))
    assert {sample for sample, *_ in outside} == {1}
    assert encoder.owners([boxes(), boxes()]).max() == -1


def test_the_published_raster_clamps_what_is_outside_to_the_border() -> None:
    encoder = LabelEncoder(behaviour.label_encoder(ENCODER))
    cells = filled(encoder, boxes((40.0, 0.0, 4.0, 2.0, 0.0)))
    assert {x for _, x, _, _ in cells} == {31}
    # but not at the near ends, where it draws nothing
    assert filled(encoder, boxes((-40.0, 0.0, 4.0, 2.0, 0.0))) == set()


@pytest.mark.parametrize("config", [ENCODER, behaviour.label_encoder(ENCODER)])
def test_features_follow_the_boxes(config: LabelEncoderConfig) -> None:
    torch.manual_seed(0)
    encoder = LabelEncoder(config).eval()
    one = boxes((0.0, 0.0, 4.0, 2.0, 0.0))
    full, half = encoder([one, boxes()])
    assert full.shape == (2, 8, 32, 32)
    assert half.shape == (2, 12, 16, 16)
    assert not torch.equal(full[0], full[1])
    # an unknown velocity is no velocity
    unknown = replace(one, values=one.values.clone())
    unknown.values[:, 7:] = float("nan")
    assert encoder([unknown])[0].isfinite().all()


def test_our_features_move_with_the_boxes_and_the_published_ones_do_not() -> None:
    """Without weights in each cell, a box looks the same wherever it stands."""
    torch.manual_seed(0)
    encoder = LabelEncoder(ENCODER).eval()
    here = encoder([boxes((-3.2, 1.4, 4.0, 2.0, 0.4))])[0]
    there = encoder([boxes((2.8, 5.4, 4.0, 2.0, 0.4))])[0]
    torch.testing.assert_close(here[0, :, 4:28, 4:24], there[0, :, 8:32, 10:30], atol=1e-4, rtol=0)


def test_published_parameter_count() -> None:
    encoder = LabelEncoder(PRESETS["r50_256x704_4key"].as_published().label_encoder)
    assert sum(p.numel() for p in encoder.parameters()) == 8_626_304


def test_the_encoder_learns_the_inverse_of_a_head() -> None:
    from labeldistill_core.data.samples import LidarSample
    from labeldistill_core.frames import Transform
    from labeldistill_core.lidar.teacher import Teacher

    torch.manual_seed(0)
    teacher = Teacher(SMALL)
    with torch.no_grad():  # a head of random weights says nearly the same everywhere
        for name, parameter in teacher.head.tasks.named_parameters():
            if name.endswith("3.weight"):  # the last layer of a branch
                parameter.mul_(8)
    frozen = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    config = LabelEncoderConfig(SMALL.grid, SMALL.head.tasks, SMALL.second_channels, 32)
    stage = LabelEncoderStage(config, Recipe(), teacher).train()
    assert {name.partition(".")[0] for name, _ in stage.named_parameters()} == {"network"}
    truth = boxes((3.0, 2.0, 4.0, 2.0, 0.3), (-6.0, 1.0, 4.5, 2.0, 1.2), (2.0, -8.0, 4.0, 1.8, 3.0))
    pose = Transform.identity("map", "ego")
    sample = LidarSample(("a", "b"), (truth, boxes()), (pose, pose), ())
    optimizer = torch.optim.Adam(stage.parameters(), 1e-2)
    values = []
    for _ in range(80):
        total = torch.stack(list(stage.losses(sample).values())).sum()
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
        values.append(float(total))
    assert values[-1] < 0.75 * values[0]
    assert all(torch.equal(tensor, frozen[name]) for name, tensor in teacher.state_dict().items())
    with pytest.raises(ConfigError, match="are not the teacher's"):
        LabelEncoderStage(ENCODER, Recipe(), teacher)


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


def test_feature_loss_by_hand() -> None:
    student, teacher = torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 2.0)
    mask = torch.zeros(2, 1, 4, 4)
    mask[0, 0, 1, 1], mask[1, 0, 2, 2] = 1.0, 0.5
    (loss,) = feature_loss([student], [teacher], [mask])
    assert loss == pytest.approx(1.5 * 3 * 4.0 / 1.5)
    (empty,) = feature_loss([student], [teacher], [torch.zeros(2, 1, 4, 4)])
    assert empty == 0


def test_a_feature_loss_on_the_scale_of_the_teacher_has_no_unit() -> None:
    student, teacher = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)
    mask = torch.rand(2, 1, 4, 4)
    (loss,) = feature_loss([student], [teacher], [mask], scale="teacher")
    nothing_learned = feature_loss([torch.zeros_like(teacher)], [teacher], [mask], scale="teacher")
    torch.testing.assert_close(nothing_learned, [torch.tensor(1.0)])
    # larger features and more channels
    wide = [10 * torch.cat([x, x], 1) for x in (student, teacher)]
    torch.testing.assert_close(feature_loss(wide[:1], wide[1:], [mask], scale="teacher"), [loss])
    (plain,), (plain_wide,) = (
        feature_loss([a], [b], [mask]) for a, b in ((student, teacher), wide)
    )
    torch.testing.assert_close(plain_wide, 200 * plain)
    nobody = torch.zeros(2, 1, 4, 4)
    assert feature_loss([student], [teacher], [nobody], scale="teacher")[0] == 0


def test_masks_are_where_objects_are() -> None:
    targets = build_targets([boxes((0.5, 0.5, 4.0, 2.0, 0.0))], GRID, SMALL.head)
    masks = ObjectMasks.of(targets)
    assert masks.soft[0].shape == (1, 1, 32, 32)
    assert masks.soft[1].shape == (1, 1, 16, 16)
    assert masks.soft[0][0, 0, 16, 16] == 1
    assert set(masks.binary[0].unique().tolist()) == {0.0, 1.0}
    assert masks.binary[0].sum() == 25


def test_an_object_weighs_the_same_wherever_it_stands() -> None:
    head = replace(SMALL.head, least_radius=1)

    def weights(coarse: str) -> set[float]:
        found = set()
        for x in (-9.5, 0.5, 1.5, 7.5):
            targets = build_targets([boxes((x, 4.5, 0.5, 0.5, 0.0))], GRID, head)
            mask = ObjectMasks.of(targets, coarse).soft[1]  # type: ignore[arg-type]
            found.add(round(float(mask.max()), 2))
        return found

    assert weights("max") == {1.0}
    assert min(weights("bilinear")) < 0.7


def test_response_loss_has_its_least_at_the_teacher() -> None:
    """The soft loss pulls a score at an object to the teacher's; the published one only down."""
    from labeldistill_core.lidar.teacher import Teacher

    torch.manual_seed(0)
    teacher = Teacher(SMALL).eval()
    with torch.no_grad():
        maps = teacher([random_cloud(500)]).maps
    targets = build_targets([boxes((0.5, 0.5, 4.0, 2.0, 0.0))], SMALL.grid, SMALL.head)
    place = targets[0].heatmap[0, 0].eq(1).nonzero()[0].tolist()

    def pull(kind: Literal["soft", "published"], at: float) -> float:
        theirs, ours = copy.deepcopy(maps), copy.deepcopy(maps)
        theirs[0].heatmap.data.fill_(2.0)
        logits = torch.full_like(maps[0].heatmap, at).requires_grad_()
        ours = (replace(ours[0], heatmap=logits), *ours[1:])
        losses = response_loss(ours, theirs, targets, kind)
        (gradient,) = torch.autograd.grad(losses[0].heatmap, logits)
        return float(gradient[0, 0, place[0], place[1]])

    assert pull("soft", -2.0) < 0 < pull("soft", 4.0)
    assert pull("published", -2.0) >= 0
    same = response_loss(maps, maps, targets, "published")
    assert all(float(task.box) == 0 for task in same)


def test_a_teacher_that_is_further_from_the_truth_than_the_student_is_not_followed() -> None:
    targets = build_targets([boxes((0.5, 0.5, 4.0, 2.0, 0.0))], GRID, SMALL.head)
    (truth,) = targets[0].code[targets[0].valid]
    row, column = divmod(int(targets[0].cell[targets[0].valid]), 32)

    def maps(code: Tensor) -> tuple[Tensor, TaskMaps]:
        grid = torch.zeros(1, 10, 32, 32)
        grid[0, :, row, column] = code
        grid.requires_grad_()
        parts = grid.split(list(BOX_MAPS.values()), dim=1)
        return grid, TaskMaps(torch.zeros_like(targets[0].heatmap), *parts)

    # the student is off by one; the teacher by two in the first five numbers, else by a half
    grid, ours = maps(truth + 1)
    _, theirs = maps(truth + torch.tensor([2.0] * 5 + [0.5] * 5))
    pulled = {}
    kinds: tuple[Literal["soft", "published"], ...] = ("soft", "published")
    for kind in kinds:
        (loss,) = response_loss([ours], [theirs], targets[:1], kind)
        (gradient,) = torch.autograd.grad(loss.box, grid)
        pulled[kind] = gradient[0, :, row, column].sign().tolist()
    assert pulled == {"soft": [0.0] * 5 + [1.0] * 5, "published": [-1.0] * 5 + [1.0] * 5}


def distiller(config: DistillationConfig) -> tuple[Distiller, Student]:
    from labeldistill_core.lidar.config import TeacherConfig
    from labeldistill_core.lidar.teacher import Teacher

    torch.manual_seed(0)
    student = small()
    teacher_config = TeacherConfig(
        student.grid, (0.8, 0.8, 0.8), 5, (2000, 2000), (8, 8, 8), (1, 1), 8, (8, 12), (1, 1),
        (8, 8), student.head,
    )  # fmt: skip
    encoder = LabelEncoder(LabelEncoderConfig(student.grid, TASKS, (8, 12), 16))
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
    with pytest.raises(ConfigError, match="must not be negative"):
        DistillationConfig(lidar_weight=-1)
