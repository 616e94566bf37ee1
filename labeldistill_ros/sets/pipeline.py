# SPDX-License-Identifier: Apache-2.0
"""From the messages of one instant to the boxes that are shown, online and offline.

The node's worker thread and `labeldistill bag detect` both process their sets here; what they add
is where sets come from and where boxes and records go.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from labeldistill_core.boxes import Boxes3D
from labeldistill_core.cameras import FrameSet
from labeldistill_core.data.crop import lost_horizons
from labeldistill_core.errors import DataError, LabelDistillError
from labeldistill_core.runtime.detector import Detections, Detector
from labeldistill_ros.sets.arrival import ClosedSet
from labeldistill_ros.sets.assembly import Assembled, Assembler, Problem, SetError
from labeldistill_ros.sets.plausibility import implausible
from labeldistill_ros.sets.report import SetReport
from labeldistill_ros.sets.selection import Selection
from labeldistill_ros.sync.discontinuity import DiscontinuityCheck

_FAILED = "the detector failed"


@dataclass(frozen=True, eq=False)
class Detected:
    """What the detector found in a set, and what is shown of it."""

    assembled: Assembled
    """The set that went into the detector, with the transform to the frame of the boxes."""
    detections: Detections
    """Boxes of the network, of any score, with the pose that they are relative to."""
    boxes: Boxes3D
    """The boxes to show, best first, in the output frame at the set's stamp."""


@dataclass(frozen=True, eq=False)
class SetResult:
    """How a set ended, and what is to be told of it."""

    report: SetReport
    """The record of the set: `processed`, `refused` or `failed`."""
    problems: tuple[Problem, ...] = ()
    """Cameras whose images could not be used."""
    no_pose: str = ""
    """Why the vehicle's pose is unknown, so that the past was not used."""
    frames: FrameSet | None = None
    """What went into the detector, where the set came so far."""
    forgotten: str = ""
    """Why the past was forgotten at this set, if it was."""
    refusal: str = ""
    """Why the set was refused, as a sentence; empty when it was not."""
    failure: Exception | None = None
    """Error that torch or CUDA raised, where the set failed."""
    implausible: Mapping[str, str] = field(default_factory=dict)
    """What is odd about the cameras' mountings and images, a sentence by camera."""
    detected: Detected | None = None
    """Detections and the boxes to show; None unless the set was processed."""


class SetPipeline:
    """Takes sets in the order of time; not safe for calls from several threads at once."""

    def __init__(
        self, detector: Detector, assembler: Assembler, discontinuity: DiscontinuityCheck
    ) -> None:
        """Put the parts together; the detector starts without a past."""
        self._detector, self._assembler = detector, assembler
        self._discontinuity = discontinuity

    def forget(self, reason: str) -> None:
        """Forget past frames, so that the next set has no history."""
        self._detector.reset(reason)

    def process(self, closed: ClosedSet, selection: Selection, queued_s: float = 0.0) -> SetResult:
        """Decode, detect and select.

        What the set's own messages or poses lack makes it `refused`. What torch or CUDA raises on
        good input, such as running out of memory, makes it `failed`. Any other error is a fault of
        this program and goes to the caller. After both kinds the past is forgotten.

        Args:
            closed: the set.
            selection: which boxes are shown.
            queued_s: how long the set waited for its turn.
        """
        start_s = time.perf_counter()
        try:
            assembled = self._assembler.assemble(closed)
        except SetError as error:
            report = closed.report("refused", error.cause)
            return SetResult(report, error.problems, refusal=str(error))
        odd = lost_horizons(
            (view.calibration for view in assembled.frames.views), self._detector.config.image
        )
        result = SetResult(
            closed.report("processed"),
            assembled.problems,
            assembled.no_pose,
            assembled.frames,
            implausible=odd | implausible(assembled.frames.views, assembled.optical_frames),
        )
        posed, forgotten = not assembled.no_pose, ""
        if posed:
            # Any camera's pose will do: exposures of a set are milliseconds apart, jumps are
            # metres.
            pose = assembled.frames.views[0].fixed_from_ego
            if forgotten := self._discontinuity.reason(assembled.frames.stamp_ns, pose):
                self.forget(forgotten)
        try:
            detections = self._detector.detect(assembled.frames, use_history=posed)
        # The input's fault, which says nothing about the detector's state: the history is kept.
        except DataError as error:
            report = closed.report("refused", "image")
            return replace(result, report=report, forgotten=forgotten, refusal=str(error))
        except Exception as error:
            # It may have left half of a set in the history.
            self.forget(_FAILED)
            if not _is_the_devices(error):
                raise
            return self._failed(closed, result, error)
        boxes, unusable = selection.apply(detections, assembled.output_from_fixed)
        took_ms = (time.perf_counter() - start_s) * 1e3
        timings_ms = {
            # Stages add up to `total`, so that a latency can be followed to what caused it.
            "sync_wait": closed.waited_s * 1e3,
            "queue": queued_s * 1e3,
            **assembled.timings_ms,
            **{f"detect_{stage}": ms for stage, ms in detections.timings_ms.items()},
            "total": (closed.waited_s + queued_s) * 1e3 + took_ms,
        }
        return replace(
            result,
            report=replace(
                _processed(result.report, assembled, detections),
                boxes=len(boxes),
                unusable=unusable,
                timings_ms=timings_ms,
            ),
            forgotten=detections.dropped or forgotten,
            detected=Detected(assembled, detections, boxes),
        )

    def _failed(self, closed: ClosedSet, result: SetResult, error: Exception) -> SetResult:
        # Memory that torch caches may be what another process needs, or be in pieces too small.
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
        report = closed.report("failed", type(error).__name__)
        return replace(result, report=report, forgotten=_FAILED, failure=error)


def _is_the_devices(error: Exception) -> bool:
    """Whether an error of the network is one of torch, of CUDA, of memory or of the weights.

    Torch and CUDA raise kinds of `RuntimeError`; onnxruntime's errors have no common class.
    """
    kinds = (RuntimeError, MemoryError, LabelDistillError)
    return isinstance(error, kinds) or type(error).__module__.startswith("onnxruntime.")


def _processed(report: SetReport, assembled: Assembled, detections: Detections) -> SetReport:
    """The record with what the set turned out to have, cameras that were left out as missing."""
    left_out = tuple(problem.camera for problem in assembled.problems)
    return replace(
        report,
        cameras=tuple(camera for camera in report.cameras if camera not in left_out),
        missing=(*report.missing, *left_out),
        history_valid=detections.history_valid,
        pose="unknown" if assembled.no_pose else "",
    )
