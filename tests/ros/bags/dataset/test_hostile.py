# SPDX-License-Identifier: Apache-2.0
"""Recordings with values that no vehicle has, and data roots that are not whole."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labeldistill_core.errors import ConfigError
from labeldistill_core.files import sole_user
from labeldistill_ros.cli import main
from tests.support.other_car import Edit, edited

LEFT, INFO = "/left/image_raw/compressed", "/left/camera_info"
POINTS, LABELS = "/lidar_top/points", "/ground_truth/detections"
TABLES = "v1.0-trainval"


def rows_of_points(message: Any) -> Any:
    return message.data.view("<f4").reshape(-1, 5)


def padded_too_far(message: Any) -> None:
    message.height, message.width = 4, message.width // 4
    message.row_step = message.width * message.point_step + 64


def cut_off(message: Any) -> None:
    message.data = message.data[: len(message.data) // 2]


def far_mount(message: Any) -> None:
    for transform in message.transforms:
        transform.transform.translation.x = 1e300


def no_turn(message: Any) -> None:
    for transform in message.transforms:
        turn = transform.transform.rotation
        turn.w = turn.x = turn.y = turn.z = 0.0


def far_label(message: Any) -> None:
    message.detections[0].bbox.center.position.x = 1e300


def binned_away(message: Any) -> None:
    message.binning_x = 2**32 - 1


def on(topic: str, spoil: Any) -> Edit:
    def edit(recorded: Any, message: Any) -> Any:
        if recorded.topic == topic:
            spoil(message)
        return message

    return edit


CASES: dict[str, tuple[str, Any, str]] = {
    "rows beyond the data": (POINTS, padded_too_far, "rows of"),
    "an image that is cut off": (LEFT, cut_off, "truncated"),
    "a sensor beyond the Earth": ("/tf_static", far_mount, "it is at [1e+300"),
    "a rotation of zeros": ("/tf_static", no_turn, "not a unit quaternion"),
    "a label beyond the Earth": (LABELS, far_label, "a box stands nowhere"),
    "no pixel is left": (INFO, binned_away, "binning of 4294967295"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_in_a_line(
    case: str, car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, spoil, reason = CASES[case]
    bag = edited(car_bag, tmp_path / "spoilt", on(topic, spoil))
    words = ["bag", "to-nuscenes", str(bag), str(tmp_path / "root"), "--workers", "1"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert "Traceback" not in said
    assert not (tmp_path / "root" / TABLES).exists()


def test_classes_without_end_are_counted(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = (f"class {number}" for number in range(10_000))

    def spoil(message: Any) -> None:
        for detection in message.detections:
            detection.results[0].hypothesis.class_id = next(names)

    bag = edited(car_bag, tmp_path / "spoilt", on(LABELS, spoil))
    assert main(["bag", "to-nuscenes", str(bag), str(tmp_path / "root")]) == 2
    said = capsys.readouterr().err
    assert "more classes of the labels have no category" in said
    assert len(said) < 8000


def test_no_value_of_a_scan_is_nan(car_bag: Path, tmp_path: Path) -> None:
    def spoil(message: Any) -> None:
        message.data = message.data.copy()
        rows_of_points(message)[::2, 3] = math.nan
        rows_of_points(message)[1::2, 4] = math.inf

    bag = edited(car_bag, tmp_path / "odd", on(POINTS, spoil))
    assert main(["bag", "to-nuscenes", str(bag), str(tmp_path / "root")]) == 0
    scans = list((tmp_path / "root").rglob("*.pcd.bin"))
    assert scans
    for scan in scans:
        assert np.isfinite(np.fromfile(scan, np.float32)).all()


def test_poses_that_no_vehicle_has_are_left_out_and_told(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    count = 0

    def spoil(message: Any) -> None:
        nonlocal count
        count += 1
        if count % 3 == 0:
            message.transforms[0].transform.translation.x = math.nan

    bag = edited(car_bag, tmp_path / "odd", on("/tf", spoil))
    assert main(["bag", "to-nuscenes", str(bag), str(tmp_path / "root")]) == 0
    assert "such poses are left out" in capsys.readouterr().err
    poses = json.loads((tmp_path / "root" / TABLES / "ego_pose.json").read_bytes())
    assert all(map(math.isfinite, (x for pose in poses for x in pose["translation"])))


def test_a_damaged_part_is_named(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    words = ["bag", "to-nuscenes", str(car_bag), str(root)]
    assert main(words) == 0
    part = root / ".scenes/drive.json"
    whole = part.read_bytes()
    for damaged in (whole[:100], b"[]", b"{}", b"[" * 100_000, b"\xff", b'{"split": "../x"}'):
        part.write_bytes(damaged)
        assert main(words) == 2
        assert f"{part} is damaged: remove it" in capsys.readouterr().err
    part.unlink()
    assert main(words) == 0


def test_a_second_writer_is_refused(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    words = ["bag", "to-nuscenes", str(car_bag), str(root)]
    assert main(words) == 0
    with sole_user(root / ".scenes/lock", "no") as alone:
        assert alone
        assert main(words) == 2
        assert f"another process writes to {root}" in capsys.readouterr().err
        with pytest.raises(ConfigError, match="^no$"), sole_user(root / ".scenes/lock", "no"):
            pass
    assert main(words) == 0
