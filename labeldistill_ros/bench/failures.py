# SPDX-License-Identifier: Apache-2.0
"""The failure table: each event is done to the running node, and what it does is timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import ReliabilityPolicy
from sensor_msgs.msg import CameraInfo
from std_srvs.srv import SetBool, Trigger

from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.bench.running import Run
from labeldistill_ros.bench.vehicle import Faults, counter
from labeldistill_ros.health import values_of

DETECT_S, RECOVER_S = 8.0, 12.0
_START_S = 30.0
_BACK, _FRONT = "CAM_BACK", "CAM_FRONT"
_QUICK = {"diagnostics.period": 0.1, "tf_timeout": 0.05}
_SKIP = {**_QUICK, "history.reset_gap": 1.0}
_MASK = {**_SKIP, "sync.missing_camera_policy": "mask"}

Act = Callable[[Run], object]


@dataclass(frozen=True)
class Row:
    """What came of one event."""

    event: str
    """What happened."""
    action: str
    """What was done to the running node."""
    observed: str
    """What it did."""
    detected_s: float | None
    """Until it did so; None when it did not."""
    recovered_s: float | None
    """From the end of the trouble to a full set; None when that is not to be had, or failed."""
    passed: bool
    """Whether it did what it should."""


@dataclass(frozen=True)
class Event:
    """One line of the table."""

    event: str
    """What happens."""
    action: str
    """What is done to the node."""
    expected: str
    """What it has to do."""
    begin: Act
    """Does it."""
    detected: Act
    """Whether the node did what it has to."""
    end: Act | None = None
    """Undoes it; None where the trouble lasts."""
    recovered: Act = lambda run: _full(run)
    """Whether all is well again."""


@dataclass(frozen=True)
class Scene:
    """Events that one node goes through, one after the other."""

    name: str
    """For people."""
    events: tuple[Event, ...]
    """In their order."""
    parameters: dict[str, Any] = field(default_factory=lambda: dict(_SKIP))
    """Of the node."""
    faults: Callable[[], Faults] = Faults
    """Of the vehicle from the start on."""
    vehicle: dict[str, Any] = field(default_factory=dict)
    """How it drives otherwise."""
    starts_well: bool = True
    """Whether full sets come before the first event."""


def run_scene(scene: Scene, model: Path | None) -> list[Row]:
    """Start a node, do one event after the other to it."""
    with Run(model, scene.parameters, scene.faults(), **scene.vehicle) as run:
        if scene.starts_well and run.vehicle.wait(lambda: _full(run), _START_S) is None:
            return [
                Row(e.event, e.action, "no boxes at the start", None, None, False)
                for e in scene.events
            ]
        rows = [_row(run, event) for event in scene.events]
        if run.mixed:
            rows.append(Row(f"{scene.name}: mixed sets", "", str(run.mixed), None, None, False))
    return rows


def _row(run: Run, event: Event) -> Row:
    vehicle = run.vehicle
    vehicle.listen()
    event.begin(run)
    detected_s = vehicle.wait(lambda: event.detected(run), DETECT_S)
    observed = event.expected if detected_s is not None else f"not so: {vehicle.sets[-2:]}"
    recovered_s = None
    if event.end:
        event.end(run)
        vehicle.listen()
        recovered_s = vehicle.wait(lambda: event.recovered(run), RECOVER_S)
    passed = detected_s is not None and (event.end is None or recovered_s is not None)
    if event.end and recovered_s is None:
        observed += f"; no recovery: {vehicle.sets[-2:]}"
    return Row(event.event, event.action, observed, _ms(detected_s), _ms(recovered_s), passed)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def as_json(rows: list[Row]) -> dict[str, Any]:
    """The form of `benchmarks/results/failures.json`."""
    return {"rows": [asdict(row) for row in rows]}


# What the node says and does


def _full(run: Run) -> bool:
    """Two complete sets in a row were processed."""
    last = run.vehicle.sets[-2:]
    return len(last) == 2 and all(
        s["outcome"] == "processed" and s["degraded"] == "False" for s in last
    )


def _with_history(run: Run) -> bool:
    return _full(run) and counter(run.vehicle.sets[-1], "history_valid") > 0


def _some(run: Run, count: int = 1, **wanted: str) -> bool:
    """Sets whose status has these values."""
    found = [s for s in run.vehicle.sets if all(s.get(k) == v for k, v in wanted.items())]
    return len(found) >= count


def _error(run: Run, name: str, text: str = "") -> bool:
    status = run.vehicle.diagnostic(name)
    return bool(status.level == DiagnosticStatus.ERROR and text in status.message)


def _value(run: Run, name: str, key: str) -> str:
    return values_of(run.vehicle.diagnostic(name)).get(key, "")


def _silent_boxes(run: Run) -> bool:
    return not any(s["outcome"] == "processed" for s in run.vehicle.sets[-2:])


# What is done to it


def _set(**changes: Any) -> Act:
    def begin(run: Run) -> None:
        for name, value in changes.items():
            setattr(run.vehicle.faults, name, value)

    return begin


def _change(**fields: Any) -> Callable[[CameraInfo], None]:
    def change(info: CameraInfo) -> None:
        for name, value in fields.items():
            setattr(info, name, value)

    return change


def _longer(info: CameraInfo) -> None:
    info.k = info.k * np.array([1.05, 1, 1, 1, 1.05, 1, 1, 1, 1])


def _call(kind: Any, service: str, **fields: Any) -> Act:
    def begin(run: Run) -> None:
        client: Any = run.vehicle.node.create_client(kind, f"/detector/{service}")
        client.wait_for_service(5.0)
        client.call_async(kind.Request(**fields))

    return begin


def _mount(run: Run) -> None:
    run.vehicle.faults.unmounted = set()
    run.vehicle.mount()


def _detect(change: Callable[[Any], Callable[..., Any]]) -> Act:
    """Put something in the place of the detector's `detect`."""

    def begin(run: Run) -> None:
        run.detector.detect = change(type(run.detector).detect.__get__(run.detector))  # type: ignore[method-assign]

    return begin


def _fail(_: Any) -> Callable[..., Any]:
    def detect(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    return detect


def _fail_once(original: Any) -> Callable[..., Any]:
    left = [1]

    def detect(*args: Any, **kwargs: Any) -> Any:
        if left:
            left.pop()
            raise RuntimeError("CUDA out of memory")
        return original(*args, **kwargs)

    return detect


def _slow(original: Any) -> Callable[..., Any]:
    def detect(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.7)
        return original(*args, **kwargs)

    return detect


def _spoiled(original: Any) -> Callable[..., Any]:
    def detect(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        values = found.boxes.values.clone()
        values[::2, 0] = float("nan")
        values[1::2, 3] = -1.0
        return replace(found, boxes=replace(found.boxes, values=values))

    return detect


def _healed(original: Any) -> Callable[..., Any]:
    return original  # type: ignore[no-any-return]


def _bounded(run: Run) -> bool:
    """Sets are dropped, and no set waits longer than two runs of the detector."""
    delays = [float(s["total_ms"]) for s in run.vehicle.sets if s["outcome"] == "processed"]
    return _some(run, 5, outcome="dropped") and len(delays) >= 3 and max(delays[1:]) < 2000


_JPEG_END = b"\xff\xd8\xff\xe0 no picture"

SCENES = (
    Scene(
        "cameras under skip",
        (
            Event(
                "a camera stops (skip)",
                "CAM_BACK sends nothing",
                "sets incomplete, no boxes, camera ERROR",
                _set(silent={_BACK}),
                lambda r: (
                    _some(r, 2, outcome="incomplete", missing=_BACK)
                    and _silent_boxes(r)
                    and _error(r, f"camera {_BACK}", "/cam_back/image_raw/compressed")
                ),
                _set(silent=set()),
            ),
            Event(
                "late images",
                "CAM_BACK's messages come 150 ms late",
                "left out and counted, sets incomplete, none mixed",
                _set(late_s={_BACK: 0.15}),
                lambda r: (
                    _some(r, 2, outcome="incomplete", missing=_BACK)
                    and counter(values_of(r.vehicle.diagnostic("sync")), "late") > 1
                ),
                _set(late_s={}),
            ),
            Event(
                "images come twice",
                "every image is published twice",
                "counted as duplicates, sets complete",
                _set(twice=True),
                lambda r: (
                    counter(values_of(r.vehicle.diagnostic("sync")), "duplicate") >= 12 and _full(r)
                ),
                _set(twice=False),
            ),
            Event(
                "corrupt JPEG (skip)",
                "CAM_BACK sends bytes that are no picture",
                "set refused, camera ERROR that names it",
                _set(data={_BACK: _JPEG_END}),
                lambda r: (
                    _some(r, outcome="refused", cause="image")
                    and _error(r, f"camera {_BACK}", "corrupt image")
                ),
                _set(data={}),
            ),
            Event(
                "image of another size",
                "CAM_BACK's camera_info says 320 pixels",
                "set refused, both sizes named",
                _set(info={_BACK: _change(width=320)}),
                lambda r: (
                    _some(r, outcome="refused", cause="camera_info")
                    and r.vehicle.told("its camera_info says 320 x 90")
                ),
                _set(info={}),
            ),
            Event(
                "camera not calibrated",
                "K of CAM_FRONT is zero",
                "set refused, field and camera named",
                _set(info={_FRONT: _change(k=np.zeros(9))}),
                lambda r: (
                    _some(r, outcome="refused", cause="camera_info")
                    and _error(r, f"camera {_FRONT}", "the focal lengths 0 and 0 in K")
                ),
                _set(info={}),
            ),
            Event(
                "calibration changes",
                "focal length of CAM_BACK grows by 5 %",
                "taken at once, history dropped",
                _set(info={_BACK: _longer}),
                lambda r: _some(r, outcome="processed", history_valid="0"),
                _set(info={}),
                _with_history,
            ),
            Event(
                "distorted images",
                "D of CAM_BACK becomes -0.2",
                "the image is rectified, boxes go on",
                _set(info={_BACK: _change(d=[-0.2, 0.05, 0.0, 0.0, 0.0])}),
                lambda r: (
                    len(r.vehicle.sets) >= 3
                    and _full(r)
                    and r.last is not None
                    and r.last.by_name[_BACK].image.std() > 1
                ),
                _set(info={}),
            ),
            Event(
                "phase of a camera steps",
                "CAM_BACK exposes 40 ms later",
                "offset learned anew, sets complete again",
                _set(phase_s={_BACK: 0.04}),
                lambda r: _some(r, outcome="incomplete") and _full(r),
                _set(phase_s={}),
            ),
        ),
    ),
    Scene(
        "time and motion",
        (
            Event(
                "time goes back",
                "all stamps jump back by 5 s, as in a bag loop",
                "started afresh, told once, boxes go on",
                _set(time_shift_s=-5.0),
                lambda r: r.vehicle.told("started afresh: the stamps went back") and _full(r),
                _set(time_shift_s=0.0),
                _with_history,
            ),
            Event(
                "pause",
                "no camera sends for longer than history.reset_gap",
                "silence is an ERROR; the history is dropped",
                _set(silent=set(CAMERAS)),
                lambda r: _error(r, f"camera {_FRONT}", "no image for 1."),
                _set(silent=set()),
                lambda r: (
                    _value(r, "history", "last_reset").startswith("no set for") and _with_history(r)
                ),
            ),
            Event(
                "the pose jumps",
                "the localization moves by 500 m",
                "the history is dropped, naming the distance",
                _set(pose_shift_m=500.0),
                lambda r: _value(r, "history", "last_reset").startswith("the pose jumped by"),
                _set(),
                _with_history,
            ),
            Event(
                "the pose is missing",
                "/tf is silent",
                "boxes without history, degraded, transforms ERROR",
                _set(no_poses=True),
                lambda r: (
                    _some(r, 2, outcome="processed", pose="unknown", history_valid="0")
                    and r.vehicle.diagnostic("transforms").level == DiagnosticStatus.ERROR
                ),
                _set(no_poses=False),
            ),
            Event(
                "~/reset_temporal",
                "the service is called",
                "the history is dropped",
                _call(Trigger, "reset_temporal"),
                lambda r: _some(r, outcome="processed", history_valid="0"),
                _set(),
                _with_history,
            ),
            Event(
                "~/relearn_offsets",
                "the service is called",
                "offsets are learned anew, sets complete",
                _call(Trigger, "relearn_offsets"),
                lambda r: len(r.vehicle.sets) >= 3 and _full(r),
            ),
            Event(
                "~/enable false",
                "the service is called",
                "idle, the model stays",
                _call(SetBool, "enable", data=False),
                lambda r: _some(r, 2, outcome="idle", cause="disabled"),
                _call(SetBool, "enable", data=True),
            ),
            Event(
                "nobody listens",
                "the only subscriber leaves",
                "idle, nothing is computed",
                lambda r: r.vehicle.turn_away(),
                lambda r: _some(r, 2, outcome="idle", cause="nobody listens"),
                lambda r: r.vehicle.turn_back(),
            ),
        ),
    ),
    Scene(
        "detector",
        (
            Event(
                "inference slower than the cameras",
                "each set takes 0.7 s, sets come every 0.2 s",
                "newest set wins, others dropped, latency bounded",
                _detect(_slow),
                _bounded,
                _detect(_healed),
            ),
            Event(
                "boxes that are not finite or have no size",
                "half of the boxes become NaN, half of negative length",
                "left out; the message is empty",
                _detect(_spoiled),
                lambda r: len(r.vehicle.boxes) >= 2 and not r.vehicle.boxes[-1].detections,
                _detect(_healed),
            ),
            Event(
                "the detector raises an error once",
                "RuntimeError: CUDA out of memory",
                "the set failed, the next is processed",
                _detect(_fail_once),
                lambda r: _some(r, outcome="failed", cause="RuntimeError"),
                _set(),
            ),
            Event(
                "the detector keeps raising errors",
                "RuntimeError in every set",
                "given up after three, node unconfigured",
                _detect(_fail),
                lambda r: (
                    r.vehicle.told("the detector is given up: RuntimeError")
                    and r.node._configured is None
                ),
                lambda r: r.node.start(),
            ),
        ),
    ),
    Scene(
        "cameras under mask",
        (
            Event(
                "a camera stops (mask)",
                "CAM_BACK sends nothing",
                "boxes without it, degraded, camera ERROR",
                _set(silent={_BACK}),
                lambda r: (
                    _some(r, 2, outcome="processed", missing=_BACK, degraded="True")
                    and _error(r, f"camera {_BACK}")
                ),
                _set(silent=set()),
            ),
            Event(
                "the anchor stops",
                "CAM_FRONT sends nothing",
                "another camera is elected, boxes go on",
                _set(silent={_FRONT}),
                lambda r: (
                    _value(r, "sync", "anchor") == "CAM_FRONT_LEFT"
                    and _some(r, 2, outcome="processed", missing=_FRONT)
                ),
                _set(silent=set()),
                lambda r: _value(r, "sync", "anchor") == _FRONT and _full(r),
            ),
            Event(
                "corrupt JPEG (mask)",
                "CAM_BACK sends bytes that are no picture",
                "boxes without it, camera ERROR",
                _set(data={_BACK: _JPEG_END}),
                lambda r: (
                    _some(r, 2, outcome="processed", missing=_BACK)
                    and _error(r, f"camera {_BACK}", "corrupt image")
                ),
                _set(data={}),
            ),
        ),
        _MASK,
    ),
    Scene(
        "a camera is never seen",
        (
            Event(
                "a camera is never seen",
                "CAM_BACK was silent from the start on",
                "WARN that names topic, type, publishers and QoS",
                _set(),
                lambda r: r.vehicle.told(
                    "CAM_BACK: no image comes on /cam_back/image_raw/compressed "
                    "(sensor_msgs/msg/CompressedImage, best effort); 1 publisher: /vehicle"
                ),
                _set(silent=set()),
            ),
        ),
        faults=lambda: Faults(silent={_BACK}),
        starts_well=False,
    ),
    Scene(
        "camera_info never comes",
        (
            Event(
                "camera_info is missing",
                "CAM_BACK had none from the start on",
                "set refused, topic named",
                _set(),
                lambda r: (
                    r.vehicle.told("but no camera_info on /cam_back/camera_info")
                    and _some(r, outcome="refused", cause="camera_info")
                ),
                _set(no_info=set()),
            ),
        ),
        faults=lambda: Faults(no_info={_BACK}),
        starts_well=False,
    ),
    Scene(
        "mounting never told",
        (
            Event(
                "a mounting transform is missing",
                "/tf_static lacks CAM_BACK",
                "camera unusable, frame named",
                _set(),
                lambda r: r.vehicle.told("no transform names the frame 'cam_back_optical_frame'"),
                _mount,
            ),
        ),
        faults=lambda: Faults(unmounted={_BACK}),
        starts_well=False,
    ),
    Scene(
        "pose required",
        (
            Event(
                "the pose is missing, and required",
                "/tf is silent",
                "set refused, frames named",
                _set(no_poses=True),
                lambda r: _some(r, 2, outcome="refused", cause="transform"),
                _set(no_poses=False),
            ),
        ),
        {**_SKIP, "missing_pose_policy": "required"},
    ),
    Scene(
        "raw images",
        (
            Event(
                "unknown encoding",
                "CAM_BACK sends 32FC1",
                "set refused, encoding named",
                _set(encoding={_BACK: "32FC1"}),
                lambda r: (
                    _some(r, outcome="refused", cause="image")
                    and _error(r, f"camera {_BACK}", "'32FC1' is not known")
                ),
                _set(encoding={}),
            ),
        ),
        {**_SKIP, "transport": "raw"},
        vehicle={"raw": True},
    ),
    Scene(
        "quality of service",
        (
            Event(
                "incompatible QoS",
                "the node wants CAM_BACK reliable, its publisher is best effort",
                "WARN that names topic and publisher",
                _set(),
                lambda r: r.vehicle.told(
                    "/vehicle publishes /cam_back/image_raw/compressed with reliability "
                    "best effort, which is less"
                ),
                lambda r: r.vehicle.republish(_BACK, ReliabilityPolicy.RELIABLE),
            ),
        ),
        {
            **_SKIP,
            "qos_overrides./cam_back/image_raw/compressed.subscription.reliability": "reliable",
        },
        starts_well=False,
    ),
)
