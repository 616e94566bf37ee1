# SPDX-License-Identifier: Apache-2.0
"""From a synchronized set to published boxes: what the worker thread does."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from sensor_msgs.msg import CameraInfo

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FrameSet
from labeldistill_core.runtime.detector import Detections, Detector
from labeldistill_ros.messages import presentable
from labeldistill_ros.node.health import Health
from labeldistill_ros.node.ros_logging import ThrottledLog
from labeldistill_ros.outputs.publishers import Outputs
from labeldistill_ros.parameters import Parameters
from labeldistill_ros.sets.assembly import Arrival, Assembled, Assembler, SetError
from labeldistill_ros.sets.report import Outcome, SetReport
from labeldistill_ros.sync.discontinuity import Continuity
from labeldistill_ros.sync.synchronizer import CameraSet

MAX_FAILURES = 3
"""Errors of the detector in a row after which it is given up."""

OnResult = Callable[[FrameSet, Detections], None]
"""Called in the worker thread with what went into the detector and what came out."""


@dataclass(frozen=True, eq=False)
class Job:
    """A set on its way to the worker."""

    images: CameraSet[Arrival]
    """What the synchronizer found."""
    infos: Mapping[str, CameraInfo]
    """Newest `camera_info` of each camera when the set was closed."""
    closed_s: float
    """When that was, steady clock."""

    @property
    def arrivals(self) -> tuple[Arrival, ...]:
        """Its images as they came."""
        return tuple(frame.item for frame in self.images.frames.values())

    def cancel(self) -> None:
        """Do not decode what has not begun."""
        for arrival in self.arrivals:
            arrival.cancel()

    def report(self, outcome: Outcome, cause: str = "") -> SetReport:
        """The end of this set."""
        images = self.images
        return SetReport(
            images.stamp_ns,
            outcome,
            tuple(images.frames),
            images.missing,
            cause,
            spread_s=images.spread_s,
        )


def select(
    boxes: Boxes3D, score_threshold: float, max_boxes: int, class_thresholds: Sequence[float] = ()
) -> Boxes3D:
    """The best boxes, best first.

    Args:
        boxes: of any score.
        score_threshold: lowest score.
        max_boxes: how many at most.
        class_thresholds: lowest score by label, NaN where the common one holds.
    """
    lowest = torch.full_like(boxes.scores, score_threshold)
    if class_thresholds:
        own = torch.tensor(class_thresholds, dtype=boxes.scores.dtype)[boxes.labels]
        lowest = torch.where(own.isnan(), lowest, own)
    boxes = boxes[boxes.scores >= lowest]
    return boxes[boxes.scores.argsort(descending=True, stable=True)[:max_boxes]]


class Pipeline:
    """Decodes, detects, publishes and keeps the books. `run` is called by one thread only."""

    def __init__(
        self,
        detector: Detector,
        assembler: Assembler,
        outputs: Outputs,
        health: Health,
        log: ThrottledLog,
        *,
        name: str,
        now_ns: Callable[[], int],
        continuity: Continuity,
        on_result: OnResult | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            detector: the network.
            assembler: messages to frame sets.
            outputs: publishers.
            health: counters.
            log: for complaints.
            name: of the node, for the status.
            now_ns: the node's clock.
            continuity: says when the past is to be forgotten.
            on_result: see `OnResult`.
        """
        self._detector, self._assembler, self._outputs = detector, assembler, outputs
        self._health, self._log, self._name = health, log, name
        self._now_ns, self._continuity, self._on_result = now_ns, continuity, on_result
        self._boxes_s = math.nan
        self._reset_reason = ""
        self._failures = 0
        self.parameters = Parameters()
        """Thresholds are taken from here for each set."""
        self.class_thresholds: Sequence[float] = ()
        """Lowest score by label; see `select`."""
        self.enabled = True
        """False: sets are counted as idle."""
        self.broken = ""
        """What the detector said when it failed too often."""

    def wanted(self) -> bool:
        """Whether sets are to be processed."""
        asked = self.parameters.detect_without_listeners or self._outputs.wanted()
        return self.enabled and asked

    def reset_history(self, reason: str) -> None:
        """Forget past frames before the next set; from any thread."""
        self._reset_reason = reason

    def close(self) -> None:
        """End the pool of decoders."""
        self._assembler.close()

    def end(self, report: SetReport) -> None:
        """Book the end of a set and tell it; from any thread."""
        report = replace(report, age_s=(self._now_ns() - report.stamp_ns) / 1e9)
        self._health.done(report, time.monotonic())
        self._outputs.status(self._health.set_status(report, self._name))

    def run(self, job: Job) -> None:
        """Process a set."""
        start_s = time.monotonic()
        reason, self._reset_reason = self._reset_reason, ""
        if reason:
            self._forget(reason)
        if self.broken:  # until the node takes the detector down
            self.end(job.report("idle", "the detector is given up"))
            return
        if not self.enabled:
            self.end(job.report("idle", "disabled"))
            return
        if not self.wanted():
            self.end(job.report("idle", "nobody listens"))
            return
        try:
            assembled = self._assembler.assemble(job.images, job.infos)
        except SetError as error:
            self._refuse(job, error)
            return
        self._complain(assembled)
        posed = not assembled.no_pose
        try:
            if posed:
                view = assembled.frames.views[0]
                if reason := self._continuity.broken(job.images.stamp_ns, view.fixed_from_ego):
                    self._forget(reason)
            detections = self._detector.detect(assembled.frames, use_history=posed)
        except Exception as error:  # whatever torch raises, such as CUDA out of memory
            self._fail(job, error)
            return
        self._failures = 0
        if detections.dropped:
            self._health.forgotten(detections.dropped, time.monotonic())
            self._log.warning("dropped", f"the history was dropped: {detections.dropped}")
        if self._on_result:
            self._on_result(assembled.frames, detections)
        self._publish(job, assembled, detections, start_s)

    def _forget(self, reason: str) -> None:
        self._detector.reset(reason)
        self._health.forgotten(reason, time.monotonic())

    def _publish(
        self, job: Job, assembled: Assembled, detections: Detections, start_s: float
    ) -> None:
        publish_s = time.monotonic()
        live, found = self.parameters, presentable(detections.boxes)
        unusable = len(detections.boxes) - len(found)
        if live.max_range:
            found = found[found.centers[:, :2].norm(dim=1) <= live.max_range]
        found = replace(detections, boxes=found).in_frame(assembled.output_from_fixed)
        boxes = select(found, live.score_threshold, live.max_boxes, self.class_thresholds)
        stamp_ns = assembled.frames.stamp_ns
        self._outputs.boxes(boxes, stamp_ns, markers=live.publish_markers)
        end_s = time.monotonic()
        arrival_s = max(frame.arrival_s for frame in job.images.frames.values())
        stages = {f"detect_{stage}": ms for stage, ms in detections.timings_ms.items()}
        timings = {
            "sync_wait": (job.closed_s - arrival_s) * 1e3,
            "queue": (start_s - job.closed_s) * 1e3,
            **assembled.timings_ms,
            **stages,
            "publish": (end_s - publish_s) * 1e3,
            "total": (end_s - arrival_s) * 1e3,
        }
        since_s, self._boxes_s = end_s - self._boxes_s, end_s
        late_ms = (self._now_ns() - stamp_ns) / 1e6
        self._outputs.latencies({**timings, "pipeline": late_ms, "cycle": since_s * 1e3})
        left_out = tuple(problem.camera for problem in assembled.problems)
        report = job.report("processed")
        self.end(
            replace(
                report,
                cameras=tuple(c for c in report.cameras if c not in left_out),
                missing=(*report.missing, *left_out),
                history_valid=detections.history_valid,
                pose="" if not assembled.no_pose else "unknown",
                boxes=len(boxes),
                unusable=unusable,
                timings_ms=timings,
            )
        )
        self._outputs.overlays(
            assembled.frames, boxes, assembled.output_from_fixed, assembled.optical_frames
        )

    def _complain(self, assembled: Assembled) -> None:
        self._health.used(assembled.frames)
        self._health.problems(assembled.problems, time.monotonic())
        for problem in assembled.problems:
            self._log.warning(f"{problem.camera}/{problem.cause}", problem.text)
        if assembled.no_pose and self.parameters.ego_motion_source != "none":
            self._health.transform_failed(assembled.no_pose, time.monotonic())
            self._log.warning("no pose", f"detecting without history: {assembled.no_pose}")

    def _refuse(self, job: Job, error: SetError) -> None:
        self._health.problems(error.problems, time.monotonic())
        if error.cause == "transform":
            self._health.transform_failed(str(error), time.monotonic())
        self._log.warning(f"refused/{error.cause}", f"set dropped: {error}")
        self.end(job.report("refused", error.cause))

    def _fail(self, job: Job, error: Exception) -> None:
        self._failures += 1
        self._forget("the detector failed")
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
        text = f"{type(error).__name__}: {error}"
        self._log.error("failed", f"set dropped, the detector failed: {text}")
        self.end(job.report("failed", type(error).__name__))
        if self._failures >= MAX_FAILURES:
            self._health.given_up = self.broken = text
