# SPDX-License-Identifier: Apache-2.0
"""Boxes of a topic: what their classes are called, and which of them are one object."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labeldistill_core.config_files import to_yaml
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_ros.bags.reader import Recorded
from labeldistill_ros.bags.truth import TRUTH_TOPIC
from labeldistill_ros.cli import main
from tests.support.other_car import Edit, edited
from tests.support.own_vehicle import own_preset

FAR_M = 12.0


def renamed(**names: str) -> Edit:
    """Gives classes other names."""

    def edit(recorded: Recorded, message: Any) -> Any:
        if recorded.topic == TRUTH_TOPIC:
            for detection in message.detections:
                hypothesis = detection.results[0].hypothesis
                hypothesis.class_id = names.get(hypothesis.class_id, hypothesis.class_id)
        return message

    return edit


def with_id(identity: str) -> Edit:
    """Gives every box the same id."""

    def edit(recorded: Recorded, message: Any) -> Any:
        if recorded.topic == TRUTH_TOPIC:
            for detection in message.detections:
                detection.id = identity
        return message

    return edit


def converted(bag: Path, root: Path, *words: str) -> NuScenesTables:
    assert main(["bag", "to-nuscenes", str(bag), str(root), "--workers", "1", *words]) == 0
    return NuScenesTables(root)


def own_config(folder: Path) -> Path:
    """A configuration of the classes person, auto, velo and work_site."""
    file = folder / "mine.yaml"
    file.write_text(to_yaml(own_preset()))
    return file


def category_names(tables: NuScenesTables) -> set[str]:
    rows = json.loads((tables.dataroot / tables.version / "category.json").read_bytes())
    return {row["name"] for row in rows}


@pytest.fixture(scope="module")
def truth(car_bag: Path, tmp_path_factory: pytest.TempPathFactory) -> NuScenesTables:
    return converted(car_bag, tmp_path_factory.mktemp("truth") / "root")


@pytest.mark.parametrize("identity", ["", "0"])
def test_boxes_without_ids_become_the_same_objects(
    identity: str,
    truth: NuScenesTables,
    car_bag: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = converted(edited(car_bag, tmp_path / "drive", with_id(identity)), tmp_path / "root")
    assert f"boxes with the id '{identity}' are not told apart" in capsys.readouterr().err
    (scene,) = truth.scene_names
    known, met = defaultdict(set), defaultdict(set)
    moving = 0
    for own in truth.samples(scene):
        a = truth.ground_truth(own)
        b = found.ground_truth(found.samples("drive")[truth.samples(scene).index(own)])
        np.testing.assert_allclose(a.boxes.values[:, :7], b.boxes.values[:, :7], atol=1e-9)
        for row in _far_apart(a.boxes.values[:, :2].numpy(), a.boxes.labels.numpy()):
            known[a.instances[row]].add(b.instances[row])
            met[b.instances[row]].add(a.instances[row])
            speed = a.boxes.values[row, 7:].norm()
            if speed > 3:
                moving += 1
                np.testing.assert_allclose(b.boxes.values[row, 7:], a.boxes.values[row, 7:])
    assert len(known) > 3
    assert moving > 3
    assert all(len(others) == 1 for others in known.values())
    assert all(len(others) == 1 for others in met.values())


def _far_apart(places: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> list[int]:
    """Boxes with none of their class near."""
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    apart[(labels[:, None] != labels[None]) | np.eye(len(places), dtype=bool)] = np.inf
    found: list[int] = np.flatnonzero(apart.min(axis=1, initial=np.inf) > FAR_M).tolist()
    return found


def test_classes_of_a_configuration_get_its_category(car_bag: Path, tmp_path: Path) -> None:
    edit = renamed(car="auto", pedestrian="person", truck="work_site")
    bag, config = edited(car_bag, tmp_path / "drive", edit), own_config(tmp_path)
    root = tmp_path / "root"
    names = category_names(converted(bag, root, "--config", str(config)))
    assert names & {"road_user.auto", "people.any", "thing.cone", "thing.fence", "vehicle.car"} == {
        "road_user.auto", "people.any", "thing.cone",
    }  # fmt: skip
    # the command line has the last word, and other categories make another data set
    other = ["--config", str(config), "--categories", "auto", "vehicle.car"]
    assert main(["bag", "to-nuscenes", str(bag), str(root), *other]) == 2
    assert "vehicle.car" in category_names(converted(bag, root, *other, "--force"))


def test_classes_of_no_configuration_are_told(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = edited(car_bag, tmp_path / "drive", renamed(car="forklift"))
    words = ["bag", "to-nuscenes", str(bag), str(tmp_path / "root"), "--config"]
    assert main([*words, str(own_config(tmp_path))]) == 2
    said = capsys.readouterr().err
    assert "'forklift', which has no category" in said
    assert "--categories 'forklift' CATEGORY, or by --config" in said
    assert main([*words, str(tmp_path / "absent.yaml")]) == 2
    assert "cannot read the configuration" in capsys.readouterr().err
