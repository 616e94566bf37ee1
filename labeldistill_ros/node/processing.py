# SPDX-License-Identifier: Apache-2.0
"""What the worker thread does with a set: the pipeline, then topics, log and counters."""

from __future__ import annotations

import logging
import math
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from labeldistill_core.cameras import FrameSet
from labeldistill_core.runtime.detector import Detections
from labeldistill_ros.messages.markers import lifetime_of
from labeldistill_ros.node.health import Health
from labeldistill_ros.node.live_parameters import LiveParameters
from labeldistill_ros.node.ros_logging import ThrottledLog
from labeldistill_ros.node.standing import STANDING_PERIOD_S
from labeldistill_ros.outputs.publishers import Outputs
from labeldistill_ros.sets.arrival import ClosedSet
from labeldistill_ros.sets.pipeline import Detected, SetPipeline, SetResult
from labeldistill_ros.sets.report import SetReport
from labeldistill_ros.sets.together import together

_LOG = logging.getLogger(__name__)

MAX_FAILURES = 3
"""Sets in a row that torch or CUDA failed at, after which the detector is given up."""

OnResult = Callable[[FrameSet, Detections], None]
"""Called in the worker thread with what went into the detector and what came out."""


class SetProcessor:
    """Takes sets to published boxes. `run` is called by one thread only.

    Whatever a set meets, its end is counted and told on `~/status`.
    """

    def __init__(
        self,
        pipeline: SetPipeline,
        outputs: Outputs,
        health: Health,
        log: ThrottledLog,
        live: LiveParameters,
        *,
        name: str,
        now_ns: Callable[[], int],
        on_result: OnResult | None = None,
    ) -> None:
        """Take the parts that a set goes through, from pipeline to topics.

        Args:
            pipeline: sets to boxes.
            outputs: publishers.
            health: counters.
            log: for complaints.
            live: what may change while sets are processed.
            name: of the node, for the status.
            now_ns: the node's clock.
            on_result: see `OnResult`; called before anything is published.
        """
        self._pipeline, self._outputs, self._health = pipeline, outputs, health
        self._log, self._live, self._name = log, live, name
        self._now_ns, self._on_result = now_ns, on_result
        self._boxes_s = math.nan
        self._resets: deque[str] = deque()
        self._failures = 0
        self.enabled = True
        """False: sets are counted as idle."""
        self.given_up = ""
        """What the last of too many errors said."""

    def wanted(self) -> bool:
        """Whether sets are to be processed."""
        asked = self._live.common.detect_without_listeners or self._outputs.wanted()
        return self.enabled and asked

    def reset_history(self, reason: str) -> None:
        """Forget past frames before the next set; from any thread."""
        self._resets.append(reason)

    def end(self, report: SetReport) -> None:
        """Count the end of a set and tell it; from any thread."""
        report = replace(report, age_s=self._age_s(report.stamp_ns))
        self._health.done(report, time.monotonic())
        _LOG.debug(
            "set %.3f: %s%s, %d cameras, %d past frames, %d boxes, %.0f ms old",
            report.stamp_ns / 1e9,
            report.outcome,
            f" ({report.cause})" if report.cause else "",
            len(report.cameras),
            report.history_valid,
            report.boxes,
            report.age_s * 1e3,
        )
        self._outputs.status(self._health.set_status(report, self._name))

    def _age_s(self, stamp_ns: int) -> float:
        # Simulated time is 0 before the first message on /clock.
        now_ns = self._now_ns()
        return (now_ns - stamp_ns) / 1e9 if now_ns else math.nan

    def run(self, closed: ClosedSet) -> None:
        """Process a set and tell its end; called by the worker's thread."""
        try:
            if idle := self._why_idle():
                self.end(closed.report("idle", idle))
                return
            queued_s = time.monotonic() - closed.closed_s
            result = self._pipeline.process(closed, self._live.selection, queued_s)
            self._complain(result)
            if result.failure:
                self._fail(result.report, result.failure)
            elif result.detected:
                self._publish(closed, result.report, result.detected)
                self._failures = 0
            else:
                self.end(result.report)
        except Exception as error:  # a fault of ours; it must not end the thread or go unseen
            self._fault(closed, error)

    def _why_idle(self) -> str:
        # The history belongs to the worker's thread. Others leave a reason, which is taken up
        # before the next set. One after the other, so that none is lost that comes meanwhile.
        while self._resets:
            reason = self._resets.popleft()
            self._pipeline.forget(reason)
            self._health.forgotten(reason, time.monotonic())
        if self.given_up:  # until the node takes the detector down
            return "the detector is given up"
        if not self.enabled:
            return "disabled"
        return "" if self.wanted() else "nobody listens"

    def _complain(self, result: SetResult) -> None:
        """Log what is wrong with a set and remember it for /diagnostics."""
        now_s, report = time.monotonic(), result.report
        if result.frames:
            self._health.used(result.frames, result.implausible)
        # At once, not at the next report; by its key the report does not say it a second time.
        for i, text in enumerate(together(result.implausible)):
            self._log.warning(f"mounting/{i}", text, STANDING_PERIOD_S)
        self._health.problems(result.problems, now_s)
        if result.refusal:
            self._log.warning(f"refused/{report.cause}", f"set dropped: {result.refusal}")
        else:
            for text in together({problem.camera: problem.text for problem in result.problems}):
                self._log.warning(f"problem/{text.partition(':')[0]}", text)
        if report.cause == "transform":
            self._health.transform_failed(result.refusal, now_s)
        if result.no_pose and self._live.common.ego_motion_source != "none":
            self._health.transform_failed(result.no_pose, now_s)
            self._log.warning("no pose", f"detecting without history: {result.no_pose}")
        if result.forgotten:
            self._health.forgotten(result.forgotten, now_s)
        if result.detected and (dropped := result.detected.detections.dropped):
            self._log.warning("dropped", f"the history was dropped: {dropped}")

    def _publish(self, closed: ClosedSet, report: SetReport, detected: Detected) -> None:
        if self._on_result:
            self._on_result(detected.assembled.frames, detected.detections)
        publish_s = time.monotonic()
        stamp_ns, common = report.stamp_ns, self._live.common
        lifetime_s = lifetime_of(publish_s - self._boxes_s, common.period_s)
        self._outputs.boxes(
            detected.boxes, stamp_ns, markers=common.publish_markers, lifetime_s=lifetime_s
        )
        end_s = time.monotonic()
        timings_ms = {
            **report.timings_ms,
            "publish": (end_s - publish_s) * 1e3,
            "total": (end_s - closed.closed_s + closed.waited_s) * 1e3,
        }
        since_s, self._boxes_s = end_s - self._boxes_s, end_s
        late_ms = self._age_s(stamp_ns) * 1e3
        self._outputs.latencies({**timings_ms, "pipeline": late_ms, "cycle": since_s * 1e3})
        given = detected.assembled
        self._outputs.overlays(
            given.frames, detected.boxes, given.output_from_fixed, given.optical_frames
        )
        self.end(replace(report, timings_ms=timings_ms))

    def _fault(self, closed: ClosedSet, error: Exception) -> None:
        """Tell an error of our own, which says nothing of the detector: that is not given up."""
        self._health.fault(f"{type(error).__name__}: {error}", time.monotonic())
        trace = "".join(traceback.format_exception(error))
        self._log.error("fault", f"set dropped, it could not be processed: {trace}")
        self.end(replace(closed.report("failed", type(error).__name__), unforeseen=True))

    def _fail(self, report: SetReport, error: Exception) -> None:
        self._failures += 1
        text = f"{type(error).__name__}: {error}"
        self._log.error("failed", f"set dropped, the detector failed: {text}")
        try:
            self.end(report)
        finally:  # only now, since the node falls silent when it sees this
            if self._failures >= MAX_FAILURES:
                self._health.given_up = self.given_up = text
