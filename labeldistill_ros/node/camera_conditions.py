# SPDX-License-Identifier: Apache-2.0
"""What may be wrong with cameras that send: rates, clocks, stamps that fit no set.

Each function gives a sentence by camera, beginning with its name and a colon.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from labeldistill_ros.node.camera_health import CameraHealth

_LOW_RATE = 0.8
"""Share of the other cameras' rate below which a camera is too slow."""
_ABSENT = 10
"""Sets in a row without a camera whose images come, after which that is no accident."""


def slow(cameras: Mapping[str, CameraHealth], now_s: float) -> dict[str, str]:
    """Cameras that send less than the others.

    Args:
        cameras: what came from each.
        now_s: steady clock.
    """
    rates_hz = {name: camera.rate_hz(now_s) for name, camera in cameras.items()}
    usual_hz = median(rates_hz.values())
    return {
        name: f"{name}: {rate_hz:.1f} Hz, most cameras send {usual_hz:.1f} Hz"
        for name, rate_hz in rates_hz.items()
        if 0 < rate_hz < _LOW_RATE * usual_hz
    }


def disagreeing(disagreeing_s: Mapping[str, float]) -> dict[str, str]:
    """Cameras whose stamps run ahead of or behind the others'; see `Synchronizer.disagreeing_s`."""
    return {
        camera: (
            f"{camera}: its stamps run {abs(ahead_s):.2f} s "
            f"{'ahead of' if ahead_s > 0 else 'behind'} the others': "
            "set its clock or look at its delay"
        )
        for camera, ahead_s in disagreeing_s.items()
    }


def absent(
    cameras: Mapping[str, CameraHealth],
    missed: Mapping[str, int],
    now_s: float,
    timeout_s: float,
) -> dict[str, str]:
    """Cameras that send and of which no set gets an image.

    Args:
        cameras: what came from each.
        missed: see `Synchronizer.absent`.
        now_s: steady clock.
        timeout_s: a camera that is silent for longer does not send.
    """
    return {
        camera: (
            f"{camera}: its images come, but no set gets one: its stamps fit no other camera's, "
            "or it is much slower; look at its rate, at sync.tolerance, and at "
            f"cameras.{camera}.time_offset where that is set"
        )
        for camera, count in missed.items()
        if count >= _ABSENT and not cameras[camera].silent(now_s, timeout_s)
    }


def far_from_clock(cameras: Mapping[str, CameraHealth]) -> dict[str, str]:
    """Cameras whose stamps are further from the clock than any delay."""
    far_s = {name: s for name, camera in cameras.items() if (s := camera.far_s) is not None}
    found = {}
    for camera, own_s in far_s.items():
        # Delays differ by fractions of a second, which would make six sentences of one.
        ahead_s = median([s for s in far_s.values() if abs(s - own_s) < 1.0])
        side = "ahead of" if ahead_s > 0 else "behind"
        found[camera] = (
            f"{camera}: its stamps are {abs(ahead_s):.0f} s {side} this node's clock: set the "
            "clocks of both; for a bag, play it with --clock and set use_sim_time"
        )
    return found
