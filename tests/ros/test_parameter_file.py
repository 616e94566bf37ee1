# SPDX-License-Identifier: Apache-2.0
"""Parameter files mean the same as to ROS."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import rclpy
from rclpy.node import Node

from labeldistill_core.errors import ConfigError
from labeldistill_ros.parameter_file import GivenParameters
from labeldistill_ros.sets.options import assembly_options

CAMERAS, CLASSES = ("CAM_FRONT", "CAM_BACK"), ("car",)


def given(text: str, tmp_path: Path, node: str = "/detector") -> GivenParameters:
    file = tmp_path / "parameters.yaml"
    file.write_text(text)
    return GivenParameters.of_file(file, node)


def test_names_are_nested_or_not(tmp_path: Path) -> None:
    text = """
    /**:
      ros__parameters:
        sync: {tolerance: 0.01}
        sync.max_age: 0.5
        cameras:
          CAM_BACK: {enabled: false}
          CAM_FRONT: {time_offset: .nan}
    """
    vehicle = given(text, tmp_path).vehicle(CAMERAS, CLASSES)
    assert (vehicle.common.sync.tolerance, vehicle.common.sync.max_age) == (0.01, 0.5)
    assert list(vehicle.cameras) == ["CAM_FRONT"]
    assert math.isnan(vehicle.cameras["CAM_FRONT"].time_offset)


@pytest.mark.parametrize(
    ("section", "node", "fits"),
    [
        ("/**", "/a/b/detector", True),
        ("/*", "/detector", True),
        ("/*", "/a/detector", False),
        ("/**/detector", "/detector", True),
        ("detector", "/detector", True),
        ("/a/detector", "a/detector", True),
        ("/a/detector", "/detector", False),
        ("camera", "/detector", False),
    ],
)
def test_sections_name_nodes(section: str, node: str, fits: bool, tmp_path: Path) -> None:
    text = f"{section}:\n  ros__parameters:\n    max_boxes: 7\n"
    if fits:
        assert given(text, tmp_path, node).common().max_boxes == 7
    else:
        with pytest.raises(ConfigError, match=r"has no parameters for the node .* use /\*\*"):
            given(text, tmp_path, node)


def test_namespaces_are_nested_and_the_later_section_counts(tmp_path: Path) -> None:
    text = """
    /**: {ros__parameters: {max_boxes: 7, max_range: 5.0}}
    a: {detector: {ros__parameters: {max_boxes: 8}}}
    """
    common = given(text, tmp_path, "/a/detector").common()
    assert (common.max_boxes, common.max_range) == (8, 5.0)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sync.tolerance: 1", "sync.tolerance must be of type float, for example 0.03, not 1"),
        ("max_boxes: true", "max_boxes must be of type int"),
        ("sync.tolerance: 7.0", "use a value from 0.001 to 1"),
        ("transport: jpg", "'jpg' is none of 'compressed', 'raw'"),
        ("\tmax_boxes: 1", "is no parameter file"),
        ("model:", "model must be of type str, for example '', not None"),
    ],
)
def test_what_the_node_would_refuse(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        given(f"/**:\n  ros__parameters:\n    {line}\n", tmp_path).common()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *(("y", True), ("On", True), ("n", False), ("yEs", "yEs"), ("~", "~"), ("null", "null")),
        *(("017", 15), ("08", 8.0), ("0x1F", 31), ("+20", 20), ("1_0", "1_0"), ("0b11", "0b11")),
        *(("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("=", "="), ("<<", "<<")),
        *(("+.5", 0.5), ("3.", 3.0), ("2e2", 200.0), ("0x1p-2", 0.25), ("1e400", "1e400")),
        *(("-inf", -math.inf), ("+.Inf", math.inf), (".iNF", ".iNF"), (".Nan", ".Nan")),
        *(("9223372036854775808", 2.0**63), ("'5'", "5"), ("!!str 5", "5"), ('"y"', "y")),
        *(
            ("1e-310", "1e-310"),
            ("1e-400", "1e-400"),
            ("0e-400", 0.0),
            ("\u0661.\u0665", "\u0661.\u0665"),
        ),
        *(("|-\n      5", 5), (">-\n      true", True), ("!!int '5'", "5"), ("!!float 5", 5)),
    ],
)
def test_words_are_what_they_are_to_ros(word: str, value: Any, tmp_path: Path) -> None:
    text = f"/**:\n  ros__parameters:\n    on.y: {word}\n"
    assert given(text, tmp_path).values == {"on.y": value}
    file = tmp_path / "parameters.yaml"
    context = rclpy.Context()
    rclpy.init(args=["--ros-args", "--params-file", str(file)], context=context)
    try:
        node = Node(
            "detector", context=context, automatically_declare_parameters_from_overrides=True,
            enable_rosout=False, start_parameter_services=False,
        )  # fmt: skip
        told = node.get_parameter("on.y").value
        assert (type(told), told) == (type(value), value)
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


def test_names_are_frames_without_a_slash_before_them(tmp_path: Path) -> None:
    text = "/**: {ros__parameters: {fixed_frame: /odom, cameras.CAM_BACK.frame_id: /back}}"
    vehicle = given(text, tmp_path).vehicle(CAMERAS, CLASSES)
    assert vehicle.common.fixed_frame == "odom"
    assert vehicle.cameras["CAM_BACK"].frame_id == "back"
    same = "/**: {ros__parameters: {fixed_frame: /base_link}}"
    with pytest.raises(ConfigError, match="fixed_frame and base_frame are both 'base_link'"):
        assembly_options(given(same, tmp_path).vehicle(CAMERAS, CLASSES))


def test_unknown_names_are_told(tmp_path: Path) -> None:
    text = """
    /**:
      ros__parameters:
        sync.tolerence: 0.03
        qos_overrides./a.subscription.depth: 1
        cameras.CAM_REAR.enabled: true
    """
    assert given(text, tmp_path).unknown(CAMERAS, CLASSES) == [
        "there is no parameter sync.tolerence: did you mean sync.tolerance?",
        "there is no parameter cameras.CAM_REAR.enabled: the model has no camera CAM_REAR, its "
        "cameras are CAM_FRONT, CAM_BACK",
    ]
