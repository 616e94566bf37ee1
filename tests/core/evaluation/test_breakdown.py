# SPDX-License-Identifier: Apache-2.0
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from labeldistill_core.classes import CLASSES, NUSCENES, ClassList
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.nuscenes_records import GroundTruth
from labeldistill_core.errors import ConfigError, DataError
from labeldistill_core.evaluation.breakdown import break_down, match_boxes, sample_matches
from labeldistill_core.evaluation.counted_boxes import CountedBoxes, evaluation_boxes
from labeldistill_core.evaluation.metrics import evaluate
from labeldistill_core.evaluation.result_boxes import result_boxes
from labeldistill_core.evaluation.result_columns import ResultBox
from labeldistill_core.evaluation.result_file import read_results
from labeldistill_core.evaluation.verdict import RunRecord, Thresholds, check, write_junit
from tests.support.nuscenes_fixture import SCENES, VERSION


@pytest.fixture
def truths(shared_dataroot: Path) -> list[GroundTruth]:
    tables = NuScenesTables(shared_dataroot, VERSION)
    return [tables.ground_truth(token) for token in tables.samples(SCENES[0])]


def as_results(truths: list[GroundTruth]) -> dict[str, list[ResultBox]]:
    return {t.sample_token: result_boxes(t.sample_token, t.boxes) for t in truths}


def test_groups_hold_every_true_box_once(truths: list[GroundTruth]) -> None:
    found = break_down(evaluation_boxes(truths, as_results(truths)))
    counted = sum(evaluate(truths, {}).truth_boxes.values())
    for groups in found.criteria.values():
        assert sum(group.truth_boxes for group in groups) == counted
        assert all(group.recall == 1.0 for group in groups if group.truth_boxes)
    by_name = {group.name: group for group in found.visibility}
    assert by_name["80-100 %"].truth_boxes == 3  # the car, in three samples
    assert {g.name: g.truth_boxes for g in found.lidar_returns}["20-99"] == 3
    assert "80-100 %" in found.table()


def test_far_boxes_and_those_without_a_lidar_have_groups(truths: list[GroundTruth]) -> None:
    far = ClassList(tuple(replace(one, range_m=60.0) for one in NUSCENES.members))
    moved = []
    for truth in truths:
        values = truth.boxes.values.clone()
        values[:, :2] = torch.from_numpy(truth.fixed_from_ego.translation[:2]).float()
        values[:, 0] += 55
        boxes = replace(truth.boxes, values=values)
        unknown = (-1,) * len(boxes)
        moved.append(replace(truth, boxes=boxes, num_lidar_pts=unknown, classes=far))
    found = break_down(evaluation_boxes(moved, as_results(moved)))
    counted = sum(evaluate(moved, {}).truth_boxes.values())
    assert counted
    assert {g.name: g.truth_boxes for g in found.distance if g.truth_boxes} == {"50-60 m": counted}
    returns = {g.name: g.truth_boxes for g in found.lidar_returns if g.truth_boxes}
    assert returns == {"unknown": counted}


def test_a_group_without_boxes_shows_dashes(truths: list[GroundTruth]) -> None:
    found = break_down(evaluation_boxes(truths, as_results(truths)))
    empty = next(group for group in found.lidar_returns if not group.truth_boxes)
    rows = [row.split() for row in found.table().splitlines()]
    assert [empty.name, "0", "-", "-"] in rows
    assert "nan" not in found.table()


def test_what_is_missed_lowers_its_own_group(truths: list[GroundTruth]) -> None:
    results = as_results(truths)
    for boxes in results.values():
        boxes[:] = [box for box in boxes if box["detection_name"] != "pedestrian"]
    found = break_down(evaluation_boxes(truths, results))
    recalls = {g.name: g.recall for g in found.lidar_returns}
    assert recalls["20-99"] == 1.0
    assert recalls["5-19"] < 1.0
    for boxes in results.values():
        for box in boxes:
            box["translation"] = [box["translation"][0] + 1.0, *box["translation"][1:]]
    moved = break_down(evaluation_boxes(truths, results))
    assert all(g.center_error_m == pytest.approx(1.0) for g in moved.lidar_returns if g.recall > 0)


def devkit_boxes(side: CountedBoxes, truths: list[GroundTruth]) -> Any:
    """The same boxes as the devkit's objects."""
    from nuscenes.eval.common.data_classes import EvalBoxes
    from nuscenes.eval.detection.data_classes import DetectionBox

    boxes = EvalBoxes()
    for number, truth in enumerate(truths):
        rows = side.boxes[side.samples == number].rows(truth.sample_token)
        boxes.add_boxes(truth.sample_token, [DetectionBox.deserialize(row) for row in rows])
    return boxes


@pytest.mark.parametrize("name", ["devkit_mock_seed42", "gt_as_prediction"])
def test_matches_are_those_of_the_devkit(shared_data: Path, name: str) -> None:
    from nuscenes.eval.common.utils import center_distance
    from nuscenes.eval.detection.algo import accumulate

    folder = shared_data / "nuscenes"
    tables = NuScenesTables(folder / "mini_val", "v1.0-mini")
    truths = [tables.ground_truth(t) for s in tables.scene_names for t in tables.samples(s)]
    boxes = evaluation_boxes(truths, read_results(folder / f"evaluator/{name}.json.gz"))
    matched = match_boxes(boxes)
    truth, predicted = devkit_boxes(boxes.truth, truths), devkit_boxes(boxes.predicted, truths)
    for label, name in enumerate(CLASSES):
        own = np.isfinite(matched.truth_m[boxes.truth.boxes.labels == label])
        data = accumulate(truth, predicted, name, center_distance, 2.0)
        # the devkit tells the recall in steps of a hundredth, rounded down
        recall = own.sum() / max(len(own), 1)
        assert data.max_recall == pytest.approx(math.floor(recall * 100 + 1e-9) / 100), name


def test_matches_by_sample(truths: list[GroundTruth]) -> None:
    results = as_results(truths)
    token = truths[0].sample_token
    ghost = {**results[token][0], "translation": [605.0, 1605.0, 0.0], "detection_score": 0.4}
    results[token] = [*results[token][1:], ghost]
    boxes = evaluation_boxes(truths, results)
    by_sample = sample_matches(boxes, min_score=0.3)
    assert by_sample[token].missed == 1
    assert by_sample[token].false >= 1
    assert by_sample[token].f1 < by_sample[truths[1].sample_token].f1
    strict = sample_matches(boxes, min_score=0.5)
    assert strict[token].false == by_sample[token].false - 1


def test_boxes_in_another_frame_are_refused(truths: list[GroundTruth]) -> None:
    results = as_results(truths)
    for truth in truths:
        at = truth.fixed_from_ego.translation
        for box in results[truth.sample_token]:
            box["translation"] = [box["translation"][i] - float(at[i]) for i in range(3)]
    with pytest.raises(DataError, match=r"half of the boxes lie more than 17\d\d m.*global frame"):
        evaluate(truths, results)


def test_thresholds_and_junit(tmp_path: Path) -> None:
    limits = Thresholds(min_nds=0.5, min_map=0.3, max_latency_ms=80.0)
    values = {"nds": 0.6, "mean_ap": 0.2, "coverage": 0.1, "latency_p95_ms": 80.0}
    checks = check("first", limits, **values)
    assert [(c.name, c.passed) for c in checks] == [
        ("NDS", True),
        ("mAP", False),
        ("latency p95 ms", True),
    ]
    checks += check("second", limits, **{**values, "latency_p95_ms": math.nan})
    assert not checks[-1].passed  # what was not measured has not passed
    (slow,) = check(
        "slow", Thresholds(max_latency_ms=400.0), **{**values, "latency_p95_ms": 400.26}
    )
    assert slow.sentence() == "FAILED: slow: latency p95 ms is 400.3, wanted at most 400"
    limit, value = 0.1234565, 0.12345641
    (close,) = check("close", Thresholds(min_nds=limit), **{**values, "nds": value})
    assert close.sentence().endswith(f"NDS is 0.123456, wanted at least {limit}")
    (near,) = check("near", Thresholds(min_nds=0.4), **{**values, "nds": 0.39996})
    assert near.sentence() == "FAILED: near: NDS is 0.39996, wanted at least 0.4"
    assert "second: latency p95 ms is unknown" in checks[-1].sentence()
    write_junit(tmp_path / "deep/junit.xml", checks)
    suites = list(ElementTree.parse(tmp_path / "deep/junit.xml").getroot())
    assert [(s.get("name"), s.get("tests"), s.get("failures")) for s in suites] == [
        ("first", "3", "1"),
        ("second", "3", "2"),
    ]
    failure = suites[0][1].find("failure")
    assert failure is not None
    assert "mAP is 0.2000, wanted at least 0.3" in str(failure.get("message"))
    with pytest.raises(ConfigError, match="--min-nds is 45; it is a share"):
        Thresholds(min_nds=45)
    for number in (math.nan, math.inf, -1.0, 0.0):
        with pytest.raises(ConfigError, match="--max-latency is .*; give milliseconds"):
            Thresholds(max_latency_ms=number)


def test_junit_holds_times_and_figures(tmp_path: Path) -> None:
    values = {"nds": 0.6, "mean_ap": 0.2, "coverage": 0.1, "latency_p95_ms": 80.0}
    checks = check("first", Thresholds(min_nds=0.5, min_map=0.3), **values)
    records = {
        "first": RunRecord(4.0, {"NDS": 0.6, "latency p95 ms": math.nan}),
        "no threshold": RunRecord(2.0, {"NDS": 0.1}),
    }
    write_junit(tmp_path / "junit.xml", checks, records)
    first, other = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert (first.get("time"), other.get("time")) == ("4.000", "2.000")
    assert [case.get("time") for case in first.iter("testcase")] == ["2.000", "2.000"]
    figures = [(p.get("name"), p.get("value")) for p in first.iter("property")]
    assert figures == [("NDS", "0.6")]
    said = [str(text.text) for text in first.iter("system-out")]
    assert said[0] == "passed: first: NDS is 0.6000, wanted at least 0.5"
    assert [case.get("name") for case in other.iter("testcase")] == ["scored"]
    assert (other.get("tests"), other.get("failures")) == ("1", "0")


def test_an_empty_sample_scores_full(truths: list[GroundTruth]) -> None:
    nothing = torch.zeros(len(truths[0].boxes), dtype=torch.bool)
    bare = replace(
        truths[0],
        boxes=truths[0].boxes[nothing],
        tokens=(),
        instances=(),
        num_lidar_pts=(),
        num_radar_pts=(),
        attributes=(),
        visibility=(),
    )
    found = sample_matches(evaluation_boxes([bare], {}), 0.3)
    assert found[bare.sample_token].f1 == 1.0
