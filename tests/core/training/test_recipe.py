# SPDX-License-Identifier: Apache-2.0
"""How stages are trained: rates by step and batch, and what the published code does otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from labeldistill_core.errors import ConfigError
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
    with pytest.raises(ConfigError, match="batch_size is 0"):
        replace(recipe, batch_size=0)
    with pytest.raises(ConfigError, match="velocity_weight is -1"):
        replace(recipe, velocity_weight=-1.0)


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
