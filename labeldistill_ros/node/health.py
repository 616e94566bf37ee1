# SPDX-License-Identifier: Apache-2.0
"""What became of every image and every set, and what that says of the node's health."""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from statistics import median
from typing import Any

from labeldistill_core.cameras import FrameSet
from labeldistill_ros.messages.status import ERROR, OK, WARN, diagnostic, set_status
from labeldistill_ros.node.camera_conditions import absent as absentees
from labeldistill_ros.node.camera_conditions import disagreeing, far_from_clock, slow
from labeldistill_ros.node.camera_health import RECENT_S, CameraHealth
from labeldistill_ros.node.ended_sets import EndedSets
from labeldistill_ros.node.limits import Limits
from labeldistill_ros.node.standing import Condition, StandingConditions
from labeldistill_ros.sets.assembly import Problem
from labeldistill_ros.sets.report import SetReport

_RESTS_S = 1.0
"""Without an image for so long, or for 2.5 of its periods, a camera rests; while all of them do,
nobody waits for boxes."""


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
        self._cameras = {name: CameraHealth() for name in topics}
        self._sets = EndedSets()
        self._standing = StandingConditions()
        self._implausible: dict[str, str] = {}
        self._transform: tuple[str, float] | None = None
        self._forgotten: tuple[str, float] | None = None
        self._assembled = False
        self._ended_s = -math.inf
        # the last boxes, or since when some are waited for
        self._boxes_s: float | None = None
        self.given_up = ""
        """Why the detector is given up, when it is."""
        self._fault: tuple[str, float] | None = None

    @property
    def counts(self) -> Counter[str]:
        """Sets by what became of them; see `SetTally`."""
        return self._sets.counts

    def image(
        self,
        camera: str,
        now_s: float,
        encoding: str = "",
        frame_id: str = "",
        ahead_s: float | None = None,
    ) -> None:
        """Note an image; `ahead_s` is its stamp less the node's clock, where that runs."""
        with self._lock:
            # The first image after a rest: boxes are waited for from now on, not since the last
            # drive.
            if not self._images_come(now_s):
                self._boxes_s = self._ended_s = now_s
            self._cameras[camera].arrived(now_s, encoding, frame_id, ahead_s)

    def unwanted(self, now_s: float) -> None:
        """Note that nobody waits for boxes, so that their absence is no fault."""
        with self._lock:
            self._boxes_s = now_s

    def used(self, frames: FrameSet, implausible: Mapping[str, str] | None = None) -> None:
        """Note that the images of a set could be used, and their sizes."""
        with self._lock:
            self._assembled = True
            self._implausible = dict(implausible or {})
            for view in frames.views:
                camera = view.calibration
                self._cameras[camera.name].size = f"{camera.width_px} x {camera.height_px}"

    def problems(self, problems: Iterable[Problem], now_s: float) -> None:
        """Note images that could not be used, by camera and cause."""
        with self._lock:
            for problem in problems:
                self._cameras[problem.camera].problem(problem.cause, problem.text, now_s)

    def transform_failed(self, text: str, now_s: float) -> None:
        """Note that the vehicle's pose was missing, and why."""
        with self._lock:
            self._transform = (text, now_s)

    def forgotten(self, reason: str, now_s: float) -> None:
        """Note that the past frames were forgotten, and why."""
        with self._lock:
            self._forgotten = (reason, now_s)

    def fault(self, text: str, now_s: float) -> None:
        """Note an error of the node's own, which nobody foresaw."""
        with self._lock:
            self._fault = (text, now_s)

    def done(self, report: SetReport, now_s: float) -> None:
        """Count a set that came to its end."""
        with self._lock:
            self._sets.add(report)
            self._ended_s = now_s
            if report.outcome == "processed":
                self._boxes_s = now_s

    def time_jumped(self) -> None:
        """The node's clock or the stamps went back."""
        with self._lock:
            for camera in self._cameras.values():
                camera.time_jumped()

    def silent_cameras(self, now_s: float) -> list[str]:
        """Cameras without an image for longer than the limit."""
        with self._lock:
            return [
                name
                for name, camera in self._cameras.items()
                if camera.silent(now_s, self._limits.camera_timeout_s)
            ]

    def outlived_cameras(self, now_s: float) -> list[str]:
        """Silent cameras that never sent, or stopped while another went on.

        Where a drive or a bag ends, one camera's last image comes within a cycle of the others',
        and for that long the others would be accused.
        """
        silent = self.silent_cameras(now_s)
        with self._lock:
            ages_s = [camera.age_s(now_s) for camera in self._cameras.values()]
            newest_s = now_s - min((age_s for age_s in ages_s if age_s is not None), default=0.0)
            timeout_s = self._limits.camera_timeout_s
            return [name for name in silent if self._cameras[name].silent(newest_s, timeout_s)]

    def cameras_rest(self, now_s: float) -> bool:
        """Whether images came from all cameras, and stopped at all of them together."""
        with self._lock:
            timeout_s = self._limits.camera_timeout_s
            cameras = self._cameras.values()
            return all(c.seen and c.silent(now_s, timeout_s) for c in cameras)

    def _images_come(self, now_s: float) -> bool:
        return bool(self._alive(now_s))

    def _alive(self, now_s: float) -> list[CameraHealth]:
        """Cameras whose images come."""
        return [c for c in self._cameras.values() if not c.silent(now_s, _RESTS_S)]

    def _patience_s(self, now_s: float, period_s: float) -> float:
        """Time in which a set is due at the latest, even if one is lost."""
        # Of two periods, since the set of one may be lost. Sets come at the rate of most cameras.
        periods_s = [camera.patience_s for camera in self._alive(now_s)] or [0.0]
        return max(self._limits.max_delay_s, 2 * period_s, median(periods_s))

    def watch(
        self,
        now_s: float,
        *,
        disagreeing_s: Mapping[str, float],
        absent: Mapping[str, int],
        clock: str = "",
        twin: str = "",
    ) -> dict[str, str]:
        """Look for what is wrong for longer than a moment.

        Args:
            now_s: steady clock.
            disagreeing_s: see `Synchronizer.disagreeing_s`.
            absent: see `Synchronizer.absent`.
            clock: why the node's own clock does not run; empty when it does.
            twin: that another node publishes boxes on this one's topic; empty when none does.

        Returns:
            Sentences by a key that stays while they are true; cameras that are bad in the same way
            share one.
        """
        with self._lock:
            found = {Condition("clock"): clock} if clock and self._images_come(now_s) else {}
            if twin:
                found[Condition("twin")] = twin
            absent = {c: n for c, n in absent.items() if c not in disagreeing_s}
            timeout_s = self._limits.camera_timeout_s
            for kind, sentences in (
                ("clock", far_from_clock(self._cameras)),
                ("disagrees", disagreeing(disagreeing_s)),
                ("absent", absentees(self._cameras, absent, now_s, timeout_s)),
            ):
                found |= {Condition(kind, camera): text for camera, text in sentences.items()}
            if why := self._why_no_history(now_s):
                found[Condition("history")] = why
            for camera, text in self._implausible.items():
                found[Condition("mounting", camera)] = text
            self._standing.update(found, now_s, at_once="mounting")
            return self._standing.lines

    def _why_no_history(self, now_s: float) -> str:
        last, wanted = self._sets.last_processed, int(self._model()["history"])
        most = self._sets.most_history(wanted) if wanted else None
        if last is None or most is None:
            return ""
        if last.pose:
            failure = self._transform[0] if self._transform else "it is not asked for"
            reason = f"the vehicle's pose is unknown: {failure}"
        elif self._forgotten and now_s - self._forgotten[1] < RECENT_S:
            reason = f"the past is dropped again and again: {self._forgotten[0]}"
        else:
            reason = (
                "no set is as old as the model wants it: look at the rate of the sets, and at "
                "history.tolerance"
            )
        if most:
            return f"no more than {most} of {wanted} past frames are used all the time: {reason}"
        return f"no past frame has been used for 5 s and more: {reason}"

    def latencies_ms(self) -> dict[str, tuple[float, float]]:
        """Median and 95th percentile of each stage over the last sets."""
        with self._lock:
            return self._sets.latencies_ms()

    def set_status(self, report: SetReport, name: str) -> Any:
        """The message of one set on `~/status`; its stamp is the set's."""
        with self._lock:
            standing = tuple(self._standing.lines.values())
            totals = self._sets.totals
        return set_status(report, totals, name, warnings=standing)

    def diagnostics(
        self,
        name: str,
        sync: Mapping[str, Any],
        offsets_s: Mapping[str, float],
        now_s: float,
        period_s: float = 0.0,
    ) -> list[Any]:
        """Statuses for /diagnostics.

        Args:
            name: of the node.
            sync: counters of the synchronizer.
            offsets_s: phases of the cameras.
            now_s: steady clock.
            period_s: see `Parameters.period_s`.
        """
        statuses = [
            self._camera_status(name, camera, offsets_s.get(camera), now_s)
            for camera in self._cameras
        ]
        model = self._model()
        statuses += [
            self._sync_status(name, sync, now_s, period_s),
            self._processing_status(name, now_s, period_s),
            self._transform_status(name, now_s),
            self._history_status(name, now_s, model["history"]),
            self._clock_status(name),
            diagnostic(f"{name}: model", OK, str(model["name"]), model),
        ]
        # Tools that show diagnostics group by hardware: node and device, so that two vehicles can
        # be told apart.
        for status in statuses:
            status.hardware_id = f"{name} on {model.get('gpu', model['device'])}"
        return statuses

    def _camera_status(self, name: str, camera: str, offset_s: float | None, now_s: float) -> Any:
        topic, timeout_s = self._topics[camera], self._limits.camera_timeout_s
        with self._lock:
            state = self._cameras[camera]
            state.follow(offset_s, now_s)
            age_s, rate_hz = state.age_s(now_s), state.rate_hz(now_s)
            too_slow = slow(self._cameras, now_s).get(camera, "")
            values = state.values(now_s, topic, offset_s)
            standing = self._standing.of_camera(camera, "mounting", "disagrees", "absent")
            if age_s is None:
                level, text = ERROR, f"no image has come on {topic}"
            elif state.silent(now_s, timeout_s):
                level, text = ERROR, f"no image for {age_s:.1f} s on {topic}"
            elif last := state.last_problem(now_s):
                level, text = ERROR, last
            elif standing:
                level, text = WARN, standing
            elif too_slow:
                level, text = WARN, too_slow.removeprefix(f"{camera}: ")
            elif moved := state.moved(now_s):
                level, text = WARN, moved
            else:
                level, text = OK, f"{rate_hz:.1f} Hz"
        return diagnostic(f"{name}: camera {camera}", level, text, values)

    def _sync_status(
        self, name: str, sync: Mapping[str, Any], now_s: float, period_s: float
    ) -> Any:
        with self._lock:
            age_s, comes = now_s - self._ended_s, self._images_come(now_s)
            patience_s = max(RECENT_S, self._patience_s(now_s, period_s))
            last, totals = self._sets.last, self._sets.totals
            spread_ms = self._sets.spread_p95_ms
        values = {**sync, **{f"sets_{key}": count for key, count in totals.items()}}
        if spread_ms is not None:
            values["spread_p95_ms"] = spread_ms
        if (last or comes) and age_s > patience_s:
            level = WARN if comes else OK
            return diagnostic(f"{name}: sync", level, f"no set for {age_s:.1f} s", values)
        if last and last.missing:
            text = f"without {', '.join(last.missing)}"
            return diagnostic(f"{name}: sync", WARN, text, values)
        return diagnostic(f"{name}: sync", OK, "complete sets" if last else "no set yet", values)

    def _processing_status(self, name: str, now_s: float, period_s: float) -> Any:
        latencies = self.latencies_ms()
        values: dict[str, Any] = {}
        for stage, (middle, high) in latencies.items():
            values[f"{stage}_p50_ms"], values[f"{stage}_p95_ms"] = middle, high
        for key in ("boxes_unusable", "unforeseen"):
            values[key] = self.counts[key]
        limits, level, text = self._limits, OK, "no set yet"
        if "total" in latencies:
            high = latencies["total"][1]
            text = f"{high:.0f} ms for 95 of 100 sets"
            if high > limits.max_processing_time_s * 1e3:
                level, text = WARN, f"{text}, allowed {limits.max_processing_time_s * 1e3:.0f} ms"
        with self._lock:
            silent_s = now_s - self._boxes_s if self._boxes_s is not None else 0.0
            comes, fault = self._images_come(now_s), self._fault
            patience_s = self._patience_s(now_s, period_s)
            twin = "; ".join(self._standing.of_kind("twin"))
        if twin and level == OK:
            level, text = WARN, twin
        if comes and silent_s > patience_s:
            level, text = ERROR, f"no boxes for {silent_s:.1f} s"
        if fault and now_s - fault[1] < RECENT_S:
            level, text = ERROR, f"failed unforeseen: {fault[0]}; the log has its traceback"
        if self.given_up:
            level, text = ERROR, f"the detector is given up: {self.given_up}"
        return diagnostic(f"{name}: processing", level, text, values)

    def _transform_status(self, name: str, now_s: float) -> Any:
        with self._lock:
            failure, found = self._transform, self._assembled
        if failure is None:
            text = "complete" if found else "not looked up yet"
            return diagnostic(f"{name}: transforms", OK, text, {})
        text, when_s = failure
        level = ERROR if now_s - when_s < RECENT_S else OK
        values = {"last_failure": text, "last_failure_age_s": now_s - when_s}
        return diagnostic(
            f"{name}: transforms", level, text if level == ERROR else "complete", values
        )

    def _history_status(self, name: str, now_s: float, wanted: int) -> Any:
        with self._lock:
            valid = last.history_valid if (last := self._sets.last_processed) else 0
            forgotten = self._forgotten
            standing = self._standing.of_kind("history")
        values: dict[str, Any] = {"valid": valid, "wanted": wanted}
        if forgotten:
            values["last_reset"], when_s = forgotten
            values["last_reset_age_s"] = now_s - when_s
        text = f"{valid} of {wanted} past frames"
        if standing:
            return diagnostic(f"{name}: history", WARN, "; ".join(standing), values)
        return diagnostic(f"{name}: history", OK, text, values)

    def _clock_status(self, name: str) -> Any:
        with self._lock:
            standing = self._standing.of_kind("clock")
        if standing:
            return diagnostic(f"{name}: clock", WARN, "; ".join(standing), {})
        return diagnostic(f"{name}: clock", OK, "stamps fit this node's clock", {})
