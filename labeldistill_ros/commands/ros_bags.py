# SPDX-License-Identifier: Apache-2.0
"""The commands `labeldistill bag ...` that need ROS."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from tyro.conf import Positional

from labeldistill_core.console import Flat, tell_written
from labeldistill_core.errors import BagError
from labeldistill_core.exit_codes import INTERRUPTED
from labeldistill_ros.bags import controls as controlling
from labeldistill_ros.bags import replay as replaying
from labeldistill_ros.bags.recorder import Recorder, RecordOptions
from labeldistill_ros.starting import init_ros
from labeldistill_ros.waiting import wait_until_active


def replay(
    bag: Positional[Path], options: Flat[replaying.ReplayOptions], paused: bool = False
) -> int:
    """Publish the messages of a bag over ROS with their true timing, and the clock.

    In a terminal the space bar pauses, `s` plays a step and `q` ends; so do the services
    `/replay/pause` (std_srvs/SetBool) and `/replay/step` (std_srvs/Trigger). The exit code is 130
    when Ctrl-C came before the end.

    Args:
        bag: folder of the bag.
        options: what is played, and how.
        paused: begin paused.
    """
    controls = controlling.Controls(paused)
    init_ros()
    try:
        node = rclpy.create_node("replay")
        with (
            _interrupt() as stopped,
            controlling.services(node, controls),
            controlling.keys(controls) as listening,
        ):
            if listening:
                print("space: pause, s: step, q: end", file=sys.stderr)
            done = replaying.replay(bag, node, options, lambda: not stopped.is_set(), controls)
    finally:
        rclpy.try_shutdown()
    for topic, count in sorted(done.counts.items()):
        print(f"{count:7d}  {topic}")
    print(
        f"{sum(done.counts.values())} messages in {done.wall_s:.2f} s, "
        f"late by p50 {done.late(50):.2f} ms, p99 {done.late(99):.2f} ms, "
        f"at most {done.late(100):.2f} ms"
    )
    # A round is a bag that was played to its end; with --loop there is no end, so Ctrl-C is the way
    # out.
    return 0 if done.rounds or options.loop else INTERRUPTED


def record(out: Positional[Path], options: Flat[RecordOptions], use_sim_time: bool = False) -> int:
    """Record topics to a bag until Ctrl-C; by default those of the detector and what scores them.

    The exit code is 2 when nothing came.

    Args:
        out: folder of the bag.
        options: what is recorded, and how.
        use_sim_time: stamp messages with the time of /clock rather than the machine's.
    """
    init_ros()
    try:
        sim_time = Parameter("use_sim_time", value=use_sim_time)
        node = rclpy.create_node("recorder", parameter_overrides=[sim_time])
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        with _interrupt() as stopped, Recorder(node, out, options) as recorder:
            while not stopped.is_set():
                # Short waits, since a signal sets the event and wakes no executor.
                executor.spin_once(timeout_sec=0.1)
    finally:
        rclpy.try_shutdown()
    for topic, count in recorder.counts.items():
        print(f"{count:7d}  {topic}")
    if not any(recorder.counts.values()):
        raise BagError(f"nothing was recorded, so {out} is empty: the log names the reasons")
    tell_written(out)
    return 0


def wait(detector: Positional[str] = "/detector", seconds: float = 60.0) -> int:
    """Wait until the detector is active, for scripts and launch files that play a bag then.

    Args:
        detector: name of the node, with its namespace.
        seconds: how long at most; the exit code is 2 after that.
    """
    init_ros()
    try:
        node = rclpy.create_node("wait")
        with _interrupt() as stopped:
            active = wait_until_active(node, detector, seconds, lambda: not stopped.is_set())
    finally:
        rclpy.try_shutdown()
    if active:
        print(f"{detector} is active")
    return 0 if active else INTERRUPTED


@contextmanager
def _interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set."""
    event = threading.Event()
    numbers = (signal.SIGINT, signal.SIGTERM)
    # SIGTERM too: launch and systemd end processes with it, and the bag's index is written at the
    # end.
    before = [signal.signal(number, lambda *_: event.set()) for number in numbers]
    try:
        yield event
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
