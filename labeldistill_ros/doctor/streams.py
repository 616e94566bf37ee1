# SPDX-License-Identifier: Apache-2.0
"""Do the images come, at one rate, by one clock, in phases that hold, so that sets are found?"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

import numpy as np
from numpy.typing import NDArray

from labeldistill_ros.doctor.finding import Finding, by_camera
from labeldistill_ros.doctor.observation import JUMP_NS, Observation
from labeldistill_ros.messages.stamps import told_time
from labeldistill_ros.node.camera_conditions import absent, disagreeing, far_from_clock, slow
from labeldistill_ros.sync.lone_stamps import lone_stamps

_LOST = 0.02
"""Share of lost images, or of sets, from which on it is told."""
_FEW = 0.5
"""Share of usable sets below which the vehicle is as good as blind."""
_STALE_S, _FUTURE_S = 1.0, 0.05
"""Age at which an image is of no use to a vehicle, and what clocks set by NTP differ by."""
_CLOUD_S = 0.15
"""A LiDAR's driver takes a turn of 0.1 s for a cloud, which is no fault of its clock."""

_Times = NDArray[np.int64]


def check_arrival(seen: Observation, silent: Mapping[str, str]) -> list[Finding]:
    """Rates, and images that are lost.

    Args:
        seen: what came.
        silent: what is known of cameras from which no image came, by camera.
    """
    now_s, timeout_s = seen.now_s, seen.vehicle.common.diagnostics.camera_timeout
    came = {name: seen.cameras[name] for name in seen.seen}
    found = by_camera("images", silent, "")
    ended = {
        name: f"{name}: its images stopped {camera.age_s(now_s):.1f} s before the end: look at "
        "its driver, cable and power"
        for name, camera in came.items()
        if camera.silent(now_s, timeout_s)
    }
    found += by_camera("images", ended, "")
    # Rates, losses and repeats are of cameras that send; what is silent has been told above.
    if not came:
        return found
    mend = ": look at its driver and the network"
    late = {name: text + mend for name, text in slow(came, now_s).items() if name not in ended}
    lossy = {
        name: f"{name}: {share:.0%} of its images are lost on the way{mend}, and use the Fast DDS "
        "profile config/fastdds.xml"
        for name in came
        if name not in late and (share := _lost(*_in_order(seen, name))) > _LOST
    }
    rates = sorted(camera.rate_hz(now_s) for camera in came.values())
    fine = f"{rates[0]:.1f} to {rates[-1]:.1f} images a second"
    found += by_camera("rates", {**late, **lossy}, fine, "warning")
    if twice := seen.counts["duplicate"]:
        text = f"{twice} images came twice: is a bridge or a relay started twice?"
        found.append(Finding("rates", "warning", text))
    return found


def check_stamps(seen: Observation) -> list[Finding]:
    """Stamps, phases, and the sets that come of them."""
    unstamped = {
        name: f"{name}: {count} of its images have no stamp, or one before 1970: set it in "
        "the driver"
        for name, count in seen.gathering.unstamped.items()
    }
    found = by_camera("stamps", unstamped, "")
    alone = {name: lone for name in seen.seen if len(lone := _in_order(seen, name)[1])}
    strange = {
        name: f"{name}: {len(lone)} of its {len(seen.times_ns[name])} images are stamped apart "
        f"from those around them, one with {told_time(lone[0, 0])}: does its driver stamp before "
        "its clock is set?"
        for name, lone in alone.items()
    }
    found += by_camera("stamps", strange, "", "warning")
    synchronizer = seen.gathering.synchronizer
    offsets_s, tolerance_s = synchronizer.offsets_s, seen.vehicle.common.sync.tolerance
    apart_s = {
        name: float(np.percentile(np.abs(values), 95)) for name, values in seen.off_phase_s.items()
    }
    loose = {
        name: f"{name}: its stamps are {s * 1e3:.0f} ms off its phase (95th percentile): trigger "
        "the camera, and stamp exposures, not arrivals"
        for name, s in apart_s.items()
        # At half the tolerance a set still comes together; a little more and images fall out of it.
        if s > tolerance_s / 2
    }
    phases = ", ".join(f"{name} {s * 1e3:+.0f} ms" for name, s in offsets_s.items())
    found += by_camera("phases", loose, f"within the cycle: {phases}" if phases else "", "warning")
    if synchronizer.relearned:
        text = (
            f"phases moved {synchronizer.relearned} times: trigger the cameras together, or set "
            "one clock for all"
        )
        found.append(Finding("phases", "warning", text))
    if seen.resets:
        often = "once" if seen.resets == 1 else f"{seen.resets} times"
        text = f"the stamps went back {often}: is a bag looped, or a clock set?"
        found.append(Finding("stamps", "warning", text))
    return found + _of_sets(seen)


def _of_sets(seen: Observation) -> list[Finding]:
    counts, names = seen.counts, list(seen.cameras)
    complete, masked = counts["complete"], counts["masked"]
    total = complete + masked + counts["skipped"]
    if not total:
        reason = "too few images" if not seen.seen else "the stamps of no two cameras fit"
        return [Finding("sets", "fault", f"no set of images came: {reason}; mend what is above")]
    lacking = seen.gathering.synchronizer.missing
    text = f"{complete} of {total} sets have all {len(names)} cameras"
    # One set is cut in two by the beginning and one by the end.
    if total - complete <= max(2, _LOST * total) and complete:
        return [Finding("sets", "ok", text)]
    told = ", ".join(f"{name} in {lacking[name]}" for name in names if lacking[name])
    mend = "sync.missing_camera_policy: mask detects without them" if not masked else ""
    text = f"{text}; missing are {told}; look at their images, stamps and clocks. {mend}".rstrip()
    usable = (complete + masked) / total
    return [Finding("sets", "fault" if usable < _FEW else "warning", text)]


def check_clocks(seen: Observation, clock: str) -> list[Finding]:
    """Clocks of cameras, LiDARs and host.

    Args:
        seen: what came.
        clock: what the stamps were compared with, in words.
    """
    now_s, timeout_s = seen.now_s, seen.vehicle.common.diagnostics.camera_timeout
    synchronizer = seen.gathering.synchronizer
    apart_s = synchronizer.disagreeing_s
    problems = disagreeing(apart_s)
    missed = {name: n for name, n in synchronizer.absent.items() if name not in apart_s}
    problems |= absent(seen.cameras, missed, now_s, timeout_s)
    fine = "the cameras' stamps run together" if seen.seen else ""
    found = by_camera("camera clocks", problems, fine)
    ahead_s = {n: s for n in seen.seen if (s := seen.cameras[n].ahead_s) is not None}
    if not ahead_s:
        return found
    far = far_from_clock(seen.cameras)
    for name, own_s in ahead_s.items():
        if name in far or name in problems:  # told once
            continue
        if own_s > _FUTURE_S:
            far[name] = (
                f"{name}: its stamps are {own_s:.2f} s ahead of {clock}: set both by PTP or NTP"
            )
        elif own_s < -_STALE_S:
            far[name] = (
                f"{name}: its images are {-own_s:.1f} s old when they come: set its clock, or look "
                "for queues on the way"
            )
    ages_ms = sorted(round(-own_s * 1e3) for own_s in ahead_s.values())
    fine = f"images are {ages_ms[0]} to {ages_ms[-1]} ms old by {clock}"
    found += by_camera("host clock", far, fine, "warning")
    # A LiDAR is compared with the cameras and not with this clock: their difference is what shifts
    # points against images, and an error of this clock cancels out.
    usual_s = median(ahead_s.values())
    for topic, values in seen.cloud_ahead_s.items():
        apart = median(values) - usual_s
        side = "ahead of" if apart > 0 else "behind"
        text = f"{topic}: its stamps are {abs(apart):.2f} s {side} the cameras'"
        if abs(apart) > _CLOUD_S:
            text += ": set the clocks of LiDAR and cameras by PTP, or what is fused will not fit"
        found.append(Finding("LiDAR clock", "warning" if abs(apart) > _CLOUD_S else "ok", text))
    return found


def _in_order(seen: Observation, camera: str) -> tuple[_Times, _Times]:
    """A camera's (N, 2) stamps and arrivals since time went back, and (M, 2) lone ones."""
    times = np.array(seen.times_ns[camera], np.int64).reshape(-1, 2)
    lone = lone_stamps(times[:, 0], times[:, 1])
    rest = times[~lone]
    back = np.flatnonzero(np.diff(rest[:, 0]) < -JUMP_NS)
    return rest[back[-1] + 1 if len(back) else 0 :], times[lone]


def _lost(times: _Times, lone: _Times) -> float:
    """Share of images that are missing between the first and the last.

    A gap between stamps that is none between arrivals is a clock's; lone ones came, too.
    """
    stamps, arrivals = times[np.argsort(times[:, 0])].T
    gaps, waits = np.diff(stamps), np.abs(np.diff(arrivals))
    gaps, waits = gaps[gaps > 0], waits[gaps > 0]
    if len(gaps) < 4:
        return 0.0
    # The median gap is the camera's period as long as less than half of the images are lost.
    missing = np.maximum(0, np.round(gaps / np.median(gaps)) - 1)
    lost = max(0.0, float(missing[waits >= gaps / 2].sum()) - len(lone))
    return lost / (lost + len(gaps) + 1)
