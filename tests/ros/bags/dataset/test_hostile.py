# SPDX-License-Identifier: Apache-2.0
"""Recordings with values that no vehicle has, and data roots that are not whole."""

import itertools
import json
import math
from collections.abc import Callable
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
START_NS = 1_600_000_000_000_000_000


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


def some(spoil: Callable[[Any], None], chosen: Callable[[int], bool]) -> Callable[[Any], None]:
    """Only messages whose number, from one, is chosen are spoilt."""
    numbers = itertools.count(1)
    return lambda message: spoil(message) if chosen(next(numbers)) else None


def on(topic: str, spoil: Any) -> Edit:
    def edit(recorded: Any, message: Any) -> Any:
        if recorded.topic == topic:
            spoil(message)
        return message

    return edit


def lens(*coefficients: float) -> Any:
    def spoil(message: Any) -> None:
        message.d = np.array(coefficients)

    return spoil


def skewed(message: Any) -> None:
    message.k = message.k + 1e9 * (np.arange(9) == 1)


CASES: dict[str, tuple[str, Any, str]] = {
    "rows beyond the data": (POINTS, padded_too_far, "rows of"),
    "an image that is cut off": (LEFT, cut_off, "truncated"),
    "a sensor beyond the Earth": ("/tf_static", far_mount, "it is at [1e+300"),
    "a rotation of zeros": ("/tf_static", no_turn, "not a unit quaternion"),
    "a label beyond the Earth": (LABELS, far_label, "a box stands nowhere"),
    "a lens without end": (INFO, lens(1e200, 0, 0, 0, 0), "only 0% of the image can be rectified"),
    "a lens of three values": (INFO, lens(0.1, 0.1, 0.1), "3 coefficients do not fit plumb_bob"),
    "pixels that lie down": (INFO, skewed, "the skew 1e+09"),
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
    def spoil(message: Any) -> None:
        message.transforms[0].transform.translation.x = math.nan

    bag = edited(car_bag, tmp_path / "odd", on("/tf", some(spoil, lambda n: n % 3 == 0)))
    assert main(["bag", "to-nuscenes", str(bag), str(tmp_path / "root")]) == 0
    assert "such poses are left out" in capsys.readouterr().err
    poses = json.loads((tmp_path / "root" / TABLES / "ego_pose.json").read_bytes())
    assert all(map(math.isfinite, (x for pose in poses for x in pose["translation"])))


@pytest.fixture
def written(car_bag: Path, tmp_path: Path) -> tuple[list[str], Path]:
    """The command that has made a data root, and the data root."""
    root = tmp_path / "root"
    command = ["bag", "to-nuscenes", str(car_bag), str(root)]
    assert main(command) == 0
    return command, root


def test_a_damaged_part_is_named(
    written: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command, root = written
    part = root / ".scenes/drive.json"
    whole = part.read_bytes()
    for damaged in (whole[:100], b"[]", b"{}", b"[" * 100_000, b"\xff", b'{"split": "../x"}'):
        part.write_bytes(damaged)
        assert main(command) == 2
        assert f"{part} is damaged: remove it" in capsys.readouterr().err
    part.unlink()
    assert main(command) == 0


def test_a_second_writer_is_refused(
    written: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command, root = written
    with sole_user(root / ".scenes/lock", "no") as alone:
        assert alone
        assert main(command) == 2
        assert f"another process writes to {root}" in capsys.readouterr().err
        with pytest.raises(ConfigError, match="^no$"), sole_user(root / ".scenes/lock", "no"):
            pass
    assert main(command) == 0


@pytest.mark.parametrize(
    ("topic", "at", "far_ns"),
    [
        (LEFT, 0, 5 * 10**9),
        (LEFT, 2, START_NS - 5 * 10**9),
        (POINTS, 0, 2**31 * 10**9 - 1),
        ("/tf", 2, 5 * 10**9),
    ],
)
def test_a_lone_stamp_is_left_out_and_told(
    topic: str, at: int, far_ns: int, car_bag: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def spoil(message: Any) -> None:
        for part in message.transforms if topic == "/tf" else [message]:
            part.header.stamp.sec, part.header.stamp.nanosec = divmod(far_ns, 10**9)

    bag = edited(car_bag, tmp_path / "odd", on(topic, some(spoil, lambda n: n == at + 1)))
    assert main(["bag", "to-nuscenes", str(bag), str(tmp_path / "root"), "--workers", "1"]) == 0
    (told,) = capsys.readouterr().err.splitlines()
    assert ("'base_link'" if topic == "/tf" else topic) in told
    assert "and are left out" in told
    assert "sends nothing" not in told
    assert len(json.loads((tmp_path / "root" / TABLES / "sample.json").read_bytes())) == 4


def test_an_image_without_stamp_is_left_out_and_told(
    car_bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(message: Any) -> None:
        message.header.stamp.sec = message.header.stamp.nanosec = 0

    bag = edited(car_bag, tmp_path / "odd", on(LEFT, some(spoil, lambda n: n == 3)))
    assert main(["bag", "to-nuscenes", str(bag), str(tmp_path / "root"), "--plan"]) == 0
    assert "messages have no stamp, and are left out" in capsys.readouterr().out


ALL = (LEFT, "/rear/image_raw/compressed", "/wide/image_raw/compressed", POINTS, LABELS, "/tf")


@pytest.mark.parametrize(
    ("topics", "by_s", "told"),
    [
        ((LEFT,), 37, f"LEFT ({LEFT}): its clock jumps ahead by 3"),
        ((LEFT,), -37, f"LEFT ({LEFT}): its stamps go back by 3"),
        ((POINTS,), 37, f"{POINTS}: its clock jumps ahead by 3"),
        (ALL, -37, f"LEFT ({LEFT}): its stamps go back by 3"),
        (("/tf",), 37, "the vehicle's pose is not known at their time"),
        (ALL, 37, "2 scenes with 4 key frames"),
    ],
)
def test_a_clock_that_is_set_in_the_middle(
    topics: tuple[str, ...], by_s: int, told: str, car_bag: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def edit(recorded: Any, message: Any) -> Any:
        if recorded.topic in topics and recorded.stamp_ns > START_NS + 800_000_000:
            for part in message.transforms if recorded.topic == "/tf" else [message]:
                part.header.stamp.sec += by_s
        return message

    bag = edited(car_bag, tmp_path / "set", edit)
    refused = main(["bag", "to-nuscenes", str(bag), str(tmp_path / "root"), "--plan"])
    found = capsys.readouterr().out
    assert told in found
    assert refused == (2 if "problem:" in found else 0)
    assert ("problem:" in found) == (told.startswith(("LEFT", POINTS)))
    assert "sends nothing" not in found  # which would accuse the others


def test_scenes_that_were_written_get_their_tables(car_bag: Path, tmp_path: Path) -> None:
    """As after a call that was killed between the files and the tables."""
    root = tmp_path / "root"
    words = ["bag", "to-nuscenes", str(car_bag), str(root), "--scene-length", "1"]
    assert main([*words, "--val", "drive-0001"]) == 0
    whole = (root / TABLES / "scene.json").read_bytes()
    (root / TABLES / "scene.json").write_text("[]")
    (root / ".scenes/pending").touch()
    assert main([*words, "--val", "drive-0001"]) == 0
    assert (root / TABLES / "scene.json").read_bytes() == whole
    assert main(words) == 0  # the same files, of other splits
    splits = json.loads((root / TABLES / "splits.json").read_bytes())
    assert splits == {"train": ["drive-0000", "drive-0001"], "val": []}


@pytest.mark.parametrize("more", [[], ["--force"]])
def test_tables_are_replaced_beside_the_files_of_others(
    more: list[str], car_bag: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    words = ["bag", "to-nuscenes", str(car_bag), str(root)]
    assert main(words) == 0
    tables = {file.name: file.read_bytes() for file in (root / TABLES).iterdir()}
    (root / TABLES / "notes").mkdir()
    (root / TABLES / "notes/mine.json").write_text("mine")
    (root / ".scenes/pending").touch()
    assert main([*words, *more]) == 0
    assert (root / TABLES / "notes/mine.json").read_text() == "mine"
    found = {file.name: file.read_bytes() for file in (root / TABLES).glob("*.json")}
    assert found == tables
    assert not list(root.glob(f".{TABLES}*"))


def test_what_a_killed_call_left_between_two_renames(car_bag: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    words = ["bag", "to-nuscenes", str(car_bag), str(root)]
    assert main(words) == 0
    (root / TABLES / "mine.txt").write_text("mine")
    (root / TABLES).rename(root / f".{TABLES}.replaced")
    (root / ".scenes/pending").touch()
    assert main(words) == 0
    assert (root / TABLES / "mine.txt").read_text() == "mine"
    assert (root / TABLES / "scene.json").is_file()


def test_force_leaves_no_file_of_before(car_bag: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    words = ["bag", "to-nuscenes", str(car_bag), str(root), "--force"]
    assert main(words) == 0
    other = root / "samples/LEFT/drive__LEFT__LEFT__1.jpg"  # of a scene called drive__LEFT
    other.touch()
    assert main([*words, "--since", "0.4"]) == 0
    rows = json.loads((root / TABLES / "sample_data.json").read_bytes())
    found = {str(f.relative_to(root)) for f in root.glob("s[aw]*/*/*")} - {
        str(other.relative_to(root))
    }
    assert found == {row["filename"] for row in rows}
    assert other.exists()
