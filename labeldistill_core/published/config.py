# SPDX-License-Identifier: Apache-2.0
"""Configuration dictionaries of the published code to ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np

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
from labeldistill_core.errors import ConfigError
from labeldistill_core.lidar.config import SweepsConfig, TeacherConfig
from labeldistill_core.published import behaviour

# nuScenes annotates at 2 Hz; published configurations count key frames.
_KEY_FRAME_S = 0.5


def student_config(confs: Mapping[str, Any], key_indices: list[int]) -> StudentConfig:
    """The student that `backbone_conf` and `head_conf` describe, as the published code runs it.

    Args:
        confs: the dictionaries by name, with `ida_aug_conf` for the camera order.
        key_indices: past key frames at 2 Hz, such as [-2, -4].

    Raises:
        ConfigError: a key is missing, or the network is of a kind that is not built here.
    """
    try:
        return _student_config(confs, key_indices)
    except KeyError as error:
        raise ConfigError(f"the published configuration lacks {error}") from error


def _student_config(confs: Mapping[str, Any], key_indices: list[int]) -> StudentConfig:
    image, head = confs["backbone_conf"], confs["head_conf"]
    backbone, trunk, test = image["img_backbone_conf"], head["bev_backbone_conf"], head["test_cfg"]
    if backbone["type"] != "ResNet" or trunk["type"] != "ResNet":
        raise ConfigError(f"backbone {backbone['type']!r}, trunk {trunk['type']!r}: use ResNet")
    height, width = image["final_dim"]
    start, stop, step = image["d_bound"]
    x_low, x_high, cell = image["x_bound"]
    limit = test["post_center_limit_range"]
    return StudentConfig(
        image=ImageConfig(height, width, channel_order="bgr"),
        image_encoder=ImageEncoderConfig(
            ResNetConfig(backbone["depth"], backbone.get("base_channels", 64)),
            _four(image["img_neck_conf"]["out_channels"]),
            image["downsample_factor"],
            frozen_stem=backbone.get("frozen_stages", -1) >= 0,
        ),
        bev_encoder=BevEncoderConfig(
            trunk["depth"], trunk["base_channels"], _four(head["bev_neck_conf"]["out_channels"])
        ),
        history_s=tuple(-index * _KEY_FRAME_S for index in key_indices),
        depth_bins=DepthBins(start, stop, step),
        depth_net=DepthNetConfig(image["depth_net_conf"]["mid_channels"], image["output_channels"]),
        grid=BevGrid(
            (x_low, x_high),
            tuple(image["y_bound"][:2]),
            tuple(image["z_bound"][:2]),
            cell,
            "truncate",
        ),
        head=HeadConfig(
            tasks=tuple(tuple(task["class_names"]) for task in head["tasks"]),
            shared_channels=head["in_channels"],
            branch_channels=head["separate_head"].get("head_conv", 64),
            heatmap_bias=None,
        ),
        decode=DecodeConfig(
            test["score_threshold"],
            test["max_per_img"],
            test["post_max_size"],
            tuple(map(float, test["min_radius"])),
            (limit[3], limit[5]),
        ),
        cameras=tuple(confs["ida_aug_conf"]["cams"]),
    )


def teacher_config(confs: Mapping[str, Any], student: StudentConfig) -> TeacherConfig:
    """The LiDAR teacher that `lidar_conf` describes, as the published code runs it.

    Args:
        confs: the dictionaries by name.
        student: whose grid it shares.

    Raises:
        ConfigError: a key is missing, or the network is of a kind that is not built here.
    """
    try:
        lidar = confs["lidar_conf"]
        voxel, encoder = lidar["pts_voxel_layer"], lidar["pts_middle_encoder"]
        second, neck, head = (lidar[f"pts_{n}"] for n in ("backbone", "neck", "bbox_head"))
        channels = encoder["encoder_channels"]
        x_low, y_low, z_low, x_high, y_high, z_high = voxel["point_cloud_range"]
        if encoder["block_type"] != "basicblock" or second["layer_strides"] != [1, 2]:
            raise ConfigError("the LiDAR encoder needs basic blocks, and SECOND strides of 1 and 2")
        return TeacherConfig(
            grid=replace(
                student.grid, x_m=(x_low, x_high), y_m=(y_low, y_high), z_m=(z_low, z_high)
            ),
            voxel_m=tuple(voxel["voxel_size"]),
            max_points=voxel["max_num_points"],
            max_voxels=tuple(voxel["max_voxels"]),
            encoder_channels=tuple(stage[0] for stage in channels),
            height_padding=tuple(
                np.atleast_1d(stage[-1])[0].item() for stage in encoder["encoder_paddings"][:-1]
            ),
            out_channels=encoder["output_channels"],
            second_channels=tuple(second["out_channels"]),
            second_layers=tuple(second["layer_nums"]),
            neck_channels=tuple(neck["out_channels"]),
            head=replace(
                student.head,
                shared_channels=head["share_conv_channel"],
                branch_channels=head["separate_head"].get("head_conv", 64),
            ),
            decode=student.decode,
            sweeps=behaviour.sweeps(SweepsConfig()),
        )
    except KeyError as error:
        raise ConfigError(f"the published configuration lacks {error}") from error


def _four(values: list[int]) -> tuple[int, int, int, int]:
    return cast("tuple[int, int, int, int]", tuple(values))
