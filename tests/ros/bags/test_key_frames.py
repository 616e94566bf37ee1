# SPDX-License-Identifier: Apache-2.0
"""Key frames of a bag: what is there is read, and what cannot be used is told as such."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import BagError
from labeldistill_ros.bags.convert import ConversionOptions, convert_scene
from labeldistill_ros.bags.key_frames import read_frame_sets
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.messages.bag_family import BAG
from tests.support.nuscenes_fixture import SCENES, VERSION


@pytest.fixture
def bag(shared_dataroot: Path, tmp_path: Path) -> Path:
    tables = NuScenesTables(shared_dataroot, VERSION)
    convert_scene(tables, SCENES[0], tmp_path / "bag", ConversionOptions(sweeps=False))
    return tmp_path / "bag"


def rewritten(
    bag: Path, out: Path, change: Callable[[str, str, Any], tuple[str, str, Any]]
) -> Path:
    """A bag whose topics, types and messages are changed."""
    with BagReader(bag) as reader, BagWriter(out) as writer:
        for recorded in reader.raw():
            told = change(recorded.topic, recorded.msgtype, reader.decoded(recorded))
            writer.write(*told, recorded.stamp_ns)
    return out


def test_an_image_of_another_size_than_its_calibration_is_an_error_of_the_bag(
    bag: Path, tmp_path: Path
) -> None:
    def wider(topic: str, kind: str, message: Any) -> tuple[str, str, Any]:
        if topic == "/cam_back/camera_info":
            message.width += 2
        return topic, kind, message

    changed = rewritten(bag, tmp_path / "wider", wider)
    with (
        BagReader(changed) as reader,
        pytest.raises(BagError, match=r"sample \S+: CAM_BACK: the image is .* camera_info says"),
    ):
        list(read_frame_sets(reader))


def test_raw_images_are_read_too(bag: Path, tmp_path: Path) -> None:
    def raw(topic: str, kind: str, message: Any) -> tuple[str, str, Any]:
        if not topic.endswith("/compressed"):
            return topic, kind, message
        pixels = decode_jpeg(bytes(message.data))
        height, width = pixels.shape[:2]
        image = BAG.make(
            "sensor_msgs/msg/Image",
            header=message.header,
            height=height,
            width=width,
            encoding="rgb8",
            step=3 * width,
            data=pixels.tobytes(),
        )
        return topic.removesuffix("/compressed"), "sensor_msgs/msg/Image", image

    with BagReader(bag) as reader, BagReader(rewritten(bag, tmp_path / "raw", raw)) as other:
        pairs = list(zip(read_frame_sets(reader), read_frame_sets(other), strict=True))
    assert len(pairs) == 3
    for (_, mine), (_, his) in pairs:
        assert set(mine.by_name) == set(CAMERAS)
        for view in mine.views:
            np.testing.assert_array_equal(view.pixels, his.by_name[view.calibration.name].pixels)
