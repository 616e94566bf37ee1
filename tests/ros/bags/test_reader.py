# SPDX-License-Identifier: Apache-2.0
"""Bags that are damaged or lack something."""

from pathlib import Path

import pytest

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.errors import BagError
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.score import score_bag
from labeldistill_ros.bags.truth import (
    SAMPLE_TOPIC,
    TRUTH_TOPIC,
    read_samples,
)
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.messages import detections_message
from labeldistill_ros.messages.bag_family import BAG
from tests.support.bag_rig import ARRAY


def test_missing_and_damaged_bags(bag: Path, tmp_path: Path) -> None:
    with pytest.raises(BagError, match="no bag .*nothing"):
        BagReader(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BagError, match="empty is no readable bag"), BagReader(tmp_path / "empty"):
        pass
    half = tmp_path / "half"
    half.mkdir()
    (half / "metadata.yaml").write_bytes((bag / "metadata.yaml").read_bytes())
    data = (bag / f"{bag.name}.mcap").read_bytes()
    (half / f"{bag.name}.mcap").write_bytes(data[: len(data) // 2])
    with (
        pytest.raises(BagError, match="half is no readable bag"),
        BagReader(half) as reader,
    ):
        list(reader.raw())


def test_a_missing_topic_is_named_with_those_there_are(bag: Path) -> None:
    with pytest.raises(
        BagError, match=r"lacks the topic /detector/detections; it has: .*/nuscenes/sample, .*/tf"
    ):
        score_bag(bag)
    with (
        BagReader(bag) as reader,
        pytest.raises(BagError, match="lacks the topic /lidar, /radar; it has"),
    ):
        list(reader.raw(["/tf", "/lidar", "/radar"]))


def test_a_type_without_definition_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(BagError, match="/x: no definition of the type my_msgs/msg/Thing"),
        BagWriter(tmp_path / "bag") as writer,
    ):
        writer.write("/x", "my_msgs/msg/Thing", b"", 0)
    assert not list(tmp_path.iterdir())


def test_samples_of_another_making(tmp_path: Path) -> None:
    boxes = Boxes3D.empty("map")
    with BagWriter(tmp_path / "bag") as writer:
        text = BAG.make("std_msgs/msg/String", data='{"sample_token": "a"}')
        writer.write(SAMPLE_TOPIC, "std_msgs/msg/String", text, 5)
        writer.write(TRUTH_TOPIC, ARRAY, detections_message(boxes, CLASSES, 5, family=BAG), 5)
    with (
        BagReader(tmp_path / "bag") as reader,
        pytest.raises(BagError, match="/nuscenes/sample at 5 ns is not as this version writes it"),
    ):
        read_samples(reader)
