# SPDX-License-Identifier: Apache-2.0
"""Bags that are damaged or lack something."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

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
from labeldistill_ros.messages.bag_family import BAG, typestore
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


def write_other(path: Path, kind: str, fields: dict[str, str], message: bytes) -> Path:
    """A bag with one message of a type that is defined in another way; `fields` are of `kind`'s
    package, by name."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    package = kind.rpartition("/")[0]
    types: dict[str, Any] = {}
    for name, text in fields.items():
        store.fielddefs.pop(f"{package}/{name}", None)
        types.update(get_types_from_msg(text, f"{package}/{name}"))
    store.register(types)
    definition = store.generate_msgdef(kind, ros_version=2)[0], store.hash_rihs01(kind)
    with BagWriter(path) as writer:
        writer.connect("/x", kind, None, definition)
        writer.write("/x", kind, message, 0)
    return path


def test_fields_of_other_names_are_those_of_ros(tmp_path: Path) -> None:
    """As `rosbags-convert` leaves a `CameraInfo` of ROS 1."""
    kind = "sensor_msgs/msg/CameraInfo"
    ours = typestore()
    fields = {
        "CameraInfo": "std_msgs/Header header\nuint32 height\nuint32 width\n"
        "string distortion_model\nfloat64[] D\nfloat64[9] K\nfloat64[9] R\nfloat64[12] P\n"
        "uint32 binning_x\nuint32 binning_y\nsensor_msgs/RegionOfInterest roi"
    }
    info = BAG.make(kind, k=range(9), d=[0.5])
    data = bytes(ours.serialize_cdr(info, kind))
    with BagReader(write_other(tmp_path / "bag", kind, fields, data)) as reader:
        ((_, found),) = reader.messages(["/x"])
    np.testing.assert_array_equal(found.k, range(9))
    np.testing.assert_array_equal(found.d, [0.5])


@pytest.mark.parametrize("nested", [False, True])
def test_a_type_of_another_layout_is_named(nested: bool, tmp_path: Path) -> None:
    """As boxes of `vision_msgs` before version 4 are."""
    kind = "vision_msgs/msg/BoundingBox3D"
    fields = {"BoundingBox3D": "geometry_msgs/Pose center\nfloat32 size"}
    if nested:
        kind = "vision_msgs/msg/Detection3D"
        fields["ObjectHypothesis"] = "string id\nfloat64 score"
        fields["ObjectHypothesisWithPose"] = (
            "ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose"
        )
        fields["Detection3D"] = (
            "std_msgs/Header header\nObjectHypothesisWithPose[] results\nBoundingBox3D bbox\n"
            "string id"
        )
    with (
        BagReader(write_other(tmp_path / "bag", kind, fields, b"\0" * 200)) as reader,
        pytest.raises(BagError, match=f"'{kind}' of /x has other fields than in ROS 2"),
    ):
        list(reader.messages(["/x"]))


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
