# SPDX-License-Identifier: Apache-2.0
"""Several bags of a drive, several drives in a data root, and calls that are cut off."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nuscenes import NuScenes

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_core.data.splits import split_scenes
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.reader import BagReader, Recorded
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.cli import main
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.geometry import transform_stamped
from tests.support.other_car import edited, without

OURS = "v1.0-trainval"
POINTS, LABELS = "/lidar_top/points", "/ground_truth/detections"
START_NS = 1_600_000_000_000_000_000


def converted(root: Path, *words: object) -> NuScenesTables:
    *bags, last = map(str, words)
    options = [] if not last.startswith("--") else last.split("  ")
    bags = bags if options else [*bags, last]
    assert main(["bag", "to-nuscenes", *bags, str(root), "--workers", "1", *options]) == 0
    return NuScenesTables(root, OURS)


def files_of(root: Path) -> dict[str, bytes]:
    """Everything but what tells one call from another."""
    paths = [p for p in root.rglob("*") if p.is_file() and ".scenes" not in p.parts]
    return {str(p.relative_to(root)): p.read_bytes() for p in paths}


def during(bag: Path, out: Path, inside: Callable[[float], bool]) -> Path:
    """Of a bag what was recorded at some seconds, and the static transforms."""

    def edit(recorded: Recorded, message: Any) -> Any:
        seconds = (recorded.stamp_ns - START_NS) / 1e9
        return message if inside(seconds) or recorded.topic == "/tf_static" else None

    return edited(bag, out, edit)


def test_sensors_in_bags_of_their_own_are_one_drive(car_bag: Path, tmp_path: Path) -> None:
    whole = converted(tmp_path / "whole", car_bag)
    others = [topic for topic in BagReader(car_bag).__enter__().topics if topic != POINTS]
    first = edited(car_bag, tmp_path / "a" / car_bag.name, without(POINTS))
    second = edited(car_bag, tmp_path / "b", without(*others))
    converted(tmp_path / "parts", first, second)
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")
    assert len(whole.samples("drive")) == 4


def test_bags_that_overlap_are_joined(car_bag: Path, tmp_path: Path) -> None:
    converted(tmp_path / "whole", car_bag)
    first = during(car_bag, tmp_path / "a" / car_bag.name, lambda s: s < 0.9)
    second = during(car_bag, tmp_path / "b", lambda s: s > 0.6)
    # in whichever order they are named
    converted(tmp_path / "parts", second, first)
    assert files_of(tmp_path / "parts") == files_of(tmp_path / "whole")


def test_bags_of_two_vehicles_are_no_drive(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def later(recorded: Recorded, message: Any) -> Any:
        if hasattr(message, "header"):
            message.header.stamp.nanosec = (message.header.stamp.nanosec + 3_000_000) % 10**9
        return message

    other = edited(car_bag, tmp_path / "other", later)
    assert main(["bag", "to-nuscenes", str(car_bag), str(other), str(tmp_path / "root")]) == 2
    error = capsys.readouterr().err
    assert "overlap by" in error
    assert "two drives: convert them one by one" in error


def moved_by(seconds: int) -> Callable[[Recorded, Any], Any]:
    """The same drive at another time."""

    def edit(recorded: Recorded, message: Any) -> Any:
        for stamped in getattr(message, "transforms", [message]):
            stamped.header.stamp.sec += seconds
        return message, recorded.stamp_ns + seconds * 10**9

    return edit


def test_later_drives_are_added(car_bag: Path, tmp_path: Path) -> None:
    other = edited(car_bag, tmp_path / "evening", moved_by(1000))
    root = tmp_path / "root"
    converted(root, car_bag)
    before = files_of(root)
    assert set(converted(root, other, "--val  evening").scene_names) == {"drive", "evening"}
    for name, data in before.items():
        assert name.startswith(OURS) or (root / name).read_bytes() == data
    tables = NuScenesTables(root, OURS)
    assert split_scenes(tables, "train") == ["drive"]
    assert split_scenes(tables, "val") == ["evening"]
    # both at once give the same
    converted(tmp_path / "both", car_bag, other, "--val  evening")
    assert files_of(tmp_path / "both") == files_of(root)
    # and the devkit reads it
    assert len(NuScenes(OURS, str(root), verbose=False).sample) == 8


def test_long_drives_are_cut(car_bag: Path, tmp_path: Path) -> None:
    tables = converted(tmp_path / "root", car_bag, "--scene-length  1  --val-share  0.5")
    assert tables.scene_names == ("drive-0000", "drive-0001")
    assert [len(tables.samples(name)) for name in tables.scene_names] == [2, 2]
    assert split_scenes(tables, "val") == ["drive-0001"]


def test_other_options_are_no_continuation(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    converted(root, car_bag)
    words = ["bag", "to-nuscenes", str(car_bag), str(root)]
    assert main([*words, "--no-sweeps"]) == 2
    assert "use --force" in capsys.readouterr().err
    assert main([*words, "--no-sweeps", "--force"]) == 0
    assert main(["bag", "to-nuscenes", str(car_bag), str(car_bag)]) == 2
    assert "no data root of bags" in capsys.readouterr().err


def test_a_call_that_is_killed_leaves_no_tables_and_goes_on(
    car_bag: Path, tmp_path: Path, repository: Path
) -> None:
    root = tmp_path / "root"
    options = ["--scene-length", "1", "--workers", "1"]
    words = [sys.executable, "-m", "labeldistill_ros.cli", "bag", "to-nuscenes"]
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    process = subprocess.Popen([*words, str(car_bag), str(root), *options], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not list(root.glob("samples/*/*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (root / OURS).exists()
    assert main(["bag", "to-nuscenes", str(car_bag), str(root), *options]) == 0
    converted(tmp_path / "whole", car_bag, "--scene-length  1")
    assert files_of(root) == files_of(tmp_path / "whole")


def test_scans_of_two_lidars_are_merged(car_bag: Path, tmp_path: Path) -> None:
    base_from_second = Transform.from_quaternion(
        "base_link", "second", (0.0, 0.0, 0.0, 1.0), (-1.0, 0.2, 1.5)
    )
    out = tmp_path / "two"
    with BagReader(car_bag) as reader, BagWriter(out) as writer:
        for recorded in reader.raw():
            writer.write(recorded.topic, recorded.msgtype, recorded.data, recorded.stamp_ns)
            message = reader.decoded(recorded)
            if recorded.topic == "/tf_static":
                moved = transform_stamped(
                    base_from_second, recorded.stamp_ns, "base_link", "second", BAG
                )
                both = BAG.make(recorded.msgtype, transforms=[moved])
                writer.write(recorded.topic, recorded.msgtype, both, recorded.stamp_ns)
            if recorded.topic == POINTS:
                # a point three metres before the second LiDAR, 20 ms later
                rows = np.array([[3, 0, 0, 7, 1]], np.float32)
                second = replace(
                    message,
                    header=replace(message.header, frame_id="second"),
                    width=1,
                    row_step=20,
                    data=rows.view(np.uint8).reshape(-1),
                )
                stamp = message.header.stamp
                whole = stamp.sec * 10**9 + stamp.nanosec + 20_000_000
                second.header.stamp = replace(stamp, sec=whole // 10**9, nanosec=whole % 10**9)
                log_ns = recorded.stamp_ns + 20_000_000
                writer.write("/second/points", recorded.msgtype, second, log_ns)
    assert main(["bag", "to-nuscenes", str(out), str(tmp_path / "no")]) == 2
    alone = converted(tmp_path / "one", out, f"--lidars  {POINTS}")
    merged = converted(tmp_path / "both", out, f"--lidars  {POINTS}  /second/points")
    for before, after in zip(alone.samples("two"), merged.samples("two"), strict=True):
        a, b = alone.lidar(before), merged.lidar(after)
        points = b.scan()
        np.testing.assert_array_equal(points[:-1], a.scan())
        # In the map the point is where the second LiDAR saw it, 20 ms later.
        fixed_from_lidar = b.fixed_from_ego @ b.ego_from_sensor
        found = fixed_from_lidar.apply(points[-1:, :3])[0]
        later = merged.sensor_data("two", modality="lidar")
        following = next((r for r in later if r.stamp_ns > b.stamp_ns), None)
        if following is None:
            continue
        share = 20e6 / (following.stamp_ns - b.stamp_ns)
        ego = b.fixed_from_ego.interpolate(following.fixed_from_ego, share)
        expected = ego.apply([-4.0, 0.2, 1.5])
        np.testing.assert_allclose(found, expected, atol=0.02)
        assert points[-1, 3:].tolist() == [7, 1]
