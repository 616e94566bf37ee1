# SPDX-License-Identifier: Apache-2.0
"""Numbers with which nothing can be trained are refused by the option's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from labeldistill_core.distillation.config import DistillationConfig
from labeldistill_core.errors import ConfigError
from labeldistill_core.experiments.arms import ARMS
from labeldistill_core.published import behaviour
from labeldistill_core.training.fit import Machine
from labeldistill_core.training.options import StudentOptions
from labeldistill_core.training.overfit import OverfitOptions


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (lambda: Machine(devices=0), "--devices and --nodes must be 1"),
        pytest.param(
            lambda: Machine("16-mixed"),
            "--precision 16-mixed needs a GPU: a CPU has bf16-mixed",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
        (lambda: Machine(nodes=-1), "--devices and --nodes must be 1"),
        (lambda: Machine(workers=-1), "--workers must be 0 or more"),
        (lambda: Machine(teacher_cache_gib=float("nan")), "--teacher-cache-gib must be a number"),
        (lambda: Machine(teacher_cache_gib=float("inf")), "--teacher-cache-gib must be a number"),
        (lambda: Machine(teacher_cache_gib=1e305), "--teacher-cache-gib must be a number from 0"),
        (lambda: StudentOptions(validate_every=0), "--validate-every must be 1"),
        (lambda: StudentOptions(scenes=-1), "--scenes must be 0"),
        (lambda: OverfitOptions(steps=0), "--steps and --learning-rate must be above 0"),
        (lambda: OverfitOptions(samples=-1), "--samples must be 0 or more"),
        (lambda: OverfitOptions(learning_rate=float("nan")), "--learning-rate must be above 0"),
        (lambda: StudentOptions(seed=-1).resolved(), "recipe.seed is -1"),
        (
            lambda: StudentOptions.prepared(["--student.head.heatmap-bias", "nan"]),
            "the options: student.head.heatmap_bias: nan is no finite number",
        ),
        (
            lambda: StudentOptions.prepared(["--student.depth-net.mid-channels", "9" * 20]),
            r"student.depth_net.mid_channels: 9*\.* is far too large",
        ),
    ],
)
def test_impossible_numbers(options: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        options()


def test_no_workers_are_possible() -> None:
    assert Machine(workers=0).loaders == 0


def test_single_fields_beside_published_count() -> None:
    args = ["--published", "--student.head.heatmap-bias=-2.19", "--recipes.student.epochs", "2"]
    given = StudentOptions.prepared(args)[0]
    distillation = replace(given.distillation or DistillationConfig(), response="soft")
    resolved = replace(given, published=True, distillation=distillation).resolved()
    published = StudentOptions(published=True).resolved()
    assert published.distillation.response == "published"
    assert published.student.head.heatmap_bias is None
    assert resolved == replace(
        published,
        student=replace(
            published.student, head=replace(published.student.head, heatmap_bias=-2.19)
        ),
        recipes=replace(published.recipes, student=replace(published.recipes.student, epochs=2)),
        distillation=replace(published.distillation, response="soft"),
    )
    assert StudentOptions.prepared([*args, "--no-published"])[0].resolved().samples == (
        StudentOptions().resolved().samples
    )


def test_arms_of_an_ablation_differ_as_published_too() -> None:
    taught = {name: arm.distillation for name, arm in ARMS.items() if arm.distillation}
    published = {name: behaviour.distillation(config) for name, config in taught.items()}
    assert published["lidar+label"].partition == "none"
    assert published["lidar+label+partition"].partition == "contiguous"
    with_ratio = replace(published["ratio-1:3:2"], ratio=taught["lidar+label"].ratio)
    assert with_ratio == published["lidar+label+partition"]
