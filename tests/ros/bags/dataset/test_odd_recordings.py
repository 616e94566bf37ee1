# SPDX-License-Identifier: Apache-2.0
"""Recordings that are sound and unlike others, from the plan to the data set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_ros.bags.dataset.topics import RADAR_FIELDS
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.cli import main
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.stamps import stamp_of
from labeldistill_ros.messages.tables import cloud_message

OURS, LABELS = "v1.0-trainval", "/ground_truth/detections"
IMAGE, CLOUD = "sensor_msgs/msg/Image", "sensor_msgs/msg/PointCloud2"
MS = 1_000_000

Message = tuple[str, str, Any, int]
"""Topic, type, message and log time."""


def messages(bag: Path) -> list[Message]:
    with BagReader(bag) as reader:
        return [(r.topic, r.msgtype, reader.decoded(r), r.stamp_ns) for r in reader.raw()]


def write(out: Path, recorded: Iterable[Message]) -> Path:
    with BagWriter(out) as writer:
        for topic, kind, message, log_ns in sorted(recorded, key=lambda each: each[3]):
            writer.write(topic, kind, message, log_ns)
    return out


def to_nuscenes(bag: Path, root: Path, *options: str) -> NuScenesTables:
    assert main(["bag", "to-nuscenes", str(bag), str(root), "--workers", "1", *options]) == 0
    return NuScenesTables(root, OURS)


def radar(stamp_ns: int, frame: str) -> Any:
    rows = np.zeros(3, np.dtype([(name, "<f4") for name in RADAR_FIELDS]))
    return cloud_message(rows, stamp_ns, frame, BAG)


def with_radars(car_bag: Path, out: Path, *topics: str, by_ns: int = 20 * MS) -> Path:
    """Radars at the scanner's place, whose sweeps come some time after the scans."""
    scans = [each for each in messages(car_bag) if each[1] == CLOUD]
    found = messages(car_bag)
    for topic in topics:
        for _, kind, scan, log_ns in scans:
            message = radar(stamp_of(scan) + by_ns, scan.header.frame_id)
            found.append((topic, kind, message, log_ns + by_ns))
    return write(out, found)


@pytest.mark.parametrize("by_ms", [-20, 20])
def test_sweeps_of_radars_may_lie_outside_of_the_images(
    car_bag: Path, tmp_path: Path, by_ms: int
) -> None:
    bag = with_radars(car_bag, tmp_path / "drive", "/front/radar/points", by_ns=by_ms * MS)
    tables = to_nuscenes(bag, tmp_path / "root")
    (scene,) = tables.scene_names
    for sample in tables.samples(scene):
        assert "RADAR" in tables.sensors(sample)


def test_radars_have_names_of_their_own(car_bag: Path, tmp_path: Path) -> None:
    cameras = {t.split("/")[1] for t, _, _, _ in messages(car_bag) if t.endswith("/compressed")}
    camera = sorted(cameras)[0]
    topics = ("/a/radar/points", "/b/radar/points", f"/{camera}/points")
    tables = to_nuscenes(with_radars(car_bag, tmp_path / "drive", *topics), tmp_path / "root")
    sensors = tables.sensors(tables.samples(tables.scene_names[0])[0])
    found = {name for name, record in sensors.items() if record.modality == "radar"}
    assert found == {"A_RADAR", "B_RADAR", f"RADAR_{camera.upper()}"} or len(found) == 3
    assert found.isdisjoint(tables.cameras(tables.samples(tables.scene_names[0])[0]))


def test_labels_of_one_time_may_come_in_several_messages(car_bag: Path, tmp_path: Path) -> None:
    whole = to_nuscenes(car_bag, tmp_path / "whole")
    found: list[Message] = []
    for topic, kind, message, log_ns in messages(car_bag):
        if topic != LABELS:
            found.append((topic, kind, message, log_ns))
            continue
        for part, half in enumerate((message.detections[::2], message.detections[1::2])):
            one = BAG.make(kind, header=message.header, detections=half)
            found.append((topic, kind, one, log_ns + part))
    parts = to_nuscenes(write(tmp_path / "drive", found), tmp_path / "parts")
    for old, new in zip(whole.samples("drive"), parts.samples("drive"), strict=True):
        first, second = whole.ground_truth(old), parts.ground_truth(new)
        assert len(first.tokens) == len(second.tokens) > 0


def test_equal_log_times_cost_no_set(car_bag: Path, tmp_path: Path) -> None:
    stopped = [(topic, kind, message, 0) for topic, kind, message, _ in messages(car_bag)]
    with BagWriter(tmp_path / "drive") as writer:
        for each in stopped:
            writer.write(*each)
    plain = to_nuscenes(car_bag, tmp_path / "plain")
    assert len(to_nuscenes(tmp_path / "drive", tmp_path / "root").samples("drive")) == len(
        plain.samples("drive")
    )


def test_depth_and_empty_topics_are_no_cameras(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = messages(car_bag)
    topic = next(t for t, _, _, _ in found if t.endswith("/image_raw/compressed"))
    camera = topic.removesuffix("/image_raw/compressed")
    for name, kind, message, log_ns in messages(car_bag):
        if name == topic:
            depth = BAG.make(
                IMAGE, header=message.header, height=4, width=4, encoding="16UC1", step=8,
                data=np.zeros(32, np.uint8),
            )  # fmt: skip
            found.append(("/depth/image_rect_raw", IMAGE, depth, log_ns))
        if name == f"{camera}/camera_info":
            found.append(("/depth/camera_info", kind, message, log_ns))
    bag = write(tmp_path / "drive", found)
    assert main(["bag", "to-nuscenes", str(bag), str(tmp_path / "root"), "--plan"]) == 0
    assert "not taken: /depth/image_rect_raw: it holds depth" in capsys.readouterr().out
    named = ["--cameras", "DEPTH", "/depth/image_rect_raw"]
    assert main(["bag", "to-nuscenes", str(bag), str(tmp_path / "root"), *named]) == 2
    assert "DEPTH: /depth/image_rect_raw holds depth" in capsys.readouterr().err


def test_images_that_may_be_rectified_are_told(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = messages(car_bag)
    for _, kind, message, _ in found:
        if kind.endswith("CameraInfo"):
            message.p = np.array(message.p)
            message.p[0] *= 0.9
    bag = write(tmp_path / "drive", found)
    for options, told in (([], True), (["--images-rectified"], False)):
        command = ["bag", "to-nuscenes", str(bag), str(tmp_path / "root"), "--plan", *options]
        assert main(command) == 0
        assert ("P and K of" in capsys.readouterr().out) is told


def test_a_drive_without_a_map_is_scored_against_its_data(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its fixed frame is that of the odometry, which the data root calls its map."""
    found = []
    for topic, kind, message, log_ns in messages(car_bag):
        for stamped in getattr(message, "transforms", ()):
            if stamped.header.frame_id == "map":
                stamped.header.frame_id = "odom"
        if topic == LABELS:
            message.header.frame_id = "odom"
        found.append((topic, kind, message, log_ns))
    bag = write(tmp_path / "drive", found)
    tables = to_nuscenes(bag, tmp_path / "root", "--val", "drive")
    # boxes as a detector might have found them: the labels, in the vehicle's frame or not
    detected = [
        ("/detector/detections", kind, message, log_ns) if topic == LABELS else each
        for each in found
        for topic, kind, message, log_ns in (each,)
    ]
    run = write(tmp_path / "run", detected)
    command = ["bag", "score", str(run), "--dataroot", str(tmp_path / "root"), "--version", OURS]
    assert main(command) == 2
    assert "cannot be moved to 'map'" in capsys.readouterr().err
    assert main([*command, "--fixed-frame", "odom", "--min-coverage", "0.9"]) == 0
    assert len(tables.samples("drive")) == 4


def test_what_chooses_of_a_data_root_needs_one(
    car_bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["--scenes", "scene-0001"], ["--split", "train"], ["--version", "v1.0-mini"]):
        assert main(["bag", "score", str(car_bag), *words]) == 2
        assert f"{words[0]}: a bag is scored whole" in capsys.readouterr().err
