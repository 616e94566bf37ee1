# SPDX-License-Identifier: Apache-2.0
"""A detector node and a vehicle in one process, over DDS, on a ROS domain of their own."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from labeldistill_core.cameras import FrameSet
from labeldistill_core.runtime.detector import Detections, Detector
from labeldistill_ros.node.detector_node import DetectorNode
from labeldistill_ros.node.model import load_detector
from labeldistill_ros.node.processing import OnResult
from labeldistill_ros.parameters import Parameters
from labeldistill_ros.testing.vehicle import Vehicle, VehicleFaults

_MIXED_NS = 60_000_000


class RunningNode:
    """A detector node, spun by a thread of its own, and what went through its detector."""

    def __init__(
        self, context: Context, model: Path | None, on_result: OnResult | None = None, **values: Any
    ) -> None:
        """Configure and activate the node.

        Args:
            context: of ROS.
            model: checkpoint; the demo's when None.
            on_result: gets each set with what was found in it; `results` keeps them when None.
            **values: of the node's parameters.
        """
        if model:
            values["model"] = str(model)
        self.results: list[tuple[FrameSet, Detections]] = []
        """Sets that went through the detector, and what was found in each."""
        self.node = DetectorNode(
            context=context,
            load=self._load,
            on_result=on_result or (lambda *result: self.results.append(result)),
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
        )
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        self.started = self.node.start()
        """Whether the node is active; why not was logged."""
        self._stop = threading.Event()
        # A daemon, so that a callback that hangs fails a test instead of the whole run.
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop it.

        Raises:
            TimeoutError: a callback of the node does not return.
        """
        self._stop.set()
        self._thread.join(5)
        if self._thread.is_alive():
            raise TimeoutError("the thread that spins the node hangs")
        self.node.close()
        self._executor.shutdown()
        self.node.destroy_node()

    def _load(self, parameters: Parameters) -> Detector:
        self.detector = load_detector(parameters)
        return self.detector

    def _spin(self) -> None:
        while not self._stop.is_set():
            # Short waits, since no event of ours wakes an executor.
            self._executor.spin_once(timeout_sec=0.05)


class SimulatedDrive:
    """Node and vehicle, from `with` to its end."""

    def __init__(
        self,
        model: Path | None,
        parameters: dict[str, Any],
        faults: VehicleFaults | None = None,
        on_set: Callable[[FrameSet], None] = lambda frames: None,
        **vehicle: Any,
    ) -> None:
        """Remember what to start.

        Args:
            model: checkpoint; the demo's when None.
            parameters: of the node.
            faults: of the vehicle from the start on.
            on_set: gets every set that went through the detector.
            **vehicle: of `Vehicle`.
        """
        self._model = model
        self._values: dict[str, Any] = {"device": "cpu", "score_threshold": 0.05, **parameters}
        self._vehicle_options = {"faults": faults or VehicleFaults(), **vehicle}
        self.mixed = 0
        """Sets with images of more than one cycle."""
        self.processed = 0
        """Sets that went through the detector."""
        self.detector_ms: list[float] = []
        """Time in the detector of each set."""
        self.last: FrameSet | None = None
        """What went into the detector last."""
        self._on_set = on_set

    def __enter__(self) -> SimulatedDrive:
        """Start."""
        self._context = Context()
        rclpy.init(context=self._context)
        self.vehicle = Vehicle(self._context, **self._vehicle_options)
        self._running = RunningNode(
            self._context, self._model, on_result=self._on_result, **self._values
        )
        self.node = self._running.node
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop both."""
        # The vehicle first, so that no image comes while the node closes.
        self.vehicle.close()
        self._running.close()
        self._context.try_shutdown()
        # a node that is collected only after the next one has begun would take its /rosout away
        gc.collect()

    @property
    def detector(self) -> Detector:
        """The detector of the node."""
        return self._running.detector

    def _on_result(self, frames: FrameSet, found: Detections) -> None:
        self.processed += 1
        self.last = frames
        self._on_set(frames)
        self.detector_ms.append(sum(found.timings_ms.values()))
        phases_s, phase_s = self.vehicle.course.phases_s, self.vehicle.faults.phase_s
        # When each image's cycle began, whatever the camera's phase: images of one set must agree
        # in that.
        cycles = [
            v.stamp_ns
            - round((phases_s[v.calibration.name] + phase_s.get(v.calibration.name, 0.0)) * 1e9)
            for v in frames.views
        ]
        self.mixed += max(cycles) - min(cycles) > _MIXED_NS
