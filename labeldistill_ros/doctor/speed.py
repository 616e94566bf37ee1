# SPDX-License-Identifier: Apache-2.0
"""What the model is, and how many sets a second this machine gives."""

from __future__ import annotations

from collections.abc import Sequence

from labeldistill_core.runtime.detector import Detector
from labeldistill_core.runtime.warm_up import warm_up
from labeldistill_ros.doctor.finding import Finding

_FULL = 3
"""Steps that are measured once the history is full."""


def check_model(detector: Detector, named: bool) -> list[Finding]:
    """The model that the parameters name."""
    config = detector.config
    text = (
        f"{len(config.cameras)} cameras ({', '.join(config.cameras)}), "
        f"{len(detector.class_names)} classes, on {detector.device} in {detector.precision}"
    )
    found = [Finding("model", "ok", text)]
    if not named:
        text = (
            "no model is named, so this is the demo model: it knows a synthetic world and must "
            "not be used on a road; set model"
        )
        found.append(Finding("model", "warning", text))
    return found


def check_history(history_s: Sequence[float], tolerance_s: float, rate_hz: float) -> list[Finding]:
    """Whether sets of the cameras' rate are as old as the model wants its past frames.

    Args:
        history_s: ages of the past frames, seconds.
        tolerance_s: by how much they may be older or younger.
        rate_hz: of the cameras; 0 where it is not known.
    """
    if not history_s or not rate_hz:
        return []
    misses_s = [age_s for age_s in history_s if _off_s(age_s, rate_hz) > tolerance_s]
    named = ", ".join(f"{age_s:g}" for age_s in misses_s or history_s)
    if not misses_s:
        return [Finding("history", "ok", f"sets are there that are {named} s old")]
    text = (
        f"no set is {named} s old at {rate_hz:.2f} images a second, so that this past is not used: "
        "let the cameras send at another rate, or raise history.tolerance"
    )
    return [Finding("history", "warning", text)]


def _off_s(age_s: float, rate_hz: float) -> float:
    """By how much the set that is nearest to an age misses it; the present one does not count."""
    return abs(age_s - max(1, round(age_s * rate_hz)) / rate_hz)


def check_speed(detector: Detector, decode_s: float, rate_hz: float, max_rate: float) -> Finding:
    """Sets a second on this machine, and whether they are as many as the cameras send.

    Args:
        detector: its history is lost.
        decode_s: time to decode the images of a set, which runs beside the network.
        rate_hz: of the cameras; 0 where it is not known.
        max_rate: parameter of the node, sets a second; 0 for all.
    """
    # So many that in the later half, of which `warm_up` gives the median, the history is full.
    steps = detector.config.frames + 2 * _FULL
    step_s = warm_up(detector, steps) or 0.0
    # The images of the next set are decoded while this one is in work, so the slower of the two
    # counts.
    sets_hz = 1 / max(step_s, decode_s, 1e-6)
    text = (
        f"{sets_hz:.1f} sets a second here: network {step_s * 1e3:.0f} ms, images "
        f"{decode_s * 1e3:.0f} ms"
    )
    wanted_hz = min(rate_hz, max_rate or rate_hz)
    if not wanted_hz:
        return Finding("speed", "ok", text)
    text += f"; cameras send {rate_hz:.1f}"
    if sets_hz >= wanted_hz:
        return Finding("speed", "ok", text)
    mend = ": use a GPU" if detector.device.type == "cpu" else ""
    return Finding(
        "speed",
        "warning",
        f"{text}, so {1 - sets_hz / wanted_hz:.0%} of the sets are dropped{mend or ''}"
        f"{',' if mend else ':'} precision auto or a smaller model, or set max_rate",
    )
