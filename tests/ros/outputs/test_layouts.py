# SPDX-License-Identifier: Apache-2.0
"""Layouts for viewers show topics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rclpy.context import Context
from rclpy.lifecycle import LifecycleNode

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.classes import CLASSES
from labeldistill_ros.bags.sensors import BASE_FRAME, optical_frame
from labeldistill_ros.outputs.publishers import Outputs

OF_OTHERS = {"/tf", "/tf_static", "/diagnostics", "/ground_truth/markers", "/lidar_top/points"}


@pytest.fixture
def types(ros_context: Context) -> Iterator[dict[str, list[str]]]:
    """Types of the node's topics."""
    node = LifecycleNode("detector", context=ros_context)
    outputs = Outputs(node, CLASSES, CAMERAS)
    yield dict(node.get_topic_names_and_types())
    outputs.close()
    node.destroy_node()


@pytest.fixture
def published(types: dict[str, list[str]]) -> set[str]:
    """Topics of the node, and of whoever else is shown."""
    return set(types) | OF_OTHERS


@pytest.fixture
def foxglove(repository: Path) -> Any:
    return json.loads((repository / "config" / "detector.foxglove.json").read_text())


def panels(layout: Any) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
        return
    for side in ("first", "second"):
        yield from panels(layout[side])


def test_foxglove_shows_topics_of_the_node(repository: Path, published: set[str]) -> None:
    text = (repository / "config" / "detector.foxglove.json").read_text()
    layout = json.loads(text)
    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])
    topics = {name.removesuffix(".data") for name in re.findall(r'"(/[a-z_/]+(?:\.data)?)"', text)}
    assert topics <= published
    overlays = {f"/detector/debug/overlay/{camera.lower()}/compressed" for camera in CAMERAS}
    assert overlays | {"/detector/markers", "/diagnostics"} <= topics


def test_foxglove_panels_show_what_their_topics_carry(
    foxglove: Any, types: dict[str, list[str]]
) -> None:
    configs = foxglove["configById"]
    images = {name: c for name, c in configs.items() if name.startswith("Image!")}
    assert {c["foxglovePanelTitle"] for c in images.values()} == set(CAMERAS)
    for config in images.values():
        topic = config["imageMode"]["imageTopic"]
        assert f"/{config['foxglovePanelTitle'].lower()}/" in topic
        assert types[topic] == ["sensor_msgs/msg/CompressedImage"]
    for path in configs["Plot!latency"]["paths"]:
        topic, _, field = path["value"].partition(".")
        assert (types[topic], field) == (["std_msgs/msg/Float64"], "data")
    assert types["/detector/markers"] == ["visualization_msgs/msg/MarkerArray"]
    assert configs["3D!boxes"]["topics"]["/detector/markers"] == {"visible": True}


def test_foxglove_lays_the_cameras_out_as_they_look(foxglove: Any) -> None:
    cameras = foxglove["layout"]["first"]
    assert list(panels(cameras["first"])) == [
        "Image!cam_front_left",
        "Image!cam_front",
        "Image!cam_front_right",
    ]
    assert list(panels(cameras["second"])) == [
        "Image!cam_back_left",
        "Image!cam_back",
        "Image!cam_back_right",
    ]


def test_foxglove_follows_the_vehicle_and_hides_the_frames_of_its_sensors(foxglove: Any) -> None:
    scene = foxglove["configById"]["3D!boxes"]
    assert (scene["followTf"], scene["followMode"]) == (BASE_FRAME, "follow-pose")
    assert {layer["frameId"] for layer in scene["layers"].values()} == {BASE_FRAME}
    hidden = {name for name, transform in scene["transforms"].items() if not transform["visible"]}
    sensors = {*map(optical_frame, CAMERAS), "lidar_top"}
    assert hidden == {f"frame:{sensor}" for sensor in sensors}
