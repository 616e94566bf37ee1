# SPDX-License-Identifier: Apache-2.0
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.nuscenes_records import GroundTruth
from labeldistill_core.errors import DataError
from labeldistill_core.evaluation.metrics import Metrics, evaluate
from labeldistill_core.evaluation.result_boxes import MAX_BOXES, attribute_of, result_boxes
from labeldistill_core.evaluation.result_columns import ResultBox
from labeldistill_core.evaluation.result_file import read_results, write_results
from labeldistill_core.visualization.page import metric_tables
from labeldistill_ros.cli import main
from tests.support.nuscenes_fixture import SCENES, VERSION


@pytest.fixture
def truths(shared_dataroot: Path) -> list[GroundTruth]:
    tables = NuScenesTables(shared_dataroot, VERSION)
    return [tables.ground_truth(token) for name in SCENES for token in tables.samples(name)]


def as_results(truths: list[GroundTruth], noise: float = 0.0) -> dict[str, list[ResultBox]]:
    """Ground truth as predictions: moved about, with scores that differ, some left out."""
    rng = np.random.default_rng(0)
    out = {}
    for truth in truths:
        values = truth.boxes.values.clone()
        values[:, :8] += torch.from_numpy(rng.normal(size=(len(values), 8)) * noise)
        values[:, 3:6].clamp_(min=0.1)
        scores = (
            torch.from_numpy(rng.uniform(0.1, 1.0, len(values))) if noise else truth.boxes.scores
        )
        boxes = Boxes3D("map", values, truth.boxes.labels, scores)
        out[truth.sample_token] = result_boxes(truth.sample_token, boxes)
    return out


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_devkit_says_the_same(
    truths: list[GroundTruth], shared_dataroot: Path, tmp_path: Path, noise: float
) -> None:
    from nuscenes import NuScenes
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    results = as_results(truths, noise)
    write_results(tmp_path / "results.json", results)
    official = DetectionEval(
        NuScenes(VERSION, str(shared_dataroot), verbose=False),
        config_factory("detection_cvpr_2019"),
        str(tmp_path / "results.json"),
        "everything",
        str(tmp_path),
        verbose=False,
    )
    wanted, _ = official.evaluate()
    found = evaluate(truths, results)
    assert found.nds == pytest.approx(wanted.nd_score, abs=1e-9)
    assert found.mean_ap == pytest.approx(wanted.mean_ap, abs=1e-12)
    assert found.tp_errors == pytest.approx(wanted.tp_errors, abs=1e-9)
    assert found.class_ap == pytest.approx(wanted.mean_dist_aps)
    assert 0.05 < found.mean_ap < 1
    kept = {n: sum(b.detection_name == n for b in official.gt_boxes.all) for n in CLASSES}
    assert found.truth_boxes == kept
    # hidden and far cars and the bicycle in the rack do not count
    assert (kept["car"], kept["bicycle"]) == (12, 6)


def test_perfect_boxes(truths: list[GroundTruth]) -> None:
    found = evaluate(truths, as_results(truths))
    for name in ("car", "pedestrian", "traffic_cone", "barrier", "bicycle"):
        # truth without LiDAR points does not count, so the boxes of hidden cars are false
        assert (found.class_ap[name] > 0.99) == (name != "car"), name
        assert found.class_tp_errors[name]["trans_err"] < 1e-9
    assert math.isnan(found.class_tp_errors["traffic_cone"]["vel_err"])
    assert math.isnan(found.class_tp_errors["barrier"]["attr_err"])
    assert found.class_ap["bus"] == 0.0


def test_missing_samples_count_as_empty_and_others_are_left_out(
    truths: list[GroundTruth],
) -> None:
    results = as_results(truths)
    few = {token: results[token] for token in list(results)[:2]}
    assert evaluate(truths, few).mean_ap < evaluate(truths[:2], results).mean_ap
    assert (
        evaluate(truths[:2], results).predicted_boxes == evaluate(truths[:2], few).predicted_boxes
    )


def test_no_boxes_at_all(truths: list[GroundTruth]) -> None:
    found = evaluate(truths, {})
    assert (found.mean_ap, found.samples) == (0.0, 6)
    assert sum(found.predicted_boxes.values()) == 0
    bare = [replace(t, boxes=Boxes3D.empty("map"), bicycle_racks=np.zeros((0, 7))) for t in truths]
    assert evaluate(bare, as_results(truths)).mean_ap == 0.0


def test_metrics_as_json_and_table(truths: list[GroundTruth], tmp_path: Path) -> None:
    found = evaluate(truths, as_results(truths))
    found.write(tmp_path / "deep/metrics.json")
    content = json.loads((tmp_path / "deep/metrics.json").read_text())
    assert content["NDS"] == found.nds
    assert content["classes"]["traffic_cone"]["AVE"] is None
    assert f"NDS {found.nds:.4f}" in found.table()
    assert all(name in found.table() for name in CLASSES)


def test_nothing_to_score(truths: list[GroundTruth]) -> None:
    with pytest.raises(DataError, match="nothing to score"):
        evaluate([], {})
    with pytest.raises(DataError, match="twice"):
        evaluate([truths[0], truths[0]], {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detection_name": "tram"}, "malformed.*tram"),
        ({"rotation": [1, 0]}, "malformed"),
        ({"translation": [math.inf, 0, 0]}, "infinite"),
        ({"size": [math.nan, 1, 1]}, "malformed"),
        ({"detection_score": 1e308}, r"its `detection_score` \[1e\+308\] is beyond 1e\+09"),
        ({"translation": [0, -1e200, 1]}, "its `translation`.*is beyond"),
        ({"size": [1, 1, 1e120]}, "its `size`.*is beyond"),
        ({"velocity": [math.nan, 1e200]}, "its `velocity`.*is beyond"),
    ],
)
def test_malformed_boxes(truths: list[GroundTruth], change: ResultBox, message: str) -> None:
    results = as_results(truths)
    token = truths[0].sample_token
    results[token][0] |= change
    with pytest.raises(DataError, match=f"{token}.*{message}"):
        evaluate(truths, results)


@pytest.mark.parametrize(
    ("column", "value", "told"),
    [(3, 0.0, "`size`.*above zero"), (0, math.inf, "`translation`.*infinite"),
     (4, 1e120, "`size`.*beyond"), (7, 1e200, "`velocity`.*beyond")],
)  # fmt: skip
def test_malformed_truth(truths: list[GroundTruth], column: int, value: float, told: str) -> None:
    boxes = truths[0].boxes
    values = boxes.values.clone()
    values[0, column] = value
    odd = [replace(truths[0], boxes=replace(boxes, values=values)), *truths[1:]]
    with pytest.raises(DataError, match=f"the truth: box 0 of .*{truths[0].sample_token}.*{told}"):
        evaluate(odd, {})


def test_rotations_of_any_length(truths: list[GroundTruth]) -> None:
    results = as_results(truths)
    expected = evaluate(truths, results)
    for length, box in zip((1e200, 1e-200, 3.0), results[truths[0].sample_token], strict=False):
        box["rotation"] = [length * q for q in box["rotation"]]
    assert evaluate(truths, results).as_json() == expected.as_json()


def test_too_many_boxes(truths: list[GroundTruth]) -> None:
    token = truths[0].sample_token
    box = as_results(truths)[token][0]
    with pytest.raises(DataError, match=f"{token} has 501 boxes; at most 500"):
        evaluate(truths, {token: [box] * 501})


def test_only_the_best_boxes_are_written() -> None:
    n = MAX_BOXES + 20
    scores = torch.linspace(0, 1, n)
    boxes = Boxes3D("map", torch.ones(n, 9), torch.zeros(n, dtype=torch.int64), scores)
    written = result_boxes("token", boxes)
    assert len(written) == MAX_BOXES
    assert min(b["detection_score"] for b in written) == pytest.approx(float(scores[20]))
    with pytest.raises(ValueError, match="must be in 'map', not 'ego'"):
        result_boxes("token", replace(boxes, frame="ego"))


def test_an_unknown_velocity_is_zero_in_the_file() -> None:
    values = torch.tensor([[1.0, 2, 3, 4, 2, 1, math.pi / 2, math.nan, math.nan]])
    boxes = Boxes3D("map", values, torch.tensor([0]), torch.ones(1))
    (box,) = result_boxes("token", boxes)
    assert box["velocity"] == [0.0, 0.0]
    assert box["size"] == [2.0, 4.0, 1.0]
    assert box["rotation"] == pytest.approx([math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
    assert box["attribute_name"] == "vehicle.parked"


@pytest.mark.parametrize(
    ("name", "speed", "attribute"),
    [
        ("car", 0.0, "vehicle.parked"),
        ("car", 3.0, "vehicle.moving"),
        ("bus", 0.1, "vehicle.stopped"),
        ("pedestrian", 0.1, "pedestrian.standing"),
        ("pedestrian", 1.0, "pedestrian.moving"),
        ("bicycle", 2.0, "cycle.with_rider"),
        ("motorcycle", 0.0, "cycle.without_rider"),
        ("traffic_cone", 9.0, ""),
        ("barrier", 0.0, ""),
    ],
)
def test_attributes_by_speed(name: str, speed: float, attribute: str) -> None:
    assert attribute_of(name, 0.0, -speed) == attribute


def test_result_files(tmp_path: Path, truths: list[GroundTruth]) -> None:
    results = as_results(truths)
    write_results(tmp_path / "a/r.json", results)
    assert read_results(tmp_path / "a/r.json") == results
    assert json.loads((tmp_path / "a/r.json").read_text())["meta"]["use_camera"] is True
    with pytest.raises(DataError, match="cannot read the result file"):
        read_results(tmp_path / "nothing.json")
    for name, text in {"x.json": "{", "y.json": "{}", "z.json": '{"results": []}'}.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=f"{name}.*'results'"):
            read_results(tmp_path / name)
    (tmp_path / "r.json.gz").write_bytes(b"not compressed")
    with pytest.raises(DataError, match=r"r\.json\.gz"):
        read_results(tmp_path / "r.json.gz")


def test_the_command(
    shared_dataroot: Path,
    truths: list[GroundTruth],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_results(tmp_path / "r.json", as_results(truths))
    args = [str(tmp_path / "r.json"), str(shared_dataroot), "--version", VERSION]
    out = tmp_path / "m.json"
    assert main(["evaluate-results", *args, "--scenes", SCENES[0], "--json", str(out)]) == 0
    assert "(3 samples)" in capsys.readouterr().out
    assert json.loads(out.read_text())["samples"] == 3
    assert main(["evaluate-results", *args, "--scenes", "scene-9"]) == 2
    assert "there are: scene-0001, scene-0002" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["devkit_mock_seed42", "gt_as_prediction"])
def test_official_figures_on_real_tables(shared_data: Path, name: str) -> None:
    folder = shared_data / "nuscenes"
    tables = NuScenesTables(folder / "mini_val", "v1.0-mini")
    tokens = [token for scene in tables.scene_names for token in tables.samples(scene)]
    wanted = json.loads((folder / f"evaluator/{name}.expected_metrics.json").read_text())
    results = read_results(folder / f"evaluator/{name}.json.gz")
    found: Metrics = evaluate([tables.ground_truth(token) for token in tokens], results)
    assert found.nds == pytest.approx(wanted["nd_score"], abs=1e-12)
    assert found.mean_ap == pytest.approx(wanted["mean_ap"], abs=1e-12)
    assert found.tp_errors == pytest.approx(wanted["tp_errors"], abs=1e-12)
    assert found.class_ap == pytest.approx(wanted["mean_dist_aps"], abs=1e-12)


def test_a_class_that_does_not_occur_has_no_precision(truths: list[GroundTruth]) -> None:
    found = evaluate(truths, as_results(truths))
    absent = {name for name, count in found.truth_boxes.items() if not count}
    assert absent
    assert absent < set(CLASSES)
    table = {line.split()[0]: line.split()[3:] for line in found.table().splitlines()[4:]}
    rows = {row[0].replace(" ", "_"): row[3:] for row in metric_tables(found)[0].rows}
    for name in CLASSES:
        assert (set(table[name]) == {"-"}) == (name in absent)
        assert (set(rows[name]) == {"–"}) == (name in absent)
