# SPDX-License-Identifier: Apache-2.0
"""How stages are trained: rates by step and batch, and what the published code does otherwise."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from labeldistill_core.data.augmentation import AugmentationConfig
from labeldistill_core.errors import ConfigError
from labeldistill_core.presets import find_preset
from labeldistill_core.training.options import TrainingOptions
from labeldistill_core.training.recipe import Recipe


def test_the_rate_rises_then_falls() -> None:
    recipe = Recipe(
        learning_rate=1e-3, batch_size=8, reference_batch=16, warmup_share=0.1, schedule="cosine"
    )
    assert recipe.scaled_rate(2) == pytest.approx(1e-3)
    assert recipe.scaled_rate(8) == pytest.approx(2e-3)
    factors = [recipe.rate_factor(step, 100) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == pytest.approx(0.0)
    steps = replace(recipe, schedule="steps", milestones=(0.5, 0.75))
    assert [steps.rate_factor(step, 100) for step in (49, 50, 75)] == [1.0, 0.1, 0.01]


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("batch_size", 0, "must be 1 to 2147483647"),
        ("accumulate", 10**24, "must be 1 to 2147483647"),
        ("reference_batch", -4, "must be 1 to 2147483647"),
        ("learning_rate", math.nan, "must be positive"),
        ("learning_rate", math.inf, "must be positive"),
        ("velocity_weight", -1.0, "must be 0 or more"),
        ("weight_decay", math.nan, "must be 0 or more"),
        ("gradient_clip", -1.0, "must be 0 or more"),
        ("image_rate", -1.0, "must be 0 or more"),
        ("ema_decay", math.nan, "must be between 0 and 1"),
        ("warmup_share", 5.0, "must be between 0 and 1"),
        ("milestones", (0.5, -2.0), "must be between 0 and 1"),
        ("milestones", (0.75, 0.5), "must ascend"),
        ("seed", -1, "must be 0 to 4294967295"),
        ("seed", 2**32, "must be 0 to 4294967295"),
    ],
)
def test_a_recipe_that_trains_nothing_is_refused(field: str, value: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"recipe\.{field} .*{told}"):
        replace(Recipe(), **{field: value})


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("resize", (2.0, 1.0)),
        ("resize", (0.0, 1.0)),
        ("bev_scale", (-1.0, 1.0)),
        ("bev_rotation_deg", (math.nan, 1.0)),
        ("image_rotation_deg", (0.0, math.inf)),
    ],
)
def test_ranges_of_augmentation_can_be_drawn_from(field: str, values: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=rf"augmentation\.{field} is .*the lesser first"):
        AugmentationConfig(**{field: values})  # type: ignore[arg-type]


def test_the_seed_of_a_recipe_counts_where_none_is_given() -> None:
    recipes = find_preset("demo").recipes.with_settings(seed=5)
    options = TrainingOptions.prepared([])[0]
    assert options.fields
    options = replace(options, fields=replace(options.fields, recipes=recipes))
    assert options.resolved().recipes.student.seed == 5
    assert replace(options, seed=0).resolved().recipes.teacher.seed == 0


@pytest.mark.parametrize("stage", ["teacher", "label_encoder"])
def test_velocities_count_half_for_published_teachers(stage: str) -> None:
    published, own = (
        getattr(TrainingOptions(published=p).resolved().recipes, stage) for p in (True, False)
    )
    assert own.code_weights(torch.device("cpu")) is None
    weights = published.code_weights(torch.device("cpu"))
    assert weights is not None
    assert weights.tolist() == [1.0] * 8 + [0.5] * 2
    assert TrainingOptions(published=True).resolved().recipes.student.velocity_weight == 1.0


def test_published_recipes_are_those_of_the_code() -> None:
    student = TrainingOptions(preset="r50_256x704_4key", published=True).resolved().recipes.student
    assert (student.epochs, student.warmup_share, student.decay_everything) == (30, 0.0, True)
    steps = 3000  # a hundred an epoch
    rates = [student.rate_factor(epoch * 100, steps) for epoch in (0, 18, 19, 22, 23, 29)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    shorter = TrainingOptions(preset="r50_256x704_2key", published=True).resolved().recipes
    assert shorter.student.epochs == 24
    teacher = TrainingOptions(preset="r50_256x704_4key", published=True).resolved().recipes.teacher
    rates = [teacher.rate_factor(epoch * 100, 2000) for epoch in (0, 15, 16, 19)]
    assert rates == pytest.approx([1, 1, 0.1, 0.01])
    # a given number of epochs comes first, and small presets keep their own
    given = TrainingOptions(preset="demo", published=True, epochs=3).resolved().recipes
    assert given.student.epochs == 3
    assert TrainingOptions(published=True).resolved().recipes.student.schedule == "cosine"
