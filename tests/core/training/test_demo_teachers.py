# SPDX-License-Identifier: Apache-2.0
"""The teachers that come along read the synthetic world, and any user can distil from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from labeldistill_core.checkpoints import load_student
from labeldistill_core.evaluation.evaluate import EvaluationOptions, run_checkpoint, score
from labeldistill_core.installed_files import shared_file
from labeldistill_core.training.overfit import present_map
from labeldistill_ros.cli import main
from tests.support.small_training import small_training

TEACHER = shared_file("config/models/demo_teacher.safetensors")
LABEL_ENCODER = shared_file("config/models/demo_label_encoder.safetensors")


@pytest.mark.parametrize(
    ("file", "least"), [(TEACHER, 0.5), (LABEL_ENCODER, 0.9)], ids=["lidar", "label"]
)
def test_they_find_the_boxes_of_the_synthetic_world(
    synthetic_dataroot: Path, file: Path, least: float
) -> None:
    options = EvaluationOptions(split="all", teacher=TEACHER)
    found = run_checkpoint(file, synthetic_dataroot, options)
    assert present_map(score(found, synthetic_dataroot, options)) > least


def test_a_student_of_the_demo_learns_from_them(synthetic_dataroot: Path, tmp_path: Path) -> None:
    teachers = ["--teacher", str(TEACHER), "--label-encoder", str(LABEL_ENCODER)]
    training = ["train", "student", str(synthetic_dataroot), str(tmp_path)]
    assert main([*training, *small_training("demo", batch_size=8), *teachers]) == 0
    student = load_student(tmp_path / "student.safetensors")
    assert "LiDAR and label teacher" in student.note
