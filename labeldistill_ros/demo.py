# SPDX-License-Identifier: Apache-2.0
"""The first five minutes: a bag through the real node, its score, and a page to look at."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import rclpy
import tyro
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from labeldistill_core.checkpoints import load_student
from labeldistill_core.errors import BagError
from labeldistill_core.evaluation.result_file import write_results
from labeldistill_core.evaluation.verdict import Check, RunRecord, Thresholds
from labeldistill_core.files import write_json
from labeldistill_core.installed_files import demo_model, shared_file
from labeldistill_core.options import DeviceOptions, ModelOptions
from labeldistill_core.processes import end_with_parent
from labeldistill_core.visualization.animation import AnimationOptions, animated
from labeldistill_core.visualization.page import PageFrame, refuse_odd_score, write_page
from labeldistill_core.yaml_text import quoted
from labeldistill_ros.bags.html_report import page_frame, scene_begins, summary, tables
from labeldistill_ros.bags.key_frames import read_frame_sets
from labeldistill_ros.bags.partial_folder import refuse_source
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.recorder import Recorder
from labeldistill_ros.bags.replay import ReplayOptions, replay
from labeldistill_ros.bags.run_comparison import checks_of, record_of
from labeldistill_ros.bags.score import Score, score_bag
from labeldistill_ros.bags.truth import read_samples
from labeldistill_ros.bags.writer import refuse_others_files
from labeldistill_ros.isolated_domain import own_domain
from labeldistill_ros.shared_memory import kill_node
from labeldistill_ros.starting import init_ros

_LOG = logging.getLogger(__name__)

DEMO_BAG = "rosbags/demo/metadata.yaml"
OFFLINE_MAP, OFFLINE_NDS = 0.491, 0.508
"""What the demo model scores on the demo bag when every set gets its boxes."""
_START_S = 120.0
"""How long the node may take until it listens; a cold disk and torch are slow."""
_DRAIN_S = 10.0
"""How long the last set may take."""


@dataclass(frozen=True)
class DemoOptions(AnimationOptions, DeviceOptions, ModelOptions):
    """What is replayed, and which detector sees it."""

    out: Path = Path("out/demo")
    """Folder for the page, the recorded boxes, the result file and the metrics."""
    bag: Path | None = None
    """Bag with samples and ground truth, of `bag from-nuscenes`; the demo's when not given."""
    rate: float = 1.0
    """How many times faster than recorded the bag is played."""
    min_score: float = 0.3
    """Boxes with a lower score are not drawn; all are scored."""
    thresholds: Annotated[Thresholds, tyro.conf.arg(name="")] = field(default_factory=Thresholds)
    """What the run must reach."""

    def __post_init__(self) -> None:
        """Refuse what can be neither played nor drawn."""
        super().__post_init__()
        refuse_odd_score(self.min_score)
        ReplayOptions(self.rate)

    @property
    def expected(self) -> str:
        """What the score should be, in a sentence; empty where nobody has measured it."""
        if self.bag or self.model:
            return ""
        return f"expected, and scored offline: mAP {OFFLINE_MAP:.3f}, NDS {OFFLINE_NDS:.3f}"

    @property
    def played(self) -> Path:
        """The bag that is replayed."""
        return self.bag or shared_file(DEMO_BAG).parent


@dataclass(frozen=True, eq=False)
class Demo:
    """What came of a demo: its replay, its score and the page to look at."""

    replayed: str
    """What was played and heard, in a sentence."""
    score: Score
    """What the boxes are worth."""
    page: Path
    """The page with the boxes, drawn."""
    checks: tuple[Check, ...] = ()
    """Each threshold that was set."""
    record: RunRecord = RunRecord(0.0, {})  # noqa: RUF009 - frozen
    """Time and figures, for a CI server."""

    @property
    def passed(self) -> bool:
        """Whether the run keeps all thresholds."""
        return all(one.passed for one in self.checks)

    @property
    def slow(self) -> str:
        """That the machine was too slow, where sets were lost by that; else empty."""
        outcomes = self.score.outcomes
        lost = sum(outcomes.get(outcome, 0) for outcome in ("dropped", "incomplete"))
        if not lost:
            return ""
        return (
            f"{lost} of {outcomes['seen']} sets got no boxes, since this machine was too slow or "
            "too busy for the bag's rate, and the score is lower by that; --rate 0.5 gives it "
            "twice the time, and `labeldistill bag detect` waits for every set"
        )


def demo(options: DemoOptions) -> Demo:
    """Replay a bag through the detector node over ROS, score its boxes and draw them.

    The node is the one that `ros2 launch` starts, in a process of its own; images and boxes go
    over DDS.

    Args:
        options: what is replayed, and which detector sees it.

    Raises:
        BagError: the bag cannot be used, or the node ended.
        CheckpointError: the model is missing, damaged or not a student's.
    """
    begin_s = time.monotonic()
    bag, model, out = options.played, options.model or demo_model(), options.out
    recorded = out / "detections"
    for folder in (recorded, _fresh(recorded)):
        refuse_source(folder, bag)
        refuse_others_files(folder)
        if folder.is_symlink():
            raise BagError(f"{folder} is a link, and the recording would take its place: remove it")
    load_student(model)  # a message here is easier to find than in the node's log
    with BagReader(bag) as reader:
        read_samples(reader)  # by which it is scored, so a bag without them is refused now
        duration_s = reader.duration_s
    out.mkdir(parents=True, exist_ok=True)
    _LOG.info("starting the node: loading torch and the model takes it 5 to 60 s")
    with own_domain(), _node(model, options.device) as node:
        heard = _replay_and_record(bag, recorded, options.rate, lambda: node.poll() is None)
    replayed = f"a bag of {duration_s:.1f} s: {heard}"
    _LOG.info("scoring the boxes and drawing them")
    # Named by what was played, as every recording has the same name.
    score = replace(score_bag(bag, recorded), name=bag.resolve().name)
    write_results(out / "results.json", score.results)
    write_json(out / "metrics.json", score.as_json())
    page = _write_page(score, options)
    checks = tuple(checks_of(score, options.thresholds))
    return Demo(replayed, score, page, checks, record_of(score, time.monotonic() - begin_s))


@contextmanager
def _node(model: Path, device: str) -> Iterator[subprocess.Popen[bytes]]:
    """The detector node's process."""
    # Quoted, since a path may have any characters, and what ROS reads here is YAML.
    arguments = {"use_sim_time": "true", "model": quoted(str(model)), "device": quoted(device)}
    # all boxes that the network decodes, since average precision needs the weak ones as well
    arguments |= {"score_threshold": "0.0", "max_boxes": "500"}
    command = [sys.executable, "-m", "labeldistill_ros.node", "--ros-args"]
    command += [part for key, value in arguments.items() for part in ("-p", f"{key}:={value}")]
    process = subprocess.Popen(command, preexec_fn=end_with_parent)
    try:
        yield process
        if process.poll() is not None:
            raise BagError(f"the node ended with code {process.returncode}; see its log above")
    finally:
        if process.poll() is None:
            # As Ctrl-C does, so that the node ends its worker and frees the GPU before its process
            # ends.
            process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        kill_node(process)


def _replay_and_record(
    bag: Path, recorded: Path, rate: float, node_runs: Callable[[], bool]
) -> str:
    """Play and record while the node runs; returns what was played and heard, in a sentence."""
    # Elsewhere at first, so that a run that fails leaves the recording of the one before.
    fresh = _fresh(recorded)
    shutil.rmtree(fresh, ignore_errors=True)
    whole = False
    init_ros()
    try:
        # The recorder's clock is the bag's, like the node's: ages in its messages are then those of
        # the drive, at any rate of playing.
        sim_time = Parameter("use_sim_time", value=True)
        # A node for each side and not one for both: the player publishes the /clock that the
        # recorder follows.
        listener = rclpy.create_node("recorder", parameter_overrides=[sim_time])
        player = rclpy.create_node("replay")
        executor = SingleThreadedExecutor()
        executor.add_node(listener)
        done = threading.Event()

        # Boxes are received in a thread, since `replay` keeps this one busy until the bag's end.
        def spin() -> None:
            while not done.is_set():
                executor.spin_once(timeout_sec=0.05)

        thread = threading.Thread(target=spin, name="recorder")
        with Recorder(listener, fresh, expects_silence=True) as recorder:
            thread.start()
            try:
                options = ReplayOptions(rate, wait_for_s=_START_S)
                played = replay(bag, player, options, node_runs)
                if node_runs():
                    _drain(recorder, done)
            finally:
                done.set()
                thread.join()
        sets = recorder.counts["/detector/status"]
        executor.shutdown()
        if node_runs():  # else it is told with what the node ended
            if not sets:
                raise BagError("nothing has come from the node; see its log above")
            whole = True
            _replace(recorded, fresh)
    finally:
        rclpy.try_shutdown()
        if not whole:
            shutil.rmtree(fresh, ignore_errors=True)
    messages = sum(played.counts.values())
    return f"{messages} messages in {played.wall_s:.1f} s; the node spoke of {sets} sets"


def _fresh(recorded: Path) -> Path:
    """Where a recording is until it is whole."""
    return recorded.with_name(f".{recorded.name}.new")


def _replace(recorded: Path, fresh: Path) -> None:
    try:
        if recorded.exists():
            shutil.rmtree(recorded)
        fresh.rename(recorded)
    except OSError as error:
        raise BagError(
            f"cannot replace {recorded}: {error.strerror}; the recording is in {fresh}"
        ) from error


def _drain(recorder: Recorder, done: threading.Event) -> None:
    """Wait until nothing more comes from the detector."""
    before, quiet_s = -1, 0.0
    for _ in range(int(_DRAIN_S / 0.1)):
        count = sum(recorder.counts.values())
        quiet_s = quiet_s + 0.1 if count == before else 0.0
        if quiet_s > 2.0:
            return
        before = count
        done.wait(0.1)


def _write_page(score: Score, options: DemoOptions) -> Path:
    with BagReader(options.played) as reader:
        begins_ns = scene_begins(read_samples(reader))
        frames: Iterator[PageFrame] = (
            page_frame(sample, images, score, options.min_score, begins_ns[sample.scene])
            for sample, images in read_frame_sets(reader)
        )
        if options.animation:
            frames = animated(frames, options.animation)
        title = f"Detections of {options.played.name}"
        return write_page(options.out, title, summary(score), frames, tables(score))
