# SPDX-License-Identifier: Apache-2.0
"""Another vehicle through data, losses, evaluation and pages: own cameras and own classes."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from labeldistill_core import classes as nuscenes
from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import EGO_FRAME
from labeldistill_core.checkpoints import load_student, save_network, save_student
from labeldistill_core.classes import NUSCENES, ClassList, ObjectClass
from labeldistill_core.config import StudentConfig
from labeldistill_core.config_files import classes_of_checkpoint, from_yaml, to_yaml
from labeldistill_core.config_json import from_mapping, to_json
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.samples import (
    LidarDataset,
    LidarSample,
    StudentDataset,
    StudentSample,
)
from labeldistill_core.distillation.config import LabelEncoderConfig
from labeldistill_core.distillation.distiller import Distiller
from labeldistill_core.distillation.label_encoder import LabelEncoder
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.evaluation.evaluate import EvaluationOptions, run_checkpoint, score
from labeldistill_core.evaluation.metrics import evaluate
from labeldistill_core.evaluation.result_boxes import result_boxes
from labeldistill_core.evaluation.result_file import read_results, write_results
from labeldistill_core.evaluation.statistics import measure
from labeldistill_core.lidar.config import TeacherConfig
from labeldistill_core.lidar.points import Points
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.network.student import Student
from labeldistill_core.network.targets import build_targets
from labeldistill_core.presets import PRESETS
from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.loading import torch_engine
from labeldistill_core.runtime.onnx_export import export_onnx
from labeldistill_core.training.label_encoder import LabelEncoderStage
from labeldistill_core.training.student import StudentStage
from labeldistill_core.training.teacher import TeacherStage
from labeldistill_core.visualization.colours import CLASS_COLOURS, TRUTH_COLOUR, class_colour
from labeldistill_core.visualization.pictures import camera_mosaic
from labeldistill_core.visualization.view import ViewOptions, view
from labeldistill_ros.testing.course import Course
from tests.support.nuscenes_fixture import SCENES, VERSION
from tests.support.own_vehicle import CAMERAS, CLASSES, SIZES_PX, TASKS, own_preset
from tests.support.own_vehicle import write_own_dataroot as write


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("own") / "data")


@pytest.fixture(scope="module")
def tables(dataroot: Path) -> NuScenesTables:
    return NuScenesTables(dataroot, VERSION, CLASSES)


@pytest.fixture(scope="module")
def token(tables: NuScenesTables) -> str:
    return tables.samples(SCENES[0])[1]


def test_boxes_are_those_of_the_classes(tables: NuScenesTables, token: str) -> None:
    truth = tables.ground_truth(token)
    names = [CLASSES.names[label] for label in truth.boxes.labels.tolist()]
    assert sorted(set(names)) == ["auto", "person", "velo", "work_site"]
    assert names.count("work_site") == 2, "a cone and a fence are one class"
    assert tables.classes(token) == set(names)
    assert len(truth.bicycle_racks) == 1


def test_categories_without_a_class_are_told(
    dataroot: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = ClassList((ObjectClass("auto", ("road_user.auto", "road_user.auot"), 40.0),))
    with caplog.at_level(logging.WARNING):
        NuScenesTables(dataroot, VERSION, few)
    assert "people.any, road_user.velo" in caplog.text
    assert "has no road_user.auot, which the configuration names" in caplog.text


def test_tables_of_one_index_serve_every_configuration(dataroot: Path, token: str) -> None:
    plain = NuScenesTables(dataroot, VERSION)
    assert plain.classes(token) == set(), "no category of this root is one of nuScenes' classes"


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([("a", ("x",), 5.0), ("a", ("y",), 5.0)], "name a is there more than once"),
        ([("a", ("x",), 5.0), ("b", ("x",), 5.0)], "category x is there more than once"),
        ([("a", ("x",), 0.0)], "range_m of a is 0.0"),
        ([("a.b", ("x",), 1.0)], "name 'a.b' must be of letters"),
        ([], "classes has 0"),
    ],
)
def test_impossible_classes(
    classes: list[tuple[str, tuple[str, ...], float]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ClassList(tuple(ObjectClass(*one) for one in classes))


def test_nuscenes_classes_are_the_devkits() -> None:
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.utils import category_to_detection_name

    ranges = config_factory("detection_cvpr_2019").class_range
    assert dict(zip(NUSCENES.names, NUSCENES.ranges_m, strict=True)) == ranges
    for category, name in NUSCENES.class_of.items():
        assert category_to_detection_name(category) == name
    for category in nuscenes.UNSCORED_CATEGORIES:
        assert category_to_detection_name(category) is None


def test_targets_are_by_class_and_task(tables: NuScenesTables) -> None:
    config = own_preset().student
    boxes = Boxes3D(
        EGO_FRAME,
        torch.tensor([[8.0 * i + 4, 4.0, 0, 2, 2, 2, 0, 0, 0] for i in range(4)]),
        torch.arange(4),
        torch.ones(4),
    )
    targets = build_targets([boxes], config.grid, config.head)
    for task, names in zip(targets, TASKS, strict=True):
        for channel, name in enumerate(names):
            x = 8.0 * CLASSES.names.index(name) + 4
            cell = (task.heatmap[0, channel] == 1).nonzero()
            assert cell.tolist() == [[int((4 + 51.2) // 3.2), int((x + 51.2) // 3.2)]]


def test_training_steps_of_all_stages(tables: NuScenesTables) -> None:
    preset = own_preset()
    torch.manual_seed(0)
    points = Points(preset.teacher.sweeps)
    lidar = LidarDataset(tables, SCENES, CAMERAS, points=points)
    teaching = TeacherStage(preset.teacher, preset.recipes.teacher)
    sample = LidarSample.collate([lidar[0], lidar[1]])
    assert all(torch.isfinite(loss) for loss in teaching.losses(sample).values())
    teacher = Teacher(preset.teacher).eval()
    labels = LabelEncoderStage(preset.label_encoder, preset.recipes.label_encoder, teacher)
    assert labels.class_names == ("auto", "velo", "person", "work_site")
    assert all(torch.isfinite(loss) for loss in labels.losses(sample).values())
    encoder = LabelEncoder(preset.label_encoder).eval()
    # Each sample has a box on the grid: without any, features could not tell classes apart.
    assert (encoder.owners(sample.boxes) >= 0).flatten(1).any(1).all()
    data = StudentDataset(tables, SCENES, preset.student, points=points)
    distiller = Distiller(preset.distillation, preset.student, teacher, encoder)
    stage = StudentStage(preset.student, preset.recipes.student, distiller)
    batch = StudentSample.collate([data[0], data[1]])
    assert batch.batch.images.shape[1:3] == (2, len(CAMERAS))
    losses = stage.losses(batch)
    assert set(losses) == {"heatmap", "box", "depth", "lidar", "response", "label"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_networks_of_other_classes_do_not_train_together(tables: NuScenesTables) -> None:
    preset = own_preset()
    turned = tuple(reversed(CLASSES.members))
    student = replace(preset.student, head=replace(preset.student.head, classes=turned))
    with pytest.raises(ConfigError, match="the network learns from work_site, velo"):
        StudentDataset(tables, SCENES, student)
    other = replace(preset.label_encoder, classes=turned)
    with pytest.raises(ConfigError, match="classes or channels are not the teacher's"):
        LabelEncoderStage(other, preset.recipes.label_encoder, Teacher(preset.teacher))
    with pytest.raises(ConfigError, match="label encoder has other classes than the student"):
        Distiller(
            replace(preset.distillation, lidar_weight=0.0, response_weight=0.0),
            preset.student,
            None,
            LabelEncoder(other),
        )


def test_truth_as_prediction_is_perfect(tables: NuScenesTables, tmp_path: Path) -> None:
    tokens = [token for scene in SCENES for token in tables.samples(scene)]
    truths = [tables.ground_truth(token) for token in tokens]
    results = {
        t.sample_token: result_boxes(
            t.sample_token, t.boxes[torch.from_numpy(t.touched)], CLASSES.names
        )
        for t in truths
    }
    write_results(tmp_path / "results.json", results)
    found = evaluate(truths, read_results(tmp_path / "results.json", CLASSES.names))
    assert found.class_ap == pytest.approx(dict.fromkeys(CLASSES.names, 1.0))
    assert math.isnan(found.tp_errors["attr_err"]), "own classes have no attributes"
    assert found.nds == pytest.approx(1.0 - found.tp_errors["vel_err"] / 9, abs=1e-6)
    assert list(found.as_json()["classes"]) == list(CLASSES.names)
    assert found.truth_boxes["auto"] == 12, "the far one is out of range, the hidden one unseen"
    with pytest.raises(DataError, match="class 'auto' is none of car, truck"):
        read_results(tmp_path / "results.json")


def test_ranges_are_those_of_the_classes(dataroot: Path) -> None:
    counted = []
    for range_m in (45.0, 200.0):
        classes = ClassList(tuple(replace(one, range_m=range_m) for one in CLASSES.members))
        tables = NuScenesTables(dataroot, VERSION, classes)
        truths = [tables.ground_truth(token) for token in tables.samples(SCENES[0])]
        counted.append(evaluate(truths, {}).truth_boxes["auto"])
    assert counted == [6, 9], "the far one counts where its class reaches so far"


def test_one_class_under_a_devkit_name_alone(dataroot: Path) -> None:
    """nuScenes' rules go by the name, its attributes only where the data set has them."""
    car = ClassList((ObjectClass("car", ("road_user.auto",), 45.0),))
    tables = NuScenesTables(dataroot, VERSION, car)
    truths = [tables.ground_truth(token) for token in tables.samples(SCENES[0])]
    results = {
        t.sample_token: result_boxes(t.sample_token, t.boxes, ("car",), t.attributes)
        for t in truths
    }
    assert evaluate(truths, results).tp_errors["attr_err"] == 0.0
    bare = [replace(t, attributes=("",) * len(t.boxes)) for t in truths]
    assert math.isnan(evaluate(bare, results).tp_errors["attr_err"])


def test_a_student_is_saved_loaded_run_and_scored(dataroot: Path, tmp_path: Path) -> None:
    preset, file = own_preset(), tmp_path / "student.safetensors"
    torch.manual_seed(0)
    save_student(file, Student(preset.student))
    assert load_student(file).student.config == preset.student
    detector = Detector.load(file)
    assert detector.class_names == ("auto", "velo", "person", "work_site")
    options = EvaluationOptions(version=VERSION, split="all")
    found = run_checkpoint(file, dataroot, options)
    assert classes_of_checkpoint(file) == CLASSES
    if find_spec("onnxruntime") and find_spec("onnx"):
        export_onnx(file, tmp_path / "student.onnx")
        assert classes_of_checkpoint(tmp_path / "student.onnx") == CLASSES
    assert list(score(found, dataroot, options, CLASSES).class_ap) == list(CLASSES.names)
    assert len(found) == 6
    assert {box["detection_name"] for boxes in found.values() for box in boxes} <= set(
        CLASSES.names
    )


def test_teachers_are_scored_with_their_classes(dataroot: Path, tmp_path: Path) -> None:
    preset = own_preset()
    torch.manual_seed(0)
    teacher, encoder = tmp_path / "teacher.safetensors", tmp_path / "encoder.safetensors"
    save_network(teacher, "teacher", Teacher(preset.teacher), preset.teacher)
    save_network(encoder, "label encoder", LabelEncoder(preset.label_encoder), preset.label_encoder)
    options = EvaluationOptions(version=VERSION, split="all", teacher=teacher)
    for file in (teacher, encoder):
        found = run_checkpoint(file, dataroot, options)
        assert classes_of_checkpoint(file) == CLASSES
        assert list(score(found, dataroot, options, CLASSES).class_ap) == list(CLASSES.names)


def test_checkpoints_without_classes_are_of_nuscenes() -> None:
    preset = own_preset()
    mappings = [json.loads(to_json(part)) for part in (preset.student, preset.teacher)]
    for mapping in mappings:
        del mapping["head"]["classes"]
    student, teacher = mappings
    assert from_mapping(StudentConfig, student).head.classes == NUSCENES.members
    assert from_mapping(TeacherConfig, teacher).head.classes == NUSCENES.members
    encoder = json.loads(to_json(preset.label_encoder))
    del encoder["classes"]
    assert from_mapping(LabelEncoderConfig, encoder).classes == NUSCENES.members


def test_statistics_tell_of_the_classes(tables: NuScenesTables) -> None:
    found = measure(tables)
    assert list(found["% of boxes by class"]) == list(CLASSES.names)
    assert sum(found["% of boxes by class"].values()) == pytest.approx(100.0)
    assert "% of auto by speed" in found
    assert "% of vehicles by speed" not in found


def test_pages_show_all_cameras(dataroot: Path, tables: NuScenesTables, tmp_path: Path) -> None:
    frames = tables.frame_set(tables.samples(SCENES[0])[0], CAMERAS)
    sizes = {name: (v.calibration.width_px, v.calibration.height_px)
             for name, v in frames.by_name.items()}  # fmt: skip
    assert sizes == SIZES_PX
    picture = camera_mosaic(frames, Boxes3D.empty("map"), tile_width_px=96)
    assert picture.size == (3 * 96, 2 * 54)
    # The third camera is 4:3 in a tile of 16:9: bars on both sides, no stretched picture.
    tile = np.asarray(picture)[40:54, 2 * 96 : 3 * 96]
    assert np.ptp(tile[:, :10].reshape(-1, 3), axis=0).max() < 8
    assert np.ptp(tile[:, 30:60].reshape(-1, 3), axis=0).max() > 50
    page = view(dataroot, tmp_path / "page", ViewOptions(version=VERSION, limit=1))
    assert page.exists()


def test_colours_of_unknown_names_are_stable_and_apart_from_the_truth() -> None:
    assert class_colour("auto") == class_colour("auto") != class_colour("velo")
    assert class_colour("car") == CLASS_COLOURS["car"]
    for name in (*CLASSES.names, *(f"class {i}" for i in range(200))):
        colour = class_colour(name)
        assert math.dist(colour, TRUTH_COLOUR) > 60
        assert sum(colour) > 300, "light enough for a dark background"


@pytest.mark.parametrize("count", [1, 12])
def test_one_to_twelve_cameras(count: int) -> None:
    names = tuple(f"eye_{number}" for number in range(count))
    sizes = [((160, 90), (128, 96), (192, 108))[number % 3] for number in range(count)]
    course = Course(
        1_700_000_000_000_000_000,
        phases_s=dict.fromkeys(names, 0.0),
        sizes_px=dict(zip(names, sizes, strict=True)),
        headings_deg={name: 360.0 * number / count for number, name in enumerate(names)},
    )
    torch.manual_seed(0)
    config = replace(own_preset().student, cameras=names)
    detector = Detector(torch_engine(Student(config)))
    for cycle in range(2):
        frames = course.frame_set(cycle)
        found = detector.detect(frames)
    assert len(found.boxes)
    tiles = {1: (1, 1), 12: (4, 3)}[count]
    mosaic = camera_mosaic(frames, Boxes3D.empty("map"), tile_width_px=96)
    assert mosaic.size == (96 * tiles[0], 54 * tiles[1])


def test_the_page_shows_a_configuration_that_can_be_read(repository: Path) -> None:
    page = (repository / "docs" / "configuration.md").read_text()
    shown = page.partition("```yaml\n")[2].partition("```")[0]
    demo = to_yaml(PRESETS["demo"])
    lists = demo[demo.index("cameras: [") : demo.index("# What commands call it.")]
    read = from_yaml(demo.replace(lists, shown), "docs/configuration.md")
    assert read.student.cameras == ("wide", "left", "right", "rear")
    assert read.student.head.tasks == (("car",), ("person", "bike"))
