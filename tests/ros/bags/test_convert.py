# SPDX-License-Identifier: Apache-2.0
"""nuScenes scenes to bags. No DDS in here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.typesys import get_types_from_msg

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import BagError, DataError
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.convert import ConversionOptions, convert_scene
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.sensors import image_topic, info_topic, optical_frame
from labeldistill_ros.bags.truth import (
    MARKERS_TOPIC,
    read_samples,
)
from labeldistill_ros.messages import stamp_of
from labeldistill_ros.messages.bag_family import typestore
from tests.support.bag_rig import profile_of, truths_of
from tests.support.nuscenes_fixture import HEIGHT, SCENES, VERSION, WIDTH, ego_at


@pytest.fixture
def tables(dataroot: Path) -> NuScenesTables:
    return NuScenesTables(dataroot, VERSION)


@pytest.mark.parametrize("name", ["Detection3DArray", "LabelInfo"])
def test_types_are_those_of_the_interface_packages(repository: Path, name: str) -> None:
    store = typestore()
    for path in (repository / "interfaces/vision_msgs/msg").glob("*.msg"):
        kind = f"vision_msgs/msg/{path.stem}"
        if kind in store.fielddefs:
            fields = get_types_from_msg(path.read_text(), kind)[kind][1]
            assert store.fielddefs[kind][1] == fields, kind
    assert f"vision_msgs/msg/{name}" in store.fielddefs


def test_images_are_the_files_bytes_at_their_true_time(bag: Path, shared_dataroot: Path) -> None:
    records = NuScenesTables(shared_dataroot, VERSION).sensor_data(SCENES[0], modality="camera")
    wanted = {(image_topic(r.channel), r.stamp_ns): r for r in records}
    with BagReader(bag) as reader:
        topics = [image_topic(camera) for camera in CAMERAS]
        found = list(reader.messages(topics))
    assert len(found) == len(wanted) == 30
    for recorded, image in found:
        record = wanted[recorded.topic, recorded.stamp_ns]
        assert bytes(image.data) == record.path.read_bytes()
        assert stamp_of(image) == record.stamp_ns
        assert (image.format, image.header.frame_id) == ("jpeg", optical_frame(record.channel))


def test_messages_are_in_the_order_of_time(bag: Path) -> None:
    with BagReader(bag) as reader:
        stamps = [recorded.stamp_ns for recorded in reader.raw()]
        assert stamps == sorted(stamps)
        first = next(reader.raw())
    assert first.topic == "/tf_static"


def test_each_image_has_its_calibration(bag: Path) -> None:
    with BagReader(bag) as reader:
        for camera in CAMERAS:
            images = [r.stamp_ns for r in reader.raw([image_topic(camera)])]
            infos = list(reader.messages([info_topic(camera)]))
            assert [stamp_of(info) for _, info in infos] == images
            info = infos[0][1]
            assert (info.width, info.height) == (WIDTH, HEIGHT)
            assert info.header.frame_id == optical_frame(camera)
            np.testing.assert_allclose(info.k, [126.6, 0, 81.6, 0, 126.6, 49.1, 0, 0, 1])
            np.testing.assert_array_equal(info.r, np.eye(3).ravel())
            np.testing.assert_array_equal(
                info.p.reshape(3, 4), np.hstack([info.k.reshape(3, 3), np.zeros((3, 1))])
            )
            assert info.distortion_model == "plumb_bob"
            assert not info.d.any()


def test_transforms(bag: Path, shared_dataroot: Path) -> None:
    tables = NuScenesTables(shared_dataroot, VERSION)
    with BagReader(bag) as reader:
        assert profile_of(reader, "/tf_static").durability == QosDurability.TRANSIENT_LOCAL
        assert profile_of(reader, "/tf_static").reliability == QosReliability.RELIABLE
        assert profile_of(reader, "/tf").durability == QosDurability.VOLATILE
        ((_, static),) = reader.messages(["/tf_static"])
        moving = [m.transforms[0] for _, m in reader.messages(["/tf"])]
    mounted = {t.child_frame_id: t for t in static.transforms}
    assert set(mounted) == {*map(optical_frame, CAMERAS), "lidar_top"}
    for camera, record in tables.cameras(tables.samples(SCENES[0])[0]).items():
        stamped = mounted[optical_frame(camera)]
        assert stamped.header.frame_id == "base_link"
        q, t = stamped.transform.rotation, stamped.transform.translation
        found = Transform.from_quaternion("ego", camera, (q.w, q.x, q.y, q.z), (t.x, t.y, t.z))
        np.testing.assert_allclose(found.matrix, record.ego_from_sensor.matrix, atol=1e-12)
    stamps = sorted({record.stamp_ns for record in tables.sensor_data(SCENES[0])})
    assert [stamp_of(t) for t in moving] == stamps
    for stamped in moving:
        assert (stamped.header.frame_id, stamped.child_frame_id) == ("map", "base_link")
        position, rotation = ego_at(0, stamp_of(stamped) // 1000)
        t, q = stamped.transform.translation, stamped.transform.rotation
        np.testing.assert_allclose([t.x, t.y, t.z], position)
        np.testing.assert_allclose([q.w, q.x, q.y, q.z], rotation, atol=1e-12)


def test_ground_truth_survives(bag: Path, shared_dataroot: Path) -> None:
    with BagReader(bag) as reader:
        samples = read_samples(reader)
        markers = [m for _, m in reader.messages([MARKERS_TOPIC])]
    wanted = truths_of(shared_dataroot)
    assert len(samples) == len(wanted) == len(markers) == 3
    for sample, truth in zip(samples, wanted, strict=True):
        torch.testing.assert_close(
            sample.truth.boxes.values, truth.boxes.values, rtol=0, atol=1e-9, equal_nan=True
        )
        assert torch.equal(sample.truth.boxes.labels, truth.boxes.labels)
        assert (sample.scene, set(sample.camera_stamps_ns)) == (SCENES[0], set(CAMERAS))
        for name in (
            "sample_token",
            "stamp_ns",
            "tokens",
            "instances",
            "num_lidar_pts",
            "num_radar_pts",
            "attributes",
            "visibility",
        ):
            assert getattr(sample.truth, name) == getattr(truth, name), name
        np.testing.assert_array_equal(sample.truth.bicycle_racks, truth.bicycle_racks)
        np.testing.assert_allclose(
            sample.truth.fixed_from_ego.matrix, truth.fixed_from_ego.matrix, atol=1e-12
        )
    first = markers[0].markers
    assert first[0].action == 3
    boxes = [m for m in first if m.type == 5]
    assert len(boxes) == len(wanted[0].boxes)
    corners = np.array([[p.x, p.y, p.z] for p in boxes[0].points])
    assert len(corners) == 24
    np.testing.assert_allclose(corners.mean(axis=0), wanted[0].boxes.centers[0], atol=1e-6)
    assert sum(m.type == 0 and m.ns.endswith("velocity") for m in first) == 2


def test_without_sweeps(shared_dataroot: Path, tmp_path: Path) -> None:
    tables = NuScenesTables(shared_dataroot, VERSION)
    done = convert_scene(tables, SCENES[1], tmp_path / "bag", ConversionOptions(sweeps=False))
    assert (done.samples, done.images, done.samples_left_out) == (3, 18, 0)


def test_sqlite3(shared_dataroot: Path, tmp_path: Path) -> None:
    tables = NuScenesTables(shared_dataroot, VERSION)
    done = convert_scene(tables, SCENES[0], tmp_path / "bag", ConversionOptions(storage="sqlite3"))
    assert list((tmp_path / "bag").glob("*.db3"))
    with BagReader(tmp_path / "bag") as reader:
        assert reader.counts() == done.counts
        assert len(read_samples(reader)) == 3


def test_a_partial_data_root(
    tables: NuScenesTables, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = tables.samples(SCENES[0])
    tables.cameras(tokens[1])["CAM_BACK"].path.unlink()
    sweep = next(r for r in tables.sensor_data(SCENES[0], modality="camera") if not r.is_key_frame)
    sweep.path.unlink()
    done = convert_scene(tables, SCENES[0], tmp_path / "bag")
    assert (done.samples, done.samples_left_out) == (2, 1)
    assert (done.images, done.images_left_out) == (23, 7)
    assert "1 of 3 samples and 7 of 30 images left out" in caplog.text
    with BagReader(tmp_path / "bag") as reader:
        found = [sample.truth.sample_token for sample in read_samples(reader)]
    assert found == [tokens[0], tokens[2]]
    for record in tables.sensor_data(SCENES[0], modality="camera"):
        record.path.unlink(missing_ok=True)
    with pytest.raises(DataError, match="none of its 3 samples has all its images"):
        convert_scene(tables, SCENES[0], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_unknown_scene(tables: NuScenesTables, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no scene 'scene-7'.*scene-0001, scene-0002"):
        convert_scene(tables, "scene-7", tmp_path / "bag")


def test_a_bag_is_not_overwritten_unless_asked(tables: NuScenesTables, tmp_path: Path) -> None:
    out = tmp_path / "bag"
    convert_scene(tables, SCENES[0], out)
    before = (out / "bag.mcap").read_bytes()
    with pytest.raises(BagError, match="bag is there already; use --force"):
        convert_scene(tables, SCENES[1], out)
    assert (out / "bag.mcap").read_bytes() == before
    convert_scene(tables, SCENES[1], out, ConversionOptions(force=True))
    with BagReader(out) as reader:
        assert read_samples(reader)[0].scene == SCENES[1]
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis.txt").write_text("dear to somebody")
    with pytest.raises(BagError, match="is no bag, so it is not replaced"):
        convert_scene(tables, SCENES[0], tmp_path / "work", ConversionOptions(force=True))
    assert (tmp_path / "work/thesis.txt").exists()


def test_a_failed_conversion_leaves_nothing_and_the_old_bag(
    tables: NuScenesTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    convert_scene(tables, SCENES[0], folder / "bag")
    before = (folder / "bag/bag.mcap").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labeldistill_ros.bags.convert.truth_markers", full)
    with pytest.raises(BagError, match="cannot write .*No space left"):
        convert_scene(tables, SCENES[1], folder / "bag", ConversionOptions(force=True))
    assert [path.name for path in folder.iterdir()] == ["bag"]
    assert (folder / "bag/bag.mcap").read_bytes() == before
