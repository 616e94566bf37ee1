# SPDX-License-Identifier: Apache-2.0
"""Every line of the failure table, by the node that goes through it."""

from __future__ import annotations

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import ReliabilityPolicy
from std_srvs.srv import SetBool, Trigger

from benchmarks.node.failure_acts import (
    NO_PICTURE,
    bounded,
    call,
    change,
    detect_with,
    error,
    fail,
    fail_once,
    full,
    healed,
    longer,
    mount,
    set_faults,
    silent_boxes,
    slow,
    some,
    spoiled,
    value,
    with_history,
)
from benchmarks.node.failures import SKIP, Event, Scene, fault
from labeldistill_core.cameras import CAMERAS
from labeldistill_ros.messages import values_of
from labeldistill_ros.testing.vehicle import Faults, counter

_BACK, _FRONT = "CAM_BACK", "CAM_FRONT"
_MASK = {**SKIP, "sync.missing_camera_policy": "mask"}

SCENES = (
    Scene(
        "cameras under skip",
        (
            fault(
                "a camera stops (skip)",
                "CAM_BACK sends nothing",
                "sets incomplete, no boxes, camera ERROR",
                lambda r: (
                    some(r, 2, outcome="incomplete", missing=_BACK)
                    and silent_boxes(r)
                    and error(r, f"camera {_BACK}", "/cam_back/image_raw/compressed")
                ),
                silent={_BACK},
            ),
            fault(
                "late images",
                "CAM_BACK's messages come 150 ms late",
                "left out and counted, sets incomplete, none mixed",
                lambda r: (
                    some(r, 2, outcome="incomplete", missing=_BACK)
                    and counter(values_of(r.vehicle.diagnostic("sync")), "late") > 1
                ),
                late_s={_BACK: 0.15},
            ),
            fault(
                "images come twice",
                "every image is published twice",
                "counted as duplicates, sets complete",
                lambda r: (
                    counter(values_of(r.vehicle.diagnostic("sync")), "duplicate") >= 12 and full(r)
                ),
                twice=True,
            ),
            fault(
                "corrupt JPEG (skip)",
                "CAM_BACK sends bytes that are no picture",
                "set refused, camera ERROR that names it",
                lambda r: (
                    some(r, outcome="refused", cause="image")
                    and error(r, f"camera {_BACK}", "corrupt image")
                ),
                data={_BACK: NO_PICTURE},
            ),
            fault(
                "image of another size",
                "CAM_BACK's camera_info says 320 pixels",
                "set refused, both sizes named",
                lambda r: (
                    some(r, outcome="refused", cause="camera_info")
                    and r.vehicle.told("its camera_info says 320 x 90")
                ),
                info={_BACK: change(width=320)},
            ),
            fault(
                "camera not calibrated",
                "K of CAM_FRONT is zero",
                "set refused, field and camera named",
                lambda r: (
                    some(r, outcome="refused", cause="camera_info")
                    and error(r, f"camera {_FRONT}", "the focal lengths 0 and 0 in K")
                ),
                info={_FRONT: change(k=np.zeros(9))},
            ),
            fault(
                "calibration changes",
                "focal length of CAM_BACK grows by 5 %",
                "taken at once, history dropped",
                lambda r: some(r, outcome="processed", history_valid="0"),
                with_history,
                info={_BACK: longer},
            ),
            fault(
                "distorted images",
                "D of CAM_BACK becomes -0.2",
                "the image is rectified, boxes go on",
                lambda r: (
                    len(r.vehicle.sets) >= 3
                    and full(r)
                    and r.last is not None
                    and r.last.by_name[_BACK].image.std() > 1
                ),
                info={_BACK: change(d=[-0.2, 0.05, 0.0, 0.0, 0.0])},
            ),
            fault(
                "phase of a camera steps",
                "CAM_BACK exposes 40 ms later",
                "offset learned anew, sets complete again",
                lambda r: some(r, outcome="incomplete") and full(r),
                phase_s={_BACK: 0.04},
            ),
        ),
    ),
    Scene(
        "time and motion",
        (
            fault(
                "time goes back",
                "all stamps jump back by 5 s, as in a bag loop",
                "started afresh, told once, boxes go on",
                lambda r: r.vehicle.told("started afresh: the stamps went back") and full(r),
                with_history,
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
    Scene(
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
                    error(r, "processing", "the detector is given up: RuntimeError")
                    and r.vehicle.told("the detector is given up: RuntimeError")
                    and r.node._configured is None
                ),
                lambda r: r.node.start(),
            ),
        ),
    ),
    Scene(
        "cameras under mask",
        (
            fault(
                "a camera stops (mask)",
                "CAM_BACK sends nothing",
                "boxes without it, degraded, camera ERROR",
                lambda r: (
                    some(r, 2, outcome="processed", missing=_BACK, degraded="True")
                    and error(r, f"camera {_BACK}")
                ),
                silent={_BACK},
            ),
            fault(
                "the anchor stops",
                "CAM_FRONT sends nothing",
                "another camera is elected, boxes go on",
                lambda r: (
                    value(r, "sync", "anchor") == "CAM_FRONT_LEFT"
                    and some(r, 2, outcome="processed", missing=_FRONT)
                ),
                lambda r: value(r, "sync", "anchor") == _FRONT and full(r),
                silent={_FRONT},
            ),
            fault(
                "corrupt JPEG (mask)",
                "CAM_BACK sends bytes that are no picture",
                "boxes without it, camera ERROR",
                lambda r: (
                    some(r, 2, outcome="processed", missing=_BACK)
                    and error(r, f"camera {_BACK}", "corrupt image")
                ),
                data={_BACK: NO_PICTURE},
            ),
        ),
        _MASK,
    ),
    Scene(
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
        faults=lambda: Faults(silent={_BACK}),
        starts_well=False,
    ),
    Scene(
        "camera_info never comes",
        (
            fault(
                "camera_info is missing",
                "CAM_BACK had none from the start on",
                "set refused, topic named",
                lambda r: (
                    r.vehicle.told("but no camera_info on /cam_back/camera_info")
                    and some(r, outcome="refused", cause="camera_info")
                ),
                no_info={_BACK},
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
                set_faults(),
                lambda r: r.vehicle.told("no transform names the frame 'cam_back_optical_frame'"),
                mount,
            ),
        ),
        faults=lambda: Faults(unmounted={_BACK}),
        starts_well=False,
    ),
    Scene(
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
        {**SKIP, "missing_pose_policy": "required"},
    ),
    Scene(
        "raw images",
        (
            fault(
                "unknown encoding",
                "CAM_BACK sends 32FC1",
                "set refused, encoding named",
                lambda r: (
                    some(r, outcome="refused", cause="image")
                    and error(r, f"camera {_BACK}", "'32FC1' is not known")
                ),
                encoding={_BACK: "32FC1"},
            ),
        ),
        {**SKIP, "transport": "raw"},
        vehicle={"raw": True},
    ),
    Scene(
        "quality of service",
        (
            Event(
                "incompatible QoS",
                "the node wants CAM_BACK reliable, its publisher is best effort",
                "WARN that names topic and publisher",
                set_faults(),
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
        starts_well=False,
    ),
)
