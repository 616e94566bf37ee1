# SPDX-License-Identifier: Apache-2.0
"""A sound vehicle has no finding; one that is broken has its fault named, with the mend."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.cli import main
from labeldistill_ros.doctor.speed import check_history
from labeldistill_ros.messages import header
from labeldistill_ros.messages.bag_family import BAG
from tests.support.vehicle_bag import write_bag
from tests.support.vehicle_faults import (
    BACK,
    CLOUD,
    INFO,
    Change,
    altered,
    cut_off,
    dead,
    endless_lens,
    jitter,
    larger,
    late_clock,
    late_poses,
    lost,
    no_stamp,
    of_image,
    of_topic,
    one_of_1970,
    set_clock,
    shift,
    swapped,
    turned,
    two_parents,
    uncalibrated,
    unmounted,
)
from tests.support.without_ros import run_without_ros


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bag(tmp_path_factory.mktemp("sound") / "bag", cycles=40)


@dataclass
class Case:
    check: str
    level: str
    text: str
    change: Change = lambda _, message: message
    parameters: dict[str, Any] = field(default_factory=dict)
    most: int = 4
    """Findings, those that follow from the fault included."""


CASES = {
    "a topic is missing": Case(
        "topics",
        "fault",
        "CAM_BACK: there is no topic /cam_back/image_raw/compressed",
        lambda topic, message: None if topic == BACK else message,
    ),
    "another prefix": Case(
        "topics",
        "fault",
        'set camera_prefix: "", or cameras.<camera>.image_topic',
        parameters={"camera_prefix": "/a"},
    ),
    "another transport": Case(
        "topics",
        "fault",
        "its compressed images are on /<camera>/image_raw/compressed: set transport: compressed",
        parameters={"transport": "raw"},
    ),
    "a camera stops": Case("images", "fault", "CAM_BACK: its images stopped 3", of_image(dead)),
    "images are lost": Case(
        "rates", "warning", "of its images are lost on the way", of_image(lost)
    ),
    "no stamps": Case(
        "stamps", "fault", "CAM_BACK: 40 of its images have no stamp", of_topic(BACK, no_stamp)
    ),
    "a stamp of 1970": Case(
        "stamps",
        "warning",
        "CAM_BACK: 1 of its 40 images are stamped apart from those around them, one with 1970-",
        of_topic(BACK, one_of_1970),
        most=1,
    ),
    "all clocks are set": Case(
        "host clock", "warning", "its stamps are 37 s ahead of this node's clock", set_clock, most=1
    ),
    "jitter": Case("phases", "warning", "ms off its phase", of_image(jitter)),
    "a camera's clock": Case(
        "camera clocks",
        "fault",
        "CAM_BACK: its stamps run 0.30 s ahead of the others'",
        of_image(late_clock),
    ),
    "stamps of the future": Case(
        "host clock",
        "warning",
        "its stamps are 60 s ahead of this node's clock",
        of_image(lambda _, message: shift(message, 60 * 10**9)),
    ),
    "not calibrated": Case(
        "calibration",
        "fault",
        "CAM_BACK: camera_info has the focal lengths 0 and 0 in K: the camera is not calibrated",
        of_topic(INFO, uncalibrated),
    ),
    "a lens that no camera has": Case(
        "calibration",
        "fault",
        "CAM_BACK: with the distortion D = [1e+200, 0.0, 0.0, 0.0, 0.0] ('plumb_bob') of",
        of_topic(INFO, endless_lens),
        most=1,
    ),
    "no camera_info": Case(
        "topics",
        "fault",
        "CAM_BACK: there is no topic /cam_back/camera_info",
        lambda topic, message: None if topic == INFO else message,
    ),
    "another size": Case(
        "calibration",
        "fault",
        "its camera_info says 320 x 180: publish a camera_info for this size",
        of_topic(INFO, larger),
    ),
    "corrupt images": Case("images", "fault", "CAM_BACK: ", of_topic(BACK, cut_off)),
    "no mounting": Case(
        "mountings",
        "fault",
        "CAM_BACK: no transform names the frame 'cam_back_optical_frame'",
        of_topic("/tf_static", unmounted),
    ),
    "two frames are swapped": Case(
        "mountings", "fault", "CAM_BACK: it looks 0 degrees to the", of_topic("/tf_static", swapped)
    ),
    "all mountings are turned": Case(
        "mountings",
        "fault",
        "CAM_BACK: it looks 97 degrees to the left of straight ahead",
        of_topic("/tf_static", turned),
        most=6,
    ),
    "two parents": Case(
        "transforms",
        "fault",
        "frame 'base_link' has two parents, 'map' and 'odom'",
        two_parents,
    ),
    "poses of another time": Case(
        "poses", "fault", "map from base_link at 0 of", of_topic("/tf", late_poses)
    ),
    "another fixed frame": Case(
        "poses",
        "fault",
        "no transform names the frame 'earth'",
        parameters={"fixed_frame": "earth"},
    ),
    "a camera that the model lacks": Case(
        "parameters",
        "warning",
        "the model has no camera CAM_REAR, its cameras are CAM_FRONT_LEFT",
        parameters={"cameras": {"CAM_REAR": {"image_topic": "/rear"}}},
    ),
}


def examined(
    bag: Path, model: Path, tmp_path: Path, parameters: dict[str, Any]
) -> tuple[int, list[dict[str, str]]]:
    """The exit code and the findings that are not ok."""
    file, out = tmp_path / "parameters.yaml", tmp_path / "findings.json"
    own = {"model": str(model), "device": "cpu", **parameters}
    file.write_text(json.dumps({"/**": {"ros__parameters": own}}))
    options = ["--params-file", str(file), "--json", str(out), "--no-speed"]
    code = main(["doctor", str(bag), *options])
    return code, [one for one in json.loads(out.read_text()) if one["level"] != "ok"]


def test_a_sound_vehicle_has_no_finding(
    sound: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, findings = examined(sound, tiny_model, tmp_path, {})
    assert (code, findings) == (0, [])
    printed = capsys.readouterr().out
    assert "\nnothing is wrong\n" in printed
    assert "ok      sets            40 of 40 sets have all 6 cameras" in printed


@pytest.mark.parametrize("name", CASES)
def test_what_is_broken_is_named(name: str, sound: Path, tiny_model: Path, tmp_path: Path) -> None:
    case = CASES[name]
    bag = altered(sound, tmp_path / "bag", case.change)
    code, findings = examined(bag, tiny_model, tmp_path, case.parameters)
    fitting = [f for f in findings if f["check"] == case.check and case.text in f["text"]]
    assert [f["level"] for f in fitting] == [case.level], findings
    assert code == any(f["level"] == "fault" for f in findings)
    assert len(findings) <= case.most, findings


def test_the_detectors_own_table_is_no_lidar(sound: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A detector on a CPU publishes half a second after the exposure."""
    bag, kind = tmp_path / "bag", "sensor_msgs/msg/PointCloud2"
    with BagReader(sound) as reader, BagWriter(bag) as writer:
        for recorded in reader.raw():
            writer.write(recorded.topic, recorded.msgtype, recorded.data, recorded.stamp_ns)
            if recorded.topic == "/cam_front/camera_info":
                cloud = BAG.make(kind, header=header(recorded.stamp_ns, "base_link", BAG))
                late_ns = recorded.stamp_ns + 400_000_000
                writer.write("/detector/detections_table", kind, cloud, late_ns)
    assert examined(bag, tiny_model, tmp_path, {}) == (0, [])


def test_cameras_may_share_a_calibration(sound: Path, tiny_model: Path, tmp_path: Path) -> None:
    own, shared = "/cam_back/camera_info", "/cam_front/camera_info"
    bag = altered(sound, tmp_path / "bag", lambda topic, message: None if topic == own else message)
    shares = {"cameras": {"CAM_BACK": {"info_topic": shared}}}
    assert examined(bag, tiny_model, tmp_path, shares) == (0, [])
    code, findings = examined(bag, tiny_model, tmp_path, {})
    assert code == 1
    assert any(own in finding["text"] for finding in findings)


def test_a_lidar_of_another_clock(sound: Path, tiny_model: Path, tmp_path: Path) -> None:
    bag = tmp_path / "bag"
    with BagReader(sound) as reader, BagWriter(bag) as writer:
        for recorded in reader.raw():
            writer.write(recorded.topic, recorded.msgtype, recorded.data, recorded.stamp_ns)
            if recorded.topic == BACK:
                for topic, late_ns in (("/top/points", 37 * 10**9), ("/side/points", 10**7)):
                    head = header(recorded.stamp_ns - late_ns, "lidar", BAG)
                    cloud = BAG.make(CLOUD, header=head)
                    writer.write(topic, CLOUD, cloud, recorded.stamp_ns)
    _, findings = examined(bag, tiny_model, tmp_path, {})
    assert [f["check"] for f in findings] == ["LiDAR clock"]
    assert "/top/points: its stamps are 37.00 s behind the cameras'" in findings[0]["text"]


def test_the_machine_is_too_slow(
    sound: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("labeldistill_ros.doctor.speed.warm_up", lambda *_: 0.4)
    out = tmp_path / "findings.json"
    options = ["--model", str(tiny_model), "--device", "cpu", "--json", str(out)]
    assert main(["doctor", str(sound), *options]) == 0
    last = json.loads(out.read_text())[-1]
    assert (last["check"], last["level"]) == ("speed", "warning")
    assert "2.5 sets a second here" in last["text"]
    assert "so 75% of the sets are dropped: use a GPU" in last["text"]


@pytest.mark.parametrize(
    ("rate_hz", "tolerance_s", "level"),
    [(12.0, 0.05, "ok"), (1.0, 0.05, "ok"), (1 / 0.7, 0.05, "warning"), (0.1, 0.1, "warning")],
)
def test_the_past_is_as_old_as_the_model_wants_it(
    rate_hz: float, tolerance_s: float, level: str
) -> None:
    (found,) = check_history((1.0, 2.0), tolerance_s, rate_hz)
    assert found.level == level
    assert check_history((), tolerance_s, rate_hz) == check_history((1.0,), tolerance_s, 0.0) == []


def test_rounds_of_a_looped_bag_are_one_warning(
    sound: Path, tiny_model: Path, tmp_path: Path
) -> None:
    bag = tmp_path / "bag"
    with BagReader(sound) as reader, BagWriter(bag) as writer:
        messages = list(reader.raw())
        length_ns = messages[-1].stamp_ns - messages[0].stamp_ns + 10**9
        for number in range(2):
            for r in messages:
                writer.write(r.topic, r.msgtype, r.data, r.stamp_ns + number * length_ns)
    _, findings = examined(bag, tiny_model, tmp_path, {})
    told = {f["check"]: f["text"] for f in findings}
    assert told["stamps"].startswith("the stamps went back once")
    assert set(told) <= {"stamps", "host clock"}  # the log time has gone on


def test_names_of_others_do_not_write_to_the_terminal(
    sound: Path, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def named(message: Any) -> Any:
        message.header.frame_id = "\x1b[2J\nok  all is well"
        return message

    bag = altered(sound, tmp_path / "bag", of_topic(BACK, named))
    examined(bag, tiny_model, tmp_path, {})
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert not any(line.startswith("ok  all") for line in printed.splitlines())


def test_a_bag_needs_no_ros(sound: Path, tiny_model: Path) -> None:
    printed = run_without_ros(["doctor", str(sound), "--model", str(tiny_model)])
    assert "FAULT" not in printed
    assert "sets a second here" in printed  # fewer than the cameras send, on a busy machine


@pytest.mark.parametrize(
    "options",
    [
        ["nothing"],
        ["--params-file", "nothing.yaml"],
        ["--model", "nothing.safetensors"],
        ["--seconds", "0"],
        ["--seconds", "nan"],
        ["--seconds", "inf"],
    ],
)
def test_bad_use(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *options]) == 2
