# SPDX-License-Identifier: Apache-2.0
"""A sound vehicle has no finding; one that is broken has its fault named, with the mend."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labeldistill_core.cameras import CAMERAS
from labeldistill_core.frames import Transform
from labeldistill_ros.bags.camera_faults import CameraFaults
from labeldistill_ros.bags.reader import BagReader
from labeldistill_ros.bags.writer import BagWriter
from labeldistill_ros.cli import main
from labeldistill_ros.doctor.speed import check_history
from labeldistill_ros.messages import header, stamp_from_ns
from labeldistill_ros.messages.bag_family import BAG
from labeldistill_ros.messages.geometry import transform_stamped
from tests.support.vehicle_bag import write_bag
from tests.support.without_ros import run_without_ros

Change = Callable[[str, Any], Any]
"""From topic and message to the message, or None where it is lost."""
IMAGES = {f"/{c.lower()}/image_raw/compressed": c for c in CAMERAS}
INFOS = {f"/{c.lower()}/camera_info": c for c in CAMERAS}
BACK, INFO = "/cam_back/image_raw/compressed", "/cam_back/camera_info"
CLOUD = "sensor_msgs/msg/PointCloud2"
LOST, JITTER = CameraFaults(drop=0.2), CameraFaults(jitter_ms=25.0)
TURNED = CameraFaults(miscalibrate_deg=90.0)


def stamp_ns(message: Any) -> int:
    return int(message.header.stamp.sec) * 10**9 + int(message.header.stamp.nanosec)


def shift(message: Any, ns: int) -> Any:
    message.header.stamp = stamp_from_ns(stamp_ns(message) + ns, BAG)
    return message


def altered(bag: Path, out: Path, change: Change) -> Path:
    """The bag with other messages at the same log times."""
    with BagReader(bag) as reader, BagWriter(out) as writer:
        for recorded, message in reader.messages(list(reader.topics)):
            if (new := change(recorded.topic, message)) is not None:
                writer.write(recorded.topic, recorded.msgtype, new, recorded.stamp_ns)
    return out


def of_image(act: Callable[[str, Any], Any]) -> Change:
    """Only images are changed, by camera."""
    return lambda topic, message: act(IMAGES[topic], message) if topic in IMAGES else message


def of_topic(name: str, act: Callable[[Any], Any]) -> Change:
    return lambda topic, message: act(message) if topic == name else message


def lost(camera: str, message: Any) -> Any:
    gone = camera == "CAM_BACK" and LOST.lost(str(stamp_ns(message)), camera, 0)
    return None if gone else message


def jitter(camera: str, message: Any) -> Any:
    error_ns = JITTER.stamp_error_ns(str(stamp_ns(message)))
    return shift(message, error_ns) if camera == "CAM_BACK" else message


def late_clock(camera: str, message: Any) -> Any:
    return shift(message, 300_000_000) if camera == "CAM_BACK" else message


def no_stamp(message: Any) -> Any:
    message.header.stamp = stamp_from_ns(0, BAG)
    return message


def uncalibrated(message: Any) -> Any:
    message.k = np.zeros(9)
    return message


def endless_lens(message: Any) -> Any:
    message.d = np.array([1e200, 0, 0, 0, 0])
    return message


SOMETIME_NS = 1_600_000_001_000_000_000


def one_of_1970(message: Any) -> Any:
    at_ns = stamp_ns(message)
    odd = SOMETIME_NS <= at_ns < SOMETIME_NS + 83_000_000  # one cycle at 12 Hz
    return shift(message, -at_ns + 5 * 10**9) if odd else message


def set_clock(topic: str, message: Any) -> Any:
    parts = message.transforms if topic == "/tf" else [message] if topic in IMAGES else []
    for part in parts:
        if stamp_ns(part) > 1_600_000_001_500_000_000:
            shift(part, 37 * 10**9)
    return message


def larger(message: Any) -> Any:
    message.width, message.height = 2 * message.width, 2 * message.height
    message.k = message.k * np.array([2.0, 1, 2, 1, 2, 2, 1, 1, 1])
    return message


def cut_off(message: Any) -> Any:
    message.data = message.data[: len(message.data) // 2]
    return message


def unmounted(message: Any) -> Any:
    entries = [t for t in message.transforms if "cam_back_optical" not in t.child_frame_id]
    return BAG.make("tf2_msgs/msg/TFMessage", transforms=entries)


def swapped(message: Any) -> Any:
    names = {"cam_front_optical_frame": "cam_back_optical_frame"}
    names |= {new: old for old, new in names.items()}
    for entry in message.transforms:
        entry.child_frame_id = names.get(entry.child_frame_id, entry.child_frame_id)
    return message


def turned(message: Any) -> Any:
    for entry in message.transforms:
        name = entry.child_frame_id.removesuffix("_optical_frame").upper()
        r, t = entry.transform.rotation, entry.transform.translation
        at = Transform.from_quaternion("ego", name, (r.w, r.x, r.y, r.z), (t.x, t.y, t.z))
        moved = TURNED.mounted(at)
        new = transform_stamped(moved, stamp_ns(entry), "base_link", entry.child_frame_id, BAG)
        entry.transform = new.transform
    return message


def two_parents(topic: str, message: Any) -> Any:
    if topic == "/tf":
        first = message.transforms[0]
        second = BAG.make(
            "geometry_msgs/msg/TransformStamped",
            header=header(stamp_ns(first), "odom", BAG),
            child_frame_id="base_link",
            transform=first.transform,
        )
        message.transforms = [first, second]
    return message


def late_poses(message: Any) -> Any:
    for entry in message.transforms:
        shift(entry, 60 * 10**9)
    return message


def dead(camera: str, message: Any) -> Any:
    return (
        None if camera == "CAM_BACK" and stamp_ns(message) > 1_600_000_001_000_000_000 else message
    )


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
    "options", [["nothing"], ["--params-file", "nothing.yaml"], ["--model", "nothing.safetensors"]]
)
def test_bad_use(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *options]) == 2
