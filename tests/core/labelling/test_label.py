# SPDX-License-Identifier: Apache-2.0
"""A detector's boxes as the annotations of a data root."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nuscenes import NuScenes

from labeldistill_core.checkpoints import save_network
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.evaluation.result_boxes import result_boxes
from labeldistill_core.evaluation.result_file import write_results
from labeldistill_core.evaluation.statistics import StatisticsOptions, statistics
from labeldistill_core.installed_files import shared_file
from labeldistill_core.labelling.label import LabelOptions, label
from labeldistill_core.lidar.teacher import Teacher
from labeldistill_core.visualization.view import ViewOptions, view
from tests.support.small_networks import small_teacher

MINI, LABELLED = "v1.0-mini", "v1.0-mini-labelled"


@pytest.fixture
def root(synthetic_dataroot: Path, tmp_path: Path) -> Path:
    """Tables of its own; the files are those of the common data root."""
    root = tmp_path / "root"
    shutil.copytree(synthetic_dataroot, root, ignore=shutil.ignore_patterns(".scenes"))
    return root


@pytest.fixture
def results(root: Path) -> Path:
    """The ground truth as a result file, its boxes the surer the nearer they are to the start."""
    tables = NuScenesTables(root, MINI)
    found: dict[str, list[dict[str, Any]]] = {}
    for scene in tables.scene_names:
        for token in tables.samples(scene):
            boxes = tables.ground_truth(token).boxes
            found[token] = result_boxes(token, boxes, tables.class_list.names)
            for row in found[token]:
                known = np.isfinite(row["velocity"]).all()
                row["velocity"] = row["velocity"] if known else [0.0, 0.0]
                row["detection_score"] = 0.9 if row["detection_name"] != "barrier" else 0.2
    file = root.parent / "results.json"
    write_results(file, found)
    return file


def options(results: Path, **more: Any) -> LabelOptions:
    more = {"version": MINI, "min_frames": 1, **more}
    return LabelOptions(results=results, **more)


def bare(root: Path) -> None:
    """Take the annotations away."""
    for name in ("sample_annotation", "instance"):
        (root / MINI / f"{name}.json").write_text("[]")


def test_boxes_become_annotations_with_a_mark(root: Path, results: Path) -> None:
    before = NuScenesTables(root, MINI)
    truth = {t: before.ground_truth(t) for s in before.scene_names for t in before.samples(s)}
    bare(root)
    done = label(root, options(results, scores={"barrier": 0.1}))
    assert done.folder == root / LABELLED
    after = NuScenesTables(root, LABELLED)
    for token, known in truth.items():
        found = after.ground_truth(token)
        assert len(found.boxes) == len(known.boxes)
        a, b = known.boxes.values.numpy(), found.boxes.values.numpy()
        ordered, again = np.lexsort(a[:, :2].T), np.lexsort(b[:, :2].T)
        np.testing.assert_allclose(b[again, :6], a[ordered, :6], atol=1e-6)
        assert np.array(found.num_lidar_pts)[again].tolist() == (
            np.array(known.num_lidar_pts)[ordered].tolist()
        )
    rows = json.loads((root / LABELLED / "sample_annotation.json").read_bytes())
    assert {row["source"].partition("@")[0] for row in rows} == {"results.json"}
    assert {row["score"] for row in rows} == {0.9, 0.2}
    about = json.loads((root / LABELLED / "labels.json").read_bytes())
    assert about["boxes"] == dict(done.boxes)
    assert about["from"] == MINI


def test_objects_keep_their_identity(root: Path, results: Path) -> None:
    before = NuScenesTables(root, MINI)
    names = [t for s in before.scene_names for t in before.samples(s)]
    truth = {t: before.ground_truth(t) for t in names}
    bare(root)
    label(root, options(results, score=0.1))
    after = NuScenesTables(root, LABELLED)
    pairs, velocities = set(), []
    for token in names:
        a, b = truth[token], after.ground_truth(token)
        for i, center in enumerate(a.boxes.centers):
            j = int((b.boxes.centers - center).norm(dim=1).argmin())
            pairs.add((a.instances[i], b.instances[j]))
            velocities.append((a.boxes.velocities[i].numpy(), b.boxes.velocities[j].numpy()))
    true, found = ({pair[side] for pair in pairs} for side in (0, 1))
    # hardly an object is torn or mixed with another, whose boxes are exact
    assert len(pairs) <= 1.05 * len(true)
    assert len(pairs) <= 1.05 * len(found)
    both = [(x, y) for x, y in velocities if np.isfinite([*x, *y]).all()]
    assert np.mean([np.abs(x - y).max() < 0.1 for x, y in both]) > 0.95


def test_the_rest_of_the_data_root_goes_on(
    root: Path, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = {s: split_scenes(NuScenesTables(root, MINI), s) for s in ("train", "val")}
    bare(root)
    label(root, options(results))
    tables = NuScenesTables(root, LABELLED)
    assert {s: split_scenes(tables, s) for s in splits} == splits
    devkit = NuScenes(LABELLED, str(root), verbose=False)
    annotation = devkit.sample_annotation[0]
    assert devkit.get("sample_annotation", annotation["token"])["source"].startswith("results")
    assert devkit.get("instance", annotation["instance_token"])
    assert statistics(root, StatisticsOptions(version=LABELLED))
    page = view(root, tmp_path / "pages", ViewOptions(version=LABELLED, limit=1))
    assert page.is_file()


def test_a_teacher_labels(root: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    file, config = tmp_path / "teacher.safetensors", small_teacher()
    save_network(file, "teacher", Teacher(config), config)
    bare(root)
    words = {"version": MINI, "device": "cpu", "score": 0.0, "min_frames": 1}
    done = label(root, LabelOptions(teacher=file, **words))  # type: ignore[arg-type]
    assert done.boxes.keys() <= set(config.head.class_names)
    assert sum(done.boxes.values()) > 0
    about = json.loads((root / LABELLED / "labels.json").read_bytes())
    assert about["source"].startswith("teacher.safetensors@")


def test_thresholds_are_those_of_classes(root: Path, results: Path) -> None:
    bare(root)
    done = label(root, options(results, scores={"car": 1.1}))
    assert not {"car", "barrier"} & done.boxes.keys()
    assert done.boxes["pedestrian"]
    again = label(root, options(results, into="other", scores={"barrier": 0.15}))
    assert again.boxes["barrier"]


def test_what_is_left_out_is_counted(
    root: Path, results: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare(root)
    found = sum(map(len, json.loads(results.read_bytes())["results"].values()))
    for case in (options(results), options(results, score=0.9, into="high")):
        done = label(root, case)
        assert sum(done.boxes.values()) + done.weak + done.brief == found
        assert done.weak > 0
    assert not caplog.text
    none = label(root, options(results, score=0.0, min_frames=99, into="none"))
    assert (none.instances, none.weak, none.brief) == (0, 0, found)
    assert "so no object of it is in the 99 that --min-frames asks for" in caplog.text


def test_objects_that_are_seen_once_are_left_out(root: Path, results: Path) -> None:
    bare(root)
    all_of_them = label(root, options(results, score=0.1))
    steady = label(root, options(results, score=0.1, min_frames=4, into="steady"))
    assert steady.instances < all_of_them.instances
    tables = NuScenesTables(root, "steady")
    seen = [
        name
        for scene in tables.scene_names
        for token in tables.samples(scene)
        for name in tables.ground_truth(token).instances
    ]
    assert min(map(seen.count, set(seen))) == 4


def test_scenes_with_annotations_stay(root: Path, results: Path) -> None:
    with pytest.raises(DataError, match="every scene of .* has annotations: name those"):
        label(root, options(results))
    first, second = NuScenesTables(root, MINI).scene_names
    label(root, options(results, scenes=(first,)))
    before, after = NuScenesTables(root, MINI), NuScenesTables(root, LABELLED)
    for token in before.samples(second):
        assert after.ground_truth(token).tokens == before.ground_truth(token).tokens
    for token in before.samples(first):
        assert not set(after.ground_truth(token).tokens) & set(before.ground_truth(token).tokens)


def test_annotations_of_any_class_are_annotations(root: Path, results: Path) -> None:
    """People label what a teacher does not know."""
    first, second = NuScenesTables(root, MINI).scene_names
    table = root / MINI / "category.json"
    rows = json.loads(table.read_bytes())
    table.write_text(json.dumps([{**row, "name": f"own.{i}"} for i, row in enumerate(rows)]))
    with pytest.raises(DataError, match="every scene of .* has annotations: name those"):
        label(root, options(results))


def test_scenes_that_results_lack_are_not_emptied(root: Path, results: Path) -> None:
    tables = NuScenesTables(root, MINI)
    first, second = tables.scene_names
    content = json.loads(results.read_bytes())
    content["results"] = {token: content["results"][token] for token in tables.samples(second)}
    results.write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"has no sample of the scenes {first}: is it of"):
        label(root, options(results, scenes=(first, second)))
    bare(root)
    done = label(root, options(results))
    assert done.scenes == 1
    assert json.loads((done.folder / "labels.json").read_bytes())["scenes"] == [second]


def test_a_teacher_is_asked_before_it_runs(root: Path, tmp_path: Path) -> None:
    teacher, config = tmp_path / "teacher.safetensors", small_teacher()
    save_network(teacher, "teacher", Teacher(config), config, "random weights")
    with pytest.raises(ConfigError, match="--categories names 'carr'; the classes of .* are car,"):
        label(root, LabelOptions(teacher=teacher, version=MINI, categories={"carr": "x"}))
    bare_class = replace(config.head.classes[0], categories=())
    head = replace(config.head, classes=(bare_class, *config.head.classes[1:]))
    own = replace(config, head=head)
    save_network(teacher, "teacher", Teacher(own), own, "random weights")
    with pytest.raises(ConfigError, match="car of .* have no category: give one for each by"):
        label(root, LabelOptions(teacher=teacher, version=MINI))
    encoder = shared_file("config/models/demo_label_encoder.safetensors")
    with pytest.raises(ConfigError, match="is a label encoder, which finds no boxes"):
        label(root, LabelOptions(teacher=encoder, version=MINI))


def test_in_place_the_tables_from_before_are_kept(root: Path, results: Path) -> None:
    old = {f.name: f.read_bytes() for f in (root / MINI).glob("*.json")}
    scenes = NuScenesTables(root, MINI).scene_names
    done = label(root, options(results, into=MINI, scenes=scenes))
    assert done.folder == root / MINI
    backup = root / f"{MINI}-before-labels"
    assert {f.name: f.read_bytes() for f in backup.glob("*.json")} == old
    assert (root / MINI / "labels.json").is_file()
    with pytest.raises(DataError, match="from before the last labels"):
        label(root, options(results, into=MINI, scenes=scenes))


def test_nothing_of_others_is_replaced(root: Path, results: Path) -> None:
    bare(root)
    label(root, options(results))
    with pytest.raises(DataError, match="use --force"):
        label(root, options(results))
    label(root, options(results, score=0.1), force=True)
    (root / LABELLED / "labels.json").unlink()
    with pytest.raises(DataError, match="not made by labelling"):
        label(root, options(results), force=True)


def test_a_failure_leaves_no_tables(
    root: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare(root)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("labeldistill_core.labelling.relabelled.write_json", full)
    with pytest.raises(OSError, match="No space"):
        label(root, options(results))
    assert sorted(p.name for p in root.iterdir() if "labelled" in p.name) == []


def test_wrong_calls_are_refused(root: Path, results: Path) -> None:
    with pytest.raises(ConfigError, match="one of the two"):
        LabelOptions()
    with pytest.raises(ConfigError, match="names 'cat'; the classes are car"):
        label(root, options(results, scores={"cat": 0.2}))
    with pytest.raises(DataError, match="--into"):
        options(results, into="../x")


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("translation", [1e300, 0.0, 0.0], "1e\\+300 metres away"),
        ("size", [1e300, 1.0, 1.0], "1e\\+300 metres in size"),
        ("velocity", [1e300, 0.0], "1e\\+300 metres a second fast"),
    ],
)
def test_boxes_that_are_nothing_on_a_road(
    field: str, value: list[float], told: str, root: Path, results: Path
) -> None:
    bare(root)
    content = json.loads(results.read_bytes())
    next(boxes for boxes in content["results"].values() if boxes)[0].update(
        {field: value, "detection_score": 0.9}
    )
    results.write_text(json.dumps(content))
    with pytest.raises(DataError, match=told):
        label(root, options(results))


def test_more_boxes_than_objects_can_be(root: Path, results: Path) -> None:
    bare(root)
    content = json.loads(results.read_bytes())
    boxes = next(boxes for boxes in content["results"].values() if boxes)
    boxes[:] = [{**boxes[0], "detection_score": 0.9}] * 2001
    results.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has 2001 boxes above the lowest score"):
        label(root, options(results))


def test_rotations_of_any_length(root: Path, results: Path) -> None:
    bare(root)
    label(root, options(results, into="unit"))
    content = json.loads(results.read_bytes())
    for boxes in content["results"].values():
        for box in boxes:
            box["rotation"] = [1e200 * x for x in box["rotation"]]
    results.write_text(json.dumps(content))
    label(root, options(results, into="long"))
    unit, long = (
        [
            row["rotation"]
            for row in json.loads((root / into / "sample_annotation.json").read_bytes())
        ]
        for into in ("unit", "long")
    )
    np.testing.assert_allclose(unit, long, atol=1e-12)


def test_results_of_another_data_root(root: Path, results: Path) -> None:
    bare(root)
    content = json.loads(results.read_bytes())
    content["results"] = {f"no {token}": [] for token in content["results"]}
    results.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no sample of the scenes"):
        label(root, options(results))


def test_scores_and_categories_that_say_nothing(results: Path) -> None:
    for odd in ({"score": float("nan")}, {"scores": {"car": float("nan")}}):
        with pytest.raises(ConfigError, match="a lowest score is nan"):
            options(results, **odd)
    with pytest.raises(ConfigError, match=r"'car' is called 'a\\nb'"):
        options(results, categories={"car": "a\nb"})
