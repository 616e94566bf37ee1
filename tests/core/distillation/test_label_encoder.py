# SPDX-License-Identifier: Apache-2.0
"""The label encoder: cells that boxes fill, features, and the inverse of a head."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import TASKS
from labeldistill_core.distillation.config import (
    LabelEncoderConfig,
)
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.errors import ConfigError
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.presets import PRESETS
from labeldistill_core.published import behaviour
from labeldistill_core.training.label_encoder import LabelEncoderStage
from labeldistill_core.training.recipe import Recipe
from tests.core.lidar.test_lidar import SMALL
from tests.support.footprints import GRID, boxes

ENCODER = LabelEncoderConfig(GRID, TASKS, (8, 12), hidden_channels=16)


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


@pytest.mark.parametrize("length_m", [24.0, 48.0, 500.0])
def test_a_box_longer_than_the_grid_fills_its_row(length_m: float) -> None:
    cells = filled(LabelEncoder(ENCODER), boxes((0.5, 0.5, length_m, 0.5, 0.0)))
    half = round(length_m / 2)
    assert {x for _, x, _, _ in cells} == set(range(max(0, 16 - half), min(32, 17 + half)))
    assert {y for _, _, y, _ in cells} == {16}


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
