# SPDX-License-Identifier: Apache-2.0
"""What became of every image and every set, and what that says of the node's health."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from labeldistill_core.cameras import FrameSet
from labeldistill_ros.messages.status import ERROR, OK, WARN, diagnostic, set_status
from labeldistill_ros.sets.assembly import Problem
from labeldistill_ros.sets.report import SetReport, SetTally

_WINDOW = 240
"""Sets over which latencies are taken: 20 s at 12 Hz."""
_RATE_S = 5.0
"""Time over which a camera's rate is taken; problems are reported for as long."""

_RESTS_S = 1.0
"""Without an image for so long, all cameras rest, and nobody waits for boxes."""

_LOW_RATE = 0.8
"""Share of the other cameras' rate below which a camera is too slow."""

_MOVED_S = 0.005
"""A camera's phase that moves further is reported."""


@dataclass(frozen=True)
class Limits:
    """Times beyond which /diagnostics speaks of a warning or an error."""

    camera_timeout_s: float
    """Seconds without an image after which a camera is an ERROR."""
    max_processing_time_s: float
    """Seconds from a set's last image to its boxes; a 95th percentile above is a WARN."""
    max_delay_s: float
    """Seconds without boxes, while images come, after which processing is an ERROR."""


class _Camera:
    def __init__(self) -> None:
        self.encoding = self.frame_id = self.size = ""
        self.offset_s: float | None = None
        self.moved, self.moved_s = "", -1e9
        self.arrivals_s: deque[float] = deque(maxlen=256)
        self.problems: Counter[str] = Counter()
        self.last_problem = ""
        self.last_problem_s = -1e9

    def rate_hz(self, now_s: float) -> float:
        recent = [t for t in self.arrivals_s if now_s - t <= _RATE_S]
        # From image to image: counting within a window would depend on where the window begins.
        return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0

    def follow(self, offset_s: float | None, now_s: float) -> None:
        """Note when the phase moves."""
        if offset_s is not None and self.offset_s is not None:
            moved_s = offset_s - self.offset_s
            if abs(moved_s) > _MOVED_S:
                self.moved, self.moved_s = f"its phase moved by {moved_s * 1e3:.0f} ms", now_s
            else:
                # Small moves add up against the same offset, so that a slow drift is told as well.
                offset_s = self.offset_s
        self.offset_s = offset_s


class Health:
    """Counters of a running node; safe to use from any thread. Times are of the steady clock."""

    def __init__(
        self, topics: Mapping[str, str], limits: Limits, model: Callable[[], Mapping[str, Any]]
    ) -> None:
        """Begin with every count at zero.

        Args:
            topics: image topic by camera.
            limits: when to complain.
            model: gives what to tell of the model: name, hash, device, precision, history.
        """
        self._lock = threading.Lock()
        self._topics, self._limits, self._model = topics, limits, model
        self._cameras = {name: _Camera() for name in topics}
        self._reports: deque[SetReport] = deque(maxlen=_WINDOW)
        self._transform: tuple[str, float] | None = None
        self._forgotten: tuple[str, float] | None = None
        # the last boxes, or since when some are waited for
        self._boxes_s: float | None = None
        self.given_up = ""
        """Why the detector is given up, when it is."""
        self._tally = SetTally()

    @property
    def counts(self) -> Counter[str]:
        """Sets by what became of them; see `SetTally`."""
        return self._tally.counts

    def image(self, camera: str, now_s: float, encoding: str = "", frame_id: str = "") -> None:
        """Note that an image of a camera arrived."""
        with self._lock:
            # The first image after a rest: boxes are waited for from now on, not since the last
            # drive.
            if not self._images_come(now_s):
                self._boxes_s = now_s
            state = self._cameras[camera]
            state.arrivals_s.append(now_s)
            state.encoding, state.frame_id = encoding, frame_id

    def unwanted(self, now_s: float) -> None:
        """Note that nobody waits for boxes, so that their absence is no fault."""
        with self._lock:
            self._boxes_s = now_s

    def used(self, frames: FrameSet) -> None:
        """Note that the images of a set could be used, and their sizes."""
        with self._lock:
            for view in frames.views:
                height, width = view.image.shape[:2]
                self._cameras[view.calibration.name].size = f"{width} x {height}"

    def problems(self, problems: Iterable[Problem], now_s: float) -> None:
        """Note images that could not be used, by camera and cause."""
        with self._lock:
            for problem in problems:
                camera = self._cameras[problem.camera]
                camera.problems[problem.cause] += 1
                camera.last_problem, camera.last_problem_s = problem.text, now_s

    def transform_failed(self, text: str, now_s: float) -> None:
        """Note that the vehicle's pose was missing, and why."""
        with self._lock:
            self._transform = (text, now_s)

    def forgotten(self, reason: str, now_s: float) -> None:
        """Note that the past frames were forgotten, and why."""
        with self._lock:
            self._forgotten = (reason, now_s)

    def done(self, report: SetReport, now_s: float) -> None:
        """Count a set that came to its end."""
        with self._lock:
            self._tally.add(report)
            if report.outcome == "processed":
                self._reports.append(report)
                self._boxes_s = now_s

    def silent_cameras(self, now_s: float) -> list[str]:
        """Cameras without an image for longer than the limit."""
        with self._lock:
            return [
                name
                for name, camera in self._cameras.items()
                if not camera.arrivals_s
                or now_s - camera.arrivals_s[-1] > self._limits.camera_timeout_s
            ]

    def _images_come(self, now_s: float) -> bool:
        return any(
            c.arrivals_s and now_s - c.arrivals_s[-1] < _RESTS_S for c in self._cameras.values()
        )

    def latencies_ms(self) -> dict[str, tuple[float, float]]:
        """Median and 95th percentile of each stage over the last sets."""
        with self._lock:
            reports = list(self._reports)
        found: dict[str, list[float]] = {}
        for report in reports:
            for stage, value in report.timings_ms.items():
                found.setdefault(stage, []).append(value)
        return {
            stage: (float(np.percentile(values, 50)), float(np.percentile(values, 95)))
            for stage, values in found.items()
        }

    def set_status(self, report: SetReport, name: str) -> Any:
        """The message of one set on `~/status`; its stamp is the set's."""
        return set_status(report, self._totals(), name)

    def _totals(self) -> dict[str, int]:
        with self._lock:
            return self._tally.totals

    def diagnostics(
        self, name: str, sync: Mapping[str, Any], offsets_s: Mapping[str, float], now_s: float
    ) -> list[Any]:
        """Statuses for /diagnostics.

        Args:
            name: of the node.
            sync: counters of the synchronizer.
            offsets_s: phases of the cameras.
            now_s: steady clock.
        """
        statuses = [
            self._camera_status(name, camera, offsets_s.get(camera), now_s)
            for camera in self._cameras
        ]
        model = self._model()
        statuses += [
            self._sync_status(name, sync),
            self._processing_status(name, now_s),
            self._transform_status(name, now_s),
            self._history_status(name, now_s, model["history"]),
            diagnostic(f"{name}: model", OK, str(model["name"]), model),
        ]
        # Tools that show diagnostics group by hardware: node and device, so that two vehicles can
        # be told apart.
        for status in statuses:
            status.hardware_id = f"{name} on {model.get('gpu', model['device'])}"
        return statuses

    def _camera_status(self, name: str, camera: str, offset_s: float | None, now_s: float) -> Any:
        with self._lock:
            state = self._cameras[camera]
            state.follow(offset_s, now_s)
            moved = state.moved if now_s - state.moved_s < _RATE_S else ""
            age_s = now_s - state.arrivals_s[-1] if state.arrivals_s else None
            # The cameras are compared with each other: what rate is right, only the vehicle knows.
            usual_hz = float(np.median([c.rate_hz(now_s) for c in self._cameras.values()]))
            rate_hz, problems = state.rate_hz(now_s), dict(state.problems)
            last = state.last_problem if now_s - state.last_problem_s < _RATE_S else ""
        topic = self._topics[camera]
        if age_s is None:
            level, text = ERROR, f"no image has come on {topic}"
        elif age_s > self._limits.camera_timeout_s:
            level, text = ERROR, f"no image for {age_s:.1f} s on {topic}"
        elif last:
            level, text = ERROR, last
        elif rate_hz and usual_hz and rate_hz < _LOW_RATE * usual_hz:
            level, text = WARN, f"{rate_hz:.1f} Hz, most cameras send {usual_hz:.1f} Hz"
        elif moved:
            level, text = WARN, moved
        else:
            level, text = OK, f"{rate_hz:.1f} Hz"
        values: dict[str, Any] = {
            "topic": topic,
            "rate_hz": rate_hz,
            "encoding": state.encoding,
            "frame": state.frame_id,
            "size": state.size,
        }
        if age_s is not None:
            values["age_ms"] = age_s * 1e3
        if offset_s is not None:
            values["offset_ms"] = offset_s * 1e3
        values.update({f"refused_{cause}": count for cause, count in problems.items()})
        return diagnostic(f"{name}: camera {camera}", level, text, values)

    def _sync_status(self, name: str, sync: Mapping[str, Any]) -> Any:
        with self._lock:
            last = self._reports[-1] if self._reports else None
            spreads = [r.spread_s * 1e3 for r in self._reports]
        values = {**sync, **{f"sets_{key}": count for key, count in self._totals().items()}}
        if spreads:
            values["spread_p95_ms"] = float(np.percentile(spreads, 95))
        if last and last.missing:
            text = f"without {', '.join(last.missing)}"
            return diagnostic(f"{name}: sync", WARN, text, values)
        return diagnostic(f"{name}: sync", OK, "complete sets" if last else "no set yet", values)

    def _processing_status(self, name: str, now_s: float) -> Any:
        latencies = self.latencies_ms()
        values: dict[str, Any] = {}
        for stage, (median, high) in latencies.items():
            values[f"{stage}_p50_ms"], values[f"{stage}_p95_ms"] = median, high
        values["boxes_unusable"] = self.counts["boxes_unusable"]
        limits, level, text = self._limits, OK, "no set yet"
        if "total" in latencies:
            high = latencies["total"][1]
            text = f"{high:.0f} ms for 95 of 100 sets"
            if high > limits.max_processing_time_s * 1e3:
                level, text = WARN, f"{text}, allowed {limits.max_processing_time_s * 1e3:.0f} ms"
        with self._lock:
            silent_s = now_s - self._boxes_s if self._boxes_s is not None else 0.0
            comes = self._images_come(now_s)
        if comes and silent_s > limits.max_delay_s:
            level, text = ERROR, f"no boxes for {silent_s:.1f} s"
        if self.given_up:
            level, text = ERROR, f"the detector is given up: {self.given_up}"
        return diagnostic(f"{name}: processing", level, text, values)

    def _transform_status(self, name: str, now_s: float) -> Any:
        with self._lock:
            failure = self._transform
        if failure is None:
            return diagnostic(f"{name}: transforms", OK, "complete", {})
        text, when_s = failure
        # A failure is over when none has come for five seconds; its text stays among the values.
        level = ERROR if now_s - when_s < _RATE_S else OK
        values = {"last_failure": text, "last_failure_age_s": now_s - when_s}
        return diagnostic(
            f"{name}: transforms", level, text if level == ERROR else "complete", values
        )

    def _history_status(self, name: str, now_s: float, wanted: int) -> Any:
        with self._lock:
            valid = self._reports[-1].history_valid if self._reports else 0
            forgotten = self._forgotten
        values: dict[str, Any] = {"valid": valid, "wanted": wanted}
        if forgotten:
            values["last_reset"], when_s = forgotten
            values["last_reset_age_s"] = now_s - when_s
        return diagnostic(f"{name}: history", OK, f"{valid} of {wanted} past frames", values)
