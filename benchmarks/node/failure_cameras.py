# SPDX-License-Identifier: Apache-2.0
"""Lines of the failure table that concern the cameras: their images and calibrations."""

from __future__ import annotations

import numpy as np

from benchmarks.node.failure_acts import (
    CUT_PICTURE,
    NO_PICTURE,
    all_since,
    change,
    error,
    full,
    longer,
    refused_images,
    silent_boxes,
    some,
    value,
    with_history,
)
from benchmarks.node.failures import SKIP, Scenario, fault
from labeldistill_ros.messages import values_of
from labeldistill_ros.testing.vehicle import counter

_BACK, _FRONT = "CAM_BACK", "CAM_FRONT"
_MASK = {**SKIP, "sync.missing_camera_policy": "mask", "sync.min_cameras": 5}
_NO_STAMP = "its images have no stamp, or one before 1970; set it in the driver"
_REFUSED = {
    cause: {
        "all sets are refused for it": lambda r, cause=cause: all_since(
            r, outcome="refused", cause=cause
        )
    }
    for cause in ("image", "camera_info")
}

CAMERA_SCENES = (
    Scenario(
        "cameras under skip",
        (
            fault(
                "a camera stops (skip)",
                "CAM_BACK sends nothing",
                "sets incomplete, no boxes, camera ERROR",
                lambda r: (
                    some(r, 2, outcome="incomplete", missing=_BACK)
                    and silent_boxes(r)
                    and error(r, f"camera {_BACK}", "on /cam_back/image_raw/compressed")
                    and r.vehicle.told("set dropped, no image of CAM_BACK")
                ),
                holds={
                    "all sets lack that camera alone": lambda r: all_since(
                        r, outcome="incomplete", missing=_BACK
                    )
                },
                silent={_BACK},
            ),
            fault(
                "late images",
                "CAM_BACK's messages come 600 ms late",
                "left out and counted, sets incomplete, none mixed",
                lambda r: (
                    some(r, 2, outcome="incomplete", missing=_BACK)
                    and counter(values_of(r.vehicle.diagnostic("sync")), "late") > 1
                ),
                late_s={_BACK: 0.6},
            ),
            fault(
                "images that come a little late",
                "CAM_BACK's messages come 150 ms late",
                "sets wait for them, none mixed",
                lambda r: full(r) and float(r.vehicle.sets[-1]["age_ms"]) > 150,
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
                holds=_REFUSED["image"],
                data={_BACK: NO_PICTURE},
            ),
            fault(
                "no picture of the anchor (skip)",
                "CAM_FRONT sends a few letters",
                "set refused",
                lambda r: some(r, outcome="refused", cause="image"),
                holds=_REFUSED["image"],
                data={_FRONT: b"no picture"},
            ),
            fault(
                "image of another size",
                "CAM_BACK's camera_info says 320 pixels",
                "set refused, both sizes named",
                lambda r: (
                    some(r, outcome="refused", cause="camera_info")
                    and r.vehicle.told(
                        "the image is 160 x 90 pixels, its camera_info says 320 x 90"
                    )
                ),
                holds=_REFUSED["camera_info"],
                info={_BACK: change(width=320)},
            ),
            fault(
                "calibration changes",
                "focal length of CAM_BACK grows by 5 %",
                "taken at once, history dropped",
                lambda r: (
                    some(r, outcome="processed", history_valid="0")
                    and r.last is not None
                    and np.isclose(
                        r.last.by_name[_BACK].calibration.intrinsics_px[0, 0],
                        1.05 * r.vehicle.course.intrinsics_px[0, 0],
                    )
                ),
                with_history,
                info={_BACK: longer},
            ),
            fault(
                "camera not calibrated",
                "K of CAM_FRONT is zero",
                "set refused, field and camera named",
                lambda r: (
                    some(r, outcome="refused", cause="camera_info")
                    and error(r, f"camera {_FRONT}", "the focal lengths 0 and 0 in K")
                    and r.vehicle.told("camera_info has the focal lengths 0 and 0 in K")
                ),
                holds=_REFUSED["camera_info"],
                info={_FRONT: change(k=np.zeros(9))},
            ),
            fault(
                "P and K differ",
                "P of CAM_FRONT_LEFT has other focal lengths than K",
                "told once, boxes go on",
                lambda r: (
                    r.vehicle.told("P and K of /cam_front_left/camera_info differ") and full(r)
                ),
                holds={
                    "told once": lambda r: (
                        r.vehicle.told("P and K of /cam_front_left/camera_info differ") == 1
                    )
                },
                info={"CAM_FRONT_LEFT": change(p=[100.0, 0, 80, 0, 0, 100, 45, 0, 0, 0, 1, 0])},
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
            fault(
                "unknown distortion model",
                "camera_info of CAM_BACK_LEFT names the model 'mirror'",
                "set refused, the known models named",
                lambda r: (
                    some(r, outcome="refused", cause="camera_info")
                    and r.vehicle.told("the distortion model 'mirror' is none of plumb_bob")
                ),
                holds=_REFUSED["camera_info"],
                info={"CAM_BACK_LEFT": change(d=[-0.3, 0.1, 0.0, 0.0], distortion_model="mirror")},
            ),
        ),
    ),
    Scenario(
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
                    and some(r, 4, outcome="processed", missing=_FRONT)
                    and len(r.vehicle.boxes) >= 4
                ),
                lambda r: value(r, "sync", "anchor") == _FRONT and full(r),
                {"no other camera is missing": lambda r: all_since(r, missing=_FRONT)},
                silent={_FRONT},
            ),
            fault(
                "images without stamp",
                "the stamps of CAM_BACK's images are zero",
                "boxes without it, camera ERROR that says what to do",
                lambda r: (
                    len(r.vehicle.boxes) >= 2
                    and some(r, 2, outcome="processed", missing=_BACK)
                    and error(r, f"camera {_BACK}", f"{_BACK}: {_NO_STAMP}")
                    and refused_images(r, _BACK) >= 2
                    and r.vehicle.told("no stamp")
                ),
                holds={
                    "all sets lack that camera": lambda r: all_since(r, missing=_BACK),
                    "told once": lambda r: r.vehicle.told("no stamp") == 1,
                },
                unstamped={_BACK},
            ),
            fault(
                "corrupt JPEG (mask)",
                "CAM_BACK's images are cut off",
                "boxes without it, camera ERROR",
                lambda r: (
                    len(r.vehicle.boxes) >= 2
                    and some(r, 2, outcome="processed", missing=_BACK)
                    and error(r, f"camera {_BACK}", f"{_BACK}: corrupt image of 300 bytes")
                    # those without stamp, before, were refused as well
                    and refused_images(r, _BACK) >= 3
                    and r.vehicle.told("corrupt image")
                ),
                holds={
                    "all sets lack that camera": lambda r: all_since(
                        r, missing=_BACK, degraded="True"
                    ),
                    "told once": lambda r: r.vehicle.told("corrupt image") == 1,
                },
                data={_BACK: CUT_PICTURE},
            ),
        ),
        _MASK,
    ),
    Scenario(
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
)
