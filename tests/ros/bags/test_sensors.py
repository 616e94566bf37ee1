# SPDX-License-Identifier: Apache-2.0
"""LiDAR, radar, CAN bus, compression and faults of converted bags."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.nuscenes_records import SensorRecord
from labeldistill_core.errors import BagError, ConfigError, DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.camera_faults import CameraFaults
from labeldistill_ros.bags.convert import SCENE_TOPIC, ConversionOptions, convert_scene
from labeldistill_ros.bags.poses import read_transforms
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.sensors import (
    IMU_TOPIC,
    ODOMETRY_TOPIC,
    cloud_entry,
    image_topic,
    optical_frame,
    points_topic,
    radar_points,
)
from labeldistill_ros.bags.truth import read_samples
from labeldistill_ros.messages import stamp_of
from labeldistill_ros.messages.bag_family import typestore
from tests.support.nuscenes_fixture import SCENES, START_US, VERSION, ego_at

RADAR_HEAD = """# .PCD v0.7 - Point Cloud Data file format
VERSION 0.7
FIELDS x y z dyn_prop id rcs vx
SIZE 4 4 4 1 2 4 4
TYPE F F F I I F F
COUNT 1 1 1 1 1 1 1
WIDTH 2
HEIGHT 1
VIEWPOINT 0 0 0 1 0 0 0
POINTS 2
DATA binary
"""
RADAR_DTYPE = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("dyn_prop", "i1"), ("id", "<i2"), ("rcs", "<f4")]
    + [("vx", "<f4")]
)


@pytest.fixture
def tables(shared_dataroot: Path) -> NuScenesTables:
    return NuScenesTables(shared_dataroot, VERSION)


def test_lidar_points_are_the_files_bytes(tables: NuScenesTables, tmp_path: Path) -> None:
    convert_scene(tables, SCENES[0], tmp_path / "bag")
    records = tables.sensor_data(SCENES[0], modality="lidar")
    with BagReader(tmp_path / "bag") as reader:
        clouds = list(reader.messages([points_topic("LIDAR_TOP")]))
    assert len(clouds) == len(records) == 3
    for (recorded, cloud), record in zip(clouds, records, strict=True):
        assert recorded.stamp_ns == stamp_of(cloud) == record.stamp_ns
        assert cloud.header.frame_id == "lidar_top"
        assert bytes(cloud.data) == record.path.read_bytes()
        assert [f.name for f in cloud.fields] == ["x", "y", "z", "intensity", "ring"]
        assert (cloud.width, cloud.point_step, cloud.fields[4].offset) == (20, 20, 16)


def test_radar_points(tmp_path: Path) -> None:
    rows = np.array([(1, 2, 0, 3, -7, 8.5, -4), (5, 6, 0, 1, 300, -2, 2)], RADAR_DTYPE)
    whole = RADAR_HEAD.encode() + rows.tobytes()
    found = radar_points(tmp_path / "a.pcd", whole)
    assert found.dtype.names == RADAR_DTYPE.names
    assert found.tolist() == rows.tolist()
    with pytest.raises(DataError, match="a.pcd has 40 bytes behind its head, 2 points need 46"):
        radar_points(tmp_path / "a.pcd", whole[:-6])
    with pytest.raises(DataError, match="is no PCD file as nuScenes' radars have it"):
        radar_points(tmp_path / "a.pcd", b"\x00\x01 nonsense")


def test_a_radar_without_echo_and_points_without_place(tmp_path: Path) -> None:
    """As the devkit reads them: no number in the first point means no points at all."""
    rows = np.array([(np.nan, np.nan, 0, 3, -7, 8.5, -4), (5, 6, 0, 1, 300, -2, 2)], RADAR_DTYPE)
    path = tmp_path / "a.pcd"
    for order, width, dense in ((rows, 0, True), (rows[::-1], 2, False)):
        path.write_bytes(RADAR_HEAD.encode() + order.tobytes())
        still = Transform.identity("ego", "RADAR_FRONT")
        names = ("token", "sample", "RADAR_FRONT", "radar")
        record = SensorRecord(*names, 7, True, path, still, still, np.zeros(0), 0, 0)
        entry = cloud_entry(record)
        cloud: Any = typestore().deserialize_cdr(b"".join(entry.build()), entry.msgtype)
        assert (cloud.width, len(cloud.data), cloud.is_dense) == (width, 23 * width, dense)


def test_a_damaged_scan_is_named(dataroot: Path, tmp_path: Path) -> None:
    tables = NuScenesTables(dataroot, VERSION)
    path = tables.lidar(tables.samples(SCENES[0])[1]).path
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=f"{path.name} has 397 bytes, which is no scan"):
        convert_scene(tables, SCENES[0], tmp_path / "bag")
    path.write_bytes(b"")
    with pytest.raises(DataError, match="has 0 bytes"):
        convert_scene(tables, SCENES[0], tmp_path / "bag")
    assert not (tmp_path / "bag").exists()
    convert_scene(tables, SCENES[0], tmp_path / "bag", ConversionOptions(clouds=False))


def test_can_bus(dataroot: Path, tmp_path: Path) -> None:
    (dataroot / "can_bus").mkdir()
    q, zero = [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    imu = [
        {"utime": START_US + t, "q": q, "rotation_rate": [0.0, 0.0, 0.2], "linear_accel": [t, 0, 9]}
        for t in (-9_000_000, 10_000, 20_000)
    ]
    pose = [
        {"utime": START_US + 5_000, "pos": [600.0, 1600.0, 0.5], "orientation": q}
        | {"vel": [5.0, 0.0, 0.0], "rotation_rate": zero, "accel": zero}
    ]
    (dataroot / f"can_bus/{SCENES[0]}_ms_imu.json").write_text(json.dumps(imu))
    (dataroot / f"can_bus/{SCENES[0]}_pose.json").write_text(json.dumps(pose))
    tables = NuScenesTables(dataroot, VERSION)
    done = convert_scene(tables, SCENES[0], tmp_path / "bag")
    assert (done.counts[IMU_TOPIC], done.counts[ODOMETRY_TOPIC]) == (2, 1)  # not the early one
    with BagReader(tmp_path / "bag") as reader:
        first = next(reader.messages([IMU_TOPIC]))[1]
        where = next(reader.messages([ODOMETRY_TOPIC]))[1]
    assert (stamp_of(first), first.linear_acceleration.z) == ((START_US + 10_000) * 1000, 9)
    assert (where.header.frame_id, where.child_frame_id) == ("map", "base_link")
    assert (where.pose.pose.position.y, where.twist.twist.linear.x) == (1600.0, 5.0)
    assert IMU_TOPIC not in convert_scene(tables, SCENES[1], tmp_path / "other").counts
    odd = json.dumps([{**pose[0], "orientation": "abcd"}])
    for text in ('[{"utime": 1}]', '[{"utime": 1e999}]', "[" * 100_000, odd, "[5]", "\x00"):
        (dataroot / f"can_bus/{SCENES[0]}_pose.json").write_text(text)
        with pytest.raises(DataError, match="_pose.json is no table of the CAN bus expansion"):
            convert_scene(tables, SCENES[0], tmp_path / "third")


def test_scene_description_options_and_time(tables: NuScenesTables, tmp_path: Path) -> None:
    start_ns = 1_900_000_000_000_000_000
    options = ConversionOptions(sweeps=False, clouds=False, truth=False, start_ns=start_ns)
    about = {"location": "nowhere"}
    convert_scene(tables, SCENES[0], tmp_path / "bag", options, about=about)
    with BagReader(tmp_path / "bag") as reader:
        stamps = [r.stamp_ns for r in reader.raw()]
        told = json.loads(next(reader.messages([SCENE_TOPIC]))[1].data)
        front = [stamp_of(m) for _, m in reader.messages([image_topic("CAM_FRONT")])]
        transforms = read_transforms(reader)
        assert not [t for t in reader.topics if "ground_truth" in t or "points" in t]
    assert stamps[0] == start_ns
    assert (told["scene"], told["location"]) == (SCENES[0], "nowhere")
    assert told["options"]["sweeps"] is False
    true = [r.stamp_ns for r in tables.sensor_data(SCENES[0], modality="camera", sweeps=False)]
    shift_ns = front[0] - min(s for s in true if s % 500_000_000 == 465_000_000)
    assert front == [START_US * 1000 - 35_000_000 + i * 500_000_000 + shift_ns for i in range(3)]
    pose = transforms.lookup("map", "base_link", front[1])
    np.testing.assert_allclose(pose.translation, ego_at(0, (front[1] - shift_ns) // 1000)[0])


def test_zstd_where_it_helps(tmp_path: Path, dataroot: Path) -> None:
    tables = NuScenesTables(dataroot, VERSION)
    for record in tables.sensor_data(SCENES[0], modality="lidar"):
        record.path.write_bytes(bytes(2_000_000))
    noise = np.random.default_rng(0).bytes(1_500_000)
    for record in tables.sensor_data(SCENES[0], modality="camera"):
        record.path.write_bytes(noise)
    plain = convert_scene(tables, SCENES[0], tmp_path / "plain")
    small = convert_scene(tables, SCENES[0], tmp_path / "small", ConversionOptions(zstd=True))
    assert plain.counts == small.counts
    with (tmp_path / "small/small.mcap").open("rb") as file:
        summary = make_reader(file).get_summary()
    assert summary is not None
    kinds = [chunk.compression for chunk in summary.chunk_indexes]
    assert {"", "zstd"} == set(kinds)
    with BagReader(tmp_path / "plain") as one, BagReader(tmp_path / "small") as other:
        for a, b in zip(one.raw(), other.raw(), strict=True):
            if a.topic != SCENE_TOPIC:
                assert a == b
    with pytest.raises(BagError, match="zstd is for the storage mcap"):
        convert_scene(
            tables, SCENES[0], tmp_path / "x", ConversionOptions(zstd=True, storage="sqlite3")
        )


def test_a_camera_that_is_killed(tables: NuScenesTables, tmp_path: Path) -> None:
    faults = CameraFaults(kill_camera=("CAM_BACK@0.5", "CAM_FRONT"))
    done = convert_scene(tables, SCENES[0], tmp_path / "bag", ConversionOptions(faults=faults))
    counts = {c: done.counts.get(image_topic(c), 0) for c in CAMERAS}
    assert counts == {c: {"CAM_BACK": 2, "CAM_FRONT": 0}.get(c, 5) for c in CAMERAS}
    assert done.images_lost == 8
    with BagReader(tmp_path / "bag") as reader:
        samples = read_samples(reader)
    assert [len(sample.camera_stamps_ns) for sample in samples] == [5, 4, 4]


def test_drops_and_jitter_repeat(tables: NuScenesTables, tmp_path: Path) -> None:
    faults = CameraFaults(drop=0.3, jitter_ms=4.0, seed=5)
    a, b = (
        convert_scene(tables, SCENES[0], tmp_path / n, ConversionOptions(faults=faults))
        for n in ("a", "b")
    )
    assert a.counts == b.counts
    assert 2 <= a.images_lost <= 16
    true = {r.stamp_ns for r in tables.sensor_data(SCENES[0], modality="camera")}
    with BagReader(tmp_path / "a") as one, BagReader(tmp_path / "b") as other:
        topics = [t for t in one.topics if "image" in t]
        mine = [stamp_of(m) for _, m in one.messages(topics)]
        assert mine == [stamp_of(m) for _, m in other.messages(topics)]
    errors_ms = [min((s - t for t in true), key=abs) / 1e6 for s in mine]
    assert 1.0 < np.std(errors_ms) < 8.0


def test_miscalibration(tables: NuScenesTables, tmp_path: Path) -> None:
    faults = CameraFaults(miscalibrate_deg=1.5)
    convert_scene(tables, SCENES[0], tmp_path / "bag", ConversionOptions(faults=faults))
    with BagReader(tmp_path / "bag") as reader:
        transforms = read_transforms(reader)
    records = tables.sensors(tables.samples(SCENES[0])[0])
    for name, record in records.items():
        camera = name in CAMERAS
        frame = optical_frame(name) if camera else name.lower()
        found = transforms.lookup("base_link", frame, record.stamp_ns)
        true = record.ego_from_sensor
        turned = Transform("ego", name, found.rotation, found.translation).inverse @ true
        angle = math.degrees(math.acos(np.clip((np.trace(turned.rotation) - 1) / 2, -1, 1)))
        assert angle == pytest.approx(1.5 if camera else 0.0, abs=1e-5)
        np.testing.assert_allclose(found.translation, true.translation, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": 1.5}, "--drop is 1.5"),
        ({"jitter_ms": -1.0}, "--jitter is -1"),
        ({"jitter_ms": math.nan}, "--jitter is nan"),
        ({"jitter_ms": math.inf}, "--jitter is inf"),
        ({"miscalibrate_deg": math.nan}, "--miscalibrate is nan"),
        ({"kill_camera": ("CAM_BACK@inf",)}, "write NAME or NAME@SECONDS"),
        ({"kill_camera": ("CAM_TOP",)}, "'CAM_TOP': no such camera"),
        ({"kill_camera": ("CAM_BACK@soon",)}, "write NAME or NAME@SECONDS"),
    ],
)
def test_impossible_faults(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CameraFaults(**change).require(CAMERAS)  # type: ignore[arg-type]
