# SPDX-License-Identifier: Apache-2.0
"""The commands `labeldistill bag ...`."""

from __future__ import annotations

import json as jsonlib
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated

import tyro

from labeldistill_ros.bags.writer import Storage


def from_nuscenes(
    dataroot: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.Positional],
    scene: str,
    version: str = "v1.0-trainval",
    sweeps: bool = True,
    storage: Storage = "mcap",
    force: bool = False,
) -> None:
    """Convert a nuScenes scene to a rosbag with images, calibration, poses and ground truth.

    Args:
        dataroot: folder with the tables, `samples/` and `sweeps/`.
        out: folder of the bag.
        scene: name, such as scene-0103.
        version: name of the folder with the tables.
        sweeps: also the images between the samples.
        storage: file format; Humble reads mcap only with its plugin.
        force: replace a bag that is there.
    """
    from labeldistill_core.data.nuscenes import NuScenesTables
    from labeldistill_ros.bags.convert import convert_scene

    tables = NuScenesTables(dataroot, version)
    done = convert_scene(tables, scene, out, sweeps=sweeps, storage=storage, force=force)
    print(
        f"{out}: {done.samples} samples, {done.images} images, {done.duration_s:.1f} s, "
        f"{sum(done.counts.values())} messages on {len(done.counts)} topics"
    )


def replay(
    bag: Annotated[Path, tyro.conf.Positional],
    rate: float = 1.0,
    loop: bool = False,
    topics: tuple[str, ...] = (),
    wait_for: float = 0.0,
    clock: bool = True,
) -> int:
    """Publish the messages of a bag over ROS with their true timing, and the clock.

    Args:
        bag: folder.
        rate: times faster than recorded.
        loop: again and again until Ctrl-C; time then jumps back.
        topics: what to publish; everything when none is given.
        wait_for: seconds to wait until every image topic has a subscriber.
        clock: publish /clock.

    Returns:
        Exit code: 0, or 130 when Ctrl-C came before the end.
    """
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from labeldistill_ros.bags import replay as replaying

    options = replaying.ReplayOptions(rate, topics, loop, wait_for, clock)
    # not rclpy's own handlers, which would take the context away under the publishers
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        with _interrupt() as stopped:
            node = rclpy.create_node("replay")
            done = replaying.replay(bag, node, options, lambda: not stopped.is_set())
    finally:
        rclpy.try_shutdown()
    for topic, count in sorted(done.counts.items()):
        print(f"{count:7d}  {topic}")
    print(
        f"{sum(done.counts.values())} messages in {done.wall_s:.2f} s, "
        f"at most {done.late_max_ms:.1f} ms late"
    )
    return 0 if done.rounds or loop else 130


def record(
    out: Annotated[Path, tyro.conf.Positional],
    topics: tuple[str, ...] = (),
    storage: Storage = "mcap",
    force: bool = False,
    use_sim_time: bool = False,
) -> None:
    """Record topics to a bag until Ctrl-C; by default those of the detector and what scores them.

    Args:
        out: folder of the bag.
        topics: what to record.
        storage: file format.
        force: replace a bag that is there.
        use_sim_time: log at the time of /clock.
    """
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.parameter import Parameter

    from labeldistill_ros.bags.recorder import TOPICS, Recorder

    rclpy.init()
    try:
        sim_time = Parameter("use_sim_time", value=use_sim_time)
        node = rclpy.create_node("recorder", parameter_overrides=[sim_time])
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        recorder = Recorder(node, out, topics or tuple(TOPICS), storage=storage, force=force)
        with recorder, suppress(KeyboardInterrupt, ExternalShutdownException):
            executor.spin()
    finally:
        rclpy.try_shutdown()
    for topic, count in recorder.counts.items():
        print(f"{count:7d}  {topic}")


def score(
    bag: Annotated[Path, tyro.conf.Positional],
    detections: Annotated[Path | None, tyro.conf.Positional] = None,
    topic: str = "/detector/detections",
    tolerance: float = 0.05,
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Score what the detector published with the official nuScenes metrics.

    Args:
        bag: has the samples, the ground truth and the poses.
        detections: bag with the detector's topics, when it is another one.
        topic: of the detections.
        tolerance: seconds between a sample and the detections that are taken for it.
        out: nuScenes result file to write.
        json: file to write metrics, coverage and latencies to.
    """
    from labeldistill_core.evaluation.results import write_results
    from labeldistill_ros.bags.score import score_bag

    found = score_bag(bag, detections, topic=topic, tolerance_s=tolerance)
    if out:
        write_results(out, found.results)
    if json:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(jsonlib.dumps(found.as_json(), indent=1) + "\n")
    print(found.table())


@contextmanager
def _interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set."""
    event = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in numbers]
    try:
        yield event
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
