# SPDX-License-Identifier: Apache-2.0
"""What an ablation gives its students, and what its teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from labeldistill_core.config_files import to_yaml
from labeldistill_core.errors import ConfigError
from labeldistill_core.training.options import TeacherOptions
from labeldistill_ros.cli import main
from tests.support.small_networks import small_preset


def test_teachers_do_not_share_the_budget_of_students(
    synthetic_dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_file = tmp_path / "small.yaml"
    small_file.write_text(to_yaml(small_preset()))
    trained: list[TeacherOptions] = []

    def train_teacher(*args: Any) -> None:
        trained.append(args[2])
        raise ConfigError("seen")

    monkeypatch.setattr("labeldistill_core.experiments.ablation.train_teacher", train_teacher)
    budget = ["--accumulate", "8", "--class-balanced", "True", "--epochs", "1", "--seed", "3"]
    root = str(synthetic_dataroot)
    words = ["ablation", root, str(tmp_path / "out"), "--arms", "lidar", *budget]
    of_root = ["--config", str(small_file), "--version", "v1.0-mini", "--split", "train"]
    assert main([*words, *of_root]) == 2
    (teacher,) = trained
    plain = TeacherOptions(config=small_file).resolved()
    assert teacher.resolved().recipes.teacher == plain.recipes.teacher
