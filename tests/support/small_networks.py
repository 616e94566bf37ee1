# SPDX-License-Identifier: Apache-2.0
"""Networks small enough to train in a second."""

from __future__ import annotations

from labeldistill_core.classes import CLASSES
from labeldistill_core.config import (
    BevEncoderConfig,
    BevGrid,
    DecodeConfig,
    DepthBins,
    DepthNetConfig,
    HeadConfig,
    ImageConfig,
    ImageEncoderConfig,
    ResNetConfig,
    StudentConfig,
)
from labeldistill_core.distillation.config import LabelEncoderConfig
from labeldistill_core.lidar.config import SweepsConfig, TeacherConfig
from labeldistill_core.presets import Preset

# Most of a small network's tensors, and of the time to copy and save them, are those of the tasks.
TWO_TASKS = (CLASSES[:5], CLASSES[5:])
"""The classes of nuScenes in two tasks instead of six."""


def small() -> StudentConfig:
    return StudentConfig(
        image=ImageConfig(height=64, width=160),
        image_encoder=ImageEncoderConfig(
            ResNetConfig(depth=18, base_channels=8), neck_channels=(8, 8, 8, 8)
        ),
        depth_bins=DepthBins(step_m=4.0),
        depth_net=DepthNetConfig(mid_channels=16, context_channels=8, deform_groups=0),
        bev_encoder=BevEncoderConfig(base_channels=8, neck_channels=(8, 8, 8, 8)),
        grid=BevGrid(cell_m=3.2),
        head=HeadConfig(TWO_TASKS, shared_channels=8, branch_channels=8),
        history_s=(0.5,),
        decode=DecodeConfig(nms_radius_m2=(4.0, 1.0)),
    )


def preset_of(student: StudentConfig, teacher: TeacherConfig | None = None) -> Preset:
    """A preset of the paper's recipes; its teacher is that of the paper unless one is given."""
    teacher = teacher or TeacherConfig(grid=BevGrid(cell_m=0.8))
    return Preset("small", student, teacher, LabelEncoderConfig.of(teacher, hidden_channels=64))


def small_preset() -> Preset:
    return preset_of(small(), small_teacher())


def small_teacher() -> TeacherConfig:
    student = small()
    return TeacherConfig(
        student.grid, (0.8, 0.8, 0.8), 5, (2000, 2000), (8, 8, 8), (1, 1), 8, (8, 12), (1, 1),
        (8, 8), student.head, decode=student.decode,
        sweeps=SweepsConfig(0, 0),
    )  # fmt: skip
