# SPDX-License-Identifier: Apache-2.0
"""What bags cost: conversion against copying the files, replay against the clock."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.errors import ConfigError
from labeldistill_core.processes import end_with_parent
from labeldistill_core.profiling.separate_process import measure_apart
from labeldistill_ros.bags.convert import ConversionOptions, convert_scene
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.replay import ReplayOptions, replay
from labeldistill_ros.bags.scenes import convert_scenes
from labeldistill_ros.bags.sensors import image_topic

RATES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""Speeds of replay against the clock."""
_TOPICS = tuple(image_topic(camera) for camera in CAMERAS)


@dataclass(frozen=True)
class BagsOptions:
    """What is measured, and how often."""

    longer: Path | None = None
    """Another data root whose first scene is longer, to see whether the memory of a conversion
    grows with a scene's length."""
    version: str = "v1.0-mini"
    """Folder of the data roots' tables."""
    repeats: int = 3
    """Rounds of conversion and copy in turns, after one to warm up; the best of each counts.
    Nothing is removed in between: the disk needs room for all rounds."""
    rates: tuple[float, ...] = RATES
    """Speeds of replay against the clock, rising; the first that loses an image is the last."""

    def __post_init__(self) -> None:
        """Refuse a measurement without a round."""
        if self.repeats < 1:
            raise ConfigError("--repeats must be 1 or more")


def measure_bags(dataroot: Path, options: BagsOptions) -> dict[str, Any]:
    """All figures: of `conversion`, its `memory`, and `replay`.

    Args:
        dataroot: nuScenes data root whose scenes are converted.
        options: what is measured, and how often.

    Raises:
        DataError: the tables are missing or damaged.
    """
    tables = NuScenesTables(dataroot, options.version)
    with tempfile.TemporaryDirectory(prefix="bags-") as name:
        folder = Path(name)
        found: dict[str, Any] = {"conversion": _conversion(tables, folder, options.repeats)}
        roots = [root for root in (dataroot, options.longer) if root]
        found["memory"] = [_memory(root, options.version, folder / "memory") for root in roots]
        bag = folder / "one"
        convert_scene(tables, tables.scene_names[0], bag)
        found["replay"] = _replay(bag, options.rates)
    return found


def _conversion(tables: NuScenesTables, folder: Path, repeats: int) -> dict[str, Any]:
    scenes = tables.scene_names
    files = [path for scene in scenes for path in _files(tables, scene)]
    size = sum(path.stat().st_size for path in files)
    messages = 0

    def convert(workers: int, out: Path) -> None:
        nonlocal messages
        results = convert_scenes(tables, scenes, out, ConversionOptions(), workers=workers)
        messages = sum(sum(r.done.counts.values()) for r in results if r.done)

    def copy(out: Path) -> None:
        out.mkdir()
        for index, path in enumerate(files):
            shutil.copyfile(path, out / f"{index}{path.suffix}")

    steps: dict[str, Callable[[Path], None]] = {
        "copy": copy, "1 worker": partial(convert, 1), "2 workers": partial(convert, 2),
    }  # fmt: skip
    rounds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repeats + 1):
        for name, step in steps.items():
            # nothing is removed in between: ext4 without a journal creates files more slowly the
            # more were removed a short time ago, and a copy creates many
            out = folder / f"{name} {number}"
            os.sync()  # what the steps before left in memory is not written during this one
            start = time.perf_counter()
            step(out)
            rounds[name].append(time.perf_counter() - start)
    # The least of the rounds: whatever else runs can only add to a time.
    took = {name: min(values[1:]) for name, values in rounds.items()}
    return {
        "scenes": len(scenes),
        "files": len(files),
        "mb": size / 1e6,
        "messages": messages,
        "seconds": took,
        "mb_s": {name: size / 1e6 / seconds for name, seconds in took.items()},
        "messages_s": messages / took["1 worker"],
        "share_of_copy": {n: took["copy"] / took[n] for n in ("1 worker", "2 workers")},
    }


def _files(tables: NuScenesTables, scene: str) -> Iterator[Path]:
    """Images and clouds of a scene that go into its bag."""
    return (r.path for r in tables.sensor_data(scene) if r.path.is_file())


def _memory(dataroot: Path, version: str, out: Path) -> dict[str, Any]:
    tables = NuScenesTables(dataroot, version)
    scene = tables.scene_names[0]
    apart = measure_apart(partial(_converting, dataroot, version, out), "cpu", 1)
    return {"key_frames": len(tables.samples(scene)), "peak_mib": apart.peak_mib}


def _converting(dataroot: Path, version: str, out: Path) -> Callable[[], object]:
    tables = NuScenesTables(dataroot, version)
    return partial(convert_scene, tables, tables.scene_names[0], out, ConversionOptions(force=True))


def _replay(bag: Path, rates: Sequence[float]) -> dict[str, Any]:
    """Lateness at true speed, and the largest rate at which a subscriber gets every image."""
    found: dict[str, Any] = {"rates": []}
    with BagReader(bag) as reader:
        images = sum(reader.counts()[topic] for topic in _TOPICS)
    rclpy.init()
    try:
        for rate in rates:
            row = _play(bag, rate, images)
            found["rates"].append(row)
            # At a higher rate more would be lost.
            if row["received"] < images:
                break
    finally:
        rclpy.try_shutdown()
    found["late_p99_ms"] = found["rates"][0]["late_p99_ms"]
    whole = [row["rate"] for row in found["rates"] if row["received"] == images]
    found["largest_rate_without_loss"] = max(whole, default=0.0)
    return found


def _play(bag: Path, rate: float, images: int) -> dict[str, Any]:
    # A fork would share the DDS participant of this process, whose threads it lacks.
    context = multiprocessing.get_context("spawn")
    stop, received = context.Event(), context.Value("q", 0)
    listener = context.Process(target=_listen, args=(_TOPICS, stop, received), daemon=True)
    listener.start()
    node = rclpy.create_node("replay")
    try:
        options = ReplayOptions(rate, wait_for_s=30.0, detector="")
        start = time.perf_counter()
        done = replay(bag, node, options)
        wall_s = time.perf_counter() - start
        deadline = time.monotonic() + 2.0
        # What is on its way when the replay ends has come as well.
        while received.value < images and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        stop.set()
        listener.join(10)
        node.destroy_node()
    return {
        "rate": rate,
        "images": images,
        "received": received.value,
        "late_p50_ms": done.late(50),
        "late_p99_ms": done.late(99),
        "wall_s": wall_s,
    }


def _listen(topics: Sequence[str], stop: Event, received: Any) -> None:
    """Another process counts images, as a detector would take them."""
    end_with_parent()
    rclpy.init()
    node = rclpy.create_node("listener")
    qos = QoSProfile(depth=50, reliability=ReliabilityPolicy.RELIABLE)

    def count(_: CompressedImage) -> None:
        received.value += 1

    for topic in topics:
        node.create_subscription(CompressedImage, topic, count, qos)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.05)
    node.destroy_node()
    rclpy.try_shutdown()
