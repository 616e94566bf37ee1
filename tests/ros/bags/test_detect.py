# SPDX-License-Identifier: Apache-2.0
"""Detection over a bag without ROS: as the node would with time enough."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labeldistill_core.cameras import CAMERAS, FIXED_FRAME, FrameSet
from labeldistill_core.checkpoints import save_student
from labeldistill_core.classes import CLASSES
from labeldistill_core.config import ImageConfig
from labeldistill_core.data.batch import evaluation_transform, image_tensor
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import StudentDataset
from labeldistill_core.errors import BagError, ConfigError
from labeldistill_core.evaluation.predictions import student_results
from labeldistill_core.frames import Transform
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.detector import Detections, Detector
from labeldistill_ros.bags.camera_faults import CameraFaults
from labeldistill_ros.bags.convert import ConversionOptions, convert_scene
from labeldistill_ros.bags.detect import detect_bag
from labeldistill_ros.bags.detect_options import DetectOptions
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.score import score_bag
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.cli import main
from labeldistill_ros.messages.boxes import boxes_from_detections
from labeldistill_ros.parameters import Parameters
from labeldistill_ros.sets.selection import best_boxes
from tests.support.nuscenes_fixture import SCENES, VERSION
from tests.support.vehicle_bag import COMPRESSED, write_bag
from tests.support.without_ros import run_without_ros

EVERYTHING = DetectOptions(score_threshold=0.0, output_frame="map")


@pytest.fixture
def tables(shared_dataroot: Path) -> NuScenesTables:
    return NuScenesTables(shared_dataroot, VERSION)


@pytest.fixture
def bag(tables: NuScenesTables, tmp_path: Path) -> Path:
    convert_scene(tables, SCENES[0], tmp_path / "bag", ConversionOptions(sweeps=False))
    return tmp_path / "bag"


def test_boxes_are_those_of_the_data_root(
    bag: Path, tables: NuScenesTables, tiny_model: Path, tmp_path: Path
) -> None:
    done = detect_bag(bag, tmp_path / "out", Detector.load(tiny_model), EVERYTHING)
    assert (done.sets, done.processed, done.problems) == (3, 3, {})
    direct = Detector.load(tiny_model)
    identity = Transform.identity(FIXED_FRAME, FIXED_FRAME)
    with BagReader(tmp_path / "out") as reader:
        arrays = [m for _, m in reader.messages(["/detector/detections"])]
        logged = [r.stamp_ns for r in reader.raw()]
    assert logged == sorted(logged)
    total = 0
    for token, array in zip(tables.samples(SCENES[0]), arrays, strict=True):
        found = direct.detect(tables.frame_set(token, direct.config.cameras))
        wanted = best_boxes(found.in_frame(identity), 0.0, 500)
        mine = boxes_from_detections(array, CLASSES)
        np.testing.assert_allclose(mine.values[:, :6], wanted.values[:, :6], atol=1e-3)
        assert torch.equal(mine.labels, wanted.labels)
        total += len(mine)
    assert total == done.boxes > 0
    score = score_bag(tmp_path / "out")  # truth and poses have come along
    assert score.coverage.matched == 3
    assert score.velocities
    assert score.outcomes == {"seen": 3, "processed": 3}
    assert score.latency_ms["total"][0] > 0


def test_images_that_went_into_no_set_are_counted(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the first two cycles a single camera drives on, of which no set can be made."""
    others = [camera for camera in CAMERAS if camera != "CAM_BACK"]
    bag = write_bag(tmp_path / "bag", cycles=6, silent=others)
    call = ["bag", "detect", str(bag), str(tmp_path / "out"), "--model", str(tiny_model)]
    assert main([*call, "--device", "cpu"]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 sets" in printed
    assert "4 images went into no set" in printed


def test_raw_images_are_taken_where_the_compressed_topic_is_empty(
    tiny_model: Path, tmp_path: Path
) -> None:
    """A recorder keeps topics of which nothing came."""
    raw = write_bag(tmp_path / "raw", cycles=3, raw=True)
    with BagReader(raw) as reader, BagWriter(tmp_path / "bag") as writer:
        for camera in CAMERAS:
            writer.connect(f"/{camera.lower()}/image_raw/compressed", COMPRESSED, None)
        for recorded in reader.raw():
            writer.write(recorded.topic, recorded.msgtype, recorded.data, recorded.stamp_ns)
    done = detect_bag(tmp_path / "bag", tmp_path / "out", Detector.load(tiny_model))
    assert done.processed == done.sets >= 2


def test_a_damaged_rectification_is_told_as_by_the_node(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bag = write_bag(tmp_path / "bag", cycles=2, r=(1, 0, 0, 0, math.nan, 0, 0, 0, 1))
    for rectified, count in ((False, len(CAMERAS)), (True, 0)):
        caplog.clear()
        options = DetectOptions(images_rectified=rectified)
        detect_bag(bag, tmp_path / f"out_{rectified}", Detector.load(tiny_model), options)
        told = [r.message for r in caplog.records if "values that are no numbers" in r.message]
        assert len(told) == count, "once a camera"


def test_defaults_are_the_nodes() -> None:
    """Only thresholds differ: scoring needs the weak boxes as well."""
    node, mine = Parameters(), DetectOptions()
    assert mine.output_frame == node.output_frame
    assert mine.missing_camera_policy == node.sync.missing_camera_policy
    assert mine.min_cameras == node.sync.min_cameras
    assert mine.max_age == node.sync.max_age
    assert mine.reset_gap == node.history.reset_gap
    assert mine.max_speed == node.history.max_speed


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"score_threshold": math.nan}, "score_threshold is nan: use a value from 0 to 1"),
        ({"max_boxes": -1}, "max_boxes is -1: use a value from 1"),
        ({"max_range": math.inf}, "max_range"),
        ({"min_cameras": 0}, "sync.min_cameras is 0"),
        ({"max_age": 0.0}, "sync.max_age"),
        ({"reset_gap": -1.0}, "history.reset_gap"),
        ({"max_speed": 0.0}, "history.max_speed"),
    ],
)
def test_values_that_the_node_refuses(options: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ConfigError, match=f"parameter {parameter}"):
        DetectOptions(**options).vehicle(CAMERAS, CLASSES, ())


def test_a_camera_that_falls_silent(
    tables: NuScenesTables, tiny_model: Path, tmp_path: Path
) -> None:
    faults = CameraFaults(kill_camera=("CAM_BACK@0.3",))
    convert_scene(tables, SCENES[0], tmp_path / "bag", ConversionOptions(faults=faults))
    detector = Detector.load(tiny_model)
    skipped = detect_bag(tmp_path / "bag", tmp_path / "skip", detector)
    masked = detect_bag(
        tmp_path / "bag", tmp_path / "mask", detector, DetectOptions(missing_camera_policy="mask")
    )
    assert (skipped.sets, skipped.processed) == (5, 2)
    assert sum(skipped.problems.values()) == skipped.sets - 2
    assert masked.processed == 5
    assert score_bag(tmp_path / "mask").coverage.matched == 3
    assert score_bag(tmp_path / "skip").coverage.share == pytest.approx(1 / 3)


def test_what_cannot_be_used_is_told(bag: Path, tiny_model: Path, tmp_path: Path) -> None:
    from labeldistill_ros.bags.writer import BagWriter

    with BagReader(bag) as reader, BagWriter(tmp_path / "cut") as writer:
        for r in reader.raw():
            if r.topic != "/tf_static":
                writer.write(r.topic, r.msgtype, r.data, r.stamp_ns, reader.qos(r.topic))
    done = detect_bag(tmp_path / "cut", tmp_path / "out", Detector.load(tiny_model))
    assert (done.sets, done.processed) == (3, 0)
    told = next(iter(done.problems))
    assert "CAM_FRONT" in told
    assert "_optical_frame" in told
    with pytest.raises(BagError, match="lacks the topic"):
        detect_bag(tmp_path / "out", tmp_path / "again", Detector.load(tiny_model))
    assert not (tmp_path / "again").exists()


def test_the_command_needs_no_ros(bag: Path, tiny_model: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    detect = ["bag", "detect", str(bag), out, "--model", str(tiny_model)]
    detect += ["--device", "cpu", "--score-threshold", "0"]
    told = run_without_ros(detect, ["bag", "score", out])
    assert "3 of 3 sets" in told
    assert "samples with boxes 3 of 3" in told


def test_images_are_reduced_as_offline(
    bag: Path, tables: NuScenesTables, tiny_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Half of 160 x 90 pixels is enough for 64 x 36.
    image = ImageConfig(32, 64, decode="scaled")
    config = replace(Detector.load(tiny_model).config, image=image)
    model = tmp_path / "scaled.safetensors"
    save_student(model, Student(config), "random weights")
    sets: list[FrameSet] = []
    detect = Detector.detect

    def noted(self: Detector, frames: FrameSet, **more: bool) -> Detections:
        sets.append(frames)
        return detect(self, frames, **more)

    monkeypatch.setattr(Detector, "detect", noted)
    detect_bag(bag, tmp_path / "out", Detector.load(model), EVERYTHING)
    student_results(Detector.load(model), tables, {SCENES[0]: tables.samples(SCENES[0])})
    data = StudentDataset(tables, [SCENES[0]], config)
    assert len(sets) == 2 * len(data) == 6
    for index, (driven, offline) in enumerate(zip(sets[:3], sets[3:], strict=True)):
        images = []
        for name in config.cameras:
            one, other = driven.by_name[name], offline.by_name[name]
            assert one.reduced == other.reduced == 2
            assert one.pixels.shape == (45, 80, 3)
            np.testing.assert_array_equal(one.pixels, other.pixels)
            images.append(image_tensor(one, evaluation_transform(one, config)))
        assert torch.equal(data[index].batch.images[0, 0], torch.stack(images))


def test_a_bag_that_cannot_be_scored_is_not_played_by_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag, out = write_bag(tmp_path / "bag", cycles=2), tmp_path / "out"
    assert main(["demo", "--bag", str(bag), "--out", str(out)]) == 2
    told = capsys.readouterr()
    assert "lacks the topic /nuscenes/sample" in told.err
    assert not out.exists()
