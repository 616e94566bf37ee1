# SPDX-License-Identifier: Apache-2.0
"""Configurations of one's own: printed, changed, read, and refused with the key's whole path."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from labeldistill_core.config_files import classes_of, from_yaml, read_config, to_yaml
from labeldistill_core.config_json import to_mapping
from labeldistill_core.console import last_value
from labeldistill_core.errors import ConfigError
from labeldistill_core.presets import PRESETS
from labeldistill_core.training.options import (
    LabelEncoderOptions,
    StudentOptions,
    TeacherOptions,
    TrainingOptions,
)
from labeldistill_ros.cli import main
from tests.support.own_vehicle import CAMERAS, CLASSES, RADII_M2, TASKS, own_preset

DEMO = to_yaml(PRESETS["demo"])


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_printed_reads_as_the_preset(name: str) -> None:
    assert from_yaml(to_yaml(PRESETS[name]), name) == PRESETS[name]
    published = PRESETS[name].as_published()
    assert from_yaml(to_yaml(published), name) == published


def test_own_cameras_and_classes_survive(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(to_yaml(own_preset()))
    read = read_config(file)
    assert read == own_preset()
    assert read.student.cameras == CAMERAS
    assert read.student.head.tasks == read.teacher.head.tasks == read.label_encoder.tasks == TASKS
    assert read.teacher.decode.nms_radius_m2 == RADII_M2
    assert classes_of(file) == CLASSES
    as_json = tmp_path / "own.json"
    as_json.write_text(json.dumps(yaml.safe_load(file.read_text())))
    assert read_config(as_json) == read


def test_fields_are_explained_once_each() -> None:
    assert "    # Length of the edge of a square cell, in metres.\n    cell_m: 1.28\n" in DEMO
    assert "# range_m: Distance from the vehicle up to which its boxes are scored" in DEMO
    for line in DEMO.splitlines():
        assert line.startswith("- {name") or len(line) <= 110, line
    fields = [line for line in DEMO.splitlines() if not line.lstrip().startswith(("#", "-"))]
    assert "tasks" not in "".join(fields), "what follows from the classes is not written twice"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cell_m", "cel_m", r"student.grid.cel_m is no field; did you mean cell_m\?"),
        ("height: 128", "height: 100", "student.image: image.height is 100: use a positive"),
        ("width: 352", "width: wide", "student.image.width: 'wide' is no int"),
        ("    width: 352\n", "", "student.image.width: required field missing"),
        ("crop: horizon", "crop: horizn", "image.crop: horizn is none .* did you mean horizon"),
        ("depth: 18", "dept: 18", "student.image_encoder.backbone.dept is no field; did you m"),
        ("task: 5", "task: 7", r"classes: the tasks are \[0, 1, 2, 3, 4, 5, 7\]: number them"),
        ("range_m: 50.0", "range: 50", r"classes\[0\].range is no field; did you mean range_m"),
        ("range_m: 50.0", "range_m: -1", "classes: range_m of car is -1.0"),
        ("[vehicle.truck]", "bike", r"classes\[1\].categories: 'bike' is no list, as in"),
        ("range_m: 50.0", "range_m: far", r"classes\[0\].range_m: 'far' is no float"),
        ("_m2: 12.0", "_m2: 3.0", r"differs within task 1 \(truck 3, construction_vehicle 12\)"),
        ("- {name: truck", "- {name: car", "classes: name car is there more than once"),
        ("vehicle.truck", "vehicle.car", "classes: category vehicle.car is there more than once"),
        ("\nteacher:", "\nteachr:", r"teachr is no field; did you mean teacher\?"),
        ("cameras: [", "cameras: [cam_back, ", "must differ by more than large and small"),
        ("cameras: [", "cameras: [front-left, ", "the name 'front-left' must be of letters"),
        ("learning_rate: 0.0015", "learning_rate: fast", "recipes.student.learning_rate: 'fast'"),
        ("batch_size: 2", "batch_size: 0", "recipes.teacher: recipe.batch_size is 0"),
        ("name: demo\n", "name: demo\nname: own\n", "the key name stands twice"),
        ("  depth_bins:", "  head: {tasks: []}\n  depth_bins:", "the key head stands twice"),
        ("  head:\n", "  head:\n    tasks: []\n", "student.head.tasks follows from `classes`"),
        ("cell_m: 1.28", "cell_m: 0.8", "teacher.grid has other cells than student.grid"),
        ("name: demo", "name: [demo", "is no configuration: while parsing"),
    ],
)  # fmt: skip
def test_errors_name_the_whole_key(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in DEMO
    file = tmp_path / "mine.yaml"
    file.write_text(DEMO.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(file)
    assert str(caught.value).startswith((str(file), f"{file} is no configuration"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "demo", "null", "1", "\x00", "a: " * 3, "[" * 20_000])
def test_texts_that_hold_no_configuration(text: str) -> None:
    with pytest.raises(ConfigError, match="mine"):
        from_yaml(text, "mine")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration .*: No such file"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "picture.yaml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ConfigError, match="is no configuration: it is no text"):
        read_config(tmp_path / "picture.yaml")


def test_numbers_with_exponents_are_numbers() -> None:
    read = from_yaml(DEMO.replace("learning_rate: 0.0015", "learning_rate: 15e-4", 1), "mine")
    assert read.recipes.student.learning_rate == 0.0015


def test_fields_that_are_left_out_have_their_defaults() -> None:
    whole = to_mapping(PRESETS["demo"])
    del whole["student"]["depth_bins"]
    for part in ("head", "decode", "cameras"):
        del whole["student"][part]
        whole["teacher"].pop(part, None)
    content = yaml.safe_load(DEMO)
    content["student"] = {**whole["student"]}
    del content["teacher"]["head"], content["teacher"]["decode"], content["recipes"]
    text = json.dumps(content)
    read = from_yaml(text, "mine")
    assert read.student.depth_bins.step_m == 0.5
    assert read.student.class_names == PRESETS["demo"].student.class_names
    del content["teacher"]
    with pytest.raises(ConfigError, match="mine: teacher: required field missing"):
        from_yaml(json.dumps(content), "mine")


def test_the_command_prints_what_it_is_told(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    changed = ["--student.history-s", "0.5", "--recipes.student.epochs", "3", "--name", "mine"]
    assert main(["config", "demo", *changed]) == 0
    text = capsys.readouterr().out
    read = from_yaml(text, "printed")
    assert (read.name, read.student.history_s, read.recipes.student.epochs) == ("mine", (0.5,), 3)
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert main(["config", str(file), "--recipes.student.epochs", "4"]) == 0
    assert from_yaml(capsys.readouterr().out, "printed").recipes.student.epochs == 4
    assert main(["config", "demo", "--student.decode.nms-radius-m2", *"123456"]) == 2
    assert "follow from the list `classes`" in capsys.readouterr().err
    assert main(["config", "dmo"]) == 2
    assert "no preset 'dmo'" in capsys.readouterr().err


def test_options_override_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    text = to_yaml(own_preset()).replace("ratio: [2, 2, 2]", "ratio: [1, 3, 2]")
    file.write_text(text.replace("depth_labels: one_hot", "depth_labels: linear"))
    given, rest = StudentOptions.prepared(["--config", str(file)])
    assert rest == ["--config", str(file)]
    for options in (StudentOptions(config=file), replace(given, config=file)):
        resolved = replace(options, epochs=7).resolved()
        assert resolved.distillation.ratio == (1, 3, 2)
        assert resolved.samples.depth_labels == "linear"
        assert resolved.recipes.student.epochs == 7
        assert resolved.student == own_preset().student
    assert TrainingOptions(config=file).preset_name == "own"


@pytest.mark.parametrize("kind", [StudentOptions, TeacherOptions, LabelEncoderOptions])
def test_single_fields_are_options_of_training(kind: type[TrainingOptions]) -> None:
    args = ["--student.history-s", "0.5", "1.5", "--teacher", "t.safetensors", "root"]
    options, rest = kind.prepared(["out", *args, "--recipes.student.epochs=3"])
    assert rest == ["out", "--teacher", "t.safetensors", "root"]
    resolved = options.resolved()
    assert resolved.student.history_s == (0.5, 1.5)
    assert resolved.recipes.student.epochs == 3
    assert resolved.teacher == PRESETS["demo"].teacher
    plain, rest = kind.prepared(args[3:])
    assert rest == args[3:]
    assert plain.resolved() == PRESETS["demo"]


def test_the_last_of_an_option_counts() -> None:
    assert last_value(["--config", "a", "--config=b"], "--config") == "b"
    assert last_value(["--configs", "a", "--config"], "--config") is None


@pytest.mark.parametrize("words", [["--published", "ablation"], ["-"]])
def test_a_source_behind_the_options_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before, the demo's configuration was printed in its place."""
    assert main(["config", *words]) == 2
    assert f"name '{words[-1]}' before the options" in capsys.readouterr().err
