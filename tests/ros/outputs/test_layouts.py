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
from labeldistill_ros.outputs.publishers import Outputs

OF_OTHERS = {"/tf", "/tf_static", "/diagnostics", "/ground_truth/markers", "/lidar_top/points"}


@pytest.fixture
def published(ros_context: Context) -> Iterator[set[str]]:
    """Topics of the node, and of whoever else is shown."""
    node = LifecycleNode("detector", context=ros_context)
    outputs = Outputs(node, CLASSES, CAMERAS)
    yield {name for name, _ in node.get_topic_names_and_types()} | OF_OTHERS
    outputs.close()
    node.destroy_node()


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
