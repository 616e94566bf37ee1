# SPDX-License-Identifier: Apache-2.0
"""The course that the vehicle of the tests drives, and a small model for its detector."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.checkpoints import save_student
from labeldistill_core.config import StudentConfig
from labeldistill_core.network.student import Student
from labeldistill_ros.testing import course
from labeldistill_ros.testing.course import Course
from tests.support.small_networks import small

PERIOD_NS = 100_000_000
COURSE = Course(
    1_600_000_000_000_000_000,
    PERIOD_NS / 1e9,
    {camera: 0.005 * number for number, camera in enumerate(CAMERAS)},
)
WIDTH, HEIGHT = COURSE.size_px
stamp_of, offline_set, map_from_ego = COURSE.stamp_ns, COURSE.frame_set, COURSE.map_from_ego
PATIENT = {"sync.deadline": 1.5, "sync.max_age": 5.0}
"""Parameters of a node that waits for all cameras also on a machine that is busy elsewhere."""


def jpeg(seed: int) -> bytes:
    """A picture of a camera."""
    return course.jpeg(course.picture(COURSE.size_px, seed))


def tiny_config() -> StudentConfig:
    config = small()
    return replace(
        config,
        head=replace(config.head, heatmap_bias=None),
        history_s=(0.2,),
        decode=replace(config.decode, score_threshold=0.05),
    )


def save_tiny(path: Path) -> Path:
    torch.manual_seed(0)
    save_student(path, Student(tiny_config()), note="random, for tests")
    return path
