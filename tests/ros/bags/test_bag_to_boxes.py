# SPDX-License-Identifier: Apache-2.0
"""A data root to a bag, over DDS to the node, and its boxes to metrics: all as offline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rclpy.context import Context
from rclpy.node import Node

from labeldistill_core.cameras import CAMERAS, FIXED_FRAME
from labeldistill_core.classes import CLASSES
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.evaluation.metrics import evaluate
from labeldistill_core.evaluation.result_boxes import result_boxes
from labeldistill_core.evaluation.result_columns import ResultBox
from labeldistill_core.frames import Transform
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.bags.convert import ConversionOptions, convert_scene
from labeldistill_ros.bags.detect import detect_bag
from labeldistill_ros.bags.detect_options import DetectOptions
from labeldistill_ros.bags.detector_output import DETECTIONS_TOPIC
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.recorder import Recorder
from labeldistill_ros.bags.replay import ReplayOptions, replay
from labeldistill_ros.bags.score import Score, score_bag
from labeldistill_ros.messages import stamp_of
from labeldistill_ros.messages.boxes import boxes_from_detections
from labeldistill_ros.testing.simulated_drive import RunningNode
from tests.support.nuscenes_fixture import SCENES, VERSION

MAX_BOXES = 200
"""The node publishes no more."""


def yaw_of(box: ResultBox) -> float:
    return 2 * math.atan2(box["rotation"][3], box["rotation"][0])


def check_boxes(found: list[ResultBox], wanted: list[ResultBox]) -> None:
    assert len(found) == len(wanted) > 5
    for mine, his in zip(found, wanted, strict=True):
        assert mine["detection_name"] == his["detection_name"]
        np.testing.assert_allclose(mine["translation"], his["translation"], atol=1e-3)
        np.testing.assert_allclose(mine["size"], his["size"], atol=1e-3)
        np.testing.assert_allclose(mine["velocity"], his["velocity"], atol=1e-3)
        assert abs(np.angle(np.exp(1j * (yaw_of(mine) - yaw_of(his))))) < 1e-3


@pytest.mark.parametrize(
    ("root", "version", "scene"),
    [
        ("", VERSION, SCENES[0]),
        ("mini_val", "v1.0-mini", "scene-0103"),
        ("scene-0061", "v1.0-mini", "scene-0061"),
    ],
)
def test_the_node_sees_and_says_what_the_offline_pipeline_does(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    ros_context: Context,
    spun: Node,
    detector: Callable[..., RunningNode],
    tiny_model: Path,
    root: str,
    version: str,
    scene: str,
) -> None:
    if root:
        dataroot = request.getfixturevalue("shared_data") / "nuscenes" / root
    else:
        dataroot = request.getfixturevalue("shared_dataroot")
    tables = NuScenesTables(dataroot, version)
    bag, recorded = tmp_path / "bag", tmp_path / "recorded"
    samples = convert_scene(tables, scene, bag, ConversionOptions(sweeps=False)).samples
    # partial data roots have gaps that would make a camera count as dead
    node = detector(**{"sync.max_age": 2.0})
    with Recorder(spun, recorded) as recorder:
        player = Node("player", context=ros_context)
        replay(bag, player, ReplayOptions(wait_for_s=10))
        end = time.monotonic() + 10
        while recorder.counts["/detector/status"] < samples and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)
        player.destroy_node()
    score = score_bag(bag, recorded)
    # a busy machine may drop a set: the newest wins
    assert score.coverage.matched >= (samples + 1) // 2
    assert score.outcomes["seen"] == samples
    assert score.outcomes["processed"] == score.coverage.matched == len(node.results)
    assert score.coverage.largest_gap_ms == 0
    assert score.latency_ms["total"][0] > 0
    check_against_offline(tables, scene, score, node, Detector.load(tiny_model))
    if not score.coverage.missed:  # a set that was dropped is missing in the history, too
        check_against_bag_detect(bag, recorded, tmp_path / "offline", Detector.load(tiny_model))


def check_against_bag_detect(bag: Path, recorded: Path, out: Path, offline: Detector) -> None:
    """What `bag detect` says is what the node published, message by message."""
    options = DetectOptions(score_threshold=0.0, max_boxes=MAX_BOXES, max_age=2.0)
    detect_bag(bag, out, offline, options)
    with BagReader(recorded) as live, BagReader(out) as direct:
        pairs = zip(
            live.messages([DETECTIONS_TOPIC]), direct.messages([DETECTIONS_TOPIC]), strict=True
        )
        for (_, theirs), (_, mine) in pairs:
            assert stamp_of(mine) == stamp_of(theirs)
            assert mine.header.frame_id == theirs.header.frame_id == "base_link"
            ours, his = (boxes_from_detections(array, CLASSES) for array in (mine, theirs))
            assert torch.equal(ours.labels, his.labels)
            torch.testing.assert_close(ours.values[:, :7], his.values[:, :7], rtol=0, atol=1e-4)
            torch.testing.assert_close(ours.scores, his.scores, rtol=0, atol=1e-5)


def check_against_offline(
    tables: NuScenesTables, scene: str, score: Score, node: RunningNode, offline: Detector
) -> None:
    tokens = [t for t in tables.samples(scene) if tables.has_images(t)]
    seen = [token for token in tokens if token not in score.coverage.missed]
    identity = Transform.identity(FIXED_FRAME, FIXED_FRAME)
    results = {}
    for token, (frames, _) in zip(seen, node.results, strict=True):
        wanted = tables.frame_set(token, CAMERAS)
        ours, theirs = offline.prepare(frames), offline.prepare(wanted)
        assert (ours.images.int() - theirs.images.int()).abs().max() <= 1
        for name in ("intrinsics", "image_from_sensor", "ego_from_camera"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
        boxes = offline.detect(wanted).in_frame(identity)
        best = boxes[boxes.scores.argsort(descending=True, stable=True)[:MAX_BOXES]]
        results[token] = result_boxes(token, best)
        check_boxes(score.results[token], results[token])
    metrics = evaluate([tables.ground_truth(token) for token in tokens], results)
    assert score.metrics.nds == pytest.approx(metrics.nds, abs=1e-3)
    assert score.metrics.mean_ap == pytest.approx(metrics.mean_ap, abs=1e-3)
