# SPDX-License-Identifier: Apache-2.0
"""Recordings that make no data set are refused, with what is missing and the mend."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labeldistill_core.data.nuscenes import NuScenesTables
from labeldistill_ros.bags.reader import BagReader, Recorded
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.cli import main
from tests.support.other_car import Edit, edited, moved_stamps, without

WIDE, INFO = "/wide/image_raw/compressed", "/wide/camera_info"
POINTS, LABELS = "/lidar_top/points", "/ground_truth/detections"
START_S = 1_600_000_000


def seconds(recorded: Recorded) -> float:
    return recorded.stamp_ns / 1e9 - START_S


def stops(recorded: Recorded, message: Any) -> Any:
    return None if recorded.topic == WIDE and seconds(recorded) > 0.4 else message


def begins_late(recorded: Recorded, message: Any) -> Any:
    return None if recorded.topic == WIDE and seconds(recorded) < 1.2 else message


def other_calibration(recorded: Recorded, message: Any) -> Any:
    if recorded.topic == INFO and seconds(recorded) > 0.8:
        message.k = message.k * np.array([1.1, *[1] * 8])
    return message


def uncalibrated(recorded: Recorded, message: Any) -> Any:
    if recorded.topic == INFO:
        message.k = message.k * 0
    return message


def moving_mount(recorded: Recorded, message: Any) -> Any:
    """A camera on a gimbal, told on /tf."""
    if recorded.topic == "/tf_static":
        message.transforms = [
            t for t in message.transforms if t.child_frame_id != "wide_optical_frame"
        ]
    if recorded.topic == "/tf":
        (moved,) = message.transforms
        mount = type(moved)(
            header=type(moved.header)(stamp=moved.header.stamp, frame_id="base_link"),
            child_frame_id="wide_optical_frame",
            transform=type(moved.transform)(
                translation=type(moved.transform.translation)(x=seconds(recorded), y=0.0, z=1.0),
                rotation=type(moved.transform.rotation)(x=-0.5, y=0.5, z=-0.5, w=0.5),
            ),
        )
        message.transforms = [moved, mount]
    return message


def unknown_class(recorded: Recorded, message: Any) -> Any:
    if recorded.topic == LABELS:
        for detection in message.detections[:1]:
            detection.results[0].hypothesis.class_id = "forklift"
    return message


def unstamped(recorded: Recorded, message: Any) -> Any:
    if recorded.topic == WIDE:
        message.header.stamp.sec = message.header.stamp.nanosec = 0
    return message


def other_time_of_poses(recorded: Recorded, message: Any) -> Any:
    if recorded.topic == "/tf":
        for transform in message.transforms:
            transform.header.stamp.sec += 37
    return message


CASES: dict[str, tuple[Edit, str, str]] = {
    "no cameras": (
        without(WIDE, "/rear/image_raw/compressed", "/left/image_raw/compressed"),
        "no image topic",
        "record the cameras",
    ),
    "no calibration": (without(INFO), f"no {INFO}", "record it"),
    "zero calibration": (uncalibrated, "focal lengths 0 and 0", "not calibrated"),
    "no transforms": (without("/tf", "/tf_static"), "where the vehicle is", "record /tf"),
    "no moving transforms": (without("/tf"), "where the vehicle is", "record /tf"),
    "no mountings": (without("/tf_static"), "'wide_optical_frame'", "record /tf_static"),
    "clock of the LiDAR": (moved_stamps(POINTS, 37 * 10**9), "37.0 s ahead", "synchronize"),
    "clock of a camera": (moved_stamps(WIDE, -37 * 10**9), "37.0 s behind", "synchronize"),
    "clock of the poses": (other_time_of_poses, "poses are 3", "synchronize"),
    "a camera stops": (stops, "WIDE sends nothing after", "--until 0."),
    "a camera begins late": (begins_late, "WIDE sends nothing before", "--since 1."),
    "a calibration changes": (other_calibration, "WIDE: its calibration changes after", "--until"),
    "a mounting moves": (moving_mount, "'wide_optical_frame' moves in 'base_link'", "--since"),
    "an unknown class": (unknown_class, "'forklift', which has no category", "--categories"),
    "no stamps": (unstamped, "have no stamp", "header.stamp"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_with_the_mend(
    case: str, car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, reason, mend = CASES[case]
    bag = edited(car_bag, tmp_path / "spoilt", edit)
    assert main(["bag", "to-nuscenes", str(bag), str(tmp_path / "root")]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert reason in error, error
    assert mend in error, error
    assert not (tmp_path / "root/v1.0-trainval").exists()


def test_a_plan_tells_of_problems_and_writes_nothing(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = edited(car_bag, tmp_path / "spoilt", stops)
    assert main(["bag", "to-nuscenes", str(bag), str(tmp_path / "root"), "--plan"]) == 2
    out = capsys.readouterr().out
    assert "problem: WIDE sends nothing after" in out
    assert "128 x 96 pixels" in out
    assert not (tmp_path / "root").exists()
    assert main(["bag", "to-nuscenes", str(car_bag), str(tmp_path / "root"), "--plan"]) == 0
    assert "4 key frames in 1.5 s" in capsys.readouterr().out
    assert not (tmp_path / "root").exists()


def test_what_is_whole_of_a_drive_can_be_taken(car_bag: Path, tmp_path: Path) -> None:
    bag = edited(car_bag, tmp_path / "spoilt", stops)
    root = tmp_path / "root"
    assert main(["bag", "to-nuscenes", str(bag), str(root), "--until", "0.6"]) == 0
    other = tmp_path / "other"
    words = ["--cameras", "REAR", "/rear/image_raw/compressed", "L", "/left/image_raw/compressed"]
    assert main(["bag", "to-nuscenes", str(bag), str(other), *words]) == 0
    tables = NuScenesTables(other, "v1.0-trainval")
    assert set(tables.cameras(tables.samples("spoilt")[0])) == {"REAR", "L"}


def knocked(recorded: Recorded, message: Any) -> Any:
    """A camera that a knock moves, told on /tf."""
    message = moving_mount(recorded, message)
    if recorded.topic == "/tf":
        message.transforms[1].transform.translation.x = 1.0 if seconds(recorded) < 0.8 else 1.5
    return message


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("edit", [other_calibration, knocked])
def test_what_changes_is_cut_as_the_mend_says(
    edit: Edit, late: bool, car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag, root = edited(car_bag, tmp_path / "changed", edit), tmp_path / "root"
    assert main(["bag", "to-nuscenes", str(bag), str(root)]) == 2
    told = re.search(r"changes after ([\d.]+) s", capsys.readouterr().err)
    after_s = float(told[1]) if told else 1.1
    words = ["--since", f"{after_s}"] if late else ["--until", f"{after_s - 0.3}"]
    assert main(["bag", "to-nuscenes", str(bag), str(root), *words]) == 0
    tables = NuScenesTables(root, "v1.0-trainval")
    camera = tables.cameras(tables.samples("changed")[0])["WIDE"].calibration
    metres, pixels = camera.ego_from_camera.translation[0], camera.intrinsics_px[0, 0]
    if told:
        assert (metres, pixels) == pytest.approx((1.8, 88.0 if late else 80.0), rel=0.02)
    else:
        assert (metres, pixels) == pytest.approx((1.5 if late else 1.0, 80.0), rel=0.02)


def test_the_detectors_own_overlays_are_no_cameras(car_bag: Path, tmp_path: Path) -> None:
    overlay, root = "/detector/debug/overlay/wide/compressed", tmp_path / "root"
    with BagReader(car_bag) as reader, BagWriter(tmp_path / "all") as writer:
        for recorded in reader.raw():
            writer.write(recorded.topic, recorded.msgtype, recorded.data, recorded.stamp_ns)
            if recorded.topic == WIDE:
                writer.write(overlay, recorded.msgtype, recorded.data, recorded.stamp_ns)
    assert main(["bag", "to-nuscenes", str(tmp_path / "all"), str(root)]) == 0
    tables = NuScenesTables(root, "v1.0-trainval")
    assert set(tables.cameras(tables.samples("all")[0])) == {"WIDE", "REAR", "LEFT"}


def test_classes_get_a_category_or_are_left_out(car_bag: Path, tmp_path: Path) -> None:
    bag = edited(car_bag, tmp_path / "odd", unknown_class)
    for name, category in (("named", "vehicle.forklift"), ("without", "-")):
        root = tmp_path / name
        words = ["--categories", "forklift", category]
        assert main(["bag", "to-nuscenes", str(bag), str(root), *words]) == 0
        rows = json.loads((root / "v1.0-trainval/category.json").read_bytes())
        assert ("vehicle.forklift" in {row["name"] for row in rows}) == (name == "named")


def test_cameras_alone_are_told(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag, root = edited(car_bag, tmp_path / "blind", without(POINTS)), tmp_path / "root"
    assert main(["bag", "to-nuscenes", str(bag), str(root)]) == 0
    assert "no LiDAR" in capsys.readouterr().err
    tables = NuScenesTables(root, "v1.0-trainval")
    token = tables.samples("blind")[1]
    assert not tables.has_scan(token)
    # nobody knows whether a scan would touch the boxes, so that they count
    assert tables.ground_truth(token).touched.all()
    assert len(tables.samples("blind")) == 4


def test_a_second_cloud_has_to_be_chosen(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = edited(car_bag, tmp_path / "first", without(POINTS))
    assert main(["bag", "to-nuscenes", str(first), str(tmp_path / "a"), "--lidars", "/no"]) == 2
    assert "no cloud /no" in capsys.readouterr().err


def test_names_cannot_leave_the_folder(car_bag: Path, tmp_path: Path) -> None:
    words = ["bag", "to-nuscenes", str(car_bag), str(tmp_path / "root")]
    assert main([*words, "--version", "../x"]) == 2
    assert main([*words, "--cameras", "../x", WIDE]) == 2
    assert main([*words, "--val", "nothing"]) == 2
    for folder in ("samples", "maps", ".scenes"):
        assert main([*words, "--version", folder]) == 2
    assert main([*words[:-1], str(car_bag / "root")]) == 2
    assert not (car_bag / "root").exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--since", "1e300", "--until", "inf"], "--since 1e+300 is longer than any drive"),
        (["--cameras", "LIDAR_TOP", WIDE], "LIDAR_TOP is the name of the LiDAR's scans"),
        (["--cameras", "A", WIDE, "B", WIDE], f"{WIDE} is given to two cameras"),
        (["--categories", "car", "x\ny"], "the category of 'car' has a character that cannot"),
        (["--vehicle", "\x1b[31m"], "--vehicle has a character that cannot be printed"),
        (["--workers", "-3"], "--workers is -3: use 1 or more, or 0 for one a core"),
    ],
)
def test_options_that_make_no_data_set(
    words: list[str], told: str, car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bag", "to-nuscenes", str(car_bag), str(tmp_path / "root"), *words]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert told in said
    assert not (tmp_path / "root").exists()


def test_names_of_a_bag_do_not_reach_the_terminal(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    escape, out = "\x1b[31mred", tmp_path / "odd"
    with BagReader(car_bag) as reader, BagWriter(out) as writer:
        for recorded in reader.raw():
            message = reader.decoded(recorded)
            if recorded.topic == LABELS:
                for detection in message.detections:
                    detection.results[0].hypothesis.class_id = escape
            if recorded.topic == POINTS:
                message.header.frame_id = escape
            if recorded.topic == WIDE:
                copy = (f"/{escape}/image_raw/compressed", recorded.msgtype, recorded.data)
                writer.write(*copy, recorded.stamp_ns)
            writer.write(recorded.topic, recorded.msgtype, message, recorded.stamp_ns)
    words = ["bag", "to-nuscenes", str(out), str(tmp_path / "root")]
    assert main([*words, "--plan"]) == 2
    assert main(words) == 2
    told = "".join(capsys.readouterr())
    assert "\x1b" not in told
    assert "that is no name of a topic" in told
    assert "camera WIDE" in told


def test_points_stay_where_they_are(car_bag: Path, tmp_path: Path) -> None:
    """Clouds of other layouts, with points that have no place."""

    def padded(recorded: Recorded, message: Any) -> Any:
        if recorded.topic == POINTS:
            rows = message.data.view("<f4").reshape(-1, 5)
            wide = np.zeros(
                len(rows) + 1,
                np.dtype([("x", "<f8"), ("y", "<f4"), ("pad", "<f4"), ("z", "<f4"),
                          ("ring", "<u2"), ("intensity", "u1")]),
            )  # fmt: skip
            for column, name in enumerate(("x", "y", "z", "intensity", "ring")):
                wide[name][1:] = rows[:, column]
            wide["x"][0] = np.nan
            field = type(message.fields[0])
            kinds = {"x": 8, "y": 7, "z": 7, "ring": 4, "intensity": 2}
            message.fields = [
                field(name=n, offset=wide.dtype.fields[n][1], datatype=kind, count=1)  # type: ignore[index]
                for n, kind in kinds.items()
            ]
            message.point_step, message.width = wide.itemsize, len(wide)
            message.row_step, message.data = wide.nbytes, np.frombuffer(wide.tobytes(), np.uint8)
        return message

    bag = edited(car_bag, tmp_path / "other", padded)
    scans = []
    for source in (car_bag, bag):
        root = tmp_path / f"{source.name} root"
        assert main(["bag", "to-nuscenes", str(source), str(root)]) == 0
        tables = NuScenesTables(root, "v1.0-trainval")
        scans.append(tables.lidar(tables.samples(source.name)[2]).scan())
    np.testing.assert_array_equal(scans[0], scans[1])
