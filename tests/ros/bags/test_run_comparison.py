# SPDX-License-Identifier: Apache-2.0
"""`bag score` on result files, against data roots and bags; several runs; no DDS, no ROS."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.evaluation.result_boxes import result_boxes
from labeldistill_core.evaluation.result_file import read_results, write_results
from labeldistill_ros.bags.convert import convert_scene
from labeldistill_ros.cli import main
from tests.support.bag_rig import truths_of, write_detections
from tests.support.nuscenes_fixture import SCENES, VERSION
from tests.support.without_ros import run_without_ros


@pytest.fixture
def result(shared_dataroot: Path, tmp_path: Path) -> Path:
    """Ground truth of the first scene as a result file."""
    truths = truths_of(shared_dataroot)
    results = {t.sample_token: result_boxes(t.sample_token, t.boxes) for t in truths}
    write_results(tmp_path / "run.json", results)
    return tmp_path / "run.json"


@pytest.fixture
def root(shared_dataroot: Path) -> list[str]:
    return ["--dataroot", str(shared_dataroot), "--version", VERSION, "--scenes", SCENES[0]]


@pytest.mark.parametrize("name", ["devkit_mock_seed42", "gt_as_prediction"])
def test_official_figures(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder, out = shared_data / "nuscenes", tmp_path / "m.json"
    arguments = ["--dataroot", str(folder / "mini_val"), "--version", "v1.0-mini"]
    arguments += ["--split", "mini_val", "--json", str(out)]
    assert main(["bag", "score", str(folder / f"evaluator/{name}.json.gz"), *arguments]) == 0
    found = json.loads(out.read_text())
    wanted = json.loads((folder / f"evaluator/{name}.expected_metrics.json").read_text())
    assert found["NDS"] == pytest.approx(wanted["nd_score"], abs=1e-9)
    assert found["mAP"] == pytest.approx(wanted["mean_ap"], abs=1e-9)
    short = {"trans": "mATE", "scale": "mASE", "orient": "mAOE", "vel": "mAVE", "attr": "mAAE"}
    for long, error in short.items():
        assert found[error] == pytest.approx(wanted["tp_errors"][f"{long}_err"], abs=1e-9)
    for label, aps in wanted["label_aps"].items():
        assert found["classes"][label]["AP_at_m"] == pytest.approx(aps, abs=1e-9)


def test_empty_samples_of_a_result_file_are_not_covered(
    shared_dataroot: Path, root: list[str], tmp_path: Path
) -> None:
    truths = truths_of(shared_dataroot)
    results = {t.sample_token: result_boxes(t.sample_token, t.boxes) for t in truths}
    results[truths[1].sample_token] = []
    write_results(tmp_path / "run.json", results)
    out = tmp_path / "metrics.json"
    assert main(["bag", "score", str(tmp_path / "run.json"), *root, "--json", str(out)]) == 0
    coverage = json.loads(out.read_text())["coverage"]
    assert (coverage["samples"], coverage["matched"]) == (3, 2)
    assert coverage["missed"] == [truths[1].sample_token]


def test_runs_of_one_name_are_told_apart(result: Path, root: list[str], tmp_path: Path) -> None:
    second = tmp_path / "second" / "run.json"
    second.parent.mkdir()
    second.write_bytes(result.read_bytes())
    out = tmp_path / "metrics.json"
    assert main(["bag", "score", str(result), str(second), *root, "--json", str(out)]) == 0
    names = [run["run"] for run in json.loads(out.read_text())["runs"]]
    assert names == [str(result), str(second)]


def test_thresholds(
    result: Path, root: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    junit = tmp_path / "junit.xml"
    call = ["bag", "score", str(result), *root, "--junit", str(junit)]
    assert main([*call, "--min-nds", "0.1", "--min-map", "0.1", "--min-coverage", "1"]) == 0
    assert "passed: run.json: NDS" in capsys.readouterr().out
    assert main([*call, "--min-nds", "0.99"]) == 1
    assert "FAILED: run.json: NDS is 0." in capsys.readouterr().out
    assert ElementTree.parse(junit).getroot()[0].get("failures") == "1"
    assert main([*call, "--max-latency", "100"]) == 1  # nobody measured it


def test_runs_side_by_side(
    result: Path,
    root: list[str],
    shared_dataroot: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A bag with the truth; a recording and a result file are measured against it."""
    bag = tmp_path / "bag"
    convert_scene(NuScenesTables(shared_dataroot, VERSION), SCENES[0], bag)
    recording = write_detections(tmp_path / "recording", truths_of(shared_dataroot))
    out = tmp_path / "m.json"
    call = ["bag", "score", str(bag), str(recording), str(result), "--json", str(out)]
    assert main(call) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows[:-1]] == ["run", "recording", "run.json"]
    assert rows[-1] == f"wrote {out}"
    first, second = json.loads(out.read_text())["runs"]
    assert (first["run"], second["run"]) == ("recording", "run.json")
    assert first["NDS"] == pytest.approx(second["NDS"], abs=1e-6)
    assert main(["bag", "score", str(recording), str(result), *root]) == 0
    assert main([*call, "--out", str(tmp_path / "r.json")]) == 2
    assert "--out takes the boxes of one run, and 2 are given" in capsys.readouterr().err


def test_mismatches_are_refused(
    result: Path, root: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = read_results(result)
    tokens = list(whole)

    def refused(results: object, reason: str, *more: str) -> None:
        changed = tmp_path / "changed.json"
        changed.write_text(json.dumps({"meta": {}, "results": results}))
        assert main(["bag", "score", str(changed), *root, *more]) == 2
        assert reason in capsys.readouterr().err

    refused({t: whole[t] for t in tokens[1:]}, f"lacks 1 of the 3 key frames of {root[1]}")
    refused({**whole, "stranger": []}, "has 1 key frames that are not among the 3 chosen")
    tram = [{**whole[tokens[0]][0], "detection_name": "tram"}]
    refused({**whole, tokens[0]: tram}, "class 'tram' is none of car, truck")
    assert main(["bag", "score", str(result)]) == 2
    assert "say with --dataroot" in capsys.readouterr().err
    assert main(["bag", "score", str(result), *root[:4], "--split", "mini_val"]) == 2
    assert f"belongs to v1.0-mini, not to '{VERSION}'" in capsys.readouterr().err


def test_no_ros_is_needed(result: Path, root: list[str]) -> None:
    """Neither rclpy nor message packages are imported."""
    told = run_without_ros(["bag", "score", str(result), *root])
    assert "NDS" in told
