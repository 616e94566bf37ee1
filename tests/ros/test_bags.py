# SPDX-License-Identifier: Apache-2.0
"""Conversion, reading and scoring of bags. No DDS in here."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nuscenes_fixture import HEIGHT, SCENES, VERSION, WIDTH, ego_at
from rclpy.serialization import serialize_message
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.typesys import get_types_from_msg

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import CAMERAS
from labeldistill_core.cli import main
from labeldistill_core.data.images import decode_jpeg
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.nuscenes_records import GroundTruth
from labeldistill_core.errors import BagError, DataError
from labeldistill_core.evaluation.metrics import evaluate
from labeldistill_core.evaluation.results import read_results, result_boxes
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.convert import convert_scene, image_topic, info_topic, optical_frame
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.score import match, score_bag
from labeldistill_ros.bags.truth import (
    MARKERS_TOPIC,
    SAMPLE_TOPIC,
    TRUTH_TOPIC,
    detections_message,
    read_samples,
)
from labeldistill_ros.bags.types import header, message, stamp_of, typestore
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.messages import table_message

ARRAY = "vision_msgs/msg/Detection3DArray"


@pytest.fixture
def tables(dataroot: Path) -> NuScenesTables:
    return NuScenesTables(dataroot, VERSION)


@pytest.fixture(scope="module")
def bag(shared_dataroot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first scene, with sweeps."""
    out = tmp_path_factory.mktemp("bags") / "first"
    convert_scene(NuScenesTables(shared_dataroot, VERSION), SCENES[0], out)
    return out


def truths_of(root: Path) -> list[GroundTruth]:
    tables = NuScenesTables(root, VERSION)
    return [tables.ground_truth(token) for token in tables.samples(SCENES[0])]


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
    records = NuScenesTables(shared_dataroot, VERSION).camera_data(SCENES[0])
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
        assert reader.qos("/tf_static").durability == QosDurability.TRANSIENT_LOCAL
        assert reader.qos("/tf_static").reliability == QosReliability.RELIABLE
        assert reader.qos("/tf").durability == QosDurability.VOLATILE
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
    assert [stamp_of(t) for t in moving] == [s for s, _ in tables.ego_poses(SCENES[0])]
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
    done = convert_scene(tables, SCENES[1], tmp_path / "bag", sweeps=False)
    assert (done.samples, done.images, done.samples_left_out) == (3, 18, 0)


def test_sqlite3(shared_dataroot: Path, tmp_path: Path) -> None:
    tables = NuScenesTables(shared_dataroot, VERSION)
    done = convert_scene(tables, SCENES[0], tmp_path / "bag", storage="sqlite3")
    assert list((tmp_path / "bag").glob("*.db3"))
    with BagReader(tmp_path / "bag") as reader:
        assert reader.counts() == done.counts
        assert len(read_samples(reader)) == 3


def test_a_partial_data_root(
    tables: NuScenesTables, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = tables.samples(SCENES[0])
    tables.cameras(tokens[1])["CAM_BACK"].path.unlink()
    sweep = next(r for r in tables.camera_data(SCENES[0]) if not r.is_key_frame)
    sweep.path.unlink()
    done = convert_scene(tables, SCENES[0], tmp_path / "bag")
    assert (done.samples, done.samples_left_out) == (2, 1)
    assert (done.images, done.images_left_out) == (23, 7)
    assert "1 of 3 samples and 7 of 30 images left out" in caplog.text
    with BagReader(tmp_path / "bag") as reader:
        found = [sample.truth.sample_token for sample in read_samples(reader)]
    assert found == [tokens[0], tokens[2]]
    for record in tables.camera_data(SCENES[0]):
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
    convert_scene(tables, SCENES[1], out, force=True)
    with BagReader(out) as reader:
        assert read_samples(reader)[0].scene == SCENES[1]
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis.txt").write_text("dear to somebody")
    with pytest.raises(BagError, match="is no bag, so it is not replaced"):
        convert_scene(tables, SCENES[0], tmp_path / "work", force=True)
    assert (tmp_path / "work/thesis.txt").exists()


def test_a_failed_conversion_leaves_nothing_and_the_old_bag(
    tables: NuScenesTables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    convert_scene(tables, SCENES[0], folder / "bag")
    before = (folder / "bag/bag.mcap").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labeldistill_ros.bags.convert.markers_message", full)
    with pytest.raises(OSError, match="No space left"):
        convert_scene(tables, SCENES[1], folder / "bag", force=True)
    assert [path.name for path in folder.iterdir()] == ["bag"]
    assert (folder / "bag/bag.mcap").read_bytes() == before


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
        BagError, match=r"lacks the topic /detector/detections; it has: .*/nuscenes/sample, /tf"
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


def write_detections(
    out: Path,
    truths: list[GroundTruth],
    *,
    frame: str = "map",
    shift_ns: int = 0,
    table: bool = True,
) -> Path:
    """Ground truth as the detector publishes it."""
    with BagWriter(out) as writer:
        for truth in truths:
            stamp_ns = truth.stamp_ns + shift_ns
            boxes = truth.boxes
            if frame == "base_link":
                ego = ego_at(0, stamp_ns // 1000)
                map_from_ego = Transform.from_quaternion("map", "base_link", ego[1], ego[0])
                boxes = boxes.transformed(map_from_ego.inverse)
            array = detections_message(boxes, stamp_ns)
            writer.write("/detector/detections", ARRAY, array, stamp_ns)
            if table:
                cloud = bytes(serialize_message(table_message(boxes, stamp_ns)))
                kind = "sensor_msgs/msg/PointCloud2"
                writer.write("/detector/detections_table", kind, cloud, stamp_ns)
    return out


@pytest.mark.parametrize("frame", ["map", "base_link"])
@pytest.mark.parametrize("shift_ns", [0, -35_000_000])
def test_ground_truth_as_detections_scores_as_ground_truth(
    bag: Path, shared_dataroot: Path, tmp_path: Path, frame: str, shift_ns: int
) -> None:
    truths = truths_of(shared_dataroot)
    found = score_bag(bag, write_detections(tmp_path / "d", truths, frame=frame, shift_ns=shift_ns))
    wanted = evaluate(
        truths, {t.sample_token: result_boxes(t.sample_token, t.boxes) for t in truths}
    )
    assert found.metrics.mean_ap == pytest.approx(wanted.mean_ap, abs=1e-12)
    assert found.metrics.nds == pytest.approx(wanted.nds, abs=1e-6)
    assert found.velocities
    assert found.coverage.matched == found.coverage.samples == found.coverage.sets == 3
    # the stamp of CAM_FRONT, 35 ms before the scan, is the sample's own
    assert found.coverage.largest_gap_ms == 0


def test_a_sample_without_boxes_is_missed(bag: Path, shared_dataroot: Path, tmp_path: Path) -> None:
    truths = truths_of(shared_dataroot)
    whole = score_bag(bag, write_detections(tmp_path / "a", truths))
    found = score_bag(bag, write_detections(tmp_path / "b", truths[:2]))
    assert found.coverage.missed == (truths[2].sample_token,)
    assert found.metrics.samples == 3
    assert found.metrics.mean_ap < whole.metrics.mean_ap
    late = score_bag(bag, write_detections(tmp_path / "c", truths, shift_ns=120_000_000))
    assert late.coverage.matched == 0
    assert late.metrics.mean_ap == 0


def test_velocities_come_from_the_table(bag: Path, shared_dataroot: Path, tmp_path: Path) -> None:
    truths = truths_of(shared_dataroot)
    with_ = score_bag(bag, write_detections(tmp_path / "a", truths))
    without = score_bag(bag, write_detections(tmp_path / "b", truths, table=False))
    assert without.metrics.mean_ap == with_.metrics.mean_ap
    assert without.metrics.tp_errors["vel_err"] > with_.metrics.tp_errors["vel_err"] + 0.1
    assert "detections_table was not recorded" in without.table()


def test_boxes_in_an_unknown_frame(bag: Path, shared_dataroot: Path, tmp_path: Path) -> None:
    truths = [replace(t, boxes=replace(t.boxes, frame="sofa")) for t in truths_of(shared_dataroot)]
    detections = write_detections(tmp_path / "d", truths)
    with pytest.raises(BagError, match="boxes at .* are in 'sofa' and cannot be moved to 'map'"):
        score_bag(bag, detections)


def test_an_unknown_class(bag: Path, shared_dataroot: Path, tmp_path: Path) -> None:
    truth = truths_of(shared_dataroot)[0]
    array = detections_message(truth.boxes, truth.stamp_ns)
    array.detections[0].results[0].hypothesis.class_id = "tram"
    with BagWriter(tmp_path / "d") as writer:
        writer.write("/detector/detections", ARRAY, array, truth.stamp_ns)
    with pytest.raises(BagError, match="/detector/detections: class 'tram' is none of car"):
        score_bag(bag, tmp_path / "d")


def test_samples_of_another_making(tmp_path: Path) -> None:
    boxes = Boxes3D.empty("map")
    with BagWriter(tmp_path / "bag") as writer:
        text = message("std_msgs/msg/String", data='{"sample_token": "a"}')
        writer.write(SAMPLE_TOPIC, "std_msgs/msg/String", text, 5)
        writer.write(TRUTH_TOPIC, ARRAY, detections_message(boxes, 5), 5)
    with (
        BagReader(tmp_path / "bag") as reader,
        pytest.raises(BagError, match="/nuscenes/sample at 5 ns is not as this version writes it"),
    ):
        read_samples(reader)


def test_latencies_and_outcomes_come_from_the_status(
    bag: Path, shared_dataroot: Path, tmp_path: Path
) -> None:
    truths = truths_of(shared_dataroot)
    kind = "diagnostic_msgs/msg/DiagnosticArray"

    def status(stamp_ns: int, **values: object) -> Any:
        pairs = [
            message("diagnostic_msgs/msg/KeyValue", key=k, value=str(v)) for k, v in values.items()
        ]
        inner = message(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=0,
            name="detector: set",
            message="",
            hardware_id="",
            values=pairs,
        )
        return message(kind, header=header(stamp_ns, ""), status=[inner])

    with BagWriter(tmp_path / "d") as writer:
        for i, truth in enumerate(truths):
            array = detections_message(truth.boxes, truth.stamp_ns)
            writer.write("/detector/detections", ARRAY, array, truth.stamp_ns)
            values = {"outcome": "processed", "total_ms": 10.0 * (i + 1), "age_ms": 1e9}
            text = status(truth.stamp_ns, **values, sets_seen=i + 2, sets_dropped=1)
            writer.write("/detector/status", kind, text, truth.stamp_ns)
        dropped = status(9, outcome="dropped", total_ms=9999.0, sets_seen=1)
        writer.write("/detector/status", kind, dropped, truths[-1].stamp_ns)
    found = score_bag(bag, tmp_path / "d")
    assert found.latency_ms == {"total": (20.0, pytest.approx(29.0))}
    assert found.outcomes == {"seen": 4, "dropped": 1}
    assert "seen 4, dropped 1" in found.table()


def test_each_stamp_serves_one_sample_and_the_nearest() -> None:
    ms = 1_000_000
    samples = [[100 * ms, 65 * ms], [600 * ms, 565 * ms]]
    assert match(samples, [65 * ms, 148 * ms, 590 * ms], 0.05) == [
        (65 * ms, 0),
        (590 * ms, 10 * ms),
    ]
    assert match(samples, [350 * ms], 0.05) == [None, None]
    assert match([[100 * ms], [120 * ms]], [112 * ms], 0.05) == [None, (112 * ms, 8 * ms)]
    assert match(samples, [], 0.05) == [None, None]


def test_the_commands(
    shared_dataroot: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = tmp_path / "bag"
    convert = ["bag", "from-nuscenes", str(shared_dataroot), str(bag), "--version", VERSION]
    assert main([*convert, "--scene", SCENES[0], "--no-sweeps"]) == 0
    assert "3 samples, 18 images" in capsys.readouterr().out
    assert main([*convert, "--scene", SCENES[0]]) == 2
    assert "use --force" in capsys.readouterr().err
    assert main([*convert, "--scene", "scene-9", "--force"]) == 2
    assert "there are: scene-0001, scene-0002" in capsys.readouterr().err

    detections = write_detections(tmp_path / "d", truths_of(shared_dataroot))
    result, metrics = tmp_path / "out/r.json", tmp_path / "out/m.json"
    arguments = [str(bag), str(detections), "--out", str(result), "--json", str(metrics)]
    assert main(["bag", "score", *arguments]) == 0
    assert "samples with boxes 3 of 3" in capsys.readouterr().out
    content = json.loads(metrics.read_text())
    assert content["coverage"]["matched"] == 3
    assert content["metrics"]["nds"] > 0.2
    assert len(read_results(result)) == 3
    assert main(["bag", "score", str(bag)]) == 2
    assert "lacks the topic /detector/detections" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("root", "scene", "samples"), [("mini_val", "scene-0103", 6), ("scene-0061", "scene-0061", 1)]
)
def test_real_scenes(
    shared_data: Path, tmp_path: Path, root: str, scene: str, samples: int
) -> None:
    tables = NuScenesTables(shared_data / "nuscenes" / root, "v1.0-mini")
    done = convert_scene(tables, scene, tmp_path / "bag")
    assert (done.samples, done.images) == (samples, 6 * samples)
    with BagReader(tmp_path / "bag") as reader:
        image = next(reader.messages([image_topic("CAM_FRONT")]))[1]
        assert decode_jpeg(bytes(image.data)).shape == (900, 1600, 3)
        found = read_samples(reader)
    tokens = [sample.truth.sample_token for sample in found]
    truths = [tables.ground_truth(token) for token in tokens]
    results = {t.sample_token: result_boxes(t.sample_token, t.boxes) for t in truths}
    wanted = evaluate(truths, results)
    score = score_bag(tmp_path / "bag", write_detections(tmp_path / "d", truths))
    assert score.metrics.mean_ap == pytest.approx(wanted.mean_ap, abs=1e-12)
    assert score.metrics.nds == pytest.approx(wanted.nds, abs=1e-6)
    assert score.coverage.missed == ()
