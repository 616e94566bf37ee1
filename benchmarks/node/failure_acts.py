# SPDX-License-Identifier: Apache-2.0
"""What is done to a running node, and how one sees what it did."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.srv import GetState
from sensor_msgs.msg import CameraInfo

from labeldistill_ros.messages import values_of
from labeldistill_ros.testing.course import jpeg, picture
from labeldistill_ros.testing.simulated_drive import SimulatedDrive
from labeldistill_ros.testing.vehicle import counter

Act = Callable[[SimulatedDrive], object]
"""Does something to it, or says whether it did something."""
NO_PICTURE = b"\xff\xd8\xff\xe0 no picture"
"""Bytes that begin like a JPEG file and are none."""
CUT_PICTURE = jpeg(picture((160, 90), seed=1))[:300]
"""The beginning of a JPEG file."""

# What the node says and does


def full(run: SimulatedDrive) -> bool:
    """Two complete sets in a row were processed."""
    last = run.vehicle.sets[-2:]
    return len(last) == 2 and all(
        s["outcome"] == "processed" and s["degraded"] == "False" for s in last
    )


def with_history(run: SimulatedDrive) -> bool:
    """Two complete sets in a row were processed, the last one with past frames."""
    return full(run) and counter(run.vehicle.sets[-1], "history_valid") > 0


def some(run: SimulatedDrive, count: int = 1, **wanted: str) -> bool:
    """Sets whose status has these values."""
    found = [s for s in run.vehicle.sets if all(s.get(k) == v for k, v in wanted.items())]
    return len(found) >= count


def all_since(run: SimulatedDrive, **wanted: str) -> bool:
    """From the first set on whose status has these values, all have; dropped ones do not count."""
    had = [
        all(s.get(k) == v for k, v in wanted.items())
        for s in run.vehicle.sets
        if s["outcome"] != "dropped"
    ]
    return True in had and all(had[had.index(True) :])


def causes(run: SimulatedDrive, outcome: str) -> set[str]:
    """Why sets ended so."""
    return {s["cause"] for s in run.vehicle.sets if s["outcome"] == outcome}


def error(run: SimulatedDrive, name: str, text: str = "") -> bool:
    """A diagnostic is at ERROR and says this."""
    status = run.vehicle.diagnostic(name)
    return bool(status.level == DiagnosticStatus.ERROR and text in status.message)


def value(run: SimulatedDrive, name: str, key: str) -> str:
    """One value of a diagnostic."""
    return values_of(run.vehicle.diagnostic(name)).get(key, "")


def refused_images(run: SimulatedDrive, camera: str) -> int:
    """How many images of a camera the node has refused since it is active."""
    return counter(values_of(run.vehicle.diagnostic(f"camera {camera}")), "refused_image")


def state(run: SimulatedDrive) -> str:
    """What the node says of its state in its lifecycle."""
    return str(ask(run, GetState, "get_state").current_state.label)


def silent_boxes(run: SimulatedDrive) -> bool:
    """The last two sets gave no boxes."""
    return not any(s["outcome"] == "processed" for s in run.vehicle.sets[-2:])


# What is done to it


def set_faults(**changes: Any) -> Act:
    """Change what is wrong with the vehicle, see `VehicleFaults`."""

    def begin(run: SimulatedDrive) -> None:
        for name, value in changes.items():
            setattr(run.vehicle.faults, name, value)

    return begin


def change(**fields: Any) -> Callable[[CameraInfo], None]:
    """Give fields of a `camera_info` other values."""

    def change(info: CameraInfo) -> None:
        for name, value in fields.items():
            setattr(info, name, value)

    return change


def longer(info: CameraInfo) -> None:
    """Another focal length."""
    info.k = info.k * np.array([1.05, 1, 1, 1, 1.05, 1, 1, 1, 1])


def ask(run: SimulatedDrive, kind: Any, service: str, **fields: Any) -> Any:
    """What a service of the node answers.

    Raises:
        TimeoutError: nothing within five seconds.
    """
    client: Any = run.vehicle.node.create_client(kind, f"/detector/{service}")
    run.vehicle.expect(client.service_is_ready, service, 5.0)
    future = client.call_async(kind.Request(**fields))
    run.vehicle.expect(future.done, f"an answer of {service}", 5.0)
    return future.result()


def call(kind: Any, service: str, **fields: Any) -> Act:
    """Call a service of the node, which has to succeed."""

    def begin(run: SimulatedDrive) -> None:
        answer = ask(run, kind, service, **fields)
        if not answer.success:
            raise RuntimeError(f"{service}: {answer.message}")

    return begin


def mount(run: SimulatedDrive) -> None:
    """Publish the mounting of all cameras."""
    run.vehicle.faults.unmounted = set()
    run.vehicle.mount()


def detect_with(change: Callable[[Any], Callable[..., Any]]) -> Act:
    """Put something in the place of the detector's `detect`."""

    def begin(run: SimulatedDrive) -> None:
        # On the instance, from the class's own method, so that one change does not wrap another.
        run.detector.detect = change(type(run.detector).detect.__get__(run.detector))  # type: ignore[method-assign]

    return begin


def fail(_: Any) -> Callable[..., Any]:
    """A detector that always fails."""

    def detect(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    return detect


def fail_once(original: Any) -> Callable[..., Any]:
    """A detector that fails the next time."""
    left = [1]

    def detect(*args: Any, **kwargs: Any) -> Any:
        if left:
            left.pop()
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(*args, **kwargs)

    return detect


def slow(original: Any) -> Callable[..., Any]:
    """A detector slower than the cameras."""

    def detect(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.7)
        return original(*args, **kwargs)

    return detect


def spoiled(original: Any) -> Callable[..., Any]:
    """A detector whose boxes are no boxes."""

    def detect(*args: Any, **kwargs: Any) -> Any:
        found = original(*args, **kwargs)
        values = found.boxes.values.clone()
        values[::2, 0] = float("nan")
        values[1::2, 3] = -1.0
        return replace(found, boxes=replace(found.boxes, values=values))

    return detect


def healed(original: Any) -> Callable[..., Any]:
    """The detector as it was."""
    return original  # type: ignore[no-any-return]


def bounded(run: SimulatedDrive) -> bool:
    """Sets are dropped, and no set waits longer than two runs of the detector."""
    delays = [float(s["total_ms"]) for s in run.vehicle.sets if s["outcome"] == "processed"]
    return some(run, 5, outcome="dropped") and len(delays) >= 3 and max(delays[1:]) < 2000
