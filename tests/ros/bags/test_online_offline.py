# SPDX-License-Identifier: Apache-2.0
"""The node over DDS and `bag detect` say the same of the same bag: boxes and status."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rclpy.context import Context
from rclpy.node import Node

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import CAMERAS
from labeldistill_core.checkpoints import save_student
from labeldistill_core.network.student import Student
from labeldistill_core.runtime.detector import Detector
from labeldistill_ros.bags.controls import Controls
from labeldistill_ros.bags.detect import detect_bag
from labeldistill_ros.bags.detect_options import DetectOptions
from labeldistill_ros.bags.detector_output import DETECTIONS_TOPIC, STATUS_TOPIC, TABLE_TOPIC
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.recorder import Recorder
from labeldistill_ros.bags.replay import ReplayOptions, replay
from labeldistill_ros.messages import (
    boxes_from_detections,
    boxes_from_table,
    read_set_status,
)
from labeldistill_ros.messages import (
    stamp_of as message_stamp,
)
from labeldistill_ros.sets.report import SetReport
from labeldistill_ros.testing.simulated_drive import RunningNode
from tests.support.rig import PERIOD_NS, stamp_of, tiny_config
from tests.support.vehicle_bag import write_bag

Start = Callable[..., RunningNode]
CYCLES = 8
LONGEST_SET_S = 10.0
"""After this much time the bag goes on though no set has ended."""
LONGEST_INCOMPLETE_S = 1.0
"""The same where a camera is silent: the next set's images end the one that waits for it."""


@dataclass(frozen=True)
class Case:
    """A kind of bag, and what both have to be told of it."""

    bag: dict[str, Any] = field(default_factory=dict)
    node: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


CHOICE = {"score_threshold": 0.2, "max_boxes": 20, "max_range": 40.0}
MASK = {"sync.missing_camera_policy": "mask"}
CASES = {
    "compressed": Case(),
    "raw": Case({"raw": True}, {"transport": "raw"}),
    "distorted": Case({"distortion": (-0.2, 0.05, 0.0, 0.0, 0.0)}),
    "rectified": Case(
        {"distortion": (-0.2, 0.05, 0.0, 0.0, 0.0)},
        {"images_rectified": True},
        {"images_rectified": True},
    ),
    "prefix": Case(
        {"prefix": "/sensing"}, {"camera_prefix": "/sensing"}, {"camera_prefix": "/sensing"}
    ),
    "camera falls silent, skip": Case({"silent": ("CAM_BACK",)}),
    "camera falls silent, mask": Case(
        {"silent": ("CAM_BACK",)}, MASK, {"missing_camera_policy": "mask"}
    ),
    "damaged image, skip": Case({"damaged": ((4, "CAM_FRONT_LEFT"),)}),
    "damaged image, mask": Case(
        {"damaged": ((4, "CAM_FRONT_LEFT"),)}, MASK, {"missing_camera_policy": "mask"}
    ),
    "no pose": Case({"poses": False}, {"tf_timeout": 0.0}),
    "pose required": Case(
        {"poses": False},
        {"tf_timeout": 0.0, "missing_pose_policy": "required"},
        {"missing_pose_policy": "required"},
    ),
    "odometry": Case(
        {"poses": False, "odometry": True},
        {"ego_motion_source": "odometry"},
        {"ego_motion_source": "odometry"},
    ),
    "fixed frame": Case({}, {"output_frame": "map"}, {"output_frame": "map"}),
    "thresholds": Case(
        {},
        {**CHOICE, "classes.car.score_threshold": 0.1},
        {**CHOICE, "class_thresholds": {"car": 0.1}},
    ),
}


class SetBySet(Controls):
    """Takes a step when the set of the one before has ended, so that a busy machine drops none."""

    def __init__(self, ended: Callable[[], int], longest_set_s: float) -> None:
        """Begin with the first step; `ended` counts the sets that have ended."""
        super().__init__(paused=True)
        self._ended, self._longest_set_s = ended, longest_set_s
        self._taken_s, self._ended_before = -math.inf, 0

    def take_step(self) -> bool:
        """Ask in the replay's thread: it does so only when it has published the step before."""
        ended, now_s = self._ended(), time.monotonic()
        if ended <= self._ended_before and now_s < self._taken_s + self._longest_set_s:
            return False
        self._ended_before, self._taken_s = ended, now_s
        return True


def play(
    bag: Path,
    recorded: Path,
    context: Context,
    listener: Node,
    longest_set_s: float = LONGEST_SET_S,
) -> None:
    """Replay set by set, and wait for the last's end."""
    with Recorder(listener, recorded) as recorder:
        player = Node("player", context=context)
        options = ReplayOptions(wait_for_s=10, step_s=PERIOD_NS / 1e9)
        controls = SetBySet(lambda: recorder.counts[STATUS_TOPIC], longest_set_s)
        replay(bag, player, options, controls=controls)
        end_s = time.monotonic() + 2.0
        while recorder.counts[STATUS_TOPIC] < CYCLES and time.monotonic() < end_s:
            time.sleep(0.01)
        player.destroy_node()


def told(bag: Path, class_names: tuple[str, ...]) -> dict[int, tuple[SetReport, Any, Any]]:
    """Report, named boxes and table of each set, by its stamp."""
    with BagReader(bag) as reader:
        reports = [r.report for _, m in reader.messages([STATUS_TOPIC]) for r in read_set_status(m)]
        named: dict[int, Boxes3D] = {}
        tables: dict[int, Boxes3D] = {}
        if DETECTIONS_TOPIC in reader.topics:
            for _, message in reader.messages([DETECTIONS_TOPIC]):
                named[message_stamp(message)] = boxes_from_detections(message, class_names)
            for _, message in reader.messages([TABLE_TOPIC]):
                tables[message_stamp(message)] = boxes_from_table(message)
    return {r.stamp_ns: (r, named.get(r.stamp_ns), tables.get(r.stamp_ns)) for r in reports}


def same_boxes(mine: Boxes3D | None, his: Boxes3D | None) -> None:
    assert (mine is None) == (his is None)
    if mine is None or his is None:
        return
    assert mine.frame == his.frame
    assert torch.equal(mine.labels, his.labels)
    torch.testing.assert_close(
        mine.values, his.values, rtol=0, atol=1e-3, equal_nan=True, check_dtype=False
    )
    torch.testing.assert_close(mine.scores, his.scores, rtol=0, atol=1e-5)


def compare(online: Path, offline: Path, class_names: tuple[str, ...]) -> list[SetReport]:
    """Reports of the sets up to the first one that the node had no time for."""
    live, direct = told(online, class_names), told(offline, class_names)
    compared = []
    for stamp_ns, (theirs, named, table) in live.items():
        if theirs.outcome == "dropped":
            break
        if stamp_ns >= stamp_of(CYCLES - 1, CAMERAS[0]):
            break  # at the end all cameras are silent, and a slow replay waits longer for them
        mine, my_named, my_table = direct[stamp_ns]
        for report in (theirs, mine):
            assert report.outcome not in ("idle", "failed")
        alike = replace(theirs, age_s=mine.age_s, timings_ms=mine.timings_ms)
        assert alike == mine
        if mine.outcome == "processed":  # after publishing, the node's have one stage more
            assert set(theirs.timings_ms) - {"publish"} == set(mine.timings_ms)
        same_boxes(my_named, named)
        same_boxes(my_table, table)
        compared.append(mine)
    return compared


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_node_and_bag_detect_say_the_same(
    tmp_path: Path,
    ros_context: Context,
    spun: Node,
    detector: Start,
    tiny_model: Path,
    case: Case,
) -> None:
    if "distortion" in case.bag:
        pytest.importorskip("cv2")
    bag = write_bag(tmp_path / "bag", cycles=CYCLES, **case.bag)
    node = detector(**case.node)
    longest_set_s = LONGEST_INCOMPLETE_S if "silent" in case.bag else LONGEST_SET_S
    play(bag, tmp_path / "online", ros_context, spun, longest_set_s)
    options = DetectOptions(**{"score_threshold": 0.0, "max_boxes": 200, **case.options})
    seen: list[int] = []
    done = detect_bag(
        bag, tmp_path / "offline", Detector.load(tiny_model), options, progress=seen.append
    )
    compared = compare(tmp_path / "online", tmp_path / "offline", node.detector.class_names)
    assert len(compared) >= 4
    assert seen == list(range(1, done.sets + 1)), "every set is progress, whatever became of it"
    if "damaged" in case.bag and not case.node:
        assert done.problems
    if case.options.get("missing_pose_policy") == "required":
        assert {r.outcome for r in compared} == {"refused"}
    elif case.bag.get("poses") is False and not case.bag.get("odometry"):
        assert {(r.pose, r.history_valid) for r in compared} == {("unknown", 0)}
        assert done.without_pose == done.sets
    else:
        assert compared[-1].history_valid == 1 or compared[-1].outcome == "incomplete"


def test_a_model_of_other_classes(
    tmp_path: Path, ros_context: Context, spun: Node, detector: Start
) -> None:
    config = tiny_config()
    names = (("tram",), ("moose", "cow"), ("sledge", "kayak"), ("cone",), ("bike", "horse"))
    tasks = names[: len(config.head.tasks)] + tuple(
        (f"thing {i}",) for i in range(len(names), len(config.head.tasks))
    )
    model = tmp_path / "model.safetensors"
    torch.manual_seed(2)
    save_student(model, Student(replace(config, head=replace(config.head, tasks=tasks))))
    bag = write_bag(tmp_path / "bag", cycles=CYCLES)
    node = detector(model, **{"classes.moose.score_threshold": 2.0})
    play(bag, tmp_path / "online", ros_context, spun)
    options = DetectOptions(0.0, 200, class_thresholds={"moose": 2.0})
    detect_bag(bag, tmp_path / "offline", Detector.load(model), options)
    assert node.detector.class_names[0] == "tram"
    assert len(compare(tmp_path / "online", tmp_path / "offline", node.detector.class_names)) >= 4
    boxes = [b for _, b, _ in told(tmp_path / "offline", node.detector.class_names).values()]
    labels = {node.detector.class_names[i] for b in boxes if b for i in b.labels.tolist()}
    assert "cow" in labels
    assert "moose" not in labels
