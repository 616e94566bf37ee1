# SPDX-License-Identifier: Apache-2.0
import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from labeldistill_core.config import BevGrid, DepthBins, StudentConfig
from labeldistill_core.errors import ConfigError
from labeldistill_core.presets import PRESETS
from labeldistill_core.published import behaviour


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("variant", [lambda c: c, behaviour.student], ids=["plain", "published"])
def test_json_round_trip(name: str, variant: Callable[[StudentConfig], StudentConfig]) -> None:
    config = variant(PRESETS[name].student)
    assert StudentConfig.from_json(config.to_json()) == config


def test_values_that_differ_make_configurations_that_differ(tiny_config: StudentConfig) -> None:
    other = replace(tiny_config, grid=replace(tiny_config.grid, index_rounding="truncate"))
    assert StudentConfig.from_json(other.to_json()) != tiny_config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("image", "height"), 100, "image.height is 100: use a positive multiple of 32"),
        (("image", "height"), "tall", "config.image.height"),
        (("image", "height"), 128.7, "128.7 is no int @ config.image.height"),
        (("image", "heigth"), 128, r"extra fields found \(heigth\) @ config.image"),
        (("image", "channel_order"), "gbr", "config.image.channel_order"),
        (("image", "mean"), [1.0, 2.0], "config.image.mean"),
        (("image_encoder", "frozen_stem"), "false", "'false' is no bool"),
        (("image_encoder", "stride"), 4, "config.image_encoder.stride"),
        (("image_encoder", "backbone", "depth"), 19, "config.image_encoder.backbone.depth"),
        (("depth_bins", "step_m"), True, "True is no float @ config.depth_bins.step_m"),
        (("depth_bins", "start_m"), -1.0, "depth_bins needs 0 < start_m < stop_m"),
        (("depth_bins", "stop_m"), 2.2, "depth_bins needs .* a step_m > 0 that fits"),
        (("decode", "nms_radius_m2"), [-4.0] * 6, "decode.nms_radius_m2 is .*: use positive"),
        (("decode", "center_limit_m"), [-1.0, 10.0], "decode.center_limit_m is -1.0, 10.0"),
        (("grid", "x_m"), [-16.0, 16.0], "grid has 32 x 20 cells: use multiples of 8"),
        (("image_encoder",), {"backbone": {"variant": "tiny"}, "frozen_stem": True}, "of a ResNet"),
        (("head", "least_radius"), -3, "head.least_radius is -3: use 0 or more"),
        (("cameras",), "wide", "'wide' is no list, as in .* @ config.cameras"),
        (("cameras",), {"a": 1}, "is no list, as in .* @ config.cameras"),
        (("grid", "x_m"), [1.0], r"\[1.0\] has 1 values, not 2 @ config.grid.x_m"),
        (("image", "mean"), [1.0, "b", 2.0], r"'b' is no float @ config.image.mean\[1\]"),
        (("depth_net", "deform_groups"), 3, "mid_channels 8 is no multiple of deform_groups 3"),
        (("grid", "cell_m"), 0.7, "grid.x_m .* not a whole number of cells"),
        (("grid", "z_m"), [3.0, -5.0], "grid.z_m must ascend"),
        (("decode", "score_threshold"), 1.5, "decode.score_threshold is 1.5"),
        (("decode", "nms_radius_m2"), [1.0], "has 1 radii for 6 tasks"),
        (("history_s",), [1.0, 0.5], "history_s .* must be positive and ascending"),
        (("history_s",), [0.0, 0.5], "history_s .* must be positive and ascending"),
    ],
)
def test_wrong_values_are_named(
    tiny_config: StudentConfig, path: tuple[str, ...], value: object, message: str
) -> None:
    mapping = json.loads(tiny_config.to_json())
    inner = mapping
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ConfigError, match=message):
        StudentConfig.from_mapping(mapping)


def test_a_missing_key_is_named(tiny_config: StudentConfig) -> None:
    mapping = json.loads(tiny_config.to_json())
    del mapping["image"]["width"]
    with pytest.raises(ConfigError, match=r"required field missing @ config.image.width"):
        StudentConfig.from_mapping(mapping)


def test_a_class_in_two_tasks_is_refused(tiny_config: StudentConfig) -> None:
    head = replace(tiny_config.head, tasks=(("car",),) * 6)
    with pytest.raises(ConfigError, match="names a class twice"):
        replace(tiny_config, head=head)


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "null"])
def test_text_that_holds_no_configuration(text: str) -> None:
    with pytest.raises(ConfigError, match="the configuration"):
        StudentConfig.from_json(text)


def test_derived_sizes(tiny_config: StudentConfig) -> None:
    assert DepthBins(2.0, 58.0, 0.5).count == 112
    assert (BevGrid().columns, BevGrid().rows) == (128, 128)
    assert tiny_config.frames == 3
    assert tiny_config.feature_size == (4, 8)
    assert tiny_config.class_names[:3] == ("car", "truck", "construction_vehicle")
