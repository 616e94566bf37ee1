# SPDX-License-Identifier: Apache-2.0
"""The networks that have a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from labeldistill_core.config import (
    BevEncoderConfig,
    BevGrid,
    ConvNeXtConfig,
    DepthBins,
    DepthNetConfig,
    HeadConfig,
    ImageConfig,
    ImageEncoderConfig,
    ResNetConfig,
    StudentConfig,
)
from labeldistill_core.distillation.config import LabelEncoderConfig
from labeldistill_core.errors import ConfigError
from labeldistill_core.lidar.config import SweepsConfig, TeacherConfig, official_sweeps

FOUR_KEY = (1.0, 2.0, 3.0, 4.0)
TWO_KEY = (1.0, 2.0)


def r50_256x704_4key() -> StudentConfig:
    """ResNet-50, 256x704, four past frames: the published main result."""
    return StudentConfig(
        image=ImageConfig(height=256, width=704),
        image_encoder=ImageEncoderConfig(ResNetConfig(depth=50), frozen_stem=True),
        bev_encoder=BevEncoderConfig(),
        history_s=FOUR_KEY,
    )


def r50_256x704_2key() -> StudentConfig:
    """ResNet-50, 256x704, two past frames."""
    return replace(r50_256x704_4key(), history_s=TWO_KEY)


def r101_512x1408_2key() -> StudentConfig:
    """ResNet-101, 512x1408, two past frames."""
    return replace(
        r50_256x704_2key(),
        image=ImageConfig(height=512, width=1408),
        image_encoder=ImageEncoderConfig(ResNetConfig(depth=101), frozen_stem=True),
    )


def convnext_b() -> StudentConfig:
    """ConvNeXt-B, 896x1600, two past frames.

    The published size 900x1600 is no multiple of the network's stride; four rows of sky go.
    """
    return replace(
        r50_256x704_2key(),
        image=ImageConfig(height=896, width=1600),
        image_encoder=ImageEncoderConfig(ConvNeXtConfig(variant="base")),
    )


def demo() -> StudentConfig:
    """Small enough to train and run on two CPU cores."""
    return StudentConfig(
        image=ImageConfig(height=128, width=352),
        image_encoder=ImageEncoderConfig(
            ResNetConfig(depth=18, base_channels=24), neck_channels=(32, 32, 32, 32), stride=8
        ),
        depth_bins=DepthBins(start_m=2.0, stop_m=58.0, step_m=1.0),
        depth_net=DepthNetConfig(
            mid_channels=48, context_channels=48, dropout=0.0, deform_groups=0
        ),
        bev_encoder=BevEncoderConfig(base_channels=40, neck_channels=(16, 16, 32, 32)),
        head=HeadConfig(shared_channels=48, branch_channels=16, least_radius=1),
        history_s=(1.0,),
        grid=BevGrid(cell_m=1.28),
    )


def official(config: StudentConfig) -> StudentConfig:
    """The same network as the published code runs it, for which its weights were trained."""
    return replace(
        config,
        image=replace(config.image, channel_order="bgr"),
        grid=replace(config.grid, index_rounding="truncate"),
        head=replace(config.head, heatmap_bias=None),
    )


def demo_teacher() -> TeacherConfig:
    """Small enough to train on two CPU cores; sees up to five scans, within a tenth of a second."""
    student = demo()
    return TeacherConfig(
        grid=student.grid,
        voxel_m=(0.32, 0.32, 0.4),
        max_voxels=(20_000, 20_000),
        encoder_channels=(16, 24, 32),
        height_padding=(1, 1),
        out_channels=32,
        second_channels=(64, 96),
        second_layers=(3, 3),
        neck_channels=(64, 64),
        head=student.head,
        sweeps=SweepsConfig(past=2, future=2),
    )


TEACHERS: dict[str, Callable[[], TeacherConfig]] = {
    "demo": demo_teacher,
    "ablation": demo_teacher,
}
"""Teachers of presets that do not have the published one."""


def teacher_preset(name: str) -> TeacherConfig:
    """The LiDAR teacher of a student's preset."""
    if name in TEACHERS:
        return TEACHERS[name]()
    return TeacherConfig(grid=preset_config(name).grid)


def official_teacher(config: TeacherConfig) -> TeacherConfig:
    """The same teacher as the published code feeds and builds it."""
    return replace(
        config,
        grid=replace(config.grid, index_rounding="truncate"),
        head=replace(config.head, heatmap_bias=None),
        sweeps=official_sweeps(config.sweeps),
    )


def label_encoder_preset(name: str) -> LabelEncoderConfig:
    """The label encoder that fits the teacher of a student's preset."""
    teacher = teacher_preset(name)
    return LabelEncoderConfig(
        teacher.grid,
        teacher.head.tasks,
        teacher.second_channels,
        hidden_channels=64 if name in TEACHERS else 256,
    )


PRESETS: dict[str, Callable[[], StudentConfig]] = {
    "r50_256x704_4key": r50_256x704_4key,
    "r50_256x704_2key": r50_256x704_2key,
    "r101_512x1408_2key": r101_512x1408_2key,
    "convnext_b": convnext_b,
    "demo": demo,
    "ablation": demo,
}
"""Preset name to its function."""


def preset_config(name: str) -> StudentConfig:
    """Configuration of a preset.

    Raises:
        ConfigError: there is no such preset; lists those there are.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}: there are {', '.join(PRESETS)}")
    return PRESETS[name]()
