# SPDX-License-Identifier: Apache-2.0
"""Other ways in which vehicles tell of images, motion and labels."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nuscenes.utils.data_classes import RadarPointCloud

from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.dataset.clouds import radar_file
from labeldistill_ros.bags.dataset.topics import RADAR_FIELDS
from labeldistill_ros.bags.reader import BagReader, Recorded
from labeldistill_ros.bags.sensors import radar_points
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.cli import main
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.geometry import pose, transform_stamped
from labeldistill_ros.messages.stamps import header, stamp_of
from labeldistill_ros.messages.tables import cloud_message
from tests.support.other_car import edited

OURS = "v1.0-trainval"
LABELS = "/ground_truth/detections"


def converted(bag: Path, root: Path, *options: str) -> NuScenesTables:
    words = ["bag", "to-nuscenes", str(bag), str(root), "--workers", "1", *options]
    assert main(words) == 0
    return NuScenesTables(root, OURS)


@pytest.fixture
def plain(car_bag: Path, tmp_path: Path) -> NuScenesTables:
    return converted(car_bag, tmp_path / "plain")


def test_raw_images_become_jpeg(car_bag: Path, plain: NuScenesTables, tmp_path: Path) -> None:
    out = tmp_path / "drive"
    with BagReader(car_bag) as reader, BagWriter(out) as writer:
        for recorded in reader.raw():
            if recorded.topic != "/left/image_raw/compressed":
                writer.write(recorded.topic, recorded.msgtype, recorded.data, recorded.stamp_ns)
                continue
            message = reader.decoded(recorded)
            pixels = decode_jpeg(bytes(message.data))[..., ::-1]
            raw = BAG.make(
                "sensor_msgs/msg/Image",
                header=message.header,
                height=64,
                width=96,
                encoding="bgr8",
                step=288,
                data=pixels.tobytes(),
            )
            writer.write("/left/image_raw", "sensor_msgs/msg/Image", raw, recorded.stamp_ns)
    tables = converted(out, tmp_path / "root", "--jpeg-quality", "99")
    for old, new in zip(plain.samples("drive"), tables.samples("drive"), strict=True):
        first = plain.frame_set(old, ["LEFT"]).by_name["LEFT"].pixels.astype(int)
        second = tables.frame_set(new, ["LEFT"]).by_name["LEFT"].pixels.astype(int)
        assert np.abs(first - second).mean() < 2


def by_odometry(body: str, out: Path, car_bag: Path) -> Path:
    """The vehicle's motion as odometry of a body, and no transforms that tell it."""
    base_from_imu = Transform.from_quaternion(
        "base_link", "imu", (0.5**0.5, 0.0, 0.0, 0.5**0.5), (0.3, 0.1, 0.5)
    )
    with BagReader(car_bag) as reader, BagWriter(out) as writer:
        for recorded in reader.raw():
            message: Any = reader.decoded(recorded)
            if recorded.topic == "/tf":
                (moved,) = message.transforms
                turn, place = moved.transform.rotation, moved.transform.translation
                fixed_from_body = Transform.from_quaternion(
                    "odom",
                    "base_link",
                    (turn.w, turn.x, turn.y, turn.z),
                    (place.x, place.y, place.z),
                )
                if body == "imu":
                    fixed_from_body = fixed_from_body @ base_from_imu
                where = pose(
                    fixed_from_body.translation.tolist(), fixed_from_body.quaternion.tolist(), BAG
                )
                message = BAG.make(
                    "nav_msgs/msg/Odometry",
                    header=header(stamp_of(moved), "odom", BAG),
                    child_frame_id=body,
                    pose=BAG.make("geometry_msgs/msg/PoseWithCovariance", pose=where),
                )
                kind = "nav_msgs/msg/Odometry"
                writer.write("/odometry", kind, message, recorded.stamp_ns)
                continue
            if recorded.topic == "/tf_static" and body == "imu":
                mounted = transform_stamped(
                    base_from_imu, recorded.stamp_ns, "base_link", "imu", BAG
                )
                message.transforms.append(mounted)
            if recorded.topic == LABELS:
                message.header.frame_id = "odom"
            writer.write(recorded.topic, recorded.msgtype, message, recorded.stamp_ns)
    return out


@pytest.mark.parametrize("body", ["base_link", "", "imu"])
def test_odometry_tells_the_motion(
    body: str, car_bag: Path, plain: NuScenesTables, tmp_path: Path
) -> None:
    tables = converted(by_odometry(body, tmp_path / "drive", car_bag), tmp_path / "root")
    for old, new in zip(plain.samples("drive"), tables.samples("drive"), strict=True):
        for name, record in tables.sensors(new).items():
            known = plain.sensors(old)[name]
            np.testing.assert_allclose(
                record.fixed_from_ego.matrix, known.fixed_from_ego.matrix, rtol=0, atol=1e-6
            )


def test_labels_in_the_vehicles_frame(car_bag: Path, plain: NuScenesTables, tmp_path: Path) -> None:
    """What a detector on the vehicle publishes, under a name of its own and without ids."""
    poses = {plain.stamp_ns(t): plain.lidar(t).fixed_from_ego for t in plain.samples("drive")}

    def seen(recorded: Recorded, message: Any) -> Any:
        if recorded.topic != LABELS:
            return message
        ego_from_map = poses[stamp_of(message)].inverse
        for detection in message.detections:
            center = detection.bbox.center
            turn, place = center.orientation, center.position
            box = Transform.from_quaternion(
                "map", "box", (turn.w, turn.x, turn.y, turn.z), (place.x, place.y, place.z)
            )
            moved = ego_from_map @ box
            detection.id = ""
            new = pose(moved.translation.tolist(), moved.quaternion.tolist(), BAG)
            center.position, center.orientation = new.position, new.orientation
        message.header = replace(message.header, frame_id="base_link")
        return message

    first = edited(car_bag, tmp_path / "a" / "drive", seen)
    tables = converted(first, tmp_path / "root")
    for old, new in zip(plain.samples("drive"), tables.samples("drive"), strict=True):
        a, b = plain.ground_truth(old), tables.ground_truth(new)
        np.testing.assert_allclose(b.boxes.values[:, :7], a.boxes.values[:, :7], atol=1e-3)
        assert len(set(b.instances)) == len(b.instances)


def test_labels_can_be_left_out(car_bag: Path, tmp_path: Path) -> None:
    tables = converted(car_bag, tmp_path / "root", "--labels", "")
    tokens = tables.samples("drive")
    assert not any(tables.classes(token) for token in tokens)
    # key frames then follow the cameras, every half second
    steps = np.diff([tables.stamp_ns(token) for token in tokens]) / 1e9
    np.testing.assert_allclose(steps, 0.5, atol=0.06)


def test_radars_become_files_of_the_devkit(car_bag: Path, tmp_path: Path) -> None:
    kinds = {"dyn_prop": "<i1", "id": "<i2", "is_quality_valid": "<i1", "ambig_state": "<i1"}
    kinds |= dict.fromkeys(("x_rms", "y_rms", "invalid_state", "pdh0", "vx_rms", "vy_rms"), "<i1")
    rows = np.zeros(3, [(name, kinds.get(name, "<f4")) for name in RADAR_FIELDS])
    rows["x"], rows["id"], rows["vx_comp"] = [10, 20, 30], [1, 2, 3], 2.5
    rows["is_quality_valid"], rows["ambig_state"] = 1, 3
    out = tmp_path / "drive"
    with BagReader(car_bag) as reader, BagWriter(out) as writer:
        for recorded in reader.raw():
            writer.write(recorded.topic, recorded.msgtype, recorded.data, recorded.stamp_ns)
            if recorded.topic == "/lidar_top/points":
                stamp_ns = stamp_of(reader.decoded(recorded)) + 7_000_000
                cloud = cloud_message(rows, stamp_ns, "lidar_top", BAG)
                writer.write("/radar_front/points", recorded.msgtype, cloud, recorded.stamp_ns)
    tables = converted(out, tmp_path / "root")
    record = tables.sensors(tables.samples("drive")[1])["RADAR_FRONT"]
    assert record.modality == "radar"
    assert abs(record.stamp_ns - tables.stamp_ns(tables.samples("drive")[1])) == 7_000_000
    np.testing.assert_array_equal(radar_points(record.path, record.read()), rows)
    found = RadarPointCloud.from_file(str(record.path)).points
    assert found[0].tolist() == [10, 20, 30]
    # silence is a file too
    silent = radar_file(cloud_message(rows[:0], 1, "radar", BAG))
    assert len(radar_points(Path("silent"), silent)) == 0
