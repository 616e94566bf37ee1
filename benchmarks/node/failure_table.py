# SPDX-License-Identifier: Apache-2.0
"""Every line of the failure table, by the node that goes through it."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import ReliabilityPolicy
from std_srvs.srv import SetBool, Trigger

from benchmarks.node.failure_acts import (
    all_since,
    bounded,
    call,
    causes,
    detect_with,
    error,
    fail,
    fail_once,
    full,
    healed,
    mount,
    set_faults,
    slow,
    some,
    spoiled,
    state,
    value,
    with_history,
)
from benchmarks.node.failure_cameras import CAMERA_SCENES
from benchmarks.node.failures import SKIP, Event, Scenario, fault
from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.testing.vehicle import VehicleFaults

_BACK, _FRONT = "CAM_BACK", "CAM_FRONT"
_POSE_REQUIRED = {**SKIP, "missing_pose_policy": "required"}
_GIVEN_UP = "the detector is given up: RuntimeError: CUDA out of memory"

SCENES = (
    *CAMERA_SCENES,
    Scenario(
        "time and motion",
        (
            fault(
                "time goes back",
                "all stamps jump back by 5 s, as in a bag loop",
                "started afresh, told once, boxes go on",
                lambda r: r.vehicle.told("started afresh: the stamps went back") and full(r),
                with_history,
                {
                    "told once": lambda r: (
                        r.vehicle.told("started afresh: the stamps went back") == 1
                    )
                },
                time_shift_s=-5.0,
            ),
            fault(
                "pause",
                "no camera sends for longer than history.reset_gap",
                "silence is an ERROR; the history is dropped",
                lambda r: error(r, f"camera {_FRONT}", "no image for 1."),
                lambda r: (
                    value(r, "history", "last_reset").startswith("no set for") and with_history(r)
                ),
                silent=set(CAMERAS),
            ),
            Event(
                "the pose jumps",
                "the localization moves by 500 m",
                "the history is dropped, naming the distance",
                set_faults(pose_shift_m=500.0),
                lambda r: value(r, "history", "last_reset").startswith("the pose jumped by"),
                set_faults(),
                with_history,
            ),
            fault(
                "the pose is missing",
                "/tf is silent",
                "boxes without history, degraded, transforms ERROR",
                lambda r: (
                    some(r, 2, outcome="processed", pose="unknown", history_valid="0")
                    and r.vehicle.diagnostic("transforms").level == DiagnosticStatus.ERROR
                ),
                no_poses=True,
            ),
            Event(
                "~/reset_temporal",
                "the service is called",
                "the history is dropped",
                call(Trigger, "reset_temporal"),
                lambda r: some(r, outcome="processed", history_valid="0"),
                set_faults(),
                with_history,
            ),
            Event(
                "~/relearn_offsets",
                "the service is called",
                "offsets are learned anew, sets complete",
                call(Trigger, "relearn_offsets"),
                lambda r: len(r.vehicle.sets) >= 3 and full(r),
            ),
            Event(
                "~/enable false",
                "the service is called",
                "idle, the model stays",
                call(SetBool, "enable", data=False),
                lambda r: some(r, 2, outcome="idle", cause="disabled"),
                call(SetBool, "enable", data=True),
                holds={
                    "all sets are idle": lambda r: all_since(r, outcome="idle", cause="disabled"),
                    "no boxes": lambda r: (
                        len(r.vehicle.boxes) <= r.vehicle.outcomes().count("processed")
                    ),
                },
            ),
            Event(
                "nobody listens",
                "the only subscriber leaves",
                "idle, nothing is computed",
                lambda r: r.vehicle.turn_away(),
                lambda r: some(r, 2, outcome="idle", cause="nobody listens"),
                lambda r: r.vehicle.turn_back(),
            ),
        ),
    ),
    Scenario(
        "detector",
        (
            Event(
                "inference slower than the cameras",
                "each set takes 0.7 s, sets come every 0.2 s",
                "newest set wins, others dropped, latency bounded",
                detect_with(slow),
                bounded,
                detect_with(healed),
            ),
            Event(
                "boxes that are not finite or have no size",
                "half of the boxes become NaN, half of negative length",
                "left out; the message is empty",
                detect_with(spoiled),
                lambda r: len(r.vehicle.boxes) >= 2 and not r.vehicle.boxes[-1].detections,
                detect_with(healed),
            ),
            Event(
                "the detector runs out of memory once",
                "OutOfMemoryError in one set",
                "the set failed, the next is processed",
                detect_with(fail_once),
                lambda r: some(r, outcome="failed", cause="OutOfMemoryError"),
                set_faults(),
            ),
            Event(
                "the detector keeps raising errors",
                "RuntimeError in every set",
                "given up after three, processing ERROR, unconfigured",
                detect_with(fail),
                lambda r: (
                    error(r, "processing", _GIVEN_UP)
                    and r.vehicle.told(_GIVEN_UP)
                    and state(r) == "unconfigured"
                ),
                lambda r: r.node.start(),
                holds={"three sets failed": lambda r: r.vehicle.outcomes().count("failed") == 3},
            ),
        ),
        # Somebody else starts it anew, as a lifecycle manager does: by itself it may have done so
        # before it is asked for its state.
        {**SKIP, "autostart": False},
    ),
    Scenario(
        "a camera is never seen",
        (
            fault(
                "a camera is never seen",
                "CAM_BACK was silent from the start on",
                "WARN that names topic, type, publishers and QoS",
                lambda r: r.vehicle.told(
                    "CAM_BACK: no image comes on /cam_back/image_raw/compressed "
                    "(sensor_msgs/msg/CompressedImage, best effort); 1 publisher: /vehicle"
                ),
                silent={_BACK},
            ),
        ),
        faults=lambda: VehicleFaults(silent={_BACK}),
        starts_well=False,
    ),
    Scenario(
        "camera_info never comes",
        (
            fault(
                "camera_info is missing",
                "CAM_BACK had none from the start on",
                "set refused, topic named",
                lambda r: (
                    r.vehicle.told(
                        "CAM_BACK: images come, but no camera_info on /cam_back/camera_info"
                    )
                    and r.vehicle.told("CAM_BACK: no camera_info has come")
                    and some(r, outcome="refused", cause="camera_info")
                ),
                holds={
                    "no other reason": lambda r: causes(r, "refused") == {"camera_info"},
                    "no boxes": lambda r: not r.vehicle.boxes,
                },
                no_info={_BACK},
            ),
        ),
        faults=lambda: VehicleFaults(no_info={_BACK}),
        starts_well=False,
    ),
    Scenario(
        "mounting never told",
        (
            Event(
                "a mounting transform is missing",
                "/tf_static lacks CAM_BACK",
                "camera unusable, frame named",
                set_faults(),
                lambda r: (
                    r.vehicle.told("no transform names the frame 'cam_back_optical_frame'")
                    and some(r, outcome="refused")
                ),
                mount,
            ),
        ),
        faults=lambda: VehicleFaults(unmounted={_BACK}),
        starts_well=False,
    ),
    Scenario(
        "pose required",
        (
            fault(
                "the pose is missing, and required",
                "/tf is silent",
                "set refused, frames named",
                lambda r: some(r, 2, outcome="refused", cause="transform"),
                no_poses=True,
            ),
        ),
        _POSE_REQUIRED,
    ),
    Scenario(
        "pose never told",
        (
            fault(
                "the pose was never told, and is required",
                "/tf was silent from the start on",
                "set refused, transforms ERROR, the known frames named",
                lambda r: (
                    some(r, outcome="refused", cause="transform")
                    and r.vehicle.diagnostic("transforms").level == DiagnosticStatus.ERROR
                    and r.vehicle.told(
                        "no transform names the frame 'map' (known frames: base_link,"
                    )
                ),
                holds={
                    "no other reason": lambda r: causes(r, "refused") == {"transform"},
                    "no boxes": lambda r: not r.vehicle.boxes,
                },
                no_poses=True,
            ),
        ),
        _POSE_REQUIRED,
        faults=lambda: VehicleFaults(no_poses=True),
        starts_well=False,
    ),
    Scenario(
        "quality of service",
        (
            Event(
                "incompatible QoS",
                "the node wants CAM_BACK reliable, its publisher is best effort",
                "WARN that names topic and publisher",
                lambda r: r.vehicle.republish(_BACK, ReliabilityPolicy.BEST_EFFORT),
                lambda r: r.vehicle.told(
                    "/vehicle publishes /cam_back/image_raw/compressed with reliability "
                    "best effort, which is less"
                ),
                lambda r: r.vehicle.republish(_BACK, ReliabilityPolicy.RELIABLE),
            ),
        ),
        {
            **SKIP,
            "qos_overrides./cam_back/image_raw/compressed.subscription.reliability": "reliable",
        },
        # Else it would have been told of before anybody listened, and is so once a minute.
        faults=lambda: VehicleFaults(reliable={_BACK}),
    ),
)
