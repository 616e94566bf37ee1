# SPDX-License-Identifier: Apache-2.0
"""Another vehicle's cameras and classes through bags: truth, detections, scores, reports."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from labeldistill_core.checkpoints import save_student
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import BagError
from labeldistill_core.evaluation.metrics import evaluate
from labeldistill_core.evaluation.result_boxes import result_boxes
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.bags.convert import convert_scene
from labeldistill_ros.bags.detect import detect_bag
from labeldistill_ros.bags.detect_options import DetectOptions
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.score import score_bag
from labeldistill_ros.bags.sensors import image_topic
from labeldistill_ros.bags.truth import read_samples
from labeldistill_ros.cli import main
from labeldistill_ros.robustness.degradation import conditions, degradation
from tests.support.nuscenes_fixture import SCENES, VERSION
from tests.support.own_vehicle import CAMERAS, CLASSES, own_preset, write_own_dataroot


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> NuScenesTables:
    root = write_own_dataroot(tmp_path_factory.mktemp("own") / "data")
    return NuScenesTables(root, VERSION, CLASSES)


@pytest.fixture(scope="module")
def bag(tables: NuScenesTables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bags") / "first"
    done = convert_scene(tables, SCENES[0], out)
    assert {done.counts[image_topic(camera)] for camera in CAMERAS} == {5}
    return out


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("model") / "student.safetensors"
    save_student(file, Student(own_preset().student))
    return Detector.load(file)


def test_a_bag_says_which_classes_its_truth_has(bag: Path, tables: NuScenesTables) -> None:
    with BagReader(bag) as reader:
        samples = read_samples(reader)
    assert {sample.truth.classes for sample in samples} == {CLASSES}
    for sample in samples:
        wanted = tables.ground_truth(sample.truth.sample_token)
        assert torch.equal(sample.truth.boxes.labels, wanted.boxes.labels)
        assert set(sample.camera_stamps_ns) == set(CAMERAS)


def test_detections_are_scored_by_the_classes_of_the_bag(
    bag: Path, tables: NuScenesTables, detector: Detector, tmp_path: Path
) -> None:
    out, report = tmp_path / "detections", tmp_path / "report.html"
    done = detect_bag(bag, out, detector, DetectOptions(score_threshold=0.0))
    assert done.processed >= 3
    assert done.boxes
    found = score_bag(bag, out)
    assert list(found.metrics.class_ap) == list(CLASSES.names)
    truths = [tables.ground_truth(token) for token in tables.samples(SCENES[0])]
    results = {token: found.results[token] for token in found.results}
    assert evaluate(truths, results).mean_ap == found.metrics.mean_ap
    perfect = {t.sample_token: result_boxes(t.sample_token, t.boxes, CLASSES.names) for t in truths}
    assert evaluate(truths, perfect).mean_ap > found.metrics.mean_ap
    assert main(["bag", "score", str(bag), str(out), "--report", str(report)]) == 0
    assert "work site" in report.read_text()


def test_a_bag_of_nuscenes_classes_does_not_take_other_detections(
    bag: Path, shared_dataroot: Path, detector: Detector, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    convert_scene(NuScenesTables(shared_dataroot, VERSION), SCENES[0], plain)
    with BagReader(plain) as reader:
        assert not any("classes" in text.data for _, text in reader.messages(["/nuscenes/sample"]))
    detect_bag(bag, tmp_path / "detections", detector, DetectOptions(score_threshold=0.0))
    with pytest.raises(BagError, match="is none of car, truck"):
        score_bag(plain, tmp_path / "detections")


def test_conditions_are_those_of_the_cameras(tables: NuScenesTables, detector: Detector) -> None:
    rows = conditions(CAMERAS)
    assert [row.name for row in rows[1:6]] == [f"{camera} off" for camera in CAMERAS]
    found = degradation(rows[1], tables, [SCENES[0]], detector)
    assert (found.sets, found.samples) == (3, 3)
