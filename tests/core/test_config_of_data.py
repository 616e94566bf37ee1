# SPDX-License-Identifier: Apache-2.0
"""`labeldistill config PRESET --like DATAROOT`: cameras and classes of a data root."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from labeldistill_core.config_files import Lists, from_yaml
from labeldistill_core.config_of_data import like_data
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import DataError
from labeldistill_core.presets import PRESETS, Preset, find_preset
from labeldistill_ros.cli import main
from tests.support.nuscenes_fixture import VERSION
from tests.support.own_vehicle import CAMERAS, own_preset, write_own_dataroot


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_own_dataroot(tmp_path / "data")


def printed(words: list[str], capsys: pytest.CaptureFixture[str]) -> Preset:
    assert main(["config", *words]) == 0
    return from_yaml(capsys.readouterr().out, "printed")


def test_cameras_and_classes_are_those_of_the_data(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = printed(["demo", "--like", str(root), "--recipes.student.epochs", "3"], capsys)
    tables = NuScenesTables(root, VERSION, preset.student.head.class_list)
    (sample, *_) = tables.samples(tables.scene_names[0])
    assert set(preset.student.cameras) == set(tables.cameras(sample)) == set(CAMERAS)
    classes = {one.name: one for one in Lists.of(preset).classes}
    # nuScenes' keep what is known of them, the others are called by their last word
    assert classes["auto"].categories == ("road_user.auto",)
    assert {"any", "auto", "velo", "cone", "fence"} <= classes.keys()
    assert "animal" not in classes
    # the size of a box tells range and radius: 4 m of a car and 0.6 m of a person
    assert (classes["auto"].range_m, classes["any"].range_m) == (50.0, 40.0)
    assert 1 < classes["auto"].nms_radius_m2 < 6
    assert classes["any"].nms_radius_m2 < 0.5
    assert preset.recipes.student.epochs == 3
    assert preset.teacher.head.tasks == preset.student.head.tasks


def test_classes_of_a_configuration_keep_what_it_says(root: Path) -> None:
    own = own_preset()
    found = Lists.of(like_data(own, root))
    assert set(found.cameras) == set(CAMERAS)
    known = {one.name: one for one in Lists.of(own).classes}
    for one in found.classes:
        if one.name in known:
            assert replace(one, task=0) == replace(known[one.name], task=0)
    assert {one.name for one in found.classes} & known.keys() >= {"auto", "person", "work_site"}


def test_a_category_that_is_called_as_a_class_is_gets_another_name(root: Path) -> None:
    file = root / VERSION / "category.json"
    rows = json.loads(file.read_bytes())
    names = ["vehicle.car", "car", "own.car"]
    for row in rows:
        if not row["name"].startswith("animal") and names:
            row["name"] = names.pop(0)
    file.write_text(json.dumps(rows))
    found = [one.name for one in Lists.of(like_data(find_preset("demo"), root)).classes]
    assert len(set(found)) == len(found)
    assert {"car", "car_2", "own_car"} <= set(found)


def test_without_boxes_the_classes_stay(root: Path) -> None:
    (root / VERSION / "sample_annotation.json").write_text("[]")
    (root / VERSION / "instance.json").write_text("[]")
    demo = find_preset("demo")
    found = like_data(demo, root)
    assert found.student.head == demo.student.head
    assert set(found.student.cameras) == set(CAMERAS)
    assert found.recipes == PRESETS["demo"].recipes


def test_no_cameras_are_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = root / VERSION / "sensor.json"
    rows = [{**row, "modality": "lidar"} for row in json.loads(file.read_bytes())]
    file.write_text(json.dumps(rows))
    with pytest.raises(DataError, match="no key frame of a camera"):
        like_data(find_preset("demo"), root)
    assert main(["config", "demo", "--like", str(root / "nowhere")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
