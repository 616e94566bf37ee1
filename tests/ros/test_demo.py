# SPDX-License-Identifier: Apache-2.0
"""The demo, whole: bag, node in its own process, DDS, score and page."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree

import numpy as np
import pytest

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.errors import BagError
from labeldistill_core.installed_files import demo_model
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.bags.convert import convert_scene
from labeldistill_ros.bags.detect import detect_bag
from labeldistill_ros.bags.detect_options import DetectOptions
from labeldistill_ros.bags.key_frames import read_frame_sets
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.score import Score, score_bag
from labeldistill_ros.cli import main
from labeldistill_ros.demo import Demo, DemoOptions

pytestmark = pytest.mark.real_time


@pytest.fixture
def small_bag(synthetic_dataroot: Path, tmp_path: Path) -> Path:
    """Four key frames of the synthetic world."""
    from labeldistill_core.data.nuscenes import NuScenesTables

    tables = NuScenesTables(synthetic_dataroot, "v1.0-mini")
    convert_scene(tables, tables.scene_names[0], tmp_path / "bag")
    return tmp_path / "bag"


def test_frame_sets_of_a_bag_are_those_of_the_data_root(
    small_bag: Path, synthetic_dataroot: Path
) -> None:
    from labeldistill_core.data.nuscenes import NuScenesTables

    tables = NuScenesTables(synthetic_dataroot, "v1.0-mini")
    tokens = tables.samples(tables.scene_names[0])
    with BagReader(small_bag) as reader:
        found = list(read_frame_sets(reader))
    assert [sample.truth.sample_token for sample, _ in found] == list(tokens)
    for token, (_, frames) in zip(tokens, found, strict=True):
        expected = tables.frame_set(token)
        assert frames.stamp_ns == expected.stamp_ns
        for name in CAMERAS:
            mine, his = frames.by_name[name], expected.by_name[name]
            assert mine.stamp_ns == his.stamp_ns
            np.testing.assert_array_equal(mine.image, his.image)
            for a, b in (
                (mine.fixed_from_ego, his.fixed_from_ego),
                (mine.calibration.ego_from_camera, his.calibration.ego_from_camera),
            ):
                assert (a.target, a.source) == (b.target, b.source)
                np.testing.assert_allclose(a.matrix, b.matrix, atol=1e-9)


def test_demo(
    small_bag: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    out = tmp_path / "out"
    # A path that YAML would cut at the comment.
    model = tmp_path / "a: b #1.safetensors"
    shutil.copy(tiny_model, model)
    arguments = ["--bag", str(small_bag), "--model", str(model), "--out", str(out)]
    assert main(["demo", *arguments, "--device", "cpu", "--min-score", "0.0"]) == 0
    printed = capsys.readouterr().out
    assert "starting the node" in caplog.text
    assert "nothing has come" not in caplog.text  # while the node starts
    assert "mAP" in printed
    assert "NDS" in printed
    assert "sets seen 4, processed" in printed
    results = json.loads((out / "results.json").read_text())["results"]
    assert len(results) == 4
    assert any(results.values())
    page = (out / "index.html").read_text()
    assert "latency p95" in page
    assert len(list(out.glob("frame_*_cameras.jpg"))) == 4


def test_a_ci_server_gets_the_verdict(
    small_bag: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Replay, detector, recorder, score and thresholds in one call, without a ROS distribution."""
    out, junit = tmp_path / "out", tmp_path / "junit.xml"
    command = ["demo", "--bag", str(small_bag), "--model", str(tiny_model), "--out", str(out)]
    command += ["--device", "cpu", "--min-nds", "0.99", "--min-map", "0", "--junit", str(junit)]
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert "FAILED: bag: NDS is 0." in printed
    assert "passed: bag: mAP is" in printed
    (suite,) = ElementTree.parse(junit).getroot()
    assert (suite.get("name"), suite.get("failures")) == ("bag", "1")
    assert float(suite.get("time") or 0) > 1
    figures = {str(p.get("name")): str(p.get("value")) for p in suite.iter("property")}
    metrics = json.loads((out / "metrics.json").read_text())
    assert float(figures["NDS"]) == pytest.approx(metrics["NDS"], abs=1e-5)
    assert figures["sets seen"] == "4"


def test_the_expected_score_is_that_of_every_set(tmp_path: Path) -> None:
    options = DemoOptions()
    detector = Detector.load(demo_model(), device="cpu")
    weak = DetectOptions(score_threshold=0.0, max_boxes=500)
    detect_bag(options.played, tmp_path / "offline", detector, weak)
    found = score_bag(options.played, tmp_path / "offline").metrics
    assert f"mAP {found.mean_ap:.3f}, NDS {found.nds:.3f}" in options.expected
    assert DemoOptions(model=demo_model()).expected == ""


@pytest.mark.parametrize(
    ("outcomes", "slow"),
    [
        ({"seen": 20, "processed": 20, "dropped": 0}, ""),
        ({"seen": 20, "processed": 13, "dropped": 4, "incomplete": 3}, "7 of 20 sets got no boxes"),
        ({"seen": 20, "processed": 13, "refused": 7}, ""),
    ],
)
def test_a_slow_machine_is_told(outcomes: dict[str, int], slow: str) -> None:
    score = cast("Score", SimpleNamespace(outcomes=outcomes))
    told = Demo("", score, Path()).slow
    assert told.startswith(slow)
    assert bool(told) is bool(slow)


def test_a_real_frame_is_learned_and_found_again_over_ros(
    shared_data: Path, tmp_path: Path
) -> None:
    """Geometry, time and frames of a real rig: wrong ones keep a student from its boxes."""
    dataroot, scene = str(shared_data / "nuscenes" / "scene-0061"), "scene-0061"
    student, bag = tmp_path / "student", str(tmp_path / "bag")
    choice = ["--version", "v1.0-mini", "--scene", scene]
    learn = ["overfit", dataroot, str(student), "--scenes", scene, "--steps", "250"]
    assert main(learn) == 0
    assert main(["bag", "from-nuscenes", dataroot, bag, *choice, "--no-sweeps"]) == 0
    model, out = str(student / "student.safetensors"), tmp_path / "out"
    assert main(["demo", "--bag", bag, "--model", model, "--out", str(out), "--device", "cpu"]) == 0
    score = ["bag", "score", bag, str(out / "detections"), "--json", str(out / "metrics.json")]
    assert main(score) == 0
    offline, online = (
        json.loads((folder / "metrics.json").read_text()) for folder in (student, out)
    )
    there = [found for found in offline["classes"].values() if found["truth_boxes"]]
    assert sum(found["AP"] for found in there) / len(there) >= 0.8
    for name in ("mAP", "NDS"):
        assert abs(online[name] - offline[name]) < 1e-3


def test_demo_that_cannot_start_says_why(
    small_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "nothing.safetensors"
    out = ["--out", str(tmp_path / "out")]
    assert main(["demo", "--bag", str(small_bag), "--model", str(missing), *out]) == 2
    assert "nothing.safetensors" in capsys.readouterr().err
    assert main(["demo", "--bag", str(tmp_path / "no"), *out]) == 2
    assert "no bag" in capsys.readouterr().err


def test_demo_ends_when_its_node_cannot_start(
    small_bag: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not only when the time is over that a node may take to start."""
    out = tmp_path / "out"
    arguments = ["--bag", str(small_bag), "--model", str(tiny_model), "--out", str(out)]
    shutil.copytree(small_bag, out / "detections")  # of a run before
    before = {file: file.read_bytes() for file in (out / "detections").iterdir()}
    begun_s = time.monotonic()
    assert main(["demo", *arguments, "--device", "cuda:99"]) == 2
    assert "the node ended with code 2" in capsys.readouterr().err
    assert time.monotonic() - begun_s < 60  # 8 s
    assert {file: file.read_bytes() for file in (out / "detections").iterdir()} == before
    assert [path.name for path in out.iterdir()] == ["detections"]


@pytest.mark.parametrize(
    ("option", "told"),
    [(("--rate", "0"), "rate is 0"), (("--min-score", "5"), "--min-score must be from 0 to 1")],
)
def test_what_cannot_be_played_or_drawn_is_told_first(
    option: tuple[str, str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path / "out"), *option]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_demo_takes_no_place_that_it_may_not(
    small_bag: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, own = tmp_path / "out", tmp_path / "out/.detections.new"
    shutil.copytree(small_bag, own)
    arguments = ["demo", "--model", str(tiny_model), "--out", str(out)]
    assert main([*arguments, "--bag", str(own)]) == 2
    assert "that is read: choose another name" in capsys.readouterr().err
    assert (own / "metadata.yaml").is_file()
    (out / "detections").symlink_to(tmp_path / "elsewhere")
    shutil.copytree(small_bag, tmp_path / "elsewhere")
    assert main([*arguments, "--bag", str(small_bag)]) == 2
    assert "detections is a link, and the recording would take" in capsys.readouterr().err


def test_what_ros_refuses_is_told_by_the_demo_as_well(
    small_bag: Path,
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", "x")
    arguments = ["--bag", str(small_bag), "--model", str(tiny_model), "--out", str(tmp_path)]
    assert main(["demo", *arguments]) == 2
    assert "ROS_DOMAIN_ID is not an integral number" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_a_signal_ends_the_demo_without_a_traceback(
    small_bag: Path, tiny_model: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "labeldistill_ros.cli", "demo", "--rate", "0.1"]
    command += ["--bag", str(small_bag), "--model", str(tiny_model), "--out", str(tmp_path)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "(sha256" in line:  # the node is there
                break
        time.sleep(2)  # and the bag is played
        process.send_signal(number)
        told = process.communicate(timeout=30)[1]
    finally:
        process.kill()
    assert process.returncode == code, told
    assert "Traceback" not in told


def test_a_bag_without_a_camera_is_named(small_bag: Path, tmp_path: Path) -> None:
    from labeldistill_ros.bags.writer import BagWriter, reliable

    copy = tmp_path / "cut"
    with BagReader(small_bag) as reader, BagWriter(copy) as writer:
        for topic, kind in reader.topics.items():
            if not topic.startswith("/cam_back/"):
                writer.connect(topic, kind, reliable())
        for message in reader.raw():
            if not message.topic.startswith("/cam_back/"):
                writer.write(message.topic, message.msgtype, message.data, message.stamp_ns)
    with BagReader(copy) as reader, pytest.raises(BagError, match="/cam_back/image_raw/compressed"):
        list(read_frame_sets(reader))
