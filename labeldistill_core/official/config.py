# SPDX-License-Identifier: Apache-2.0
"""Configuration dictionaries of the published code to ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

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
        raise ConfigError(f"the official configuration lacks {error}") from error


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


def _four(values: list[int]) -> tuple[int, int, int, int]:
    return cast("tuple[int, int, int, int]", tuple(values))
