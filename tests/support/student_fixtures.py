# SPDX-License-Identifier: Apache-2.0
"""A small network and a rig of six cameras like that of nuScenes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from labeldistill_core.cameras import (
    CAMERAS,
    EGO_FRAME,
    FIXED_FRAME,
    CameraCalibration,
    CameraView,
    FrameSet,
)
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
from labeldistill_core.frames import Transform
from labeldistill_core.network.student import Student

# these networks are tiny: a second thread waits for its core more than it computes
torch.set_num_threads(1)

SOURCE_WH = (160, 90)
YAWS_DEG = (55.0, 0.0, -55.0, 110.0, 180.0, -110.0)
"""Headings of the cameras, in the order of `CAMERAS`."""
OPTICAL_FROM_BODY = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
"""x forward, y left, z up, to x right, y down, z forward."""


def yaw_matrix(degrees: float) -> np.ndarray[Any, Any]:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def make_calibration(index: int, focal_px: float | None = None) -> CameraCalibration:
    name, yaw = CAMERAS[index], math.radians(YAWS_DEG[index])
    focal = focal_px or (80.9 if name == "CAM_BACK" else 126.6)
    position = np.array([0.7 + 1.0 * math.cos(yaw), 0.5 * math.sin(yaw), 1.5])
    return CameraCalibration(
        name,
        np.array([[focal, 0.0, 81.6], [0.0, focal, 49.1], [0.0, 0.0, 1.0]]),
        *SOURCE_WH,
        Transform(EGO_FRAME, name, yaw_matrix(YAWS_DEG[index]) @ OPTICAL_FROM_BODY.T, position),
    )


def make_frame_set(
    stamp_s: float,
    *,
    seed: int | None = None,
    missing: Sequence[str] = (),
    calibrations: Sequence[CameraCalibration] | None = None,
) -> FrameSet:
    """The vehicle drives a left turn; each camera fires a little later than the one before."""
    rng = np.random.default_rng(round(stamp_s * 1000) if seed is None else seed)
    views = []
    for index, calibration in enumerate(calibrations or [make_calibration(i) for i in range(6)]):
        exposure_s = stamp_s + 0.01 * index
        pose = Transform(
            FIXED_FRAME,
            EGO_FRAME,
            yaw_matrix(8.0 * exposure_s),
            np.array([600.0 + 7.0 * exposure_s, 1600.0 + 0.9 * exposure_s**2, 0.1]),
        )
        image = rng.integers(0, 256, (*SOURCE_WH[::-1], 3), dtype=np.uint8)
        if calibration.name not in missing:
            views.append(CameraView(calibration, round(exposure_s * 1e9), image, pose))
    return FrameSet(round(stamp_s * 1e9), tuple(views))


@pytest.fixture(scope="session")
def tiny_config() -> StudentConfig:
    """Every part of the student, as small as it gets; two past frames."""
    return StudentConfig(
        image=ImageConfig(height=64, width=128),
        image_encoder=ImageEncoderConfig(ResNetConfig(18, base_channels=4), (4, 4, 4, 4)),
        bev_encoder=BevEncoderConfig(base_channels=8, neck_channels=(4, 4, 4, 4)),
        history_s=(0.5, 1.0),
        depth_bins=DepthBins(2.0, 42.0, 4.0),
        depth_net=DepthNetConfig(mid_channels=8, context_channels=6, deform_groups=2),
        grid=BevGrid((-25.6, 25.6), (-25.6, 25.6), cell_m=1.6),
        head=HeadConfig(shared_channels=8, branch_channels=8, heatmap_bias=0.0),
        decode=DecodeConfig(score_threshold=0.0, max_candidates=50, max_per_task=10),
    )


def make_student(config: StudentConfig, seed: int = 0) -> Student:
    """Random weights and norm statistics, so that a part that is left out shows."""
    torch.manual_seed(seed)
    student = Student(config)
    for module in student.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    net = student.depth_net
    assert net.camera_norm.running_var is not None
    net.camera_norm.running_var.fill_(1e3)  # raw focal lengths would saturate the gates
    if config.depth_net.deform_groups:
        nn.init.normal_(net.deform.get_parameter("offset.weight"), std=0.1)
    # small networks of random weights hardly react; make depth, context and maps vary
    with torch.no_grad():
        net.context_out.weight.mul_(20)
        net.depth_out.weight.mul_(20)
        for name, parameter in student.head.tasks.named_parameters():
            _, _, layer, kind = name.split(".")
            if (layer, kind) == ("1", "bias"):
                parameter.abs_()
            elif (layer, kind) == ("3", "weight"):
                parameter.mul_(10)
    return student.eval()


@pytest.fixture
def student(tiny_config: StudentConfig) -> Student:
    return make_student(tiny_config)


@pytest.fixture(scope="session")
def new_student() -> Callable[..., Student]:
    return make_student


@pytest.fixture
def frame_set() -> Callable[..., FrameSet]:
    return make_frame_set


@pytest.fixture
def calibration() -> Callable[..., CameraCalibration]:
    return make_calibration
